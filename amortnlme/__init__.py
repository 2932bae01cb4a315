"""amortnlme: amortized and classical non-linear mixed-effects modelling."""
