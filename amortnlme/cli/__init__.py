"""amortnlme.cli"""
