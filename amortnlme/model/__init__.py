"""amortnlme.model"""
