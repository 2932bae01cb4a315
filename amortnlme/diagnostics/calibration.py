"""Simulation-based calibration from stored ranks and coverage counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, binom

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class EcdfDifference:
    """ECDF of normalized ranks minus the uniform CDF, with a simultaneous band.

    Attributes
    ----------
    level : ndarray, shape (n_levels,)
        Where the ECDF is read, in (0, 1).
    difference : ndarray, shape (n_params, n_levels)
    lower, upper : ndarray, shape (n_levels,)
        Band that holds a whole uniform curve with probability `probability`.
    inside : ndarray of bool, shape (n_params,)
        Whether the curve of a parameter stays within the band everywhere.
    probability : float
    """

    level: Array
    difference: Array
    lower: Array
    upper: Array
    inside: Array
    probability: float


def ecdf_difference(
    ranks: Array,
    n_draws: int,
    *,
    probability: float = 0.95,
    n_levels: int = 50,
    n_simulated: int = 4000,
) -> EcdfDifference:
    """Compare SBC ranks with the uniform distribution by the ECDF difference.

    Parameters
    ----------
    ranks : ndarray of int, shape (n_simulations, n_params)
        Number of posterior draws below the true value: 0..n_draws.
    n_draws : int
    probability : float
        Simultaneous coverage of the band for one parameter.
    n_levels : int
    n_simulated : int
        Uniform rank sets used to adjust the band.

    Returns
    -------
    EcdfDifference

    Raises
    ------
    UsageError
        E_SBC_RANKS if the ranks are not integers in 0..n_draws.

    Notes
    -----
    Pointwise binomial bands are widened until a share `probability` of uniform curves stays inside:
    Sailynoja, Burkner & Vehtari (2022), Stat Comput 32, section 2.2.
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 2 or len(ranks) < 2 or ranks.min() < 0 or ranks.max() > n_draws:
        raise UsageError(
            "E_SBC_RANKS",
            f"the SBC ranks are not usable - shape {ranks.shape} - an integer array (n_simulations, n_params)"
            f" with values in 0..{n_draws} is needed - recompute the calibration",
        )
    n_simulations = len(ranks)
    # Ranks take n_draws + 1 equally likely values: the ECDF is read only where it can step, so that its
    # expectation is exactly the level.
    step = np.unique(np.round(np.linspace(0, n_draws, n_levels + 1)[1:-1]).astype(int))
    level = step / (n_draws + 1.0)
    below = np.stack([(ranks < s).mean(axis=0) for s in step], axis=1)
    tail = _simultaneous_tail(level, n_simulations, probability, n_simulated)
    lower = binom.ppf(tail, n_simulations, level) / n_simulations - level
    upper = binom.ppf(1.0 - tail, n_simulations, level) / n_simulations - level
    difference = below - level
    slack = 1e-12
    within = (difference >= lower - slack) & (difference <= upper + slack)
    inside = np.asarray(np.all(within, axis=1))
    return EcdfDifference(level, difference, lower, upper, inside, probability)


def _simultaneous_tail(level: Array, n: int, probability: float, n_simulated: int) -> float:
    """Pointwise tail probability whose bands hold a uniform ECDF everywhere with the given probability."""
    rng = stream(20_220_219, n, len(level))
    cells = np.diff(np.concatenate([[0.0], level, [1.0]]))
    counts = np.cumsum(rng.multinomial(n, cells, size=n_simulated), axis=1)[:, :-1]
    below = binom.cdf(counts, n, level)
    above = binom.sf(counts - 1, n, level)
    extreme = np.minimum(below, above).min(axis=1)
    return float(np.quantile(extreme, 1.0 - probability))


@dataclass(frozen=True, slots=True)
class Coverage:
    """Empirical coverage of central credible intervals with exact binomial intervals.

    Attributes
    ----------
    nominal : ndarray, shape (n_levels,)
    empirical, lower, upper : ndarray, shape (n_params, n_levels)
    consistent : ndarray of bool, shape (n_params, n_levels)
        Whether the nominal level lies in the binomial interval.
    """

    nominal: Array
    empirical: Array
    lower: Array
    upper: Array
    consistent: Array


def coverage_from_ranks(
    ranks: Array,
    n_draws: int,
    nominal: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95),
    *,
    probability: float = 0.95,
) -> Coverage:
    """Coverage of central credible intervals, read off the SBC ranks.

    Parameters
    ----------
    ranks : ndarray of int, shape (n_simulations, n_params)
    n_draws : int
    nominal : tuple of float
        Levels of the central intervals.
    probability : float
        Confidence of the binomial interval around every empirical coverage.

    Returns
    -------
    Coverage
        `nominal` holds the level that n_draws draws can realize exactly, which differs from the one asked
        for by less than 1 / (n_draws + 1).

    Notes
    -----
    With L draws a rank in [a, L - a] has probability (L + 1 - 2 a) / (L + 1).
    """
    ranks = np.asarray(ranks)
    cut = np.round((n_draws + 1) * (1.0 - np.asarray(nominal)) / 2.0).astype(int)
    realized = (n_draws + 1 - 2 * cut) / (n_draws + 1.0)
    hits = np.stack([((ranks >= c) & (ranks <= n_draws - c)).sum(axis=0) for c in cut], axis=1)
    lower, upper = binomial_interval(hits, len(ranks), probability)
    inside = (realized >= lower) & (realized <= upper)
    return Coverage(realized, hits / len(ranks), lower, upper, inside)


def binomial_interval(hits: Array, n: int, probability: float = 0.95) -> tuple[Array, Array]:
    """Exact (Clopper-Pearson) interval for a binomial proportion.

    Parameters
    ----------
    hits : ndarray of int, any shape
    n : int
    probability : float

    Returns
    -------
    lower, upper : ndarray, shape of `hits`

    Notes
    -----
    Clopper & Pearson (1934), Biometrika 26, 404-413.
    """
    tail = (1.0 - probability) / 2.0
    hits = np.asarray(hits)
    with np.errstate(invalid="ignore"):
        lower = np.where(hits == 0, 0.0, beta.ppf(tail, hits, n - hits + 1))
        upper = np.where(hits == n, 1.0, beta.ppf(1.0 - tail, hits + 1, n - hits))
    return lower, upper
