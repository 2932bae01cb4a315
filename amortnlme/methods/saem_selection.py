"""Selection as M-step of SAEM: the model changes from iteration to iteration, one run decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream
from amortnlme.methods.data_start import data_starts
from amortnlme.methods.fit import problem_of
from amortnlme.methods.relation_search import RelationSearch
from amortnlme.methods.saem_search import run_saem
from amortnlme.methods.saem_statistics import Layout, Statistics, maximize_random
from amortnlme.methods.selection import AbstractSelection, SearchResult, SelectionProblem, SelectionStep
from amortnlme.model.bound import BoundModel

START_STREAM, CHAIN_STREAM = 0, 1
BURN_IN = ("none", "all")


@dataclass(frozen=True, slots=True)
class SaemSelection(AbstractSelection):
    """SAEM whose M-step chooses relations, coefficients and omega together (`RelationSearch`).

    Attributes
    ----------
    n_exploration, n_averaging : int
        Iterations with full and with falling gain; the chains explore longer while they drift.
    burn_in : int
        Iterations before the first choice.
    start : {"all", "none"}
        Relations in the model until then. Individuals are pulled towards the model they were sampled under,
        so that what is in tends to stay in, and what is out to stay out.

    Raises
    ------
    UsageError
        E_SELECT_OPTION.
    """

    n_exploration: int = 200
    n_averaging: int = 100
    burn_in: int = 75
    start: str = "all"

    name: ClassVar[str] = "saem"

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        for name, low in (("n_exploration", 50), ("n_averaging", 20), ("burn_in", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise UsageError(
                    "E_SELECT_OPTION", f"{name} must be a whole number from {low}; {value!r} was given."
                )
        if self.start not in BURN_IN:
            raise UsageError(
                "E_SELECT_OPTION", f"start is {self.start!r}. Allowed: {', '.join(BURN_IN)}."
            )

    def search(self, problem: SelectionProblem) -> SearchResult:
        """Search; see `AbstractSelection.search`."""
        from threadpoolctl import threadpool_limits

        everything = problem.candidates.population(problem.base, problem.candidates.names)
        population = everything.bind(problem.dataset.covariate_table(), problem.model.parameters)
        bound = problem_of(problem.dataset, problem.base, problem.model, problem.seed).bound_model
        assert isinstance(bound, BoundModel)
        rng = stream(problem.seed, START_STREAM)
        with threadpool_limits(limits=1, user_api="blas"):
            start = data_starts(bound, problem.model.prior, population, 1, rng)[0]
            chooser = _Chooser(problem, self.burn_in, self.start == "all")
            run_saem(
                bound,
                population,
                start,
                stream(problem.seed, CHAIN_STREAM),
                self.n_exploration,
                2 * self.n_exploration,
                self.n_averaging,
                None,
                None,
                chooser,
            )
        return SearchResult(
            chosen=chooser.chosen,
            steps=tuple(chooser.steps),
            runs=1,
            criterion_kind="penalized complete-data -2 log-likelihood of the random effects",
        )


@dataclass(slots=True)
class _Chooser:
    """The M-step of the parameters with random effects; remembers every change of the model."""

    problem: SelectionProblem
    burn_in: int
    starts_full: bool
    chosen: tuple[str, ...] = ()
    steps: list[SelectionStep] = field(default_factory=list)
    _search: RelationSearch | None = None
    _number: int = 0

    def __call__(
        self, statistics: Statistics, layout: Layout, omega: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        self._number += 1
        if self._number <= self.burn_in and self.starts_full:
            return maximize_random(statistics, layout, omega)
        if self._search is None:
            self._search = RelationSearch(self.problem.bound)
        # Before the first choice, no price is worth paying.
        penalty = self.problem.penalty if self._number > self.burn_in else 1e6
        first = statistics.first
        spread = statistics.second.sum(axis=0) - first.T @ first
        found = self._search.select(first, spread, penalty, thorough=False)
        bound, population = self.problem.bound, layout.population
        free = found.chosen & ~bound.forced
        chosen = tuple(name for name, inside in zip(bound.names, free, strict=True) if inside)
        if not self.steps or chosen != self.chosen:
            self.steps.append(SelectionStep(chosen, found.objective, f"iteration {self._number}"))
        self.chosen = chosen
        names = [e.name for relation in bound.relations for e in relation.effects]
        value = dict(zip(names, found.coefficients, strict=True))
        value |= {
            f"theta_{population.parameters.names[p]}": found.intercept[k]
            for k, p in enumerate(population.random_index)
        }
        coefficients = np.array([value[population.names[c]] for c in layout.random_columns])
        return coefficients, found.omega
