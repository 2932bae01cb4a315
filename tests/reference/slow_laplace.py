"""Slow, independent FO, FOCE, FOCEI and Laplace values, one subject at a time.

SciPy's minimizer for the modes, differences for every derivative. A subject is a function from its
standardized random effects to its predictions and has residual SD a + b f; without interaction f there is
that at u = 0. Measurements below `lloq` count as censored there (M3). The theophylline study has the closed
form of tests/reference/quadrature.py and phi = log(ka, ke, V).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from reference.quadrature import Theophylline, concentration
from scipy.optimize import minimize
from scipy.special import log_ndtr
from scipy.stats import multivariate_normal

STEP = 1e-3
Prediction = Callable[[np.ndarray], np.ndarray]


def minus_two_log_likelihoods(
    data: Theophylline,
    mu: np.ndarray,
    factor: np.ndarray,
    a: float,
    b: float,
    *,
    observed: bool,
    interaction: bool = True,
    lloq: float = -np.inf,
) -> np.ndarray:
    """-2 log L_i by Laplace's approximation; mu (12, 3), factor (3, 3)."""

    def subject(i: int) -> float:
        def prediction(u: np.ndarray) -> np.ndarray:
            return concentration(mu[i] + factor @ u, data.dose[i : i + 1], data.time[i : i + 1])[0]

        r = factor.shape[1]
        return laplace_value(prediction, data.y[i], r, a, b, observed, interaction=interaction, lloq=lloq)

    return np.array([subject(i) for i in range(len(mu))])


def first_order_value(prediction: Prediction, y: np.ndarray, r: int, a: float, b: float) -> float:
    """-2 log L of one subject under the model linearized at u = 0."""
    zero = np.zeros(r)
    slope, f = np.array([_first(prediction, zero, e) for e in np.eye(r)]), prediction(zero)
    law = multivariate_normal(f, slope.T @ slope + np.diag((a + b * f) ** 2))
    return -2.0 * float(law.logpdf(y))


def laplace_value(
    prediction: Prediction,
    y: np.ndarray,
    r: int,
    a: float,
    b: float,
    observed: bool,
    *,
    interaction: bool = True,
    lloq: float = -np.inf,
) -> float:
    """-2 log L of one subject, by the observed or the expected information."""
    low = y < lloq
    y = np.where(low, lloq, y)
    typical = prediction(np.zeros(r))

    def sd(u: np.ndarray) -> np.ndarray:
        return a + b * (prediction(u) if interaction else typical)

    def distance(u: np.ndarray) -> np.ndarray:
        return (y - prediction(u)) / sd(u)

    def joint(u: np.ndarray) -> float:
        f = prediction(u)
        s = a + b * (f if interaction else typical)
        z = (y - f) / s
        log_density = -0.5 * z**2 - np.log(s) - 0.5 * np.log(2 * np.pi)
        return float(0.5 * u @ u - np.where(low, log_ndtr(z), log_density).sum())

    u = minimize(joint, np.zeros(r), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}).x
    u = minimize(joint, u, method="BFGS", options={"gtol": 1e-9}).x
    eye = np.eye(r)
    if observed:
        hessian = np.array([[_second(joint, u, eye[j], eye[k]) for k in range(r)] for j in range(r)])
    else:
        # (df df' + 2 ds ds') / s^2 of a measured value, the curvature of log Phi along z of a censored one.
        slope = np.array([_first(prediction, u, eye[j]) for j in range(r)])
        spread = np.array([_first(sd, u, eye[j]) for j in range(r)])
        motion = np.array([_first(distance, u, eye[j]) for j in range(r)])
        z, s, one = distance(u), sd(u), np.ones(1)
        bent = np.array([-_second(lambda x: log_ndtr(x)[0], np.array([point]), one, one) for point in z])
        measured, censored = np.where(low, 0.0, s**-2.0), np.where(low, bent, 0.0)
        hessian = eye + (slope * measured) @ slope.T + 2.0 * (spread * measured) @ spread.T
        hessian += (motion * censored) @ motion.T
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
