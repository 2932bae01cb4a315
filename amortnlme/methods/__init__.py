"""amortnlme.methods"""
