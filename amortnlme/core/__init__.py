"""amortnlme.core"""
