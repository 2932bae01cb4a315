"""Empirical Bayes estimates: the conditional mode of every subject's random effects, shared by all methods.

Symbols: phi_i = mu_i + L u_i, u_i ~ N(0, I). The mode is searched in u, where the prior is the identity, so
that singular omega and pooled parameters need no special case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

#: A search that ran out of iterations this close to the mode, in conditional SDs, still counts as converged.
SETTLED = 1e-3


class IndividualTarget(Protocol):
    """What population methods need of a model joined with a dataset (`BoundModel` provides it)."""

    def log_likelihood(self, phi: np.ndarray) -> np.ndarray:
        """Log p(y_i | phi) for phi of shape (n_subjects, n_points, d); shape (n_subjects, n_points)."""
        ...

    def log_likelihood_and_gradient(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood and its gradient of shape (n_subjects, n_points, d)."""
        ...

    def gauss_newton(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-likelihood, gradient and expected information (.., d, d) at phi (n_subjects, d).

        Rows of NaN are subjects nobody asks about.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class EmpiricalBayes:
    """Conditional modes with their curvature.

    Attributes
    ----------
    u : ndarray, shape (n_subjects, r)
        Standardized random effects at the mode; eta = L u.
    phi : ndarray, shape (n_subjects, d)
    precision : ndarray, shape (n_subjects, r, r)
        Gauss-Newton curvature of -log p(y, u) at the mode.
    log_joint : ndarray, shape (n_subjects,)   [nats]
        log p(y | phi) - u'u / 2 at the mode.
    converged : ndarray of bool, shape (n_subjects,)
    """

    u: np.ndarray
    phi: np.ndarray
    precision: np.ndarray
    log_joint: np.ndarray
    converged: np.ndarray


def find_ebe(
    target: IndividualTarget,
    mu: np.ndarray,
    factor: np.ndarray,
    start: np.ndarray | None = None,
    max_iterations: int = 60,
    tolerance: float = 1e-6,
) -> EmpiricalBayes:
    """Find the conditional mode of every subject by a damped Gauss-Newton (Levenberg-Marquardt) search.

    Parameters
    ----------
    target : IndividualTarget
    mu : ndarray, shape (n_subjects, d)
        Typical phi of each subject.
    factor : ndarray, shape (d, r)
        L, with omega = L L'.
    start : ndarray, shape (n_subjects, r), optional
        Starting u; zero (the typical subject) where not given.
    max_iterations : int
    tolerance : float
        On the step, in standard deviations of the conditional law.

    Returns
    -------
    EmpiricalBayes
        Every subject has its own damping; one that did not converge is marked and never raises.
    """
    n, r = mu.shape[0], factor.shape[1]
    u = np.zeros((n, r)) if start is None else np.array(start, dtype=np.float64)
    damping = np.full(n, 1e-3)
    value, gradient, precision = _joint(target, mu, factor, u)
    # A start at which the model fails (-inf) would never move: fall back to the typical subject.
    lost = ~np.isfinite(value)
    if lost.any() and start is not None:
        u[lost] = 0.0
        value, gradient, precision = _joint(target, mu, factor, u)
    converged = np.zeros(n, dtype=bool)
    eye = np.eye(r)
    for _ in range(max_iterations):
        scaled = precision + damping[:, None, None] * precision * eye
        step = np.linalg.solve(scaled, gradient[..., None])[..., 0]
        length = np.sqrt(np.maximum((step[:, None, :] @ precision @ step[..., None])[:, 0, 0], 0.0))
        arrived = (length < tolerance) & np.isfinite(value)
        if converged.all():
            break
        # A jump of many prior SDs leaves the region where the linearization means anything.
        step *= np.minimum(1.0, 3.0 / np.maximum(np.abs(step).max(axis=1), 1e-300))[:, None]
        # Nobody looks at the likelihood of a subject that has arrived: a target need not solve a NaN.
        trial = np.where(converged[:, None], np.nan, u + step)
        new_value, new_gradient, new_precision = _joint(target, mu, factor, trial)
        better = (new_value >= value - 1e-12 * np.abs(value)) & ~converged
        u[better], value[better] = trial[better], new_value[better]
        gradient[better], precision[better] = new_gradient[better], new_precision[better]
        damping = np.where(better, np.maximum(damping * 0.2, 1e-12), np.minimum(damping * 6.0, 1e12))
        # The last short step is still taken. No ascent even for a vanishing step: a mode to machine
        # precision.
        converged |= arrived | (~better & (damping >= 1e12) & np.isfinite(value))
    # Where the expected information is far below the curvature, steps overshoot and the search ends in a
    # cycle of the size of rounding errors: as good a mode as any.
    gap = np.linalg.solve(precision, gradient[..., None])[..., 0]
    converged |= np.isfinite(value) & ((gap * gradient).sum(axis=1) < SETTLED**2)
    return EmpiricalBayes(u, mu + u @ factor.T, precision, value, converged)


def better_modes(first: EmpiricalBayes, second: EmpiricalBayes) -> EmpiricalBayes:
    """Keep, subject by subject, the mode with the larger joint density.

    Parameters
    ----------
    first, second : EmpiricalBayes
        Of two searches from different starts.

    Returns
    -------
    EmpiricalBayes
    """
    pick = second.log_joint > first.log_joint
    return EmpiricalBayes(
        np.where(pick[:, None], second.u, first.u),
        np.where(pick[:, None], second.phi, first.phi),
        np.where(pick[:, None, None], second.precision, first.precision),
        np.where(pick, second.log_joint, first.log_joint),
        np.where(pick, second.converged, first.converged),
    )


def _joint(
    target: IndividualTarget, mu: np.ndarray, factor: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    log_likelihood, gradient, information = target.gauss_newton(mu + u @ factor.T)
    value = np.where(np.isfinite(log_likelihood), log_likelihood, -np.inf) - 0.5 * (u**2).sum(axis=1)
    gradient_u = np.nan_to_num(gradient @ factor) - u
    precision = np.eye(u.shape[1]) + np.nan_to_num(factor.T @ information @ factor)
    return value, gradient_u, precision
