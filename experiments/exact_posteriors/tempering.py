"""Exact posteriors of single subjects by tempered sequential Monte Carlo.

Populations of particles move from the prior to the posterior; several populations that know nothing of each
other are compared by R-hat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ExactPosterior:
    """Draws (S, runs x N, d), R-hat (S, d), log evidence (S, runs)."""

    phi: np.ndarray
    r_hat: np.ndarray
    log_evidence: np.ndarray


@dataclass(frozen=True)
class Effort:
    """How long to sample: `runs` populations of `n` particles.

    After each rise of the temperature every particle moves `moves` times; at the posterior they go on in
    blocks of `block` moves, at most `max_blocks`, until every parameter's R-hat over the runs is at most
    `bar`.
    """

    runs: int = 4
    n: int = 500
    moves: int = 8
    block: int = 100
    max_blocks: int = 40
    bar: float = 1.005


def exact_posterior(log_likelihood, s, mean, sd, rng, effort, swap=None):
    """Sample the posteriors of s subjects under independent normal priors of phi.

    `log_likelihood(phi, subject)` maps phi (R, N, d) of the subjects (R,), sorted, to (R, N). A temperature
    is raised as far as half of the particles survive. Moves are random walks, steps along differences between
    particles of the other half (ter Braak 2006), and jumps x -> swap x, if there is a matrix `swap` (d, d)
    that is its own inverse; all are accepted by the Metropolis rule, so none is assumed to be right.
    """
    runs, n = effort.runs, effort.n
    cell = np.repeat(np.arange(s), runs)
    phi = mean + sd * rng.standard_normal((s * runs, n, len(mean)))
    target = _Target(log_likelihood, mean, sd, swap)
    fit = target.log_likelihood(phi, cell)
    beta, evidence = np.zeros(s * runs), np.zeros(s * runs)
    while beta.min() < 1.0:
        rows = np.flatnonzero(beta < 1.0)
        part, part_fit = phi[rows], fit[rows]
        step = _next_step(part_fit, beta[rows])
        weight = step[:, None] * np.where(np.isfinite(part_fit), part_fit, -1e300)
        top = weight.max(axis=1, keepdims=True)
        weight = np.exp(weight - top)
        evidence[rows] += top[:, 0] + np.log(weight.mean(axis=1))
        beta[rows] = np.where(beta[rows] + step > 1.0 - 1e-9, 1.0, beta[rows] + step)
        keep = _resample(weight, rng)
        part, part_fit = (
            np.take_along_axis(part, keep[..., None], axis=1),
            np.take_along_axis(part_fit, keep, axis=1),
        )
        for _ in range(effort.moves):
            part, part_fit = _sweep(target, cell[rows], part, part_fit, beta[rows], rng)
        phi[rows], fit[rows] = part, part_fit
    todo, r_hat = np.arange(s), np.full((s, len(mean)), np.inf)
    for _ in range(effort.max_blocks):
        rows = (todo[:, None] * runs + np.arange(runs)).ravel()
        part, part_fit = phi[rows], fit[rows]
        for _ in range(effort.block):
            part, part_fit = _sweep(target, cell[rows], part, part_fit, beta[rows], rng)
        phi[rows], fit[rows] = part, part_fit
        r_hat[todo] = _r_hat(part.reshape(len(todo), runs, n, -1))
        todo = np.flatnonzero((r_hat > effort.bar).any(axis=1))
        if not todo.size:
            break
    return ExactPosterior(phi.reshape(s, runs * n, -1), r_hat, evidence.reshape(s, runs))


@dataclass(frozen=True)
class _Target:
    """Log likelihood, normal prior and the matrix of jumps between modes."""

    likelihood: Callable[[np.ndarray, np.ndarray], np.ndarray]
    mean: np.ndarray
    sd: np.ndarray
    swap: np.ndarray | None

    def log_likelihood(self, phi, subject):
        value = self.likelihood(phi, subject)
        return np.where(np.isnan(value), -np.inf, value)

    def log_prior(self, phi):
        return -0.5 * (((phi - self.mean) / self.sd) ** 2).sum(axis=-1)


def _r_hat(chains):
    """Gelman-Rubin statistic (S, d) of runs (S, runs, n, d)."""
    n = chains.shape[2]
    within = chains.var(axis=2, ddof=1).mean(axis=1)
    between = chains.mean(axis=2).var(axis=1, ddof=1)
    return np.sqrt((n - 1) / n + between / within)


def _next_step(fit, beta):
    """Largest rise of the temperature (R,) that leaves half of the particles effective."""
    usable = np.where(np.isfinite(fit), fit, -1e300)
    usable = usable - usable.max(axis=1, keepdims=True)
    low, high = np.zeros(len(beta)), 1.0 - beta
    for _ in range(60):
        middle = 0.5 * (low + high)
        weight = np.exp(middle[:, None] * usable)
        enough = weight.sum(axis=1) ** 2 / (weight**2).sum(axis=1) >= 0.5 * fit.shape[1]
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    # Where the whole way is open, the bisection ends a hair below it.
    return np.where(high >= 1.0 - beta, 1.0 - beta, low)


def _resample(weight, rng):
    """Systematic resampling, shuffled: the halves of the population must not be sorted."""
    n = weight.shape[1]
    cumulative = np.cumsum(weight, axis=1)
    grid = (np.arange(n) + rng.random((len(weight), 1))) / n
    index = [np.searchsorted(c / c[-1], g) for c, g in zip(cumulative, grid, strict=True)]
    return rng.permuted(np.minimum(np.stack(index), n - 1), axis=1)


def _sweep(target, cell, phi, fit, beta, rng):
    """Move every particle once; each half moves along what the other half knows."""
    order = rng.permutation(phi.shape[1])
    phi, fit = phi[:, order], fit[:, order]
    half = phi.shape[1] // 2
    parts = [phi[:, :half], phi[:, half:]]
    fits = [fit[:, :half], fit[:, half:]]
    for mine, other in ((0, 1), (1, 0)):
        proposal = _propose(parts[mine], parts[other], rng, target.swap)
        value = target.log_likelihood(proposal, cell)
        gain = beta[:, None] * (value - fits[mine])
        gain += target.log_prior(proposal) - target.log_prior(parts[mine])
        accept = np.log(rng.random(value.shape)) < np.where(np.isfinite(value), gain, -np.inf)
        parts[mine] = np.where(accept[..., None], proposal, parts[mine])
        fits[mine] = np.where(accept, value, fits[mine])
    return np.concatenate(parts, axis=1), np.concatenate(fits, axis=1)


def _propose(x, other, rng, swap):
    """Random walk with the other half's covariance, difference step or jump; all symmetric."""
    rows, n, d = x.shape
    kind = rng.integers(0, 4 if swap is None else 5, (rows, n))
    root = np.linalg.cholesky(np.stack([np.cov(part.T) for part in other]) + 1e-12 * np.eye(d))
    scale = 2.38 / np.sqrt(d) * rng.choice([0.15, 0.5, 1.0], (rows, n, 1))
    walk = x + scale * (rng.standard_normal((rows, n, d)) @ np.swapaxes(root, 1, 2))
    pick = rng.integers(0, n, (2, rows, n, 1))
    difference = np.take_along_axis(other, pick[0], axis=1) - np.take_along_axis(other, pick[1], axis=1)
    # A few coordinates at a time, as the posterior bends; sometimes the whole way to where others are.
    chosen = rng.random((rows, n, d)) < rng.choice([0.3, 1.0], (rows, n, 1))
    length = rng.choice([2.38 / np.sqrt(2 * d), 0.3, 1.0], (rows, n, 1))
    along = x + length * chosen * difference + 1e-5 * rng.standard_normal((rows, n, d))
    # Its own inverse, hence of determinant +-1: symmetric, and it leaves volumes as they are.
    jump = along if swap is None else x @ swap.T
    return np.where((kind < 2)[..., None], walk, np.where((kind < 4)[..., None], along, jump))
