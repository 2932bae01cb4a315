"""Starting values of population parameters from moments of the individual draws."""

from __future__ import annotations

import numpy as np

from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.posterior_draws import PosteriorDraws

#: Smallest starting SD of a random effect, as a share of the typical individual posterior SD.
FLOOR_SHARE = 0.5


def moment_start(population: BoundPopulation, draws: PosteriorDraws) -> np.ndarray:
    """Estimate population parameters by regressing individual means on the covariates.

    Parameters
    ----------
    population : BoundPopulation
    draws : PosteriorDraws

    Returns
    -------
    ndarray, shape (n_x,)
        Variances of random effects are those between individual means minus the typical individual posterior
        variance, never below the floor of `factor_floor`; correlations start at zero.
    """
    mean, variance = draws.phi.mean(axis=1), draws.phi.var(axis=1)
    x = np.zeros(population.n_x)
    residual = np.empty_like(mean)
    for p in range(population.d):
        effects = np.flatnonzero(population.covariate_index == p)
        design = np.column_stack([np.ones(len(mean)), population.regressors[:, effects]])
        # Sharper individuals say more; the between-subject part keeps any one from dominating.
        weight = 1.0 / np.sqrt(variance[:, p] + mean[:, p].var() + 1e-12)
        solution = np.linalg.lstsq(design * weight[:, None], mean[:, p] * weight, rcond=None)[0]
        x[p] = solution[0]
        x[population.d + effects] = solution[1:]
        residual[:, p] = mean[:, p] - design @ solution
    spread = residual.var(axis=0) - np.median(variance, axis=0)
    floor = factor_floor(population, draws)
    sd = np.sqrt(np.maximum(spread[population.random_index], floor**2))
    x[population.chol_diagonal] = sd
    return x


def factor_floor(population: BoundPopulation, draws: PosteriorDraws) -> np.ndarray:
    """Give the smallest diagonal entries of L from which a search still sees the variance.

    The likelihood is even in every column of L, so its gradient vanishes at a variance of zero; a search
    started there would never leave.

    Parameters
    ----------
    population : BoundPopulation
    draws : PosteriorDraws

    Returns
    -------
    ndarray, shape (r,)
    """
    sd = np.median(draws.phi.std(axis=1), axis=0)
    return FLOOR_SHARE * sd[population.random_index]


def start_points(
    population: BoundPopulation, draws: PosteriorDraws, n_starts: int, rng: np.random.Generator
) -> np.ndarray:
    """Several starting points around the moment estimate.

    Parameters
    ----------
    population : BoundPopulation
    draws : PosteriorDraws
    n_starts : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n_starts, n_x)
        The first row is the moment estimate itself.
    """
    center = moment_start(population, draws)
    starts = np.tile(center, (n_starts, 1))
    spread = draws.phi.mean(axis=1).std(axis=0) + np.median(draws.phi.std(axis=1), axis=0)
    noise = rng.standard_normal((n_starts - 1, population.n_x))
    starts[1:, population.theta_slice] += 0.5 * spread * noise[:, population.theta_slice]
    starts[1:, population.beta_slice] += 0.5 * noise[:, population.beta_slice]
    # Factors between about 1/3 and 3 on the SDs.
    starts[1:, population.chol_diagonal] *= np.exp(0.6 * noise[:, population.chol_diagonal])
    return starts


def search_box(population: BoundPopulation, draws: PosteriorDraws) -> tuple[np.ndarray, np.ndarray]:
    """Bounds for the search: generous multiples of the spread of all draws.

    Parameters
    ----------
    population : BoundPopulation
    draws : PosteriorDraws

    Returns
    -------
    lower, upper : ndarray, shape (n_x,)
    """
    flat = draws.phi.reshape(-1, draws.d)
    center, scale = flat.mean(axis=0), flat.std(axis=0) + 1e-6
    lower, upper = np.full(population.n_x, -np.inf), np.full(population.n_x, np.inf)
    lower[population.theta_slice], upper[population.theta_slice] = (
        center - 10.0 * scale,
        center + 10.0 * scale,
    )
    for c, p in enumerate(population.covariate_index):
        reach = 20.0 * scale[p] / max(float(population.regressors[:, c].std()), 1e-12)
        lower[population.d + c], upper[population.d + c] = -reach, reach
    reach = 5.0 * scale[population.chol_row]
    lower[population.chol_slice], upper[population.chol_slice] = -reach, reach
    lower[population.chol_diagonal] = 0.0
    return lower, upper
