"""Individual likelihoods by annealed importance sampling with resampling, where no proposal is good enough.

From a proposal g to the joint density p(y_i | u) N(u) = g w a path g w^b leads, b from 0 to 1. Particles are
drawn from g, reweighted by w^(b' - b), resampled, and moved by steps that leave g w^b' invariant; the product
of the mean weights is unbiased for p(y_i) (Neal 2001; Del Moral, Doucet & Jasra 2006). Laws that are thin and
bent in several directions are followed so, although hardly a node of g falls on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.ebe import IndividualTarget
from amortnlme.methods.importance import effective_sample_size, normalized_weights, pareto_smooth
from amortnlme.methods.local_mixture import (
    LocalMixture,
    expand_locally,
    freeze_mixture,
    resample_points,
)
from amortnlme.methods.log_sum import log_sum_exp
from amortnlme.methods.proposals import DEFENSIVE_RATIO, LOG_2PI, base_numbers

#: Effective share of the particles after a reweighting.
KEPT = 0.5
#: Moves per particle and step of the path, and steps at most.
N_MOVES, MOST_STEPS = 5, 100
#: Acceptance the moves aim at, and speed of their adaptation; share of whole differences; SD of the noise.
ACCEPTANCE, ADAPTATION, WHOLE_SHARE, JITTER = 0.25, 0.3, 0.1, 1e-4
#: Rounds in which the mixture is moved onto the law first, nodes and components of each, and their moves.
N_FOLLOW, FOLLOW_NODES, COMPONENTS, FOLLOW_MOVES = 2, 256, 32, 30
#: Shortest step of the path, and the log weight that stands for none.
SHORTEST, LOWEST = 1e-6, -1e30


@dataclass(frozen=True, slots=True, eq=False)
class Tempered:
    """Estimates of individual likelihoods.

    Attributes
    ----------
    log_mean : ndarray, shape (n_subjects, n_replicates)   [nats]
        Independent estimates of log p(y_i); p(y_i) itself is estimated without bias.
    ess : ndarray, shape (n_subjects,)
        Number of independent draws of weights with a variation of one that would have the same error.
    pareto_k : ndarray, shape (n_subjects,)
        Heaviest tail of the weights of any step.
    mean_u : ndarray, shape (n_subjects, r)
    cov_u : ndarray, shape (n_subjects, r, r)
    u : ndarray, shape (n_subjects, n_replicates, n_particles, r)
        The particles at the end of the path.
    """

    log_mean: np.ndarray
    ess: np.ndarray
    pareto_k: np.ndarray
    mean_u: np.ndarray
    cov_u: np.ndarray
    u: np.ndarray


def temper(
    target: IndividualTarget,
    mu: np.ndarray,
    factor: np.ndarray,
    mixture: LocalMixture,
    rng: np.random.Generator,
    n_particles: int,
    n_replicates: int,
) -> Tempered:
    """Follow the path from a mixture, and a share of the prior, to the conditional law of every subject.

    The mixture is first made finer and moved onto the law: a path that begins there is short.

    Parameters
    ----------
    target : IndividualTarget
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)
    mixture : LocalMixture
    rng : numpy.random.Generator
    n_particles : int
        Per replicate, about: one in nine comes from the prior.
    n_replicates : int

    Returns
    -------
    Tempered
    """
    n, _, r = mixture.mean.shape
    for _ in range(N_FOLLOW):
        mixture = _follow(_Path(target, mu, factor, mixture), rng)
    path = _Path(target, mu, factor, mixture)
    # Every replicate of every subject is a population of its own: arrays (n, R, N, ...).
    bases = [base_numbers(n, _fitted(n_particles), r, rng) for _ in range(n_replicates)]
    swarm = path.swarm(np.stack([freeze_mixture(mixture, base).u for base in bases], axis=1))
    shape = swarm.log_weight.shape
    power, log_mean, pareto_k = np.zeros(shape[:2]), np.zeros(shape[:2]), np.full(n, -np.inf)
    log_scale = np.full(shape[:2], np.log(1.7 / np.sqrt(2.0 * r)))
    for _ in range(MOST_STEPS):
        moving = power < 1.0
        if not moving.any():
            break
        step = _next_step(swarm.log_weight, 1.0 - power)
        gain = step[..., None] * np.where(np.isfinite(swarm.log_weight), swarm.log_weight, LOWEST)
        pareto_k = np.maximum(pareto_k, np.where(moving.any(axis=1), _tail(gain), -np.inf))
        log_mean += np.where(moving, log_sum_exp(gain, axis=2) - np.log(shape[2]), 0.0)
        power = np.where(step >= 1.0 - power, 1.0, power + step)
        swarm = swarm.take(np.where(moving[..., None], _resample(gain, rng), np.arange(shape[2])))
        for _ in range(N_MOVES):
            swarm, rate = _move(path, swarm, power, moving, np.exp(log_scale), rng)
            log_scale = np.clip(log_scale + ADAPTATION * (rate - ACCEPTANCE), -6.0, 0.5)
    return _summary(swarm.u, log_mean, pareto_k)


@dataclass(frozen=True, slots=True, eq=False)
class _Swarm:
    """Particles (n, R, N, r), and log w and log g at them."""

    u: np.ndarray
    log_weight: np.ndarray
    log_g: np.ndarray

    def take(self, index: np.ndarray) -> _Swarm:
        rows = (np.take_along_axis(part, index, axis=2) for part in (self.log_weight, self.log_g))
        return _Swarm(np.take_along_axis(self.u, index[..., None], axis=2), *rows)


@dataclass(frozen=True, slots=True, eq=False)
class _Path:
    """The two ends of the path."""

    target: IndividualTarget
    mu: np.ndarray
    factor: np.ndarray
    mixture: LocalMixture

    def swarm(self, u: np.ndarray) -> _Swarm:
        """Evaluate particles; those of NaN cost nothing."""
        n, R, N, r = u.shape
        flat = u.reshape(n, R * N, r)
        with np.errstate(invalid="ignore"):
            return self._swarm(u, flat)

    def _swarm(self, u: np.ndarray, flat: np.ndarray) -> _Swarm:
        n, R, N, r = u.shape
        value = self.target.log_likelihood(self.mu[:, None] + flat @ self.factor.T)
        log_normal = -0.5 * (flat**2).sum(axis=2) - 0.5 * r * LOG_2PI
        share = 1.0 / (DEFENSIVE_RATIO + 1.0)
        log_fitted = np.log1p(-share) + self.mixture.log_density(flat)
        log_g = np.logaddexp(log_fitted, np.log(share) + log_normal)
        log_weight = np.where(np.isfinite(value), value, -np.inf) + log_normal - log_g
        return _Swarm(u, log_weight.reshape(n, R, N), log_g.reshape(n, R, N))


def _follow(path: _Path, rng: np.random.Generator) -> LocalMixture:
    """Local expansions at points that have walked to where the law is."""
    n, _, r = path.mixture.mean.shape
    nodes = path.swarm(freeze_mixture(path.mixture, base_numbers(n, FOLLOW_NODES, r, rng)).u[:, None])
    log_weight = 0.5 * np.where(np.isfinite(nodes.log_weight), nodes.log_weight, LOWEST)
    u = resample_points(nodes.u[:, 0], log_weight[:, 0], rng, COMPONENTS)[0]
    # Copies of one point have no differences: what is added is a hundredth of the spread of the nodes.
    spread = nodes.u[:, 0].std(axis=1, keepdims=True)
    points = path.swarm((u + 0.01 * spread * rng.standard_normal(u.shape))[:, None])
    moving, log_scale = np.ones((n, 1), dtype=bool), np.full((n, 1), np.log(1.7 / np.sqrt(2.0 * r)))
    for _ in range(FOLLOW_MOVES):
        points, rate = _move(path, points, np.ones((n, 1)), moving, np.exp(log_scale), rng)
        log_scale = np.clip(log_scale + ADAPTATION * (rate - ACCEPTANCE), -6.0, 0.5)
    u = points.u[:, 0]
    centered = u - u.mean(axis=1, keepdims=True)
    covariance = np.swapaxes(centered, 1, 2) @ centered / COMPONENTS
    return expand_locally(path.target, path.mu, path.factor, u, covariance)


def _fitted(n_particles: int) -> int:
    """Nodes of the mixture among so many, the others being defensive."""
    return n_particles * DEFENSIVE_RATIO // (DEFENSIVE_RATIO + 1)


def _next_step(log_weight: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Longest step of the power that keeps the effective share, by bisection; at most what is left."""
    low, high = np.zeros_like(left), left
    enough = KEPT * log_weight.shape[2]
    whole = effective_sample_size(left[..., None] * log_weight) >= enough
    for _ in range(40):
        middle = 0.5 * (low + high)
        kept = effective_sample_size(middle[..., None] * log_weight) >= enough
        low, high = np.where(kept, middle, low), np.where(kept, high, middle)
    # Fewer than the wanted share of the particles may have any weight at all: a short step drops the others.
    return np.where(whole, left, np.maximum(low, np.minimum(left, SHORTEST)))


def _tail(gain: np.ndarray) -> np.ndarray:
    """Tail index of the weights of a step, all replicates together; -inf where copies hide it."""
    centered = gain - gain.max(axis=2, keepdims=True)
    tail = pareto_smooth(centered.reshape(len(gain), -1))[1]
    return np.where(np.isfinite(tail), tail, -np.inf)


def _resample(gain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Systematic resampling within every population, in random order: halves must be alike."""
    n, R, N = gain.shape
    cumulative = np.cumsum(normalized_weights(gain), axis=2).reshape(n * R, N)
    grid = (np.arange(N) + rng.random((n * R, 1))) / N
    index = np.stack([np.searchsorted(c, g * c[-1]) for c, g in zip(cumulative, grid, strict=True)])
    return rng.permuted(np.minimum(index, N - 1), axis=1).reshape(n, R, N)


def _move(
    path: _Path,
    swarm: _Swarm,
    power: np.ndarray,
    moving: np.ndarray,
    scale: np.ndarray,
    rng: np.random.Generator,
) -> tuple[_Swarm, np.ndarray]:
    """Metropolis steps of one half of each population along differences within the other, then in turn.

    The other half stays where it is meanwhile, so that the steps leave the law invariant exactly.
    """
    n, R, N, _ = swarm.u.shape
    rate = np.zeros((n, R))
    first, second = slice(None, N // 2), slice(N // 2, None)
    for here, there in ((first, second), (second, first)):
        parts = (swarm.u[:, :, here], swarm.log_weight[:, :, here], swarm.log_g[:, :, here])
        old, other = _Swarm(*parts), swarm.u[:, :, there]
        size = old.u.shape[2]
        ends = rng.integers(other.shape[2], size=(2, n, R, size, 1))
        share = np.where(rng.random((n, R, size)) < WHOLE_SHARE, 1.0, scale[..., None])
        away = np.take_along_axis(other, ends[0], axis=2) - np.take_along_axis(other, ends[1], axis=2)
        proposed = old.u + share[..., None] * away + JITTER * rng.standard_normal(old.u.shape)
        new = path.swarm(np.where(moving[..., None, None], proposed, np.nan))
        with np.errstate(invalid="ignore"):
            ratio = new.log_g - old.log_g + power[..., None] * (new.log_weight - old.log_weight)
            yes = np.log(rng.random(ratio.shape)) < ratio
        rate += yes.mean(axis=2) * size / N
        for part, value in zip(parts, (new.u, new.log_weight, new.log_g), strict=True):
            part[yes] = value[yes]
    return swarm, rate


def _summary(u: np.ndarray, log_mean: np.ndarray, pareto_k: np.ndarray) -> Tempered:
    """Moments of the particles; replicates count by their likelihoods."""
    n, R, N, r = u.shape
    share = normalized_weights(log_mean)
    relative = share.var(axis=1, ddof=1) * R
    weight = np.repeat(share / N, N, axis=1)
    flat = u.reshape(n, R * N, r)
    mean = (weight[..., None] * flat).sum(axis=1)
    centered = flat - mean[:, None]
    return Tempered(
        log_mean=log_mean,
        ess=np.minimum(1.0 / np.maximum(relative, 1e-300), R * N),
        pareto_k=pareto_k,
        mean_u=mean,
        cov_u=np.swapaxes(centered, 1, 2) @ (weight[..., None] * centered),
        u=u,
    )
