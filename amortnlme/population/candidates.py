"""Candidate relations between parameters and covariates, among which a selection chooses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.errors import PopulationError
from amortnlme.model.parameters import ParameterSpace
from amortnlme.population.effects import CovariateEffect
from amortnlme.population.networks import covariate_column
from amortnlme.population.population_model import PopulationModel

if TYPE_CHECKING:
    import pandas as pd

#: More distinct values than this do not make a category.
MOST_LEVELS = 20
KINDS = ("log", "linear", "level")
_TERM = re.compile(r"^(?:(\w+)\s*\(\s*([^()]+?)\s*\)|([^()]+))$")


@dataclass(frozen=True, slots=True)
class Relation:
    """A covariate on a parameter: effects that are in or out of the model together.

    Attributes
    ----------
    parameter : str
    covariate : str
    effects : tuple of CovariateEffect
        One, or one per level but the first for a category.
    """

    parameter: str
    covariate: str
    effects: tuple[CovariateEffect, ...]

    @property
    def name(self) -> str:
        """`parameter~covariate`."""
        return f"{self.parameter}~{self.covariate}"


@dataclass(frozen=True, slots=True)
class Candidates:
    """Relations among which a selection chooses.

    Attributes
    ----------
    relations : tuple of Relation
    forced : frozenset of str
        Names of relations that are in every model.

    Raises
    ------
    PopulationError
        E_SELECT_NO_CANDIDATES, E_SELECT_DUPLICATE, E_SELECT_UNKNOWN_RELATION.
    """

    relations: tuple[Relation, ...]
    forced: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse an empty list, duplicates and forced relations that are not there."""
        object.__setattr__(self, "relations", tuple(self.relations))
        object.__setattr__(self, "forced", frozenset(self.forced))
        names = [relation.name for relation in self.relations]
        if not names:
            raise PopulationError(
                "E_SELECT_NO_CANDIDATES",
                "there is no candidate relation. Name some, such as 'ka, V ~ weight, sex'.",
            )
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise PopulationError("E_SELECT_DUPLICATE", f"the relation {twice!r} is given twice. Keep one.")
        _known(self.forced, names, "forced")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the relations."""
        return tuple(relation.name for relation in self.relations)

    def without(self, names: Iterable[str]) -> Candidates:
        """Leave out relations, as forbidden ones.

        Parameters
        ----------
        names : iterable of str

        Returns
        -------
        Candidates

        Raises
        ------
        PopulationError
            E_SELECT_UNKNOWN_RELATION, E_SELECT_FORCED.
        """
        out = frozenset(names)
        _known(out, self.names, "forbidden")
        if both := sorted(out & self.forced):
            raise PopulationError(
                "E_SELECT_FORCED", f"the relation {both[0]!r} is both forced and forbidden. Choose one."
            )
        return replace(self, relations=tuple(r for r in self.relations if r.name not in out))

    def population(self, base: PopulationModel, chosen: Iterable[str]) -> PopulationModel:
        """Build the population model with the chosen relations and the forced ones.

        Parameters
        ----------
        base : PopulationModel
            Its own covariate effects stay in.
        chosen : iterable of str

        Returns
        -------
        PopulationModel
            Named after its relations.

        Raises
        ------
        PopulationError
            E_SELECT_UNKNOWN_RELATION and the codes of `PopulationModel`.
        """
        chosen = frozenset(chosen) | self.forced
        _known(chosen, self.names, "chosen")
        kept = {effect.name: effect for effect in base.covariates}
        for relation in self.relations:
            if relation.name in chosen:
                kept |= {effect.name: effect for effect in relation.effects if effect.name not in kept}
        named = [*dict.fromkeys(f"{e.parameter}~{e.covariate}" for e in kept.values())]
        return replace(base, covariates=tuple(kept.values()), name=", ".join(named) or "no covariates")

    def bind(
        self, base: PopulationModel, covariate_table: pd.DataFrame, parameters: ParameterSpace
    ) -> BoundCandidates:
        """Join the candidates with the covariates of the subjects.

        Parameters
        ----------
        base : PopulationModel
            Population model without the candidates; its covariate effects are forced relations.
        covariate_table : pandas.DataFrame
            One row per subject.
        parameters : ParameterSpace

        Returns
        -------
        BoundCandidates

        Raises
        ------
        PopulationError
            E_SELECT_POPULATION, E_SELECT_POOLED and the codes of `PopulationModel.bind` and
            `CovariateEffect.regressor`.
        """
        if base.occasion_effects is not None or base.groups or base.networks:
            raise PopulationError(
                "E_SELECT_POPULATION",
                f"population {base.name!r} has occasion effects, groups or networks, with which covariates "
                "cannot be selected. Allowed: random effects and linear covariate effects. Remove the rest.",
            )
        population = base.bind(covariate_table, parameters)
        ids = tuple(str(name) for name in covariate_table.index)
        on = base.random_effects.on
        relations, forced = self._with_those_of(base)
        regressors, width, owner = [], [], []
        for relation in relations:
            if relation.parameter not in on:
                raise PopulationError(
                    "E_SELECT_POOLED",
                    f"the relation {relation.name!r} is on a parameter without random effect. Allowed: "
                    f"{', '.join(on)}. Leave it out, or give {relation.parameter} a random effect.",
                )
            for effect in relation.effects:
                column = covariate_column(covariate_table, effect.covariate, f"relation {relation.name!r}")
                regressors.append(effect.regressor(column, ids)[0])
            width.append(len(relation.effects))
            owner.append(on.index(relation.parameter))
        anchor = np.full(len(on), np.nan)
        for k, name in enumerate(on):
            if (column := parameters.index(name)) in population.fixed:
                anchor[k] = population.fixed[column]
        return BoundCandidates(
            relations=relations,
            forced=np.array([r.name in forced for r in relations]),
            owner=np.array(owner, dtype=np.int64),
            first=np.concatenate([[0], np.cumsum(width)]).astype(np.int64),
            regressors=np.stack(regressors, axis=1),
            blocks=tuple(
                np.array([on.index(name) for name in b]) for b in base.random_effects.blocks()
            ),
            anchor=anchor,
        )

    def _with_those_of(self, base: PopulationModel) -> tuple[tuple[Relation, ...], frozenset[str]]:
        """All relations, and the forced ones: the effects of the population model are among them."""
        relations, forced = list(self.relations), set(self.forced)
        known = {effect.name: relation.name for relation in relations for effect in relation.effects}
        for effect in base.covariates:
            if effect.name in known:
                forced.add(known[effect.name])
                continue
            own = [e for e in base.covariates if e.parameter == effect.parameter]
            together = tuple(e for e in own if e.covariate == effect.covariate)
            relation = Relation(effect.parameter, effect.covariate, together)
            relations.append(relation)
            forced.add(relation.name)
            known |= {e.name: relation.name for e in together}
        return tuple(relations), frozenset(forced)


@dataclass(frozen=True, slots=True, eq=False)
class BoundCandidates:
    """Candidate relations joined with the subjects: plain arrays.

    Attributes
    ----------
    relations : tuple of Relation
        m of them; the forced ones of the population model come last.
    forced : ndarray of bool, shape (m,)
    owner : ndarray of int, shape (m,)
        Random effect (row of the statistics) of each.
    first : ndarray of int, shape (m + 1,)
        First column of each in `regressors`.
    regressors : ndarray, shape (n_subjects, p)
    blocks : tuple of ndarray of int
        Random effects that may be correlated.
    anchor : ndarray, shape (r,)
        Typical values that are given, phi scale; NaN where they are estimated.
    """

    relations: tuple[Relation, ...]
    forced: np.ndarray
    owner: np.ndarray
    first: np.ndarray
    regressors: np.ndarray
    blocks: tuple[np.ndarray, ...]
    anchor: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the relations."""
        return tuple(relation.name for relation in self.relations)

    @property
    def width(self) -> np.ndarray:
        """Coefficients of every relation, shape (m,)."""
        return np.diff(self.first)

    def is_dependent(self, chosen: Iterable[str]) -> bool:
        """Whether the covariates of some parameter are linearly dependent: no fit can tell these apart.

        Parameters
        ----------
        chosen : iterable of str
            Relations in the model besides the forced ones.

        Returns
        -------
        bool
        """
        part = self.only(chosen)
        for k in np.unique(part.owner):
            x = part.regressors[:, np.repeat(part.owner == k, part.width)]
            scaled = np.column_stack([np.ones(len(x)), x / x.std(axis=0)])
            if np.linalg.matrix_rank(scaled, tol=1e-8 * len(x)) < scaled.shape[1]:
                return True
        return False

    def only(self, chosen: Iterable[str]) -> BoundCandidates:
        """Keep the forced and some other relations, all of them forced: one model.

        Parameters
        ----------
        chosen : iterable of str

        Returns
        -------
        BoundCandidates
        """
        wanted = set(chosen)
        kept = self.forced | np.array([relation.name in wanted for relation in self.relations], dtype=bool)
        return replace(
            self,
            relations=tuple(r for r, k in zip(self.relations, kept, strict=True) if k),
            forced=np.ones(int(kept.sum()), dtype=bool),
            owner=self.owner[kept],
            first=np.concatenate([[0], np.cumsum(self.width[kept])]).astype(np.int64),
            regressors=self.regressors[:, np.repeat(kept, self.width)],
        )


def parse_candidates(
    lines: Sequence[str],
    covariate_table: pd.DataFrame,
    forced: Iterable[str] = (),
    forbidden: Iterable[str] = (),
) -> Candidates:
    """Read candidate relations from lines such as `ka, V ~ weight, level(race)`.

    Parameters
    ----------
    lines : sequence of str
        Every parameter on the left is related to every covariate on the right. `log(x)` and `linear(x)` are
        centered at the mean, `level(x)` compares every level with the smallest one. Without such a word a
        covariate of two values is a level, a positive one is taken as `log`, any other as `linear`.
    covariate_table : pandas.DataFrame
        One row per subject.
    forced, forbidden : iterable of str
        Names of relations, `V~weight`.

    Returns
    -------
    Candidates

    Raises
    ------
    PopulationError
        E_SELECT_SYNTAX, E_SELECT_LEVELS, E_POP_COVARIATE_MISSING and those of `Candidates`.
    """
    relations: list[Relation] = []
    for line in lines:
        left, tilde, right = line.partition("~")
        parameters = [name.strip() for name in left.split(",")]
        terms = [term.strip() for term in right.split(",")]
        if not tilde or "~" in right or not all(parameters) or not all(terms):
            raise PopulationError(
                "E_SELECT_SYNTAX",
                f"candidates {line!r} cannot be read. Write parameters ~ covariates, such as "
                "'ka, V ~ weight, level(race)'.",
            )
        for name in parameters:
            relations += [_relation(name, term, line, covariate_table) for term in terms]
    strip = [[re.sub(r"\s+", "", name) for name in names] for names in (forced, forbidden)]
    return Candidates(tuple(relations), frozenset(strip[0])).without(strip[1])


def _relation(parameter: str, term: str, line: str, table: pd.DataFrame) -> Relation:
    match = _TERM.match(term)
    kind, covariate = (match[1], match[2] or match[3]) if match else (None, "")
    if match is None or (kind is not None and kind not in KINDS):
        raise PopulationError(
            "E_SELECT_SYNTAX",
            f"candidates {line!r}: {term!r} is neither a covariate nor one of "
            f"{', '.join(f'{kind}(covariate)' for kind in KINDS)}.",
        )
    values = np.unique(covariate_column(table, covariate, f"candidates {line!r}"))
    finite = values[np.isfinite(values)]
    if kind is None:
        kind = "level" if len(finite) == 2 else "log" if len(finite) and finite[0] > 0 else "linear"
    if kind != "level":
        return Relation(parameter, covariate, (CovariateEffect(parameter, covariate, kind),))
    if not 2 <= len(finite) <= MOST_LEVELS:
        raise PopulationError(
            "E_SELECT_LEVELS",
            f"candidates {line!r}: {covariate!r} has {len(finite)} distinct values. Allowed for a category: "
            f"2 to {MOST_LEVELS}. Use log({covariate}) or linear({covariate}), or leave it out.",
        )
    levels = [float(value) for value in finite[1:]]
    return Relation(
        parameter, covariate, tuple(CovariateEffect(parameter, covariate, "level", v) for v in levels)
    )


def _known(names: Iterable[str], known: Sequence[str], what: str) -> None:
    for name in sorted(names):
        if name not in known:
            raise PopulationError(
                "E_SELECT_UNKNOWN_RELATION",
                f"the {what} relation {name!r} is not among the candidates: {', '.join(known)}.",
            )
