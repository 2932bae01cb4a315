"""amortnlme.report"""
