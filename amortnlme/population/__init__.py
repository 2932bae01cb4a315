"""amortnlme.population"""
