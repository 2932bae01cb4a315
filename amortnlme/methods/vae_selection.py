"""Selection of covariates inside the variational autoencoder: the M-step chooses the relations.

Every M-step after the burn-in searches all models exactly (`relation_search.py`), with the encoder's means
and covariances as statistics, a price per coefficient that falls to the one asked for, and omega profiled
out. What is in at the end is refined as any fit of the autoencoder; neither simulator nor encoder starts
again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.methods.base import FitProblem
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.relation_search import RelationChoice, RelationSearch
from amortnlme.methods.saem_statistics import Layout, Statistics
from amortnlme.methods.stopwatch import Stopwatch
from amortnlme.methods.vae import Vae
from amortnlme.methods.vae_search import VaePath
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.candidates import BoundCandidates, Candidates

#: Price of a coefficient, in final prices, at the beginning of the annealing.
FIRST_PRICE = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class VaeSelection:
    """What one run chose.

    Attributes
    ----------
    names : tuple of str
        Candidate relations; forced ones of the population model come last.
    chosen : tuple of str
        Relations of the fit.
    path : ndarray of bool, shape (n_iterations, n_relations)
        Relations in the model, iteration by iteration; all false in the burn-in.
    settled : bool
        Whether nothing changed any more while the statistics were averaged.
    fit : PopulationFit
        Of the chosen model.
    """

    names: tuple[str, ...]
    chosen: tuple[str, ...]
    path: np.ndarray
    settled: bool
    fit: PopulationFit


def select_by_vae(
    problem: FitProblem, candidates: Candidates, method: Vae | None = None, price: float | None = None
) -> VaeSelection:
    """Choose covariate relations and fit the chosen model in one run.

    Parameters
    ----------
    problem : FitProblem
        With the population model without the candidates; see `problem_of`.
    candidates : Candidates
    method : Vae, optional
    price : float, optional
        Of a coefficient, in units of -2 log-likelihood; log n_subjects, that of BICc, where not given.

    Returns
    -------
    VaeSelection

    Raises
    ------
    UsageError
        E_FIT_NEEDS_DATASET, E_SELECT_PRICE.
    PopulationError
        Codes of `Candidates.bind`.
    """
    from threadpoolctl import threadpool_limits

    method = Vae() if method is None else method
    watch, bound = Stopwatch(), method.checked(problem)
    table, parameters = bound.dataset.covariate_table(), bound.model.parameters
    price = float(np.log(len(table))) if price is None else price
    if not price > 0.0:
        raise UsageError("E_SELECT_PRICE", f"price is {price!r}. Allowed: a positive number.")
    joined = candidates.bind(problem.population, table, parameters)
    whole = candidates.population(problem.population, candidates.names).bind(table, parameters)
    step = _SelectionStep(joined, whole, method, price)
    with threadpool_limits(limits=1, user_api="blas"):
        path = method.train(bound, whole, problem.seed, watch, step)[0]
        last = step.choices[-1]
        chosen = tuple(name for name, is_in in zip(joined.names, last.chosen, strict=True) if is_in)
        population = candidates.population(problem.population, set(chosen) & set(candidates.names))
        reduced = population.bind(table, parameters)
        part = replace(problem, population=population, bound_population=reduced)
        fit = method.conclude(part, bound, _for(path, whole, reduced), watch)
    burning = np.zeros((method.schedule.n_burn_in, len(joined.names)), dtype=bool)
    taken = np.array([choice.chosen for choice in step.choices])
    tail = taken[-max(method.schedule.n_smoothing, 1) :]
    settled = bool((tail == tail[-1]).all())
    return VaeSelection(joined.names, chosen, np.concatenate([burning, taken]), settled, fit)


@dataclass(frozen=True, slots=True, eq=False)
class _SelectionStep:
    """M-step of what varies: relations, coefficients and omega at once."""

    candidates: BoundCandidates
    population: BoundPopulation
    method: Vae
    price: float
    choices: list[RelationChoice] = field(default_factory=list)
    _search: RelationSearch = field(init=False)
    _places: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_search", RelationSearch(self.candidates))
        places = {name: k for k, name in enumerate(self.population.names)}
        object.__setattr__(self, "_places", places)

    def __call__(
        self, statistics: Statistics, layout: Layout, omega: np.ndarray, number: int
    ) -> tuple[np.ndarray, np.ndarray]:
        mean = statistics.first
        spread = (statistics.second - mean[:, :, None] * mean[:, None, :]).sum(axis=0)
        found = self._search.select(mean, spread, self._price(number))
        self.choices.append(found)
        x = np.zeros(self.population.n_x)
        space = self.population.parameters
        for column, intercept in zip(self.population.random_index, found.intercept, strict=True):
            place = self._places.get(f"theta_{space.names[column]}")
            if place is not None:
                x[place] = intercept
        effects = [effect for relation in self.candidates.relations for effect in relation.effects]
        for effect, coefficient in zip(effects, found.coefficients, strict=True):
            x[self._places[effect.name]] = coefficient
        return x[layout.random_columns], found.omega

    def _price(self, number: int) -> float:
        schedule = self.method.schedule
        share = (number - schedule.n_burn_in) / max(schedule.n_annealing, 1)
        return self.price * max(1.0, FIRST_PRICE + (1.0 - FIRST_PRICE) * share)


def _for(path: VaePath, whole: BoundPopulation, part: BoundPopulation) -> VaePath:
    """Keep the entries of the population parameters that a smaller model has."""
    places = [whole.names.index(name) for name in part.names]
    return replace(path, x=path.x[places], iterates=path.iterates[:, places])
