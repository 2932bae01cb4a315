"""amortnlme.data"""
