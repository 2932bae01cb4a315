"""amortnlme.solve"""
