"""Exact marginal likelihood of the sparse bolus study, by its own code: the arbiter of sparse_bolus.py.

One compartment, f(t) = dose / V exp(-CL / V t); (log CL, log V) normal; y = f + N(0, a^2 + (b f)^2). The
integral over the two standardized random effects is a trapezoid sum over one fixed lattice for all subjects,
with no modes and no curvatures (which mislead: some subjects have long tails or a second mode). For smooth
densities its error falls exponentially in 1 / step once the step resolves the narrowest individual
likelihood; halving the step and widening the lattice show what is left. Nothing of the package is used.

x = (log CL, log V, log a, log b, L11, L21, L22) with omega = L L'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize


@dataclass(frozen=True)
class Lattice:
    """Spacing and half-width, in SDs of the random effects."""

    step: float = 0.2
    reach: float = 7.0

    @property
    def points(self) -> np.ndarray:
        n = round(self.reach / self.step)
        axis = np.arange(-n, n + 1) * self.step
        points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
        return points[(points**2).sum(axis=1) <= self.reach**2]


def predicted(phi: np.ndarray, dose: float, time: np.ndarray) -> np.ndarray:
    """Concentrations; phi (..., 2), time (..., m) broadcast against each other."""
    clearance, volume = np.exp(phi[..., :1]), np.exp(phi[..., 1:])
    return dose / volume * np.exp(-clearance / volume * time)


def value_and_gradient(
    x: np.ndarray, dose: float, time: np.ndarray, y: np.ndarray, lattice: Lattice
) -> tuple[float, np.ndarray]:
    """-2 log-likelihood and its gradient by Fisher's identity; time and y (n, m)."""
    mu, (a, b) = x[:2], np.exp(x[2:4])
    factor = np.array([[x[4], 0.0], [x[5], x[6]]])
    u = lattice.points
    phi = mu + u @ factor.T
    log_prior = np.log(lattice.step**2 / (2 * np.pi)) - 0.5 * (u**2).sum(axis=1)
    # Moments of u under each subject's posterior, added up over subjects.
    value, first, second, pull = 0.0, np.zeros(2), np.zeros((2, 2)), np.zeros(2)
    # Few subjects at a time: the lattice is large.
    for rows in np.array_split(np.arange(len(y)), max(1, len(y) * len(u) // 2_000_000)):
        f = predicted(phi, dose, time[rows, None])
        proportional = (b * f) ** 2
        variance = a * a + proportional
        square = (y[rows, None] - f) ** 2 / variance
        log_density = log_prior - 0.5 * (square + np.log(2 * np.pi * variance)).sum(axis=-1)
        top = log_density.max(axis=1, keepdims=True)
        weight = np.exp(log_density - top)
        total = weight.sum(axis=1, keepdims=True)
        value += float((top + np.log(total)).sum())
        weight /= total
        over_subjects = weight.sum(axis=0)
        first += over_subjects @ u
        second += u.T @ (over_subjects[:, None] * u)
        slope = (square - 1.0) / variance
        pull += [(weight * (slope * part).sum(axis=-1)).sum() for part in (a * a, proportional)]
    # Fisher: the score is the posterior mean of the score of log N(phi; mu, L L'), with phi - mu = L u.
    inverse = np.linalg.inv(factor)
    by_factor = inverse.T @ (second - len(y) * np.eye(2))
    gradient = np.array([*(inverse.T @ first), *pull, by_factor[0, 0], by_factor[1, 0], by_factor[1, 1]])
    return -2.0 * value, -2.0 * gradient


def maximum_likelihood(
    start: np.ndarray, dose: float, time: np.ndarray, y: np.ndarray, lattice: Lattice
) -> tuple[np.ndarray, np.ndarray]:
    """Estimates and standard errors (observed information)."""
    found = minimize(
        value_and_gradient,
        start,
        args=(dose, time, y, lattice),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-4},
    )
    h, p = 1e-4, len(start)
    columns = []
    for k in range(p):
        step = np.zeros(p)
        step[k] = h
        ahead = value_and_gradient(found.x + step, dose, time, y, lattice)[1]
        columns.append((ahead - value_and_gradient(found.x - step, dose, time, y, lattice)[1]) / (2 * h))
    hessian = 0.5 * (np.array(columns) + np.array(columns).T)
    # One Newton step: BFGS stops where its line search no longer sees a difference.
    x = found.x - np.linalg.solve(hessian, value_and_gradient(found.x, dose, time, y, lattice)[1])
    return x, np.sqrt(np.diagonal(np.linalg.inv(hessian / 2.0)))
