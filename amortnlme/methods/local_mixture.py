"""Proposals for random effects that are not close to normal: a mixture of local Laplace approximations.

Symbols: phi_i = mu_i + L u_i, u_i ~ N(0, I). At a point c the expansion log p(y_i | phi) ~ const + g'(phi -
c) - (phi - c)'J(phi - c) / 2 makes u normal with precision P = I + L'J L and mean c + inv(P) (L'g - c). Where
the conditional law is normal every point gives the same component, and the mixture is exact; where it is
skewed, bent or has several modes, components at points spread over it follow its shape piece by piece.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.ebe import EmpiricalBayes, IndividualTarget
from amortnlme.methods.importance import normalized_weights
from amortnlme.methods.proposals import (
    DEGREES_OF_FREEDOM,
    LOG_2PI,
    BaseNumbers,
    FrozenNodes,
    base_numbers,
)
from amortnlme.solve.mixture_density import log_t_mixture

#: Components per subject; a power of two, so that blocks of a Sobol sequence stay well spread.
N_COMPONENTS = 16
#: Longest step from a point to the mean of its component, in prior SDs.
LONGEST_STEP = 3.0
#: SD of a short component, as a share of that of the whole law.
SHORT = 0.35
#: Variance of the widest direction, in prior SDs squared, below which the resampled points have collapsed and
#: say nothing of the width.
LEAST_SPREAD = 1e-4
#: Powers the weights are raised to, round by round: components that are spread wider than the law reach its
#: tails. The first nodes hardly cover it. No round is chosen for its effective number of nodes, which is
#: largest where a tail is missed.
TEMPERATURES = (0.3, 0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Expansions:
    """What the components of a mixture were made of, log p(y_i | phi) ~ const + eta'phi - phi'J phi / 2.

    Attributes
    ----------
    eta : ndarray, shape (n_subjects, K, d)
    curvature : ndarray, shape (n_subjects, K, d, d)
        J.
    tether : ndarray, shape (n_subjects, K, r, r)
        Precision in u that was added to keep the component short.
    """

    eta: np.ndarray
    curvature: np.ndarray
    tether: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class LocalMixture:
    """Equally likely t-components.

    Attributes
    ----------
    mean : ndarray, shape (n_subjects, K, r)
    root : ndarray, shape (n_subjects, K, r, r)
        Lower triangular; root root' is the scale matrix.
    expansions : Expansions or None
        Where the components are expansions.
    """

    mean: np.ndarray
    root: np.ndarray
    expansions: Expansions | None = None

    def log_density(self, u: np.ndarray) -> np.ndarray:
        """Log density of the mixture.

        Parameters
        ----------
        u : ndarray, shape (n_subjects, n_points, r)

        Returns
        -------
        ndarray, shape (n_subjects, n_points)   [nats]
        """
        return log_t_mixture(u, self.mean, self.root, DEGREES_OF_FREEDOM)


def freeze_mixture(mixture: LocalMixture, base: BaseNumbers) -> FrozenNodes:
    """Place nodes, as many from every component; see `amortnlme.methods.proposals.freeze`.

    Parameters
    ----------
    mixture : LocalMixture
    base : BaseNumbers

    Returns
    -------
    FrozenNodes
    """
    K, r = mixture.mean.shape[1:]
    n_fitted = base.n_points - base.n_defensive
    part = np.arange(n_fitted) * K // n_fitted
    u = np.array(base.normal)
    for k in range(K):
        here = np.flatnonzero(part == k)
        u[:, here] = mixture.mean[:, k, None] + base.scaled[:, here] @ np.swapaxes(mixture.root[:, k], 1, 2)
    log_normal = -0.5 * (u**2).sum(axis=2) - 0.5 * r * LOG_2PI
    share = base.n_defensive / base.n_points
    log_share = np.log(share) if share > 0 else -np.inf
    log_g = np.logaddexp(np.log1p(-share) + mixture.log_density(u), log_share + log_normal)
    return FrozenNodes(u, log_normal - log_g)


def expand_locally(
    target: IndividualTarget, mu: np.ndarray, factor: np.ndarray, points: np.ndarray, spread: np.ndarray
) -> LocalMixture:
    """Laplace approximation of the conditional law around each of several points.

    Parameters
    ----------
    target : IndividualTarget
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)
    points : ndarray, shape (n_subjects, K, r)
    spread : ndarray, shape (n_subjects, r, r)
        Covariance of the whole law. Every second component is kept short along its widest direction: an
        expansion holds nearby only, and a thin law bends out of a long component.

    Returns
    -------
    LocalMixture
    """
    n, K, r = points.shape
    values, vectors = np.linalg.eigh(spread)
    widest = vectors[:, :, -1] / (SHORT * np.sqrt(np.maximum(values[:, -1:], LEAST_SPREAD)))
    tether = widest[:, :, None] * widest[:, None, :]
    mean, root = np.empty((n, K, r)), np.empty((n, K, r, r))
    d = mu.shape[1]
    made_of = Expansions(np.empty((n, K, d)), np.empty((n, K, d, d)), np.zeros((n, K, r, r)))
    for k in range(K):
        u = points[:, k]
        phi = mu + u @ factor.T
        _, gradient, information = target.gauss_newton(phi)
        gradient, information = np.nan_to_num(gradient), np.nan_to_num(information)
        if k % 2:
            made_of.tether[:, k] = tether
        covariance = np.linalg.inv(np.eye(r) + factor.T @ information @ factor + made_of.tether[:, k])
        step = (covariance @ (gradient @ factor - u)[..., None])[..., 0]
        step *= np.minimum(1.0, LONGEST_STEP / np.maximum(np.abs(step).max(axis=1), 1e-300))[:, None]
        mean[:, k], root[:, k] = u + step, np.linalg.cholesky(covariance)
        made_of.eta[:, k] = gradient + (information @ phi[..., None])[..., 0]
        made_of.curvature[:, k] = information
    return LocalMixture(mean, root, made_of)


def fit_mixture(
    target: IndividualTarget,
    mu: np.ndarray,
    factor: np.ndarray,
    start: LocalMixture,
    rng: np.random.Generator,
    n_points: int,
) -> LocalMixture:
    """Spread the components over the conditional laws by repeated importance resampling.

    There are as many as there were at the start.

    Parameters
    ----------
    target : IndividualTarget
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)
    start : LocalMixture
        Where the first nodes come from.
    rng : numpy.random.Generator
    n_points : int
        Nodes per subject and round.

    Returns
    -------
    LocalMixture
    """
    n, K, r = start.mean.shape
    nodes = freeze_mixture(start, base_numbers(n, n_points, r, rng))
    mixture = start
    for temperature in TEMPERATURES:
        log_weights = _log_likelihood(target, mu, factor, nodes.u) + nodes.log_weight
        points, spread = resample_points(nodes.u, temperature * log_weights, rng, K)
        mixture = expand_locally(target, mu, factor, points, spread)
        nodes = freeze_mixture(mixture, base_numbers(n, n_points, r, rng))
    return mixture


def choose(pick: np.ndarray, first: LocalMixture, second: LocalMixture) -> LocalMixture:
    """Take the first mixture for some subjects, the second for the others.

    Parameters
    ----------
    pick : ndarray of bool, shape (n_subjects,)
    first, second : LocalMixture

    Returns
    -------
    LocalMixture
    """
    return LocalMixture(
        np.where(pick[:, None, None], first.mean, second.mean),
        np.where(pick[:, None, None, None], first.root, second.root),
    )


def mixture_at_modes(
    first: EmpiricalBayes, second: EmpiricalBayes, n_components: int = N_COMPONENTS
) -> LocalMixture:
    """Put one half of the components at each of two modes.

    Parameters
    ----------
    first, second : EmpiricalBayes
        The same where a subject has one mode only.
    n_components : int
        Best a power of two.

    Returns
    -------
    LocalMixture
    """
    roots = [np.linalg.cholesky(np.linalg.inv(modes.precision)) for modes in (first, second)]
    # Not in turn: systematic resampling could step over every second block of nodes.
    half = np.arange(n_components) * 2 // n_components
    return LocalMixture(np.stack([first.u, second.u], axis=1)[:, half], np.stack(roots, axis=1)[:, half])


def resample_points(
    u: np.ndarray, log_weights: np.ndarray, rng: np.random.Generator, size: int = N_COMPONENTS
) -> tuple[np.ndarray, np.ndarray]:
    """Pick `size` nodes of every subject by systematic resampling.

    Parameters
    ----------
    u : ndarray, shape (n_subjects, n_points, r)
    log_weights : ndarray, shape (n_subjects, n_points)   [nats, unnormalized]
    rng : numpy.random.Generator
    size : int
        K.

    Returns
    -------
    points : ndarray, shape (n_subjects, K, r)
    spread : ndarray, shape (n_subjects, r, r)
        Covariance of all weighted nodes.
    """
    weights = normalized_weights(log_weights)
    cumulative = np.cumsum(weights, axis=1)
    grid = (np.arange(size) + rng.random((len(u), 1))) / size
    index = np.stack([np.searchsorted(c, g * c[-1]) for c, g in zip(cumulative, grid, strict=True)])
    centered = u - (weights[..., None] * u).sum(axis=1)[:, None]
    spread = np.swapaxes(centered, 1, 2) @ (weights[..., None] * centered)
    points = np.take_along_axis(u, np.minimum(index, u.shape[1] - 1)[..., None], axis=1)
    return points, spread


def _log_likelihood(
    target: IndividualTarget, mu: np.ndarray, factor: np.ndarray, u: np.ndarray
) -> np.ndarray:
    value = target.log_likelihood(mu[:, None] + u @ factor.T)
    return np.where(np.isfinite(value), value, -np.inf)
