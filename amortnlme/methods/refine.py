"""The two optimizations of the amortized method: the surrogate from several starts, then the correction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from amortnlme.core.status import FitStatus
from amortnlme.methods.ebe import IndividualTarget
from amortnlme.methods.guided_likelihood import GuidedLikelihood, place_guide
from amortnlme.methods.information import whitening
from amortnlme.methods.local_search import (
    PopulationObjective,
    information_at,
    minimize_whitened,
    negative_value_and_gradient,
    rough_scale,
    vanishing_effects,
    wald_covariance,
)
from amortnlme.methods.proposals import base_numbers
from amortnlme.methods.surrogate import SurrogateLikelihood
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.posterior_draws import PosteriorDraws
from amortnlme.population.starts import factor_floor, search_box, start_points

#: A gradient of this many standard errors at the solution still counts as an optimum.
GRADIENT_LIMIT = 0.02
#: A placement that still moves the optimum by this many standard errors after all rounds is not converged.
MOVE_LIMIT = 0.1
#: The first round and second derivatives use this fraction of the nodes.
COARSE_RATIO = 4


@dataclass(frozen=True, slots=True, eq=False)
class Optimum:
    """Maximum of a population objective with its local geometry.

    Attributes
    ----------
    x : ndarray, shape (n_x,)
    covariance : ndarray or None, shape (n_x, n_x)
    scale : ndarray, shape (n_x,)
        Standard errors, or rough ones where those do not exist.
    status : FitStatus
    gradient_norm : float
        Largest gradient entry times its standard error.
    last_move : float
        Of the last placement of the nodes, in standard errors.
    mc_se : ndarray or None, shape (n_x,)
    warnings : list of str
    trace : tuple of mappings
    """

    x: np.ndarray
    covariance: np.ndarray | None
    scale: np.ndarray
    status: FitStatus
    gradient_norm: float
    last_move: float
    mc_se: np.ndarray | None
    warnings: list[str]
    trace: tuple[Mapping[str, Any], ...]


def fit_surrogate(
    objective: SurrogateLikelihood, draws: PosteriorDraws, n_starts: int, rng: np.random.Generator
) -> Optimum:
    """Maximize the closed-form surrogate from several starting points.

    Parameters
    ----------
    objective : SurrogateLikelihood
    draws : PosteriorDraws
        For starting points and bounds.
    n_starts : int
    rng : numpy.random.Generator

    Returns
    -------
    Optimum
    """
    from amortnlme.methods._pypesto import minimize_multistart

    population = objective.population
    lower, upper = search_box(population, draws)
    best = minimize_multistart(
        lambda x: negative_value_and_gradient(objective, x),
        start_points(population, draws, n_starts, rng),
        lower,
        upper,
        population.names,
    )
    x = population.fold_signs(best.x)
    trace = {
        "stage": "surrogate",
        "x": x.tolist(),
        "objective": 2.0 * best.value,
        "n_evaluations": best.n_evaluations,
        "start_objectives": (2.0 * best.values).tolist(),
    }
    if not np.isfinite(best.value):
        return _failed(x, trace)
    return _finish(objective, population, x, _initial_scale(population, draws), 0.0, [trace])


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
        Drawn from once: all placements share the same base numbers, so that they can settle.
    n_points, max_rounds, tolerance
        As in `Amortized`.

    Returns
    -------
    Optimum
    """
    x = rough.x.copy()
    floor = factor_floor(population, draws)
    diagonal = population.chol_diagonal
    # At a variance of zero the gradient vanishes: lift it, and let the likelihood take it back if it must.
    x[diagonal] = np.maximum(x[diagonal], floor)
    free = np.arange(population.n_x)
    transform = np.diag(np.where(np.isfinite(rough.scale), rough.scale, 1.0))
    if rough.covariance is not None:
        transform = np.linalg.cholesky(rough.covariance)
    base = base_numbers(population.n_subjects, n_points, population.r, rng, defensive=False)
    coarse_base = base.head(max(n_points // COARSE_RATIO, min(n_points, 32)))
    trace: list[dict[str, Any]] = []
    start_u, move = None, np.inf
    for number in range(max_rounds):
        guide, start_u = place_guide(target, *population.unpack(x), start_u)
        coarse = GuidedLikelihood(target, population, guide, coarse_base)
        # The first round only has to come near: a few nodes do, and give the local geometry for the rest.
        objective = coarse if number == 0 else GuidedLikelihood(target, population, guide, base)
        if not np.isfinite(negative_value_and_gradient(objective, x)[0]):
            return _failed(x, {"stage": f"correction {number + 1}", "x": x.tolist(), "objective": None})
        found = minimize_whitened(objective, x, transform, free)
        scale = np.sqrt((transform**2).sum(axis=1))
        new = population.fold_signs(found.x)
        move = float(np.max(np.abs(new - x) / scale))
        x = new
        trace.append(
            {
                "stage": f"correction {number + 1}",
                "x": x.tolist(),
                "objective": 2.0 * found.value,
                "n_evaluations": found.n_evaluations,
                "move_in_se": move,
            }
        )
        if number == 0 or move > 1.0:
            transform = whitening(information_at(coarse, x, scale, free))
        elif move < tolerance:
            break
    guide, _ = place_guide(target, *population.unpack(x), start_u)
    scale = np.sqrt((transform**2).sum(axis=1))
    return _finish(
        GuidedLikelihood(target, population, guide, base),
        population,
        x,
        scale,
        move,
        trace,
        coarse=GuidedLikelihood(target, population, guide, coarse_base),
    )


def _finish(
    objective: PopulationObjective,
    population: BoundPopulation,
    x: np.ndarray,
    scale: np.ndarray,
    move: float,
    trace: list[dict[str, Any]],
    coarse: PopulationObjective | None = None,
) -> Optimum:
    """Look for variances at zero, compute the information and judge the optimum.

    `coarse` is a cheaper form of the objective for second derivatives, where a percent does not matter.
    """
    coarse = objective if coarse is None else coarse
    free = np.arange(population.n_x)
    information = information_at(coarse, x, scale, free)
    warnings: list[str] = []
    pinned = vanishing_effects(coarse, population, x)
    if pinned:
        x = x.copy()
        x[pinned] = 0.0
        free = np.setdiff1d(free, pinned)
        transform = whitening(information[np.ix_(free, free)])
        found = minimize_whitened(objective, x, transform, free)
        x = population.fold_signs(found.x)
        information = information_at(coarse, x, scale, free)
        trace.append({"stage": "boundary", "x": x.tolist(), "objective": 2.0 * found.value})
        names = ", ".join(population.names[k].removeprefix("chol_") for k in pinned)
        warnings.append(
            f"[W_FIT_BOUNDARY] omega has no full rank: the variance component of {names} is zero at the "
            f"optimum. Wald "
            f"standard errors do not exist there and are not given; simplify the random effects."
        )
    covariance = wald_covariance(information, free, population.n_x)
    new_scale = scale.copy()
    new_scale[free] = rough_scale(information)
    gradient = negative_value_and_gradient(objective, x)[1]
    gradient_norm = float(np.max(np.abs(gradient * new_scale)[free]))
    status = FitStatus.BOUNDARY if pinned else FitStatus.CONVERGED
    if covariance is None and not pinned:
        warnings.append(
            "[W_FIT_INFORMATION] the observed information is not positive definite: some parameter is not "
            "identified "
            "by these data. No standard errors are given; remove covariate effects or random effects."
        )
        status = FitStatus.NOT_CONVERGED
    if gradient_norm > GRADIENT_LIMIT or move > MOVE_LIMIT:
        warnings.append(
            f"[W_FIT_NOT_CONVERGED] the optimizer stopped with a gradient of {gradient_norm:.3g} SE and a "
            f"last move of "
            f"{move:.3g} SE. Raise max_rounds or n_points."
        )
        status = FitStatus.NOT_CONVERGED
    mc_se = None
    if isinstance(objective, GuidedLikelihood) and covariance is not None:
        mc_se = np.sqrt(np.diagonal(covariance @ objective.score_noise(x) @ covariance))
    return Optimum(x, covariance, new_scale, status, gradient_norm, move, mc_se, warnings, tuple(trace))


def _initial_scale(population: BoundPopulation, draws: PosteriorDraws) -> np.ndarray:
    """Rough standard errors before any information is known: spread of individuals over sqrt(n)."""
    spread = draws.phi.mean(axis=1).std(axis=0) + np.median(draws.phi.std(axis=1), axis=0)
    spread = spread / np.sqrt(population.n_subjects)
    scale = np.empty(population.n_x)
    scale[population.theta_slice] = spread
    for c, p in enumerate(population.covariate_index):
        scale[population.d + c] = spread[p] / population.regressors[:, c].std()
    scale[population.chol_slice] = spread[population.chol_row]
    return scale


def _failed(x: np.ndarray, entry: dict[str, Any]) -> Optimum:
    warning = (
        "[W_FIT_NO_SUPPORT] the objective is not finite: some subject has no support under the population."
    )
    scale = np.ones(len(x))
    return Optimum(x, None, scale, FitStatus.FAILED, np.inf, np.inf, None, [warning], (entry,))
