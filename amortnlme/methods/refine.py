"""Maximum of a population objective: the surrogate from several starts, and the judgment of any optimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from amortnlme.core.status import FitStatus
from amortnlme.methods.identifiability import information_warning
from amortnlme.methods.information import SINGULAR, invert_information, weak_entries, whitening
from amortnlme.methods.local_search import (
    PopulationObjective,
    boundary_warning,
    information_at,
    minimize_whitened,
    negative_value_and_gradient,
    rough_scale,
    vanishing_effects,
    vanishing_errors,
    wald_covariance,
)
from amortnlme.methods.surrogate import SurrogateLikelihood, gaussian_prior_moments
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.posterior_draws import PosteriorDraws
from amortnlme.population.starts import natural_reach, search_box, start_points

#: A gradient of this many standard errors at the solution still counts as an optimum.
GRADIENT_LIMIT = 0.02
#: A placement that still moves the optimum by this many standard errors after all rounds is not converged.
MOVE_LIMIT = 0.1


@runtime_checkable
class Sampled(Protocol):
    """An objective made of random numbers, which knows their error."""

    def noise_moments(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Monte-Carlo covariance (n_x, n_x) and bias (n_x,) of the total score at x."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Optimum:
    """Maximum of a population objective with its local geometry.

    Attributes
    ----------
    x : ndarray, shape (n_x,)
    value : float
        -sum_i log L_i there.
    is_interior : bool
        No typical value at its limit and an information matrix that identifies every free entry.
    covariance : ndarray or None, shape (n_x, n_x)
    scale : ndarray, shape (n_x,)
        Standard errors, or rough ones where those do not exist.
    status : FitStatus
    gradient_norm : float
        Largest gradient entry times its standard error.
    last_move : float
        Of the last placement of the nodes, in standard errors.
    mc_se, mc_bias : ndarray or None, shape (n_x,)
        Monte-Carlo standard error and bias of x, where the objective is sampled.
    warnings : list of str
    trace : tuple of mappings
    """

    x: np.ndarray
    value: float
    is_interior: bool
    covariance: np.ndarray | None
    scale: np.ndarray
    status: FitStatus
    gradient_norm: float
    last_move: float
    mc_se: np.ndarray | None
    mc_bias: np.ndarray | None
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
    prior_mean, prior_covariance = gaussian_prior_moments(draws.prior)
    lower, upper = search_box(population, draws, prior_mean, np.sqrt(np.diagonal(prior_covariance)))
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
        return failed(x, [trace])
    scale = natural_reach(population, draws) / np.sqrt(population.n_subjects)
    return finish(
        objective, population, x, scale, 0.0, [trace], at_limit=_at_limit(population, x, lower, upper)
    )


def _at_limit(population: BoundPopulation, x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> list[int]:
    theta = population.theta_slice
    margin = 1e-6 * (upper[theta] - lower[theta])
    outside = (x[theta] <= lower[theta] + margin) | (x[theta] >= upper[theta] - margin)
    return [int(k) for k in np.flatnonzero(outside)]


def finish(
    objective: PopulationObjective,
    population: BoundPopulation,
    x: np.ndarray,
    scale: np.ndarray,
    move: float,
    trace: list[dict[str, Any]],
    *,
    at_limit: list[int],
    coarse: PopulationObjective | None = None,
    information: np.ndarray | None = None,
) -> Optimum:
    """Look for variances and residual errors at zero, compute the information and judge the optimum.

    Parameters
    ----------
    objective : PopulationObjective
    population : BoundPopulation
    x : ndarray, shape (n_x,)
        A minimum over all entries that are not at a limit.
    scale : ndarray, shape (n_x,)
        Rough standard errors.
    move : float
        Last move of the optimum, in standard errors.
    trace : list of dict
        Stages so far; a stage for vanishing variances may be added.
    at_limit : list of int
        Typical values that were stopped at the limit of the prior.
    coarse : PopulationObjective, optional
        A cheaper form of the objective for second derivatives, where a percent does not matter.
    information : ndarray, optional
        Observed information of the entries that are not at a limit, where it is known already.

    Returns
    -------
    Optimum
    """
    coarse = objective if coarse is None else coarse
    warnings = [_limit_warning(population, x, k) for k in at_limit]
    inside = np.setdiff1d(np.arange(population.n_x), at_limit)
    free, information = _without_errors(coarse, population, x, scale, inside, information)
    gone = [int(k) for k in np.setdiff1d(inside, free)]
    pinned = vanishing_effects(coarse, population, x, _curvature(information, free, population.n_x))
    if pinned:
        x = x.copy()
        x[pinned] = 0.0
        keep = ~np.isin(free, pinned)
        free = free[keep]
        transform = whitening(information[np.ix_(keep, keep)])
        found = minimize_whitened(objective, x, transform, free)
        x = population.fold_signs(found.x)
        information = information_at(coarse, x, scale, free)
        trace.append({"stage": "boundary", "x": x.tolist(), "objective": 2.0 * found.value})
    warnings += boundary_warning(population, pinned, gone)
    covariance = wald_covariance(information, free, population.n_x)
    new_scale = scale.copy()
    new_scale[free] = rough_scale(information)
    value, gradient = negative_value_and_gradient(objective, x)
    gradient_norm = float(np.max(np.abs(gradient * new_scale)[free]))
    on_boundary = bool(pinned or gone or at_limit)
    weak = [population.names[free[k]] for k in weak_entries(information, SINGULAR)]
    status, complaints = _judge(on_boundary, covariance is not None, weak, gradient_norm, move)
    mc_se = mc_bias = None
    if isinstance(objective, Sampled) and covariance is not None:
        noise, bias = objective.noise_moments(x)
        mc_se, mc_bias = np.sqrt(np.diagonal(covariance @ noise @ covariance)), covariance @ bias
    return Optimum(
        x=x,
        value=value,
        is_interior=not at_limit and invert_information(information) is not None,
        covariance=covariance,
        scale=new_scale,
        status=status,
        gradient_norm=gradient_norm,
        last_move=move,
        mc_se=mc_se,
        mc_bias=mc_bias,
        warnings=warnings + complaints,
        trace=tuple(trace),
    )


def _without_errors(
    objective: PopulationObjective,
    population: BoundPopulation,
    x: np.ndarray,
    scale: np.ndarray,
    inside: np.ndarray,
    information: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Entries that are neither at a limit nor vanishing residual errors, and their information."""
    curvature = _curvature(information, inside, population.n_x)
    free = np.setdiff1d(inside, vanishing_errors(objective, population, x, curvature))
    if information is None:
        return free, information_at(objective, x, scale, free)
    known = np.isin(inside, free)
    return free, information[np.ix_(known, known)]


def _curvature(information: np.ndarray | None, free: np.ndarray, n_x: int) -> np.ndarray:
    curvature = np.zeros(n_x)
    if information is not None:
        curvature[free] = np.diagonal(information)
    return curvature


def _judge(
    on_boundary: bool, has_covariance: bool, weak: list[str], gradient_norm: float, move: float
) -> tuple[FitStatus, list[str]]:
    warnings: list[str] = []
    status = FitStatus.BOUNDARY if on_boundary else FitStatus.CONVERGED
    if not has_covariance and not on_boundary:
        warnings.append(information_warning(weak))
        status = FitStatus.NOT_CONVERGED
    if gradient_norm > GRADIENT_LIMIT or move > MOVE_LIMIT:
        warnings.append(
            f"[W_FIT_NOT_CONVERGED] the optimizer stopped with a gradient of {gradient_norm:.3g} SE and a "
            f"last "
            f"move of {move:.3g} SE. Raise max_rounds or n_points."
        )
        status = FitStatus.NOT_CONVERGED
    return status, warnings


def _limit_warning(population: BoundPopulation, x: np.ndarray, k: int) -> str:
    column = population.theta_index[k]
    value = float(population.parameters.to_psi(population.typical_phi(x))[column])
    name = population.parameters.names[column]
    return (
        f"[W_FIT_AT_LIMIT] the typical value of {name} was stopped at {value:.3g}, as far from the prior as "
        f"the "
        f"estimator can be trusted: the data ask for an extreme value (a residual SD near zero, say) or "
        f"hardly "
        f"inform it. No standard errors are given; simplify the model or train under another prior."
    )


def failed(x: np.ndarray, trace: list[dict[str, Any]], warnings: list[str] | None = None) -> Optimum:
    """Wrap a point at which the objective is not finite.

    Parameters
    ----------
    x : ndarray, shape (n_x,)
    trace : list of dict
    warnings : list of str, optional
        Instead of the general one, where the caller knows more.

    Returns
    -------
    Optimum
        With status `failed`.
    """
    if warnings is None:
        warnings = [
            "[W_FIT_NO_SUPPORT] the objective is not finite: some subject has no support under the "
            "population."
        ]
    scale = np.ones(len(x))
    return Optimum(
        x, np.inf, False, None, scale, FitStatus.FAILED, np.inf, np.inf, None, None, warnings, tuple(trace)
    )
