"""Numerical kernels: from traced equations and plain arrays to states and sensitivities."""
