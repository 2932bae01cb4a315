"""amortnlme.diagnostics"""
