"""Proposals for the random effects of every subject, and the frozen nodes drawn from them.

Symbols: phi_i = mu_i + L u_i, u_i ~ N(0, I). A proposal for u_i is a mixture: a t-distribution fitted to the
conditional law of u_i, and a small share of N(0, I) itself. The second, defensive part bounds the weights
p(y | u) N(u; 0, I) / g(u) whatever the quality of the first (Owen & Zhou 2000).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import chdtri, expit, gammaln, ndtri
from scipy.stats import qmc

LOG_2PI = float(np.log(2.0 * np.pi))
DEGREES_OF_FREEDOM = 8
# One defensive node for every eight fitted ones.
DEFENSIVE_RATIO = 8


@dataclass(frozen=True, slots=True, eq=False)
class BaseNumbers:
    """Random numbers that stay fixed while proposals move, so that the objective is smooth and reproducible.

    Attributes
    ----------
    normal : ndarray, shape (n_subjects, n_points, r)
        Standard normal, independent across subjects, randomized quasi-Monte Carlo within a subject.
    scaled : ndarray, shape (n_subjects, n_points, r)
        The same numbers stretched by sqrt(nu / chi2_nu) to t-variables; not stretched for the defensive
        nodes.
    log_density : ndarray, shape (n_subjects, n_points)   [nats]
        Log density of `scaled` under the standard t-distribution.
    n_defensive : int
        The last `n_defensive` nodes of every subject come from N(0, I).
    sign : ndarray or None, shape (n_subjects, n_points)
        Signs of the weights of a sparse quadrature rule; None: all positive.
    """

    normal: np.ndarray
    scaled: np.ndarray
    log_density: np.ndarray
    n_defensive: int
    sign: np.ndarray | None = None

    @property
    def n_points(self) -> int:
        """Nodes per subject."""
        return self.normal.shape[1]

    def head(self, n_points: int) -> BaseNumbers:
        """Return the first nodes of every subject: the start of a Sobol sequence is itself well spread."""
        return BaseNumbers(
            self.normal[:, :n_points], self.scaled[:, :n_points], self.log_density[:, :n_points], 0
        )


def base_numbers(
    n_subjects: int, n_points: int, r: int, rng: np.random.Generator, defensive: bool = True
) -> BaseNumbers:
    """Draw the fixed random numbers of a fit.

    Parameters
    ----------
    n_subjects, n_points, r : int
        `n_points` fitted nodes per subject, best a power of two.
    rng : numpy.random.Generator
    defensive : bool
        Add one defensive node for every eight fitted ones.

    Returns
    -------
    BaseNumbers
        One scrambled Sobol sequence, shifted independently for every subject: errors of different subjects
        must be independent, or they add up instead of averaging out.
    """
    n_defensive = n_points // DEFENSIVE_RATIO if defensive else 0
    parts = []
    for size in (n_points, n_defensive):
        exponent = int(np.ceil(np.log2(max(size, 1))))
        sequence = qmc.Sobol(r + 1, scramble=True, rng=rng).random_base2(exponent)[:size]
        parts.append((sequence + rng.random((n_subjects, 1, r + 1))) % 1.0)
    uniform = np.clip(np.concatenate(parts, axis=1), 1e-12, 1.0 - 1e-12)
    stretch = _stretch(uniform[..., r])
    stretch[:, n_points:] = 1.0
    normal = ndtri(uniform[..., :r])
    scaled = normal * stretch[..., None]
    return BaseNumbers(normal, scaled, log_standard_t((scaled**2).sum(axis=2), r), n_defensive)


def _stretch(uniform: np.ndarray) -> np.ndarray:
    """sqrt(nu / x) with x the upper quantile of chi2_nu, to 1e-9: its own inverse costs more than a model."""
    return np.exp(_log_stretch()(np.log(uniform) - np.log1p(-uniform)))


@cache
def _log_stretch() -> CubicSpline:
    logit = np.linspace(-28.0, 28.0, 4001)
    quantile = chdtri(DEGREES_OF_FREEDOM, expit(logit))
    return CubicSpline(logit, 0.5 * np.log(DEGREES_OF_FREEDOM / quantile))


def log_standard_t(square: np.ndarray, r: int) -> np.ndarray:
    """Log density of the r-dimensional standard t-distribution.

    Parameters
    ----------
    square : ndarray
        Squared lengths of the points.
    r : int

    Returns
    -------
    ndarray   [nats]
    """
    nu = DEGREES_OF_FREEDOM
    constant = gammaln(0.5 * (nu + r)) - gammaln(0.5 * nu) - 0.5 * r * np.log(nu * np.pi)
    return constant - 0.5 * (nu + r) * np.log1p(square / nu)


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """Center and covariance of the t-part of every subject's proposal, in u.

    Attributes
    ----------
    mean : ndarray, shape (n_subjects, r)
    covariance : ndarray, shape (n_subjects, r, r)
    """

    mean: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class FrozenNodes:
    """Nodes u_ij and the constant part of their weights, log N(u_ij; 0, I) - log g_i(u_ij).

    Attributes
    ----------
    u : ndarray, shape (n_subjects, n_points, r)
    log_weight : ndarray, shape (n_subjects, n_points)   [nats]
    """

    u: np.ndarray
    log_weight: np.ndarray


def freeze(proposal: Proposal, base: BaseNumbers) -> FrozenNodes:
    """Place the nodes of every subject and compute the constant part of their weights.

    Parameters
    ----------
    proposal : Proposal
    base : BaseNumbers

    Returns
    -------
    FrozenNodes
        Weights use the density of the whole mixture (deterministic-mixture weights), which is never worse
        than that of the part a node came from.
    """
    r = proposal.mean.shape[1]
    root = np.linalg.cholesky(proposal.covariance)
    n_fitted = base.n_points - base.n_defensive
    u = proposal.mean[:, None] + base.scaled @ np.swapaxes(root, 1, 2)
    u[:, n_fitted:] = base.normal[:, n_fitted:]
    log_root = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    standard = np.linalg.solve(root, np.swapaxes(u - proposal.mean[:, None], 1, 2))
    log_t = log_standard_t((standard**2).sum(axis=1), r) - log_root[:, None]
    log_normal = -0.5 * (u**2).sum(axis=2) - 0.5 * r * LOG_2PI
    share = base.n_defensive / base.n_points
    log_g = np.logaddexp(np.log1p(-share) + log_t, (np.log(share) if share > 0 else -np.inf) + log_normal)
    return FrozenNodes(u, log_normal - log_g)
