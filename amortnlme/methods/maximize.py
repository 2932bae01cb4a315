"""Maximization of a population log-likelihood given by per-subject values and scores."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from amortnlme.methods.information import whitening
from amortnlme.methods.local_search import REACH as LOCAL_REACH
from amortnlme.methods.local_search import (
    PopulationObjective,
    information_at,
    minimize_whitened,
    negative_value_and_gradient,
)
from amortnlme.methods.refine import Optimum, failed, finish
from amortnlme.population.bound_population import BoundPopulation

MAX_ROUNDS = 40
#: The optimum has settled when a round in fresh coordinates moves it by less than this many standard errors.
SETTLED = 1e-3
#: Furthest move per direction and round, in standard errors: far from the optimum the scores are large and
#: these standard errors much too small.
REACH = 30.0
#: A round that ends at its reach lets the next one go further by this factor: scores that contradict the
#: model (a residual SD that starts much too small) overstate the information without limit.
WIDEN = 4.0
#: Furthest move per direction and round of typical values, coefficients and SDs of parameters on a
#: logarithmic or logistic scale. A residual SD that one overlong step made vanish is not seen by the data any
#: more, and would never come back.
LONGEST_MOVE = 2.0
#: Moves longer than this (in standard errors) are followed by new coordinates from the scores.
FAR = 0.3
#: After so many rounds the scores have had their chance: the curvature follows, however far the optimum is.
PATIENCE = 2


@runtime_checkable
class Recentering(Protocol):
    """An objective that holds around a center, and is renewed between the rounds of a search."""

    def recenter(self, x: np.ndarray) -> None:
        """Move the center to x."""
        ...


def maximize(
    objective: PopulationObjective, population: BoundPopulation, start: np.ndarray, tolerance: float = SETTLED
) -> Optimum:
    """Maximize from one starting point.

    Each round minimizes in coordinates in which the information is nearly the identity: far away that of the
    scores, sum_i s_i s_i' (Berndt, Hall, Hall & Hausman 1974), near the optimum the observed information from
    differences of the gradient.

    Parameters
    ----------
    objective : PopulationObjective
    population : BoundPopulation
    start : ndarray, shape (n_x,)
    tolerance : float
        On the last move, in standard errors.

    Returns
    -------
    Optimum
    """
    x = population.fold_signs(start)
    free = np.arange(population.n_x)
    trace: list[dict[str, Any]] = []
    move, is_observed, information = np.inf, False, None
    value, scores = objective.value_and_scores(x)
    if not np.isfinite(value).all():
        # The caller, who knows the model, says which subject and why.
        return failed(x, [{"stage": "start", "x": x.tolist(), "objective": None}], [])
    scale = _score_scale(scores)
    transform = whitening(_score_information(scores))
    reach = REACH
    for number in range(MAX_ROUNDS):
        if isinstance(objective, Recentering):
            objective.recenter(x)
        before = negative_value_and_gradient(objective, x)[0]
        if isinstance(objective, Recentering):
            reach = LOCAL_REACH
        limit = _direction_limits(population, transform, reach)
        found = minimize_whitened(objective, x, transform, free, reach=limit)
        new = population.fold_signs(found.x)
        gain = max(before - found.value, 0.0)
        is_stopped = (np.abs(np.linalg.solve(transform, found.x - x)) > 0.99 * limit).any()
        reach = WIDEN * reach if is_stopped else REACH
        move = min(float(np.max(np.abs(new - x) / scale)), float(np.sqrt(2.0 * gain)))
        x = new
        trace.append(
            {
                "stage": f"round {number + 1}",
                "x": x.tolist(),
                "objective": 2.0 * found.value,
                "n_evaluations": found.n_evaluations,
                "move_in_se": move,
            }
        )
        if move < tolerance and is_observed:
            # Computed a move below the tolerance ago.
            return finish(objective, population, x, scale, move, trace, at_limit=[], information=information)
        if move < FAR or number + 1 >= PATIENCE:
            information = information_at(objective, x, scale, free)
            is_observed = move < FAR
        else:
            information = _score_information(objective.value_and_scores(x)[1])
            is_observed = False
        transform = whitening(information)
        scale = _sensible(population, np.sqrt((transform**2).sum(axis=1)))
    return finish(objective, population, x, scale, move, trace, at_limit=[])


def _is_bounded(population: BoundPopulation) -> np.ndarray:
    """Entries of x that move a parameter on a logarithmic or logistic scale, shape (n_x,)."""
    places, space = population.layout, population.parameters
    owner = np.concatenate([population.owner, places.chol_row[places.first_place]])
    return np.array([space.parameters[k].transform != "identity" for k in owner], dtype=bool)


def _sensible(population: BoundPopulation, scale: np.ndarray) -> np.ndarray:
    """Cut standard errors to the longest move: an SD next to zero has no score, and infinite ones."""
    return np.where(_is_bounded(population), np.minimum(scale, LONGEST_MOVE), scale)


def _direction_limits(population: BoundPopulation, transform: np.ndarray, reach: float) -> np.ndarray:
    """Furthest move along every direction of z, in standard errors."""
    steps = np.abs(transform[_is_bounded(population)])
    if not len(steps):
        return np.full(len(transform), reach)
    return np.minimum(reach, LONGEST_MOVE / np.maximum(steps.max(axis=0), 1e-300))


def _score_information(scores: np.ndarray) -> np.ndarray:
    """Information from the scores, with enough of its diagonal to be invertible for few subjects."""
    information = scores.T @ scores
    return information + np.diag(0.05 * np.diagonal(information) + 1e-8)


def _score_scale(scores: np.ndarray) -> np.ndarray:
    return np.sqrt((whitening(_score_information(scores)) ** 2).sum(axis=1))
