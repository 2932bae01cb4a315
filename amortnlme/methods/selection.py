"""Covariate selection: what a search is given, what it returns, and the one result type of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.data.dataset import Dataset
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.fit import fit
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.model.individual import IndividualModel
from amortnlme.population.candidates import BoundCandidates, Candidates
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.posterior_draws import PosteriorDraws

if TYPE_CHECKING:
    import pandas as pd

#: Models closer than this in BICc are a tie: "not worth more than a bare mention" (Kass & Raftery 1995).
TIE = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class SelectionProblem:
    """What a search for covariates may use.

    Attributes
    ----------
    dataset : Dataset
    base : PopulationModel
        Without the candidates.
    candidates : Candidates
    bound : BoundCandidates
        The candidates joined with the subjects.
    model : IndividualModel
    draws : PosteriorDraws or None
    seed : int
    """

    dataset: Dataset
    base: PopulationModel
    candidates: Candidates
    bound: BoundCandidates
    model: IndividualModel
    draws: PosteriorDraws | None
    seed: int

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        base: PopulationModel,
        candidates: Candidates,
        model: IndividualModel,
        draws: PosteriorDraws | None,
        seed: int,
    ) -> SelectionProblem:
        """Join the parts.

        Parameters
        ----------
        dataset, base, candidates, model, draws, seed
            See the attributes.

        Returns
        -------
        SelectionProblem

        Raises
        ------
        PopulationError
            Whatever is wrong with the candidates; see `Candidates.bind`.
        """
        bound = candidates.bind(base, dataset.covariate_table(), model.parameters)
        return cls(dataset, base, candidates, bound, model, draws, seed)

    @property
    def penalty(self) -> float:
        """What BICc asks for a covariate coefficient: log of the number of subjects."""
        return float(np.log(self.dataset.n_subjects))

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the relations to decide on."""
        return tuple(n for n, forced in zip(self.bound.names, self.bound.forced, strict=True) if not forced)

    def fit(self, chosen: Iterable[str], method: AbstractMethod) -> PopulationFit:
        """Fit the population model of some relations.

        Parameters
        ----------
        chosen : iterable of str
        method : AbstractMethod

        Returns
        -------
        PopulationFit
        """
        population = self.candidates.population(self.base, set(chosen) & set(self.candidates.names))
        first = self.draws if method.needs_draws and self.draws is not None else self.dataset
        return fit(first, population, method, dataset=self.dataset, model=self.model, seed=self.seed)

    def resampled(self, rng: np.random.Generator) -> SelectionProblem:
        """Draw as many subjects with replacement; each copy counts as a subject of its own.

        Parameters
        ----------
        rng : numpy.random.Generator

        Returns
        -------
        SelectionProblem

        Raises
        ------
        PopulationError
            E_POP_COVARIATE_CONSTANT where a covariate no longer varies.
        """
        index = rng.integers(self.dataset.n_subjects, size=self.dataset.n_subjects)
        subjects = [
            replace(self.dataset.subjects[i], id=f"{self.dataset.ids[i]}#{k}") for k, i in enumerate(index)
        ]
        dataset, draws = replace(self.dataset, subjects=tuple(subjects)), self.draws
        if draws is not None:
            draws = replace(
                draws,
                phi=draws.phi[index],
                log_q=draws.log_q[index],
                log_prior=draws.log_prior[index],
                subject_ids=dataset.ids,
                n_rejected=None,
                out_of_domain=(),
                dataset_fingerprint="",
            )
        return SelectionProblem.of(dataset, self.base, self.candidates, self.model, draws, self.seed)


@dataclass(frozen=True, slots=True)
class SelectionStep:
    """One model on the way of a search.

    Attributes
    ----------
    chosen : tuple of str
        Relations in the model, forced ones not counted.
    criterion : float
        What the search compares, of its own kind; NaN where it compares nothing.
    action : str
        What was tried, in words.
    """

    chosen: tuple[str, ...]
    criterion: float
    action: str


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """Where a search ended.

    Attributes
    ----------
    chosen : tuple of str
        Free relations in the model.
    steps : tuple of SelectionStep
    runs : int
        Population fits it took; a search that decides within one estimation counts one.
    criterion_kind : str
        What `SelectionStep.criterion` is.
    warnings : tuple of str
    """

    chosen: tuple[str, ...]
    steps: tuple[SelectionStep, ...]
    runs: int
    criterion_kind: str
    warnings: tuple[str, ...] = ()


class AbstractSelection(ABC):
    """A way to search for covariates; its options are the fields of the concrete class.

    Attributes
    ----------
    name : str
    needs_draws : bool
        Whether the search eats posterior draws.
    """

    __slots__ = ()

    name: ClassVar[str]
    needs_draws: ClassVar[bool] = False

    @abstractmethod
    def search(self, problem: SelectionProblem) -> SearchResult:
        """Search for covariates.

        Parameters
        ----------
        problem : SelectionProblem

        Returns
        -------
        SearchResult
        """


@dataclass(frozen=True, slots=True)
class ModelScore:
    """A covariate model judged by the exact likelihood.

    Attributes
    ----------
    chosen : tuple of str
        Free relations in the model.
    ofv, ofv_se : float
        -2 log-likelihood at the estimates, with its Monte-Carlo standard error.
    bicc : float
    n_parameters : int
    status : str
        Of the fit.
    seconds : float
    """

    chosen: tuple[str, ...]
    ofv: float
    ofv_se: float
    bicc: float
    n_parameters: int
    status: str
    seconds: float

    @classmethod
    def of(cls, chosen: tuple[str, ...], found: PopulationFit) -> ModelScore:
        """Read the score off a fit.

        Parameters
        ----------
        chosen : tuple of str
        found : PopulationFit

        Returns
        -------
        ModelScore
        """
        seconds = float(sum(found.seconds.values()))
        return cls(
            chosen, found.ofv, found.ofv_se, found.bicc, found.n_parameters, str(found.status.value), seconds
        )

    def ties_with(self, best: ModelScore) -> bool:
        """Whether the difference in BICc is below TIE, or below two standard errors.

        Parameters
        ----------
        best : ModelScore

        Returns
        -------
        bool
        """
        error = 2.0 * float(np.hypot(np.nan_to_num(self.ofv_se), np.nan_to_num(best.ofv_se)))
        return self.bicc - best.bicc < max(TIE, error)


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Covariates chosen for a population model, how they were found, and how sure that is.

    Attributes
    ----------
    method, model_name : str
    relations, forced : tuple of str
        All candidates, and those that are in every model.
    found : tuple of str
        Free relations the search ended with.
    chosen : tuple of str
        Free relations of the best model by exact BICc, among `found` and what was looked at around it.
    steps : tuple of SelectionStep
    criterion_kind : str
    scores : tuple of ModelScore
        Models judged by the exact likelihood, best BICc first; empty where ranking was switched off.
    associated : tuple of tuple of str
        Covariates that the subjects hardly tell apart: one may stand for the other.
    frequencies : mapping of str to mapping of str to float
        "bootstrap", "seeds": share of the searches that took each relation in.
    runs : int
        Population fits of the search, without ranking, bootstrap and seeds.
    seconds : mapping of str to float
        Wall time per stage.
    fit : PopulationFit or None
        Of the chosen model; None where ranking was switched off.
    warnings : tuple of str
        Each starts with its code in brackets.
    provenance : mapping
        Seed, options, dataset.
    """

    method: str
    model_name: str
    relations: tuple[str, ...]
    forced: tuple[str, ...]
    found: tuple[str, ...]
    chosen: tuple[str, ...]
    steps: tuple[SelectionStep, ...]
    criterion_kind: str
    scores: tuple[ModelScore, ...]
    associated: tuple[tuple[str, ...], ...]
    frequencies: Mapping[str, Mapping[str, float]]
    runs: int
    seconds: Mapping[str, float]
    fit: PopulationFit | None
    warnings: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ties(self) -> tuple[ModelScore, ...]:
        """Models that cannot be told from the best one, itself included; see `ModelScore.ties_with`."""
        return tuple(score for score in self.scores if score.ties_with(self.scores[0]))

    def table(self) -> pd.DataFrame:
        """Judged models as a table: relations, -2LL, its error, BICc, difference to the best, tie."""
        import pandas as pd

        best = self.scores[0] if self.scores else None
        rows = [
            {
                "relations": ", ".join(score.chosen) or "none",
                "ofv": score.ofv,
                "ofv_se": score.ofv_se,
                "n_parameters": score.n_parameters,
                "bicc": score.bicc,
                "delta": score.bicc - best.bicc if best is not None else 0.0,
                "tie": best is not None and score.ties_with(best),
                "status": score.status,
            }
            for score in self.scores
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; the schema is documented in `amortnlme/cli/schema.md`."""
        from amortnlme.core.json_values import json_values

        table = self.table()
        out = {
            "method": self.method,
            "model": self.model_name,
            "relations": list(self.relations),
            "forced": list(self.forced),
            "found": list(self.found),
            "chosen": list(self.chosen),
            "criterion_kind": self.criterion_kind,
            "steps": [
                {"chosen": list(s.chosen), "criterion": s.criterion, "action": s.action} for s in self.steps
            ],
            "scores": [
                {**row, "relations": list(score.chosen)}
                for row, score in zip(table.to_dict(orient="records"), self.scores, strict=True)
            ],
            "associated": [list(group) for group in self.associated],
            "frequencies": {kind: dict(shares) for kind, shares in self.frequencies.items()},
            "runs": self.runs,
            "seconds": dict(self.seconds),
            "fit": None if self.fit is None else self.fit.to_dict(),
            "warnings": list(self.warnings),
            "provenance": dict(self.provenance),
        }
        return json_values(out)


def needed_draws(problem: SelectionProblem, method: AbstractSelection) -> PosteriorDraws:
    """Return the draws of a problem, or say that they are missing.

    Parameters
    ----------
    problem : SelectionProblem
    method : AbstractSelection

    Returns
    -------
    PosteriorDraws

    Raises
    ------
    UsageError
        E_SELECT_NEEDS_DRAWS.
    """
    if problem.draws is None:
        raise UsageError(
            "E_SELECT_NEEDS_DRAWS",
            f"selection by {method.name!r} works on posterior draws. Pass draws=estimator.sample(dataset, "
            "1000, rng).",
        )
    return problem.draws
