"""`select`: search for covariates, then judge the answer and everything around it by the exact likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from amortnlme.core.errors import DrawsError, PopulationError, UsageError
from amortnlme.core.rng import stream
from amortnlme.data.dataset import Dataset
from amortnlme.methods.amortized import Amortized
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.classical import Focei
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.relation_search import RelationSearch
from amortnlme.methods.selection import (
    AbstractSelection,
    ModelScore,
    SearchResult,
    Selection,
    SelectionProblem,
    needed_draws,
)
from amortnlme.methods.stopwatch import Stopwatch
from amortnlme.model.individual import IndividualModel
from amortnlme.model.registry import load_model
from amortnlme.population.candidates import BoundCandidates, Candidates
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.posterior_draws import PosteriorDraws

BOOTSTRAP_STREAM = 77
#: Covariates whose regressors correlate more than this can hardly be told apart.
ASSOCIATED = 0.7
#: Times the ranking may move on to a better neighbor.
MOST_MOVES = 5
Say = Callable[[str], None]


def select(
    dataset: Dataset,
    population: PopulationModel,
    candidates: Candidates,
    method: AbstractSelection,
    *,
    model: IndividualModel | str,
    draws: PosteriorDraws | None = None,
    judge: AbstractMethod | None = None,
    most_models: int = 30,
    bootstrap: int = 0,
    seeds: int = 1,
    seed: int = 0,
    say: Say | None = None,
) -> Selection:
    """Select covariates.

    Parameters
    ----------
    dataset : Dataset
    population : PopulationModel
        Without the candidates; its own covariate effects stay in every model.
    candidates : Candidates
    method : AbstractSelection
        Carries its options.
    model : IndividualModel or str
    draws : PosteriorDraws, optional
        Of the same dataset, for methods that search on draws.
    judge : AbstractMethod, optional
        Fits the models that are ranked; `Amortized()` where there are draws, else `Focei()`. Whatever it is,
        a fit is judged by its importance-sampled likelihood.
    most_models : int
        Models to rank at most: the found one, none, and those one relation away (added, dropped or
        exchanged), the more promising ones first. 0: no ranking.
    bootstrap : int
        Searches on resampled subjects.
    seeds : int
        Searches with other seeds, the first included.
    seed : int
    say : callable, optional
        Called with a line at every stage.

    Returns
    -------
    Selection

    Raises
    ------
    UsageError
        E_SELECT_OPTION, E_SELECT_NEEDS_DRAWS.
    DrawsError
        E_DRAWS_OTHER_DATASET.
    PopulationError
        Whatever is wrong with the candidates.
    """
    _check(most_models, bootstrap, seeds, draws, dataset)
    individual = load_model(model) if isinstance(model, str) else model
    problem = SelectionProblem.of(dataset, population, candidates, individual, draws, seed)
    if method.needs_draws:
        needed_draws(problem, method)
    tell = say or (lambda line: None)
    watch = Stopwatch()
    tell(f"searching among {len(problem.free)} relations ({method.name})")
    with watch("search"):
        found = method.search(problem)
    chosen, fitted, scores = found.chosen, None, ()
    if most_models:
        with watch("ranking"):
            chosen, fitted, scores = _ranked(problem, found, judge or _judge(problem), most_models, tell)
    frequencies: dict[str, dict[str, float]] = {}
    if bootstrap:
        with watch("bootstrap"):
            frequencies["bootstrap"] = _bootstrap(problem, method, bootstrap, tell)
    if seeds > 1:
        with watch("seeds"):
            others = [method.search(replace(problem, seed=seed + k)).chosen for k in range(1, seeds)]
            frequencies["seeds"] = _shares(problem, [found.chosen, *others])
    associated = associated_covariates(problem.bound)
    return Selection(
        method=method.name,
        model_name=individual.name,
        relations=problem.bound.names,
        forced=tuple(n for n in problem.bound.names if n not in problem.free),
        found=found.chosen,
        chosen=chosen,
        steps=found.steps,
        criterion_kind=found.criterion_kind,
        scores=scores,
        associated=associated,
        frequencies=frequencies,
        runs=found.runs,
        seconds=watch.seconds,
        fit=fitted,
        warnings=(*found.warnings, *_warnings(found.chosen, chosen, scores, associated)),
        provenance=_provenance(problem, method),
    )


def _check(
    most_models: int, bootstrap: int, seeds: int, draws: PosteriorDraws | None, dataset: Dataset
) -> None:
    numbers = (("most_models", most_models, 0), ("bootstrap", bootstrap, 0), ("seeds", seeds, 1))
    for name, value, low in numbers:
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise UsageError(
                "E_SELECT_OPTION", f"{name} must be a whole number from {low}; {value!r} was given."
            )
    if draws is not None and draws.subject_ids != dataset.ids:
        raise DrawsError(
            "E_DRAWS_OTHER_DATASET",
            f"the draws are of other subjects than dataset {dataset.name!r} holds. Sample this dataset.",
        )


def neighbors(chosen: tuple[str, ...], free: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Models one relation away: added, dropped, or exchanged for another one.

    Parameters
    ----------
    chosen : tuple of str
    free : tuple of str
        All relations to decide on, in the order of the answers.

    Returns
    -------
    list of tuple of str
    """
    inside, outside = [n for n in free if n in chosen], [n for n in free if n not in chosen]
    sets = [set(chosen) - {a} for a in inside] + [set(chosen) | {b} for b in outside]
    sets += [(set(chosen) - {a}) | {b} for a in inside for b in outside]
    return [tuple(n for n in free if n in names) for names in sets]


def associated_covariates(bound: BoundCandidates) -> tuple[tuple[str, ...], ...]:
    """Find groups of covariates that the subjects hardly tell apart.

    Parameters
    ----------
    bound : BoundCandidates

    Returns
    -------
    tuple of tuple of str
        Linked by a (canonical) correlation above ASSOCIATED, or because the values of one separate the two
        values of another perfectly.
    """
    columns: dict[str, np.ndarray] = {}
    for m, relation in enumerate(bound.relations):
        x = bound.regressors[:, bound.first[m] : bound.first[m + 1]]
        columns.setdefault(relation.covariate, x - x.mean(axis=0))
    names = list(columns)
    group = list(range(len(names)))
    for i, a in enumerate(names):
        for j, b in enumerate(names[:i]):
            if _similar(columns[a], columns[b]):
                group = [group[j] if g == group[i] else g for g in group]
    groups = [tuple(n for n, g in zip(names, group, strict=True) if g == k) for k in dict.fromkeys(group)]
    return tuple(g for g in groups if len(g) > 1)


def _similar(a: np.ndarray, b: np.ndarray) -> bool:
    qa, qb = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
    if np.linalg.svd(qa.T @ qb, compute_uv=False)[0] > ASSOCIATED:
        return True
    return _separates(a, b) or _separates(b, a)


def _separates(two: np.ndarray, other: np.ndarray) -> bool:
    """Whether a covariate of two values is told by a threshold on another one."""
    if two.shape[1] > 1 or other.shape[1] > 1 or len(np.unique(two)) != 2:
        return False
    high = two[:, 0] > two[:, 0].min()
    low, top = other[~high, 0], other[high, 0]
    return bool(low.max() < top.min() or top.max() < low.min())


def _judge(problem: SelectionProblem) -> AbstractMethod:
    return Focei() if problem.draws is None else Amortized(starts=2)


def _ranked(
    problem: SelectionProblem, found: SearchResult, judge: AbstractMethod, most_models: int, tell: Say
) -> tuple[tuple[str, ...], PopulationFit, tuple[ModelScore, ...]]:
    """Judge the found model and its neighbors; go on from a better one."""
    fits: dict[tuple[str, ...], PopulationFit] = {}
    center = tuple(n for n in problem.free if n in found.chosen)
    for _ in range(MOST_MOVES):
        if center not in fits:
            fits[center] = problem.fit(center, judge)
        # The model without covariates is what readers compare with, near or far.
        around = [c for c in ((), *_promising(problem, center, fits[center])) if c not in fits]
        for chosen in around[: max(0, most_models - len(fits))]:
            tell(f"judging model {len(fits) + 1}: {', '.join(chosen) or 'no covariates'}")
            fits[chosen] = problem.fit(chosen, judge)
        best = min(fits, key=lambda c: _bicc(fits[c]))
        if best == center or len(fits) >= most_models:
            break
        center = best
    scores = sorted((ModelScore.of(c, f) for c, f in fits.items()), key=_score)
    best = scores[0].chosen
    return best, fits[best], tuple(scores)


def _bicc(fitted: PopulationFit) -> float:
    return fitted.bicc if np.isfinite(fitted.bicc) else np.inf


def _score(score: ModelScore) -> float:
    return score.bicc if np.isfinite(score.bicc) else np.inf


def _promising(
    problem: SelectionProblem, center: tuple[str, ...], fitted: PopulationFit
) -> list[tuple[str, ...]]:
    """Neighbors, those first that the conditional means under the center favor."""
    index = [fitted.parameter_names.index(name) for name in fitted.random_effects]
    people = fitted.individuals
    mean = people.conditional_mean_phi[:, index]
    spread = np.diag((people.conditional_sd_phi[:, index] ** 2).sum(axis=0))
    around = [c for c in neighbors(center, problem.free) if not problem.bound.is_dependent(c)]
    if not np.isfinite(mean).all() or not np.isfinite(spread).all():
        return around
    values = [
        RelationSearch(problem.bound.only(chosen))
        .select(mean, spread, problem.penalty, thorough=False)
        .objective
        for chosen in around
    ]
    return [around[k] for k in np.argsort(values, kind="stable")]


def _bootstrap(
    problem: SelectionProblem, method: AbstractSelection, n: int, tell: Say
) -> dict[str, float]:
    chosen = []
    for k in range(n):
        tell(f"bootstrap {k + 1} of {n}")
        rng = stream(problem.seed, BOOTSTRAP_STREAM, k)
        try:
            chosen.append(method.search(problem.resampled(rng)).chosen)
        except PopulationError as cause:
            # A rare level may be missing among the resampled subjects: such a sample cannot be searched.
            if cause.code != "E_POP_COVARIATE_CONSTANT":
                raise
    return _shares(problem, chosen)


def _shares(problem: SelectionProblem, chosen: list[tuple[str, ...]]) -> dict[str, float]:
    return {name: sum(name in c for c in chosen) / max(len(chosen), 1) for name in problem.free}


def _warnings(
    found: tuple[str, ...],
    chosen: tuple[str, ...],
    scores: tuple[ModelScore, ...],
    associated: tuple[tuple[str, ...], ...],
) -> list[str]:
    warnings = []
    if set(found) != set(chosen):
        lost = next((s.bicc for s in scores if set(s.chosen) == set(found)), np.nan) - scores[0].bicc
        warnings.append(
            f"[W_SELECT_NEIGHBOR] the search ended with {', '.join(found) or 'no covariates'}; a model next "
            f"to it has a BICc lower by {lost:.2f} and is returned."
        )
    ties = [s for s in scores if s.ties_with(scores[0])]
    if len(ties) > 1:
        warnings.append(
            f"[W_SELECT_TIES] {len(ties)} models cannot be told apart by BICc (within 2 units or two Monte-"
            f"Carlo standard errors): {'; '.join(', '.join(s.chosen) or 'none' for s in ties)}."
        )
    for group in associated:
        if any(name.split("~")[1] in group for name in chosen):
            warnings.append(
                f"[W_SELECT_ASSOCIATED] {', '.join(group)} hardly differ among the subjects: where one is "
                "chosen, another may be meant."
            )
    return warnings


def _provenance(problem: SelectionProblem, method: AbstractSelection) -> dict[str, Any]:
    options = {name: getattr(method, name) for name in type(method).__slots__}
    options = {
        name: value.name if isinstance(value, AbstractMethod) else value for name, value in options.items()
    }
    return {
        "seed": problem.seed,
        "options": options,
        "dataset_name": problem.dataset.name,
        "dataset_fingerprint": problem.dataset.fingerprint,
        "population": problem.base.name,
        "n_subjects": problem.dataset.n_subjects,
        "n_observations": problem.dataset.n_observations,
    }
