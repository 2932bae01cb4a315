"""Maximization of the importance-sampled likelihood: guide the nodes, minimize, guide them anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from amortnlme.methods.ebe import IndividualTarget
from amortnlme.methods.guided_likelihood import GuidedLikelihood, place_guide
from amortnlme.methods.information import whitening
from amortnlme.methods.local_search import (
    information_at,
    minimize_whitened,
    negative_value_and_gradient,
)
from amortnlme.methods.proposals import BaseNumbers, base_numbers
from amortnlme.methods.refine import Optimum, failed, finish
from amortnlme.methods.surrogate import gaussian_prior_moments
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.posterior_draws import PosteriorDraws
from amortnlme.population.starts import factor_floor, moment_start, natural_reach, theta_limits

# : Rounds that start this far from the optimum (in standard errors), and second derivatives, use a quarter of
# the nodes.
COARSE_MOVE, COARSE_RATIO, MIN_COARSE = 0.5, 4, 32


def correct_surrogate(
    *,
    target: IndividualTarget,
    population: BoundPopulation,
    draws: PosteriorDraws,
    rough: Optimum,
    rng: np.random.Generator,
    n_points: int,
    max_rounds: int,
    tolerance: float,
) -> Optimum:
    """Maximize the importance-sampled likelihood, starting from the surrogate's optimum.

    Parameters
    ----------
    target : IndividualTarget
    population : BoundPopulation
    draws : PosteriorDraws
    rough : Optimum
        Of the surrogate.
    rng : numpy.random.Generator
        Drawn from once: all rounds share the same base numbers, so that they can settle.
    n_points, max_rounds, tolerance
        As in `Amortized`.

    Returns
    -------
    Optimum
        Where the first search ends on a plateau (a residual SD that went to zero, say), the better one of it
        and a second search that starts the pooled parameters from the prior mean.
    """
    settings = (
        target,
        population,
        draws,
        base_numbers(population.n_subjects, n_points, population.r, rng, defensive=False),
        max_rounds,
        tolerance,
    )
    first = _search(rough.x, _information(rough), *settings)
    if first.is_interior:
        return first
    x = moment_start(population, draws)
    x[population.pooled_index] = gaussian_prior_moments(draws.prior)[0][population.pooled_index]
    second = _search(x, np.zeros((population.n_x, population.n_x)), *settings)
    best, other = (second, first) if second.value < first.value else (first, second)
    return replace(best, trace=(*other.trace, *best.trace))


def _search(
    x: np.ndarray,
    information: np.ndarray,
    target: IndividualTarget,
    population: BoundPopulation,
    draws: PosteriorDraws,
    base: BaseNumbers,
    max_rounds: int,
    tolerance: float,
) -> Optimum:
    prior_mean, prior_covariance = gaussian_prior_moments(draws.prior)
    lower, upper = theta_limits(population, prior_mean, np.sqrt(np.diagonal(prior_covariance)))
    # Weak prior information in every direction: no step goes further than the draws do.
    ridge = natural_reach(population, draws) ** -2.0
    x, diagonal = x.copy(), population.chol_diagonal
    # At a variance of zero the gradient vanishes: lift it, and let the likelihood take it back if it must.
    x[diagonal] = np.maximum(x[diagonal], factor_floor(population, draws))
    coarse_base = base.head(min(base.n_points, max(base.n_points // COARSE_RATIO, MIN_COARSE)))
    free, at_limit = np.arange(population.n_x), list[int]()
    transform = whitening(information + np.diag(ridge))
    scale = np.sqrt((transform**2).sum(axis=1))
    trace: list[dict[str, Any]] = []
    start_u, move = None, np.inf
    for number in range(max_rounds):
        guide, start_u = place_guide(target, *population.unpack(x), start_u)
        coarse = GuidedLikelihood(target, population, guide, coarse_base)
        is_coarse = move > COARSE_MOVE
        objective = coarse if is_coarse else GuidedLikelihood(target, population, guide, base)
        if not np.isfinite(negative_value_and_gradient(objective, x)[0]):
            return failed(x, {"stage": f"correction {number + 1}", "x": x.tolist(), "objective": None})
        found = minimize_whitened(objective, x, transform, free)
        new = population.fold_signs(found.x)
        move, x = float(np.max(np.abs(new - x) / scale)), new
        trace.append(
            {
                "stage": f"correction {number + 1}",
                "x": x.tolist(),
                "objective": 2.0 * found.value,
                "n_evaluations": found.n_evaluations,
                "move_in_se": move,
            }
        )
        theta = x[population.theta_slice]
        outside = np.flatnonzero((theta < lower) | (theta > upper))
        if len(outside):
            theta[outside] = np.clip(theta, lower, upper)[outside]
            at_limit += [int(k) for k in outside]
            free = np.setdiff1d(free, outside)
        if is_coarse or len(outside) or move > COARSE_MOVE:
            information = information_at(coarse, x, scale, free)
            transform = whitening(information + np.diag(ridge[free]))
            scale[free] = np.sqrt((transform**2).sum(axis=1))
        elif move < tolerance:
            break
    guide, _ = place_guide(target, *population.unpack(x), start_u)
    return finish(
        GuidedLikelihood(target, population, guide, base),
        population,
        x,
        scale,
        move,
        trace,
        at_limit=at_limit,
        coarse=GuidedLikelihood(target, population, guide, coarse_base),
    )


def _information(rough: Optimum) -> np.ndarray:
    """Information of the surrogate, as far as it has any."""
    if rough.covariance is not None:
        return np.linalg.inv(rough.covariance)
    return np.diag(1.0 / rough.scale**2)
