"""Starting values of population parameters from moments of the individual draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.effects import CENTERS
from amortnlme.population.networks import initial_weights
from amortnlme.population.posterior_draws import PosteriorDraws

#: Smallest starting SD of a random effect, as a share of the typical individual posterior SD.
FLOOR_SHARE = 0.5
#: Typical values stay within this many prior SDs of the prior mean.
PRIOR_REACH = 5.0


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
    return moments_to_start(population, draws.phi.mean(axis=1), draws.phi.var(axis=1))


def moments_to_start(population: BoundPopulation, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Turn means and variances of individual posteriors into population parameters; see `moment_start`.

    Parameters
    ----------
    population : BoundPopulation
    mean, variance : ndarray, shape (n_subjects, d)

    Returns
    -------
    ndarray, shape (n_x,)
    """
    x = np.zeros(population.n_x)
    residual = mean - population.base_phi
    # Sharper individuals say more; the between-subject part keeps any one from dominating.
    weight = 1.0 / np.sqrt(variance + mean.var(axis=0) + 1e-12)
    for p in range(population.d):
        # Columns of x that move this parameter: its typical value, unless that is given, and coefficients.
        mine = np.flatnonzero(population.owner == p)
        if not len(mine):
            continue
        regressors = np.concatenate(
            [np.ones((len(mean), len(population.theta_index))), population.regressors], axis=1
        )[:, mine]
        design = regressors * weight[:, p, None]
        x[mine] = np.linalg.lstsq(design, residual[:, p] * weight[:, p], rcond=None)[0]
        residual[:, p] -= regressors @ x[mine]
    sd = np.sqrt(_spread(population, residual, variance))
    x[population.chol_diagonal] = sd
    return x


def with_weights(
    population: BoundPopulation, x: np.ndarray, mean: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw weights of the networks, where there are any, next to given typical values and coefficients.

    Parameters
    ----------
    population : BoundPopulation
    x : ndarray, shape (n_x,)
    mean : ndarray, shape (n_subjects, d)
        Means of individual posteriors: what a softplus head has to supply beside the typical values.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n_x,)
    """
    if not population.networks:
        return x
    linear = replace(population, networks=())
    without = np.concatenate([x[: population.weight_slice.start], x[population.chol_slice]])
    rest = (mean - linear.unpack(without)[0]).mean(axis=0)
    heads = [name for n in population.networks if n.effect.head == "softplus" for name in n.effect.on]
    weights = []
    for network in population.networks:
        on = network.effect.on
        share = [rest[population.parameters.index(name)] / max(heads.count(name), 1) for name in on]
        weights.append(initial_weights(network, np.array(share), rng))
    x = np.array(x)
    x[population.weight_slice] = np.concatenate(weights)
    return x


def _spread(population: BoundPopulation, residual: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Variance of each random effect, the same for all occasions, shape (r,)."""
    index, has = population.random_index, population.has_occasion
    residual, variance = np.where(has, residual[:, index], np.nan), np.where(has, variance[:, index], np.nan)
    spread = np.nanvar(residual, axis=0) - np.nanmedian(variance, axis=0)
    floor = FLOOR_SHARE * np.nanmedian(np.sqrt(variance), axis=0)
    spread = np.maximum(spread, floor**2)
    entry = population.layout.chol_diagonal
    total, count = np.bincount(entry, spread), np.bincount(entry)
    return total[entry] / count[entry]


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
    spread = spread[population.theta_index]
    noise = rng.standard_normal((n_starts - 1, population.n_x))
    starts[1:, population.theta_slice] += 0.5 * spread * noise[:, population.theta_slice]
    starts[1:, population.beta_slice] += 0.5 * noise[:, population.beta_slice]
    # Factors between about 1/3 and 3 on the SDs.
    starts[1:, population.chol_diagonal] *= np.exp(0.6 * noise[:, population.chol_diagonal])
    return starts


def search_box(
    population: BoundPopulation, draws: PosteriorDraws, prior_mean: np.ndarray, prior_sd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds for the search: generous multiples of the spread of all draws, within the support of the prior.

    Parameters
    ----------
    population : BoundPopulation
    draws : PosteriorDraws
    prior_mean, prior_sd : ndarray, shape (d,)

    Returns
    -------
    lower, upper : ndarray, shape (n_x,)
    """
    reach = natural_reach(population, draws)
    lower, upper = -10.0 * reach, 10.0 * reach
    low, high = theta_limits(population, prior_mean, prior_sd)
    # Draws from beyond the limits must not leave an empty box.
    center = np.clip(draws.phi.mean(axis=(0, 1))[population.theta_index], low, high)
    theta = population.theta_slice
    lower[theta] = np.maximum(center + lower[theta], low)
    upper[theta] = np.minimum(center + upper[theta], high)
    lower[population.chol_diagonal] = 0.0
    return lower, upper


def theta_limits(
    population: BoundPopulation, prior_mean: np.ndarray, prior_sd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Limits of typical values: `PRIOR_REACH` prior SDs, outside of which no posterior was trained.

    Parameters
    ----------
    population : BoundPopulation
    prior_mean, prior_sd : ndarray, shape (d,)

    Returns
    -------
    lower, upper : ndarray, shape (n_theta,)
        Infinite for parameters with a covariate centered on a given number: their typical value is that of a
        subject who need not exist.
    """
    lower, upper = prior_mean - PRIOR_REACH * prior_sd, prior_mean + PRIOR_REACH * prior_sd
    far = [
        p
        for p, e in zip(population.covariate_index, population.covariates, strict=True)
        if e.center not in CENTERS
    ]
    lower[far], upper[far] = -np.inf, np.inf
    return lower[population.theta_index], upper[population.theta_index]


def natural_reach(population: BoundPopulation, draws: PosteriorDraws) -> np.ndarray:
    """Distance over which each population parameter can plausibly move: the spread of all draws.

    Parameters
    ----------
    population : BoundPopulation
    draws : PosteriorDraws

    Returns
    -------
    ndarray, shape (n_x,)
    """
    spread = draws.phi.reshape(-1, draws.d).std(axis=0) + 1e-6
    reach = np.empty(population.n_x)
    reach[population.theta_slice] = spread[population.theta_index]
    reach[population.beta_slice] = spread[population.covariate_index] / population.regressors.std(axis=0)
    layout = population.layout
    reach[population.chol_slice] = spread[layout.chol_row[layout.first_place]]
    return reach
