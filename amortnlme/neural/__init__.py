"""amortnlme.neural"""
