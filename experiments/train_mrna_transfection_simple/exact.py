"""Exact posteriors of single cells under the simple transfection model, by tempered sequential Monte Carlo.

Nothing here comes from the package under test: the likelihood is the closed form, compiled from its formula,
and the sampler moves populations of particles from the prior to the posterior. Several populations that know
nothing of each other are compared by R-hat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

DELTA, GAMMA = 0, 1


@numba.njit(cache=True, error_model="numpy")
def _log_likelihood(phi, cell, time, y, count, out):
    for row in range(phi.shape[0]):
        c = cell[row]
        for j in range(phi.shape[1]):
            delta, gamma, k, t0, offset, sigma = np.exp(phi[row, j])
            square = 0.0
            for i in range(count[c]):
                tau = time[c, i] - t0
                protein = 0.0
                if tau > 0.0:
                    # k tau exp(-gamma tau) (1 - exp(-x)) / x holds for equal rates too.
                    x = (delta - gamma) * tau
                    share = 1.0 - 0.5 * x if abs(x) < 1e-8 else -np.expm1(-x) / x
                    protein = k * tau * np.exp(-gamma * tau) * share
                square += (y[c, i] - np.log(protein + offset)) ** 2
            out[row, j] = -0.5 * square / sigma**2 - count[c] * (np.log(sigma) + 0.5 * np.log(2 * np.pi))


@dataclass(frozen=True)
class Cells:
    """Measurements of S cells: time and y (S, T), of which the first `count` (S,) exist."""

    time: np.ndarray
    y: np.ndarray
    count: np.ndarray

    def log_likelihood(self, phi: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Log likelihood (R, N) of phi (R, N, 6) for the cells (R,)."""
        out = np.empty(phi.shape[:2])
        with np.errstate(over="ignore"):
            _log_likelihood(phi, cell, self.time, self.y, self.count, out)
        return np.where(np.isnan(out), -np.inf, out)


@dataclass(frozen=True)
class ExactPosterior:
    """Draws (S, runs x N, d), R-hat (S, d), log evidence (S, runs), share with delta > gamma (S,)."""

    phi: np.ndarray
    r_hat: np.ndarray
    log_evidence: np.ndarray
    first_mode: np.ndarray


def exact_posterior(cells, mean, sd, rng, runs=4, n=500, moves=8, block=100, max_blocks=40, bar=1.005):
    """Sample every cell's posterior under independent normal priors of phi.

    A temperature is raised as far as half of the particles survive, then all particles move `moves` times. At
    the posterior they go on in blocks until every parameter's R-hat over the runs is at most `bar`.
    Moves are random walks, steps along differences between particles of the other half (ter Braak 2006), and
    the swap of the two rates; all are accepted by the Metropolis rule, so none is assumed to be right.
    """
    s = len(cells.count)
    cell = np.repeat(np.arange(s), runs)
    phi = mean + sd * rng.standard_normal((s * runs, n, len(mean)))
    fit = cells.log_likelihood(phi, cell)
    beta, evidence = np.zeros(s * runs), np.zeros(s * runs)
    while beta.min() < 1.0:
        step = _next_step(fit, beta)
        weight = step[:, None] * np.where(np.isfinite(fit), fit, -1e300)
        top = weight.max(axis=1, keepdims=True)
        weight = np.exp(weight - top)
        evidence += top[:, 0] + np.log(weight.mean(axis=1))
        beta = np.minimum(beta + step, 1.0)
        beta[beta > 1.0 - 1e-9] = 1.0
        keep = _resample(weight, rng)
        phi, fit = np.take_along_axis(phi, keep[..., None], axis=1), np.take_along_axis(fit, keep, axis=1)
        for _ in range(moves):
            phi, fit = _sweep(cells, cell, phi, fit, beta, mean, sd, rng)
    todo, r_hat = np.arange(s), np.full((s, len(mean)), np.inf)
    for _ in range(max_blocks):
        rows = (todo[:, None] * runs + np.arange(runs)).ravel()
        part, part_fit = phi[rows], fit[rows]
        for _ in range(block):
            part, part_fit = _sweep(cells, cell[rows], part, part_fit, beta[rows], mean, sd, rng)
        phi[rows], fit[rows] = part, part_fit
        r_hat[todo] = _r_hat(part.reshape(len(todo), runs, n, -1))
        todo = np.flatnonzero((r_hat > bar).any(axis=1))
        if not todo.size:
            break
    draws = phi.reshape(s, runs * n, -1)
    first = (draws[..., DELTA] > draws[..., GAMMA]).mean(axis=1)
    return ExactPosterior(draws, r_hat, evidence.reshape(s, runs), first)


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


def _sweep(cells, cell, phi, fit, beta, mean, sd, rng):
    """Move every particle once; each half moves along what the other half knows."""
    order = rng.permutation(phi.shape[1])
    phi, fit = phi[:, order], fit[:, order]
    half = phi.shape[1] // 2
    parts = [phi[:, :half], phi[:, half:]]
    fits = [fit[:, :half], fit[:, half:]]
    for mine, other in ((0, 1), (1, 0)):
        proposal = _propose(parts[mine], parts[other], rng)
        value = cells.log_likelihood(proposal, cell)
        gain = beta[:, None] * (value - fits[mine]) + _log_prior(proposal, mean, sd)
        gain -= _log_prior(parts[mine], mean, sd)
        accept = np.log(rng.random(value.shape)) < np.where(np.isfinite(value), gain, -np.inf)
        parts[mine] = np.where(accept[..., None], proposal, parts[mine])
        fits[mine] = np.where(accept, value, fits[mine])
    return np.concatenate(parts, axis=1), np.concatenate(fits, axis=1)


def _propose(x, other, rng):
    """Random walk with the other half's covariance, difference step or swap; all symmetric."""
    rows, n, d = x.shape
    kind = rng.integers(0, 5, (rows, n))
    root = np.linalg.cholesky(
        np.stack([np.cov(part.T) for part in other]) + 1e-12 * np.eye(d)
    )
    scale = 2.38 / np.sqrt(d) * rng.choice([0.15, 0.5, 1.0], (rows, n, 1))
    walk = x + scale * (rng.standard_normal((rows, n, d)) @ np.swapaxes(root, 1, 2))
    pick = rng.integers(0, n, (2, rows, n, 1))
    difference = np.take_along_axis(other, pick[0], axis=1) - np.take_along_axis(other, pick[1], axis=1)
    # A few coordinates at a time, as the posterior bends; sometimes the whole way to where others are.
    chosen = rng.random((rows, n, d)) < rng.choice([0.3, 1.0], (rows, n, 1))
    length = rng.choice([2.38 / np.sqrt(2 * d), 0.3, 1.0], (rows, n, 1))
    along = x + length * chosen * difference + 1e-5 * rng.standard_normal((rows, n, d))
    swapped = x.copy()
    swapped[..., [DELTA, GAMMA]] = x[..., [GAMMA, DELTA]]
    return np.where((kind < 2)[..., None], walk, np.where((kind < 4)[..., None], along, swapped))


def _log_prior(phi, mean, sd):
    return -0.5 * (((phi - mean) / sd) ** 2).sum(axis=-1)
