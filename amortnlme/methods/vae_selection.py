"""Selection of covariates inside the variational autoencoder: the M-step chooses the relations.

Every M-step after the burn-in searches all models exactly (`relation_search.py`), with the encoder's means
and covariances as statistics, a price per coefficient that falls to the one asked for, omega profiled out.
What is in at the end can be refined as any fit of the autoencoder, from where the run ended: neither
simulator nor encoder starts again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.methods.fit import problem_of
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.relation_search import RelationSearch
from amortnlme.methods.saem_statistics import Layout, Statistics
from amortnlme.methods.selection import AbstractSelection, SearchResult, SelectionProblem, SelectionStep
from amortnlme.methods.stopwatch import Stopwatch
from amortnlme.methods.vae import Vae
from amortnlme.methods.vae_search import VaePath, VaeSchedule
from amortnlme.population.bound_population import BoundPopulation


@dataclass(frozen=True, slots=True)
class VaeSelection(AbstractSelection):
    """Variational autoencoder whose M-step chooses relations, coefficients and omega together.

    Attributes
    ----------
    vae : Vae
        Carries the schedule: the price falls while the divergence is annealed.
    first_price : float
        Price of a coefficient at the beginning, in final prices.

    Raises
    ------
    UsageError
        E_SELECT_OPTION.
    """

    vae: Vae = field(default_factory=Vae)
    first_price: float = 2.0

    name: ClassVar[str] = "vae"

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        if not 1.0 <= self.first_price <= 1e6:
            raise UsageError(
                "E_SELECT_OPTION", f"first_price must be from 1 to 1e6; {self.first_price!r} was given."
            )
        if self.vae.schedule.n_burn_in == self.vae.schedule.n_iterations:
            raise UsageError(
                "E_SELECT_OPTION",
                "the schedule of the autoencoder ends with its burn-in, before the first choice. Give n_main "
                "at least 1.",
            )

    def search(self, problem: SelectionProblem) -> SearchResult:
        """Search; see `AbstractSelection.search`."""
        return self._trained(problem)[0]

    def search_and_fit(self, problem: SelectionProblem) -> tuple[SearchResult, PopulationFit]:
        """Search, and fit what was chosen from where the search ended.

        Parameters
        ----------
        problem : SelectionProblem

        Returns
        -------
        result : SearchResult
        fit : PopulationFit
            Of the chosen population model, which is named after its relations.
        """
        result, path, whole, watch = self._trained(problem)
        mine = set(result.chosen) & set(problem.candidates.names)
        population = problem.candidates.population(problem.base, mine)
        part = problem_of(problem.dataset, population, problem.model, problem.seed)
        reduced = _reduced(path, whole, part.bound_population)
        return result, self.vae.conclude(part, self.vae.checked(part), reduced, watch)

    def _trained(
        self, problem: SelectionProblem
    ) -> tuple[SearchResult, VaePath, BoundPopulation, Stopwatch]:
        everything = problem.candidates.population(problem.base, problem.candidates.names)
        joined = problem_of(problem.dataset, everything, problem.model, problem.seed)
        chooser, watch = _Chooser(problem, self.vae.schedule, self.first_price), Stopwatch()
        whole, bound = joined.bound_population, self.vae.checked(joined)
        path = self.vae.train(bound, whole, problem.seed, watch, chooser)[0]
        warnings = []
        if chooser.last_change >= self.vae.schedule.n_iterations - self.vae.schedule.n_smoothing:
            warnings.append(
                f"[W_SELECT_UNSETTLED] the relations last changed in iteration {chooser.last_change + 1}, "
                "while the statistics were averaged. Give the schedule more iterations."
            )
        result = SearchResult(
            chosen=chooser.chosen,
            steps=tuple(chooser.steps),
            runs=1,
            criterion_kind="penalized complete-data -2 log-likelihood of the random effects",
            warnings=tuple(warnings),
        )
        return result, path, whole, watch


@dataclass(slots=True)
class _Chooser:
    """The M-step of the parameters with random effects; remembers every change of the model."""

    problem: SelectionProblem
    schedule: VaeSchedule
    first_price: float
    chosen: tuple[str, ...] = ()
    last_change: int = 0
    steps: list[SelectionStep] = field(default_factory=list)
    _search: RelationSearch | None = None

    def __call__(
        self, statistics: Statistics, layout: Layout, omega: np.ndarray, number: int
    ) -> tuple[np.ndarray, np.ndarray]:
        bound, population = self.problem.bound, layout.population
        if self._search is None:
            self._search = RelationSearch(bound)
        share = (number - self.schedule.n_burn_in) / max(self.schedule.n_annealing, 1)
        price = self.problem.penalty * max(1.0, self.first_price + (1.0 - self.first_price) * share)
        mean = statistics.first
        spread = statistics.second.sum(axis=0) - mean.T @ mean
        found = self._search.select(mean, spread, price, thorough=False)
        free = found.chosen & ~bound.forced
        chosen = tuple(name for name, inside in zip(bound.names, free, strict=True) if inside)
        if not self.steps or chosen != self.chosen:
            self.steps.append(SelectionStep(chosen, found.objective, f"iteration {number + 1}"))
            self.last_change = number
        self.chosen = chosen
        names = [e.name for relation in bound.relations for e in relation.effects]
        value = dict(zip(names, found.coefficients, strict=True))
        value |= {
            f"theta_{population.parameters.names[p]}": found.intercept[k]
            for k, p in enumerate(population.random_index)
        }
        coefficients = np.array([value[population.names[c]] for c in layout.random_columns])
        return coefficients, found.omega


def _reduced(path: VaePath, whole: BoundPopulation, part: BoundPopulation) -> VaePath:
    """Keep the entries of the population parameters that a smaller model has."""
    places = [whole.names.index(name) for name in part.names]
    return replace(path, x=path.x[places], iterates=path.iterates[:, places])
