"""Diagnostics on draws and fits: residuals, predictive checks, calibration, comparison, trust."""
