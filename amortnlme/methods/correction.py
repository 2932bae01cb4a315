"""Maximization of the importance-sampled likelihood: guide the nodes, minimize, guide them anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from amortnlme.core.status import FitStatus
from amortnlme.methods.ebe import IndividualTarget
from amortnlme.methods.guided_likelihood import GuidedLikelihood, guide_closely
from amortnlme.methods.guides import Guide, place_guide
from amortnlme.methods.information import invert_information, whitening
from amortnlme.methods.local_search import (
    information_at,
    minimize_whitened,
    negative_value_and_gradient,
    rough_scale,
)
from amortnlme.methods.other_modes import starts_at_modes
from amortnlme.methods.proposals import BaseNumbers, base_numbers
from amortnlme.methods.refine import Optimum, failed, finish
from amortnlme.methods.surrogate import gaussian_prior_moments
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.posterior_draws import PosteriorDraws
from amortnlme.population.starts import factor_floor, moment_start, natural_reach, theta_limits

# : Rounds that start this far from the optimum (in standard errors), and second derivatives, use a quarter of
# the nodes.
COARSE_MOVE, COARSE_RATIO, MIN_COARSE = 1.0, 4, 32
#: Searches per subject for a second mode. From exchanged parameters there is always one more.
N_SEARCHES = 4
#: With this many subjects the scores tell the information well enough for Newton's method.
MANY_SUBJECTS = 1000
#: Its settings: least number of nodes; longest last move (in standard errors) after which few nodes will do;
#: accuracy of the modes that guide nodes (in conditional SDs); last move; longest step as a share of what
#: the scores call sqrt(n_subjects) standard errors, the spread of the population.
FEWEST_NODES, FEW_NODES_MOVE, ROUGH_MODES, SCORE_TOLERANCE, LONGEST_STEP = 8, 5.0, 1e-2, 0.02, 0.3
#: Second derivatives computed within this distance of the optimum are those at the optimum, to a percent.
SAME_PLACE = 0.05


def correct_surrogate(
    *,
    target: IndividualTarget,
    population: BoundPopulation,
    draws: PosteriorDraws,
    rough: Optimum,
    start_u: np.ndarray,
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
    start_u : ndarray, shape (n_subjects, r)
        Where the modes of the random effects are first searched from: draws know of modes that a search from
        the typical subject would miss.
    rng : numpy.random.Generator
        All rounds share the base numbers drawn first, so that they can settle.
    n_points, max_rounds, tolerance
        As in `Amortized`.

    Returns
    -------
    Optimum
        Where the first search ends on a plateau (a residual SD that went to zero, say), the better one of it
        and a second search that starts the pooled parameters from the prior mean.
    """
    base = base_numbers(population.n_subjects, n_points, population.r, rng, defensive=False)
    setting = _Setting(
        target,
        population,
        base,
        *_limits(population, draws),
        natural_reach(population, draws) ** -2.0,
        start_u,
        rng,
    )
    floor = factor_floor(population, draws)
    start = _lifted(population, rough.x, floor)
    if population.n_subjects >= MANY_SUBJECTS:
        quick = _score_search(setting, start, max_rounds, tolerance)
        if quick.status is FitStatus.CONVERGED:
            return quick
    first = _search(setting, start, _information(rough), max_rounds, tolerance)
    if first.is_interior:
        return first
    x = moment_start(population, draws)
    pooled = np.flatnonzero(np.isin(population.theta_index, population.pooled_index))
    x[pooled] = gaussian_prior_moments(draws.prior)[0][population.theta_index[pooled]]
    nothing = np.zeros((population.n_x, population.n_x))
    second = _search(setting, _lifted(population, x, floor), nothing, max_rounds, tolerance)
    best, other = (second, first) if second.value < first.value else (first, second)
    return replace(best, trace=(*other.trace, *best.trace))


@dataclass(frozen=True, slots=True, eq=False)
class _Setting:
    """What stays the same over the rounds of a search."""

    target: IndividualTarget
    population: BoundPopulation
    base: BaseNumbers
    lower: np.ndarray  # limits of the typical values, (d,)
    upper: np.ndarray
    ridge: (
        np.ndarray
    )  # weak prior information in every direction, (n_x,): no step goes further than the draws do
    start_u: np.ndarray  # first guess of the modes, (n, r)
    rng: np.random.Generator  # of the searches for second modes

    def modes(self, x: np.ndarray, start_u: np.ndarray) -> np.ndarray:
        """Search for the modes of every subject, second ones included; from (n, r), (n, K, r) modes."""
        n_starts = N_SEARCHES if self.population.n_subjects < MANY_SUBJECTS else 0
        return starts_at_modes(self.target, *self.population.unpack(x), start_u, n_starts, self.rng)

    def guide(
        self,
        x: np.ndarray,
        start_u: np.ndarray,
        mode_tolerance: float = 1e-6,
        min_coarse: int = MIN_COARSE,
    ) -> tuple[GuidedLikelihood, GuidedLikelihood, np.ndarray]:
        """Guide the nodes from x: the likelihood on all nodes and on a few of them, and the modes."""
        guide, modes = place_guide(self.target, *self.population.unpack(x), start_u, mode_tolerance)
        fine = GuidedLikelihood(self.target, self.population, guide, self.base)
        return fine, self._coarse(guide, min_coarse), modes

    def guide_closely(
        self,
        x: np.ndarray,
        start_u: np.ndarray,
        mode_tolerance: float = 1e-6,
        min_coarse: int = MIN_COARSE,
    ) -> tuple[GuidedLikelihood, GuidedLikelihood, np.ndarray]:
        """As `guide`, for an x near the optimum: second modes are searched again, bent laws get mixtures."""
        modes = self.modes(x, start_u[:, 0])
        fine, modes = guide_closely(
            self.target, self.population, x, modes, self.base, self.rng, mode_tolerance
        )
        return fine, self._coarse(fine.guide, min_coarse), modes

    def _coarse(self, guide: Guide, fewest: int) -> GuidedLikelihood:
        n_coarse = max(self.base.n_points // COARSE_RATIO, fewest, 2 * guide.n_components)
        base = self.base.head(min(self.base.n_points, n_coarse))
        return GuidedLikelihood(self.target, self.population, guide, base)

    def outside(self, x: np.ndarray) -> np.ndarray:
        """Positions of typical values beyond their limits."""
        theta = x[self.population.theta_slice]
        return np.flatnonzero((theta < self.lower) | (theta > self.upper))


def _limits(population: BoundPopulation, draws: PosteriorDraws) -> tuple[np.ndarray, np.ndarray]:
    mean, covariance = gaussian_prior_moments(draws.prior)
    return theta_limits(population, mean, np.sqrt(np.diagonal(covariance)))


def _lifted(population: BoundPopulation, x: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Lift variances off zero, where the gradient vanishes; the likelihood takes them back if it must."""
    x = x.copy()
    x[population.chol_diagonal] = np.maximum(x[population.chol_diagonal], floor)
    return x


def _search(
    setting: _Setting, x: np.ndarray, information: np.ndarray, max_rounds: int, tolerance: float
) -> Optimum:
    population = setting.population
    free, at_limit = np.arange(population.n_x), list[int]()
    transform = whitening(information + np.diag(setting.ridge))
    scale = np.sqrt((transform**2).sum(axis=1))
    trace: list[dict[str, Any]] = []
    modes, move, expanded_at = setting.modes(x, setting.start_u), np.inf, None
    fine, coarse, modes = setting.guide(x, modes)
    is_near = False
    for number in range(max_rounds):
        is_coarse = move > COARSE_MOVE
        if not is_coarse and not is_near:
            fine, coarse, modes = setting.guide_closely(x, modes)
        elif number > 0 and not (is_near and fine.guide.is_refined):
            fine, coarse, modes = setting.guide(x, modes)
        is_near = not is_coarse
        objective = coarse if is_coarse else fine
        entry: dict[str, Any] = {"stage": f"correction {number + 1}", "x": x.tolist(), "objective": None}
        trace.append(entry)
        before = negative_value_and_gradient(objective, x)[0]
        if not np.isfinite(before):
            return failed(x, trace)
        found = minimize_whitened(objective, x, transform, free)
        new = population.fold_signs(found.x)
        move, x = _length(new - x, scale, before - found.value), new
        entry |= {"x": x.tolist(), "objective": 2.0 * found.value}
        entry |= {"n_evaluations": found.n_evaluations, "move_in_se": move}
        outside = setting.outside(x)
        if len(outside):
            x[outside] = np.clip(x[outside], setting.lower[outside], setting.upper[outside])
            at_limit += [int(k) for k in outside]
            free = np.setdiff1d(free, outside)
        if is_coarse or len(outside) or move > COARSE_MOVE:
            information, expanded_at = information_at(coarse, x, scale, free), x
            transform = whitening(information + np.diag(setting.ridge[free]))
            scale[free] = np.sqrt((transform**2).sum(axis=1))
        elif move < tolerance:
            break
    if not fine.guide.is_refined:
        fine, coarse, _ = setting.guide(x, modes)
    is_current = expanded_at is not None and np.max(np.abs(x - expanded_at) / scale) < SAME_PLACE
    if not is_current:
        information = information_at(coarse, x, scale, free)
    if invert_information(information) is None:
        # The curvature of a few heavy weights can outweigh that of all others; more nodes tame them.
        information = information_at(fine, x, scale, free)
    return finish(
        fine, population, x, scale, move, trace, at_limit=at_limit, coarse=coarse, information=information
    )


def _score_search(setting: _Setting, x: np.ndarray, max_rounds: int, tolerance: float) -> Optimum:
    """Newton's method with the information of the scores: one evaluation a round, for many subjects.

    sum_i s_i s_i' then is the information to within some percent, and a round shrinks the distance to the
    optimum by that factor. Rounds far away use few nodes, as in `_search`.
    """
    population = setting.population
    free, at_limit = np.arange(population.n_x), list[int]()
    trace: list[dict[str, Any]] = []
    modes, move, step = setting.modes(x, setting.start_u), np.inf, np.zeros(population.n_x)
    information = np.diag(setting.ridge)
    fine, coarse, modes = setting.guide(x, modes, ROUGH_MODES, FEWEST_NODES)
    is_near = False
    for number in range(max_rounds):
        is_coarse = move > FEW_NODES_MOVE
        if not is_coarse and not is_near:
            fine, coarse, modes = setting.guide_closely(x, modes, ROUGH_MODES, FEWEST_NODES)
        elif number > 0 and not (is_near and fine.guide.is_refined):
            fine, coarse, modes = setting.guide(x, modes, ROUGH_MODES, FEWEST_NODES)
        is_near = not is_coarse
        value, scores = (coarse if is_coarse else fine).value_and_scores(x)
        entry = {"stage": f"correction {number + 1}", "x": x.tolist(), "objective": -2.0 * float(value.sum())}
        trace.append(entry)
        if not np.isfinite(value).all():
            if not step.any():
                return failed(x, trace)
            step = 0.5 * step
            x = x - step
            continue
        outside = setting.outside(x)
        at_limit += [int(k) for k in outside]
        free = np.setdiff1d(free, outside)
        information = scores[:, free].T @ scores[:, free]
        step = np.zeros(population.n_x)
        step[free] = np.linalg.solve(information + np.diag(setting.ridge[free]), scores[:, free].sum(axis=0))
        move = float(np.sqrt(step[free] @ information @ step[free]))
        entry |= {"n_evaluations": 1, "move_in_se": move}
        if not is_coarse and move < max(tolerance, SCORE_TOLERANCE):
            break
        step *= min(1.0, LONGEST_STEP * np.sqrt(population.n_subjects) / move)
        x = population.fold_signs(x + step)
        outside = setting.outside(x)
        x[outside] = np.clip(x[outside], setting.lower[outside], setting.upper[outside])
    scale = setting.ridge**-0.5
    scale[free] = rough_scale(information)
    return finish(
        fine, population, x, scale, move, trace, at_limit=at_limit, coarse=coarse, information=information
    )


def _length(step: np.ndarray, scale: np.ndarray, gain: float) -> float:
    """Length of a step in standard errors.

    Near an optimum the gain in log-likelihood is half the squared Mahalanobis length of the step, which no
    entry exceeds. It also holds where a variance goes to zero and the standard error of its entry means
    nothing, nor does the plain ratio.
    """
    return min(float(np.max(np.abs(step) / scale)), float(np.sqrt(2.0 * max(gain, 0.0))))


def _information(rough: Optimum) -> np.ndarray:
    """Information of the surrogate, as far as it has any."""
    if rough.covariance is not None:
        return np.linalg.inv(rough.covariance)
    return np.diag(1.0 / rough.scale**2)
