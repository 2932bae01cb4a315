"""Mathematical functions for model files; import them from here instead of `math` or `numpy`."""

from amortnlme.solve.functions import exp, log, sqrt, where

__all__ = ["exp", "log", "sqrt", "where"]
