"""Importance sampling of individual posteriors: Pareto-smoothed diagnostics and corrected draws."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from amortnlme.core.errors import DrawsError
from amortnlme.methods.ebe import IndividualTarget
from amortnlme.methods.log_sum import log_sum_exp
from amortnlme.population.posterior_draws import PosteriorDraws

MIN_TAIL = 5
#: Rows smoothed together: their grids stay in the cache.
TAIL_ROWS = 256


def effective_sample_size(log_weights: np.ndarray) -> np.ndarray:
    """Kish effective sample size, 1 / sum of squared normalized weights, of every row.

    Parameters
    ----------
    log_weights : ndarray, shape (..., n_points)   [nats, unnormalized]

    Returns
    -------
    ndarray, shape (...,)
        Between 1 and n_points; 0 where no weight is finite.
    """
    weights = normalized_weights(log_weights)
    square = (weights**2).sum(axis=-1)
    return np.where(square > 0, 1.0 / np.where(square > 0, square, 1.0), 0.0)


def normalized_weights(log_weights: np.ndarray) -> np.ndarray:
    """Weights that sum to one along the last axis (all zero where no log weight is finite).

    Parameters
    ----------
    log_weights : ndarray, shape (..., n_points)   [nats, unnormalized]

    Returns
    -------
    ndarray, shape (..., n_points)
    """
    usable = np.where(np.isnan(log_weights), -np.inf, log_weights)
    top = usable.max(axis=-1, keepdims=True)
    weights = np.exp(usable - np.where(np.isfinite(top), top, 0.0))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total > 0, total, 1.0)


def pareto_smooth(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smooth the largest importance weights of every row and estimate the tail index k-hat.

    Parameters
    ----------
    log_weights : ndarray, shape (n_rows, n_points)   [nats, unnormalized]

    Returns
    -------
    smoothed : ndarray, shape (n_rows, n_points)
        Normalized log weights (their exponentials sum to one per row; all -inf where every weight is zero).
    pareto_k : ndarray, shape (n_rows,)
        Below 0.5 reliable, above 0.7 not; inf where the tail is too short to tell.

    Notes
    -----
    Vehtari, Simpson, Gelman, Yao, Gabry, "Pareto smoothed importance sampling" (2024), sections 2.3-2.4; the
    generalized Pareto fit is that of Zhang & Stephens (2009) with a weak prior on k.
    """
    n_rows, n_points = log_weights.shape
    out = np.where(np.isnan(log_weights), -np.inf, log_weights)
    top = out.max(axis=1, keepdims=True)
    out = out - np.where(np.isfinite(top), top, 0.0)
    pareto_k = np.full(n_rows, np.inf)
    n_tail = int(np.ceil(min(0.2 * n_points, 3.0 * np.sqrt(n_points))))
    if n_tail >= MIN_TAIL and n_points > n_tail:
        for first in range(0, n_rows, TAIL_ROWS):
            part = slice(first, first + TAIL_ROWS)
            pareto_k[part] = _smooth_tails(out[part], n_tail)
    return out - np.where(np.isfinite(top), log_sum_exp(out, axis=1)[:, None], 0.0), pareto_k


def _smooth_tails(out: np.ndarray, n_tail: int) -> np.ndarray:
    """Smooth the largest log weights of some rows in place; tail index of every row."""
    # Weights below the smallest normal number are zero for every purpose here.
    floor = np.log(np.finfo(np.float64).tiny)
    largest = np.argpartition(out, -n_tail - 1, axis=1)[:, -n_tail - 1 :]
    order = np.argsort(np.take_along_axis(out, largest, axis=1), axis=1, kind="stable")
    largest = np.take_along_axis(largest, order, axis=1)
    value = np.take_along_axis(out, largest, axis=1)
    cutoff, tail, place = np.maximum(value[:, 0], floor), value[:, 1:], largest[:, 1:]
    pareto_k = np.full(len(out), np.inf)
    # Rows with ties at the cutoff, or weights of zero, have shorter tails.
    length = (tail > cutoff[:, None]).sum(axis=1)
    for size in np.unique(length[length >= MIN_TAIL]):
        rows = np.flatnonzero(length == size)
        excess = np.exp(tail[rows, -size:]) - np.exp(cutoff[rows, None])
        k, sigma = _fit_generalized_pareto(excess)
        pareto_k[rows] = k
        log_survival = np.log1p(-(np.arange(size) + 0.5) / size)
        safe = np.where(k == 0, 1.0, k)[:, None]
        # A tail so heavy that its quantiles overflow is cut at the largest raw weight below.
        with np.errstate(over="ignore", invalid="ignore"):
            quantile = np.where(k[:, None] == 0, -log_survival, np.expm1(-safe * log_survival) / safe)
            smooth = np.log(quantile * sigma[:, None] + np.exp(cutoff[rows, None]))
        # A smoothed weight above the largest raw one would be an extrapolation.
        smooth = np.where(np.isfinite(k)[:, None], np.minimum(smooth, 0.0), tail[rows, -size:])
        out[rows[:, None], place[rows, -size:]] = smooth
    return pareto_k


def _fit_generalized_pareto(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape k and scale sigma of sorted positive excesses (rows, n): quasi-Bayesian mean over a grid."""
    n = excess.shape[1]
    n_grid = 30 + int(np.sqrt(n))
    quartile = excess[:, int(n / 4 + 0.5) - 1, None]
    b = (1.0 - np.sqrt(n_grid / (np.arange(1, n_grid + 1) - 0.5))) / (3.0 * quartile) + 1.0 / excess[:, -1:]
    k = np.log1p(-b[:, :, None] * excess[:, None]).mean(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        profile = n * (np.log(-(b / k)) - k - 1.0)
    profile = np.where(np.isnan(profile), -np.inf, profile)
    weight = np.exp(profile - log_sum_exp(profile, axis=1)[:, None])
    weight = np.where(weight >= 10 * np.finfo(np.float64).eps, weight, 0.0)
    b_mean = (b * weight).sum(axis=1) / weight.sum(axis=1)
    k_mean = np.log1p(-b_mean[:, None] * excess).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = -k_mean / b_mean
    # Prior worth ten observations at k = 0.5: keeps short tails from wild estimates.
    return k_mean * n / (n + 10.0) + 5.0 / (n + 10.0), sigma


@dataclass(frozen=True, slots=True, eq=False)
class CorrectedDraws:
    """Individual posteriors corrected by the exact likelihood of the model.

    Attributes
    ----------
    draws : PosteriorDraws
        Draws resampled with the smoothed weights, as many as there were.
    log_weights : ndarray, shape (n_subjects, n_draws)   [nats]
        Normalized, Pareto-smoothed weights of the original draws.
    ess : ndarray, shape (n_subjects,)
        Effective number of draws, from the raw weights.
    pareto_k : ndarray, shape (n_subjects,)
    log_evidence : ndarray, shape (n_subjects,)   [nats]
        Estimate of log p(y_i) under the prior.
    """

    draws: PosteriorDraws
    log_weights: np.ndarray
    ess: np.ndarray
    pareto_k: np.ndarray
    log_evidence: np.ndarray


def importance_correct(
    draws: PosteriorDraws, bound_model: IndividualTarget, rng: np.random.Generator
) -> CorrectedDraws:
    """Correct approximate individual posteriors with the exact likelihood.

    Parameters
    ----------
    draws : PosteriorDraws
        With `log_q` the density they were drawn from.
    bound_model : IndividualTarget
        The model joined with the same subjects, in the same order.
    rng : numpy.random.Generator
        For the resampling.

    Returns
    -------
    CorrectedDraws

    Raises
    ------
    DrawsError
        E_DRAWS_NO_SUPPORT when no draw of a subject has a finite likelihood.

    Notes
    -----
    w = p(y | phi) p(phi) / q(phi | y); smoothed as in `pareto_smooth`; resampled systematically.
    """
    raw = bound_model.log_likelihood(draws.phi) + draws.log_prior - draws.log_q
    raw = np.where(np.isnan(raw), -np.inf, raw)
    dead = ~np.isfinite(raw).any(axis=1)
    if dead.any():
        who = draws.subject_ids[int(np.flatnonzero(dead)[0])]
        raise DrawsError(
            "E_DRAWS_NO_SUPPORT",
            f"no draw of subject {who!r} has a finite likelihood under the model. The draws belong to other "
            f"data or "
            f"another model; sample again for this dataset.",
        )
    top = raw.max(axis=1)
    log_evidence = top + np.log(np.exp(raw - top[:, None]).mean(axis=1))
    smoothed, pareto_k = pareto_smooth(raw)
    n_subjects, n_draws = raw.shape
    cumulative = np.cumsum(np.exp(smoothed), axis=1)
    grid = (np.arange(n_draws) + rng.random((n_subjects, 1))) / n_draws
    index = np.stack([np.searchsorted(c / c[-1], g) for c, g in zip(cumulative, grid, strict=True)])
    # Systematic resampling leaves copies side by side; shuffle, so that any subset of draws is a fair one.
    index = rng.permuted(np.minimum(index, n_draws - 1), axis=1)
    take = np.take_along_axis
    phi = take(draws.phi, index[..., None], axis=1)
    log_prior = take(draws.log_prior, index, axis=1)
    log_q = take(raw - log_evidence[:, None] + draws.log_q, index, axis=1)
    corrected = replace(draws, phi=phi, log_prior=log_prior, log_q=log_q)
    return CorrectedDraws(corrected, smoothed, effective_sample_size(raw), pareto_k, log_evidence)
