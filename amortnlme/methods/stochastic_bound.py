"""Stochastic gradients of the evidence bound, and Adam with a decaying rate on them.

u_is = m_i + C_i eps_is with fresh eps in every step, g = L'dl/dphi - u, log q(u) = -eps'eps / 2 - log|C|:

    "standard": dB/dm = E[g],  dB/dC = E[g eps'] + diag(1 / C_kk): the gradient of log p - log q;
    "path": dB/dm = E[h],  dB/dC = E[h eps'],  h = g + inv(C')eps: q's own parameters held in log q ("sticking
    the landing", Roeder et al. 2017), without noise where q is the posterior.

The importance-weighted bound log mean_s w_s (Burda et al. 2016) puts w_s / sum w in place of the mean over s;
with "path" it takes the squares for q (doubly reparameterized, Tucker et al. 2019).

Everything moves in coordinates where one unit is about one SD: q relative to the curvature at the
conditional modes, the population parameters relative to their expected information. The rate decays to
nothing; a constant one leaves noise in q that widens it, and with it the residual SD.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.information import whitening
from amortnlme.methods.laplace_likelihood import ExpandableTarget, LaplaceLikelihood
from amortnlme.methods.log_sum import log_sum_exp
from amortnlme.methods.penalized_search import expected_information
from amortnlme.population.bound_population import BoundPopulation

ESTIMATORS = ("path", "standard")
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
#: Share of the rate that is left at the last step.
LAST_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class StochasticOptions:
    """How the bound is climbed.

    Attributes
    ----------
    estimator : {"path", "standard"}
    n_samples : int
        Draws per subject and step.
    is_weighted : bool
        The importance-weighted bound of so many draws.
    is_diagonal : bool
        Mean field.
    n_steps : int
    rate : float
        First step of Adam, in the units of the coordinates; it decays with the cosine.
    moves_population : bool
        Otherwise the population stays, and only q is found.
    """

    estimator: str = "path"
    n_samples: int = 3
    is_weighted: bool = False
    is_diagonal: bool = False
    n_steps: int = 2000
    rate: float = 0.05
    moves_population: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class StochasticEnd:
    """Where the climb ended.

    Attributes
    ----------
    x : ndarray, shape (n_x,)
    mean : ndarray, shape (n_subjects, r)
    root : ndarray, shape (n_subjects, r, r)
    bounds : ndarray, shape (n_steps,)   [nats]
        One-step estimates of the bound (less the ridge) along the way.
    """

    x: np.ndarray
    mean: np.ndarray
    root: np.ndarray
    bounds: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class _Coordinates:
    """x = x0 + W z; m = m0 + C0 a, C = C0 T with T lower triangular, its diagonal on a logarithmic scale."""

    x: np.ndarray
    transform: np.ndarray
    mean: np.ndarray
    root: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def unpack(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the population parameters, mean, T and C."""
        n, r = self.mean.shape
        n_z = self.transform.shape[1]
        x = self.x + self.transform @ at[:n_z]
        shift = at[n_z : n_z + n * r].reshape(n, r)
        relative = np.zeros((n, r, r))
        relative[:, self.rows, self.columns] = at[n_z + n * r :].reshape(n, -1)
        diagonal = np.arange(r)
        relative[:, diagonal, diagonal] = np.exp(relative[:, diagonal, diagonal])
        mean = self.mean + (self.root @ shift[..., None])[..., 0]
        return x, mean, relative, self.root @ relative

    def pull(
        self, by_x: np.ndarray, by_mean: np.ndarray, by_root: np.ndarray, relative: np.ndarray
    ) -> np.ndarray:
        """Chain derivatives back."""
        back = np.swapaxes(self.root, 1, 2)
        by_relative = back @ by_root
        diagonal = np.arange(relative.shape[1])
        by_relative[:, diagonal, diagonal] *= relative[:, diagonal, diagonal]
        return np.concatenate(
            [
                self.transform.T @ by_x,
                (back @ by_mean[..., None])[..., 0].ravel(),
                by_relative[:, self.rows, self.columns].ravel(),
            ]
        )


def climb(
    target: ExpandableTarget,
    population: BoundPopulation,
    start: np.ndarray,
    options: StochasticOptions,
    rng: np.random.Generator,
) -> StochasticEnd:
    """Climb the bound from one starting point.

    Parameters
    ----------
    target : ExpandableTarget
    population : BoundPopulation
    start : ndarray, shape (n_x,)
    options : StochasticOptions
    rng : numpy.random.Generator

    Returns
    -------
    StochasticEnd
    """
    coordinates = _coordinates(target, population, start, options)
    n_z, (n, r) = coordinates.transform.shape[1], coordinates.mean.shape
    at = np.zeros(n_z + n * (r + len(coordinates.rows)))
    first, second, bounds = np.zeros_like(at), np.zeros_like(at), np.empty(options.n_steps)
    for k in range(options.n_steps):
        x, mean, relative, root = coordinates.unpack(at)
        eps = rng.standard_normal((n, options.n_samples, r))
        bounds[k], by_x, by_mean, by_root = _gradient(target, population, x, mean, root, eps, options)
        gradient = coordinates.pull(by_x, by_mean, by_root, relative)
        first = BETA1 * first + (1.0 - BETA1) * gradient
        second = BETA2 * second + (1.0 - BETA2) * gradient**2
        decay = 0.5 * (1.0 + np.cos(np.pi * k / options.n_steps)) + LAST_RATE
        unbiased = first / (1.0 - BETA1 ** (k + 1))
        at = at + options.rate * decay * unbiased / (np.sqrt(second / (1.0 - BETA2 ** (k + 1))) + EPSILON)
    x, mean, _, root = coordinates.unpack(at)
    return StochasticEnd(x, mean, root, bounds)


def weighted_bound(
    target: ExpandableTarget,
    population: BoundPopulation,
    end: StochasticEnd,
    n_samples: int,
    n_replicates: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Estimate the importance-weighted bound with fresh draws.

    Parameters
    ----------
    target : ExpandableTarget
    population : BoundPopulation
    end : StochasticEnd
    n_samples : int
        Of the bound.
    n_replicates : int
        Over which it is averaged.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n_subjects,)   [nats]
    """
    n, r = end.mean.shape
    eps = rng.standard_normal((n, n_samples * n_replicates, r))
    mu, factor = population.unpack(end.x)
    u = end.mean[:, None] + eps @ np.swapaxes(end.root, 1, 2)
    log_weights = _log_weights(target.log_likelihood(mu[:, None] + u @ factor.T), u, end.root, eps)
    parts = log_weights.reshape(n, n_replicates, n_samples)
    return (log_sum_exp(parts, axis=2) - np.log(n_samples)).mean(axis=1)


def _coordinates(
    target: ExpandableTarget, population: BoundPopulation, start: np.ndarray, options: StochasticOptions
) -> _Coordinates:
    r = population.r
    modes = find_ebe(target, *population.unpack(start))
    rows, columns = np.diag_indices(r) if options.is_diagonal else np.tril_indices(r)
    if options.is_diagonal:
        root = np.diagonal(modes.precision, axis1=1, axis2=2)[:, :, None] ** -0.5 * np.eye(r)
    else:
        root = np.linalg.cholesky(np.linalg.inv(modes.precision))
    transform = np.zeros((population.n_x, 0))
    if options.moves_population:
        objective = LaplaceLikelihood(target, population)
        transform = whitening(expected_information(objective, target, population, start))
    return _Coordinates(start, transform, modes.u, root, rows, columns)


def _log_weights(ll: np.ndarray, u: np.ndarray, root: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """Evaluate log p(y, u) - log q(u), shape (n, S); the constants of the two normal densities cancel."""
    log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    return ll + 0.5 * ((eps**2).sum(axis=2) - (u**2).sum(axis=2)) + log_det[:, None]


def _gradient(
    target: ExpandableTarget,
    population: BoundPopulation,
    x: np.ndarray,
    mean: np.ndarray,
    root: np.ndarray,
    eps: np.ndarray,
    options: StochasticOptions,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """One estimate of the bound, less the ridge, and its gradient by x, m and C."""
    mu, factor = population.unpack(x)
    u = mean[:, None] + eps @ np.swapaxes(root, 1, 2)
    ll, slope = target.log_likelihood_and_gradient(mu[:, None] + u @ factor.T)
    log_weights = _log_weights(ll, u, root, eps)
    S = eps.shape[1]
    share = np.full(ll.shape, 1.0 / S)
    value = log_weights.mean(axis=1)
    if options.is_weighted:
        total = log_sum_exp(log_weights, axis=1)
        with np.errstate(invalid="ignore"):
            share, value = np.exp(log_weights - total[:, None]), total - np.log(S)
    # A draw at which the model fails pulls nowhere.
    share = np.where(np.isfinite(ll), share, 0.0)
    pull = slope @ factor - u
    share_q = share
    if options.estimator == "path":
        pull = pull + np.swapaxes(np.linalg.solve(np.swapaxes(root, 1, 2), np.swapaxes(eps, 1, 2)), 1, 2)
        share_q = share**2 if options.is_weighted else share
    weighted = share_q[..., None] * pull
    by_root = np.tril(np.swapaxes(weighted, 1, 2) @ eps)
    if options.estimator == "standard":
        diagonal = np.arange(mean.shape[1])
        by_root[:, diagonal, diagonal] += 1.0 / root[:, diagonal, diagonal]
    outer = share[..., None] * slope
    by_x = population.pullback(outer.sum(axis=1), np.swapaxes(outer, 1, 2) @ u, x).sum(axis=0)
    penalty = population.penalty
    return (
        float(value.sum()) - 0.5 * float(penalty @ x**2),
        by_x - penalty * x,
        weighted.sum(axis=1),
        by_root,
    )
