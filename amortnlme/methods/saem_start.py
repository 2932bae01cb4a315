"""Short deterministic searches that tell SAEM which of several starting points is worth its iterations.

Iterated two-stage estimation (Steimer et al. 1984): conditional modes with their curvature take the place of
the chains. A round costs a few likelihoods per subject, so that several starting points can be tried for the
price of some dozen iterations of SAEM. What matters most is where the individuals end: one in a wrong mode
costs more than all that the population parameters still have to gain. So every trial tries the modes of the
others. The better half of the trials then climb Laplace's approximation (`climb.py`), which crosses ridges on
which any form of EM stalls; the better half of those climb on, until one is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.climb import climb
from amortnlme.methods.ebe import EmpiricalBayes, better_modes, find_ebe
from amortnlme.methods.laplace_likelihood import ExpandableTarget
from amortnlme.methods.other_modes import other_modes
from amortnlme.methods.saem_statistics import (
    Layout,
    Statistics,
    bounded_step,
    complete_scores,
    floored,
    maximize_random,
)
from amortnlme.population.bound_population import BoundPopulation

#: Rounds, and those before which the modes are searched afresh, and searches per subject for a second mode.
N_ROUNDS, SEARCH_AT, N_SEARCHES = 30, (0, 12), 2
#: Starting SDs are stretched by this; variances fall by at most this factor in a round.
STRETCH, ANNEALING = 2.0, 0.9
#: Steps of those that climb, and of the last one.
N_CLIMBED, N_LAST = 15, 30
#: Furthest move of a pooled parameter in one round, on the phi scale.
LONGEST_STEP = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Promise:
    """The starting point SAEM should go on from.

    Attributes
    ----------
    x : ndarray, shape (n_x,)
    place : ndarray, shape (n_subjects, d)
        Conditional modes on the phi scale.
    value : float
        -2 log-likelihood by Laplace's approximation.
    """

    x: np.ndarray
    place: np.ndarray
    value: float


def most_promising(
    target: ExpandableTarget, population: BoundPopulation, starts: np.ndarray, rng: np.random.Generator
) -> Promise:
    """Try several starting points, at least two, and return the end of the best trial.

    Parameters
    ----------
    target : ExpandableTarget
    population : BoundPopulation
    starts : ndarray, shape (n_starts, n_x)
    rng : numpy.random.Generator

    Returns
    -------
    Promise
    """
    trials = [_two_stage(target, population, start, rng) for start in starts]
    values = [_minus_two_log_likelihood(modes) for _, modes in trials]
    while len(trials) > 1:
        order = np.argsort(values, kind="stable")[: (len(trials) + 1) // 2]
        kept = [_exchanged(target, population, trials[k], trials) for k in order]
        n_steps = N_CLIMBED if len(kept) > 1 else N_LAST
        ends = [climb(target, population, x, modes.phi, n_steps, rng) for x, modes in kept]
        trials = [(end.x, end.modes) for end in ends]
        values = [-2.0 * end.log_likelihood for end in ends]
    x, modes = trials[0]
    return Promise(x, modes.phi, values[0])


def _exchanged(
    target: ExpandableTarget,
    population: BoundPopulation,
    trial: tuple[np.ndarray, EmpiricalBayes],
    trials: list[tuple[np.ndarray, EmpiricalBayes]],
) -> tuple[np.ndarray, EmpiricalBayes]:
    """Give a trial the modes of the others where those are better."""
    x, best = trial
    mu, factor = population.unpack(x)
    for _, other in trials:
        if other is not trial[1]:
            best = better_modes(best, _modes_from(target, mu, factor, other.phi))
    return x, best


def _two_stage(
    target: ExpandableTarget, population: BoundPopulation, start: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, EmpiricalBayes]:
    layout, index, places = Layout.of(population), population.random_index, population.layout
    first = (places.row_effect[places.first_place], places.chol_column[places.first_place])
    fixed = start[: population.chol_slice.start].copy()
    omega = np.diag((STRETCH * np.abs(start[population.chol_diagonal])) ** 2 + 1e-6)
    modes = None
    for number in range(N_ROUNDS):
        root = np.linalg.cholesky(omega)
        mu, factor = population.unpack(np.concatenate([fixed, root[first]]))
        modes = _round_modes(target, mu, factor, modes, number in SEARCH_AT, rng)
        scores = complete_scores(target, modes.phi[:, None], modes.u[:, None], layout)
        random = modes.phi[:, index]
        spread = root @ np.linalg.inv(modes.precision) @ root.T
        second = spread + random[:, :, None] * random[:, None, :]
        statistics = Statistics(random, second, scores.pooled_information, scores.factor_information)
        fixed[layout.random_columns], new = maximize_random(statistics, layout, omega)
        omega = floored(new, omega, ANNEALING)
        fixed[layout.pooled_columns] += bounded_step(
            scores.pooled, statistics.information, 1.0, LONGEST_STEP
        )
    x = np.concatenate([fixed, np.linalg.cholesky(omega)[first]])
    assert modes is not None
    mu, factor = population.unpack(x)
    return x, _modes_from(target, mu, factor, modes.phi)


def _round_modes(
    target: ExpandableTarget,
    mu: np.ndarray,
    factor: np.ndarray,
    last: EmpiricalBayes | None,
    search: bool,
    rng: np.random.Generator,
) -> EmpiricalBayes:
    """Modes near the last ones; also the best ones of a search from the typical subject and far around."""
    near = None if last is None else _modes_from(target, mu, factor, last.phi, 2)
    if near is not None and not search:
        return near
    modes = find_ebe(target, mu, factor, max_iterations=15, tolerance=1e-2)
    modes = modes if near is None else better_modes(modes, near)
    return better_modes(modes, other_modes(target, mu, factor, modes, N_SEARCHES, rng)[0])


def _modes_from(
    target: ExpandableTarget, mu: np.ndarray, factor: np.ndarray, phi: np.ndarray, max_iterations: int = 10
) -> EmpiricalBayes:
    start = np.linalg.lstsq(factor, (phi - mu).T, rcond=None)[0].T
    return find_ebe(target, mu, factor, start=start, max_iterations=max_iterations, tolerance=1e-2)


def _minus_two_log_likelihood(modes: EmpiricalBayes) -> float:
    value = float((np.linalg.slogdet(modes.precision)[1] - 2.0 * modes.log_joint).sum())
    return value if np.isfinite(value) else np.inf
