"""Estimators that ship with amortnlme, one folder each (installed as amortnlme.trained_models)."""
