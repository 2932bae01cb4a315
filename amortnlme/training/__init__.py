"""amortnlme.training"""
