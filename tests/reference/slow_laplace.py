"""Slow, independent FOCEI and Laplace values of the theophylline study, one subject at a time.

Its own closed form (tests/reference/quadrature.py), SciPy's minimizer for the modes, differences for every
derivative. Parameters of a subject are phi = log(ka, ke, V); residual SD a + b f.
"""

from __future__ import annotations

import numpy as np
from reference.quadrature import Theophylline, concentration
from scipy.optimize import minimize

STEP = 1e-3


def minus_two_log_likelihoods(
    data: Theophylline, mu: np.ndarray, factor: np.ndarray, a: float, b: float, *, observed: bool
) -> np.ndarray:
    """-2 log L_i by Laplace's approximation; mu (12, 3), factor (3, 3)."""
    return np.array([_one(data, i, mu[i], factor, a, b, observed) for i in range(len(mu))])


def _one(
    data: Theophylline, i: int, mu: np.ndarray, factor: np.ndarray, a: float, b: float, observed: bool
) -> float:
    def prediction(u: np.ndarray) -> np.ndarray:
        return concentration(mu + factor @ u, data.dose[i : i + 1], data.time[i : i + 1])[0]

    def joint(u: np.ndarray) -> float:
        f = prediction(u)
        s = a + b * f
        log_density = -0.5 * ((data.y[i] - f) / s) ** 2 - np.log(s) - 0.5 * np.log(2 * np.pi)
        return float(0.5 * u @ u - log_density.sum())

    r = factor.shape[1]
    u = minimize(joint, np.zeros(r), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}).x
    u = minimize(joint, u, method="BFGS", options={"gtol": 1e-9}).x
    eye = np.eye(r)
    if observed:
        hessian = np.array([[_second(joint, u, eye[j], eye[k]) for k in range(r)] for j in range(r)])
    else:
        s = a + b * prediction(u)
        slope = np.array([_first(prediction, u, eye[j]) for j in range(r)])
        hessian = eye + (slope / s) @ (slope / s).T + 2.0 * (b * slope / s) @ (b * slope / s).T
    return 2.0 * joint(u) + float(np.linalg.slogdet(hessian)[1])


def _first(function, u: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Central differences of fourth order."""
    near = function(u + STEP * direction) - function(u - STEP * direction)
    far = function(u + 2 * STEP * direction) - function(u - 2 * STEP * direction)
    return (8 * near - far) / (12 * STEP)


def _second(function, u: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    def slope(point: np.ndarray) -> float:
        return float(_first(function, point, second))

    return float(_first(slope, u, first))
