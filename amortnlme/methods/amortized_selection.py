"""Selection on posterior draws: every covariate model from one set of draws, without simulator or network.

The draws divided by the prior give each subject's likelihood in closed form (`surrogate.py`), and with it the
marginal likelihood of any population model. Expanded to second order in the typical values and all candidate
coefficients, at its current omega, it is one regression with weights inv(omega + V_i), so that the best
relations are one best subset (`best_subset.py`). Then omega is fitted anew. Unlike a selection inside EM,
whose individuals have already been pulled towards the current model, the marginal likelihood has no memory of
what was in; two starts (no relation, all of them) and exchanges of single relations guard against the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream
from amortnlme.methods.best_subset import cheapest_subset, columns_of
from amortnlme.methods.information import whitening
from amortnlme.methods.local_search import minimize_whitened
from amortnlme.methods.selection import (
    AbstractSelection,
    SearchResult,
    SelectionProblem,
    SelectionStep,
    needed_draws,
)
from amortnlme.methods.surrogate import Surrogate, SurrogateLikelihood, build_surrogate
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.posterior_draws import PosteriorDraws
from amortnlme.population.starts import moment_start

MIXTURE_STREAM = 0
MIN_MIXTURE_DRAWS = 500
MOST_ROUNDS = 30
#: A surrogate fit goes on from where it stopped until it gains less than this in -2 log-likelihood.
SETTLED, MOST_RESTARTS = 1e-3, 8
#: Furthest move in one of these, in standard errors.
REACH = 8.0


@dataclass(frozen=True, slots=True)
class AmortizedSelection(AbstractSelection):
    """Search on the surrogate likelihood of posterior draws.

    Attributes
    ----------
    n_components : int or None
        Mixture components per subject; None: two from 500 draws on, else one.
    most_exchanges : int
        At most so many single additions, removals and exchanges are tried in a row at the end.

    Raises
    ------
    UsageError
        E_SELECT_OPTION.
    """

    n_components: int | None = None
    most_exchanges: int = 40

    name: ClassVar[str] = "amortized"
    needs_draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        for name, value, low, high in (
            ("n_components", 1 if self.n_components is None else self.n_components, 1, 10),
            ("most_exchanges", self.most_exchanges, 0, 10_000),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(
                    "E_SELECT_OPTION", f"{name} must be a whole number from {low} to {high}; {value!r} given."
                )

    def search(self, problem: SelectionProblem) -> SearchResult:
        """Search; see `AbstractSelection.search`."""
        from threadpoolctl import threadpool_limits

        draws = needed_draws(problem, self)
        n_components = self.n_components or (2 if draws.n_draws >= MIN_MIXTURE_DRAWS else 1)
        with threadpool_limits(limits=1, user_api="blas"):
            surrogate = build_surrogate(draws, n_components, stream(problem.seed, MIXTURE_STREAM))
            return _Search(problem, surrogate, draws).run(self.most_exchanges)


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """Maximum of the surrogate likelihood of one model."""

    chosen: np.ndarray
    population: BoundPopulation
    x: np.ndarray
    bicc: float  # but for a constant that all models share


class _Search:
    """One search; models are remembered."""

    def __init__(self, problem: SelectionProblem, surrogate: Surrogate, draws: PosteriorDraws) -> None:
        self.problem, self.surrogate, self.draws = problem, surrogate, draws
        self.bound, self.table = problem.bound, problem.dataset.covariate_table()
        self.space = problem.model.parameters
        base = problem.base.bind(self.table, self.space)
        #: Column of phi of every typical value, then of every candidate coefficient.
        self.theta = base.theta_index
        self.column = base.random_index[np.repeat(self.bound.owner, self.bound.width)]
        self.names = [e.name for relation in self.bound.relations for e in relation.effects]
        self.memory: dict[bytes, _Fitted] = {}
        self.steps: list[SelectionStep] = []

    def run(self, most_exchanges: int) -> SearchResult:
        forced = self.bound.forced
        starts = [forced.copy()]
        is_wide = self.bound.regressors.shape[1] >= self.problem.dataset.n_subjects // 2
        if not is_wide and not self.bound.is_dependent(self.bound.names):
            starts.append(np.ones_like(forced))
        ends = [self._fixed_point(start) for start in starts]
        best = min(ends, key=lambda end: end.bicc)
        best = self._exchanged(best, most_exchanges)
        return SearchResult(
            chosen=self._free_names(best.chosen),
            steps=tuple(self.steps),
            runs=1,
            criterion_kind="BICc of the surrogate, up to a constant",
        )

    def _free_names(self, chosen: np.ndarray) -> tuple[str, ...]:
        mask = chosen & ~self.bound.forced
        return tuple(name for name, inside in zip(self.bound.names, mask, strict=True) if inside)

    def _fixed_point(self, chosen: np.ndarray) -> _Fitted:
        """Best subset at the current omega, omega anew, until a model comes back."""
        best = fitted = self._fit(chosen, None)
        for _ in range(MOST_ROUNDS):
            new = self._best_subset(fitted)
            known = np.packbits(new).tobytes() in self.memory
            fitted = self._fit(new, fitted)
            if fitted.bicc < best.bicc:
                best = fitted
            elif known:
                break
        return best

    def _exchanged(self, best: _Fitted, most: int) -> _Fitted:
        """Try single changes, cheapest first guess first, as long as one improves."""
        tried = 0
        while tried < most:
            center, better = best, False
            free = np.flatnonzero(~self.bound.forced)
            inside, outside = free[center.chosen[free]], free[~center.chosen[free]]
            changes = [(a,) for a in free] + [(a, b) for a in inside for b in outside]
            for change in changes[: most - tried]:
                new = center.chosen.copy()
                new[list(change)] = ~new[list(change)]
                known = np.packbits(new).tobytes() in self.memory
                if known or self.bound.is_dependent(self._free_names(new)):
                    continue
                tried += 1
                fitted = self._fit(new, center)
                if fitted.bicc < best.bicc - SETTLED:
                    best, better = fitted, True
            if not better:
                break
        return best

    def _fit(self, chosen: np.ndarray, near: _Fitted | None) -> _Fitted:
        key = np.packbits(chosen).tobytes()
        if key in self.memory:
            return self.memory[key]
        names = {n for n, inside in zip(self.bound.names, chosen, strict=True) if inside}
        candidates = self.problem.candidates
        model = candidates.population(self.problem.base, names & set(candidates.names))
        population = model.bind(self.table, self.space)
        objective = SurrogateLikelihood(self.surrogate, population)
        x = moment_start(population, self.draws)
        if near is not None:
            known = dict(zip(near.population.names, near.x, strict=True))
            x = np.array([known.get(name, 0.0) for name in population.names])
        x = _maximized(objective, x)
        value = -2.0 * float(objective.value_and_scores(x)[0].sum())
        bicc = value + self.problem.penalty * float(self.bound.width[chosen].sum())
        fitted = _Fitted(chosen, population, population.fold_signs(x), bicc)
        self.memory[key] = fitted
        chosen_names = self._free_names(chosen)
        self.steps.append(SelectionStep(chosen_names, bicc, ", ".join(chosen_names) or "no covariates"))
        return fitted

    def _best_subset(self, fitted: _Fitted) -> np.ndarray:
        """Expand around a fit and choose among all relations at its omega."""
        mu, factor = fitted.population.unpack(fitted.x)
        gradient, curvature = self.surrogate.information(mu, factor)
        n, regressors = len(mu), self.bound.regressors
        p_theta, p = len(self.theta), regressors.shape[1]
        owner = np.concatenate([self.theta, self.column])
        size = np.concatenate([np.ones((n, p_theta)), regressors], axis=1)
        known = dict(zip(fitted.population.names, fitted.x, strict=True))
        v = np.array([known.get(name, 0.0) for name in self.names])
        v = np.concatenate([fitted.x[fitted.population.theta_slice], v])
        weight = curvature[:, owner[:, None], owner]
        gram = np.einsum("na,nab,nb->ab", size, weight, size, optimize=True)
        cross = gram @ v + (size * gradient[:, owner]).sum(axis=0)
        always = np.concatenate(
            [np.arange(p_theta), p_theta + columns_of(np.flatnonzero(self.bound.forced), self.bound.first)]
        )
        free = np.flatnonzero(~self.bound.forced)
        rest = p_theta + columns_of(free, self.bound.first)
        total = np.empty((p_theta + p + 1,) * 2)
        total[:-1, :-1], total[-1, :-1], total[:-1, -1] = gram, cross, cross
        total[-1, -1] = cross @ np.linalg.lstsq(gram, cross, rcond=1e-10)[0]
        keep = np.append(rest, len(total) - 1)
        solved = np.linalg.lstsq(total[np.ix_(always, always)], total[np.ix_(always, keep)], rcond=1e-12)[0]
        products = total[np.ix_(keep, keep)] - total[np.ix_(keep, always)] @ solved
        first = np.concatenate([[0], np.cumsum(self.bound.width[free])])
        subset = cheapest_subset(products, first, self.problem.penalty)
        chosen = self.bound.forced.copy()
        chosen[free[subset.members]] = True
        return chosen


def _maximized(objective: SurrogateLikelihood, x: np.ndarray) -> np.ndarray:
    """Maximize the surrogate likelihood from a point, in directions the scores set."""
    free = np.arange(len(x))
    # A variance at zero has no gradient: lift it, the likelihood takes it back if it must.
    diagonal = objective.population.chol_diagonal
    x[diagonal] = np.maximum(np.abs(x[diagonal]), 0.05)
    last = np.inf
    for _ in range(MOST_RESTARTS):
        scores = objective.value_and_scores(x)[1]
        information = scores.T @ scores + 1e-3 * np.eye(len(x))
        found = minimize_whitened(objective, x, whitening(information), free, 40, REACH)
        x = found.x
        if last - found.value < 0.5 * SETTLED:
            break
        last = found.value
    return x
