"""Parameters that a group of subjects has for itself: own typical value and, where they vary, own variance.

Two proteins measured in two experiments, say, that share everything but their degradation. Group by group the
parameter becomes one of its own (`gamma_0`, `gamma_1`), of which a subject has just one: the data say nothing
about the others, so that the closed forms and the importance sampling of a common omega apply unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.errors import PopulationError
from amortnlme.model.parameters import ParameterSpace
from amortnlme.population.effects import RandomEffects

if TYPE_CHECKING:
    import pandas as pd

MAX_GROUPS = 20


@dataclass(frozen=True, slots=True)
class GroupEffect:
    """A parameter with a distribution of its own in every group of subjects.

    Attributes
    ----------
    parameter : str
    covariate : str
        Its distinct values are the groups.
    """

    parameter: str
    covariate: str


@dataclass(frozen=True, slots=True, eq=False)
class GroupedSpace:
    """Individual parameters spelled out by groups.

    Attributes
    ----------
    parameters : ParameterSpace
        d' of them: those of the model, with the first group's in the place of a grouped one, then the rest.
    source : ndarray of int, shape (d',)
        Column of phi of the model that each stands for.
    columns : ndarray of int, shape (n_subjects, d)
        Column of the spelled-out phi that each subject uses for each parameter of the model.
    names : mapping of str to tuple of str
        Grouped parameter -> its names, group by group.
    """

    parameters: ParameterSpace
    source: np.ndarray
    columns: np.ndarray
    names: Mapping[str, tuple[str, ...]]

    @property
    def present(self) -> np.ndarray:
        """Whether a subject has a spelled-out parameter, shape (n_subjects, d')."""
        present = np.zeros((len(self.columns), self.parameters.d), dtype=bool)
        np.put_along_axis(present, self.columns, True, axis=1)
        return present


def spell_out_groups(
    groups: Sequence[GroupEffect], parameters: ParameterSpace, covariate_table: pd.DataFrame
) -> GroupedSpace:
    """Give every group its own copy of the grouped parameters.

    Parameters
    ----------
    groups : sequence of GroupEffect
    parameters : ParameterSpace
    covariate_table : pandas.DataFrame
        One row per subject.

    Returns
    -------
    GroupedSpace

    Raises
    ------
    PopulationError
        E_POP_COVARIATE_MISSING, E_POP_GROUP_LEVELS.
    """
    n, d = len(covariate_table), parameters.d
    columns = np.tile(np.arange(d), (n, 1))
    all_parameters, source = list(parameters.parameters), list(range(d))
    names: dict[str, tuple[str, ...]] = {}
    for group in groups:
        p = parameters.index(group.parameter)
        levels, level_of = _levels(group, covariate_table)
        names[group.parameter] = tuple(f"{group.parameter}_{_label(level)}" for level in levels)
        for k, name in enumerate(names[group.parameter]):
            mine = replace(parameters.parameters[p], name=name)
            if k == 0:
                all_parameters[p] = mine
                continue
            columns[level_of == k, p] = len(all_parameters)
            all_parameters.append(mine)
            source.append(p)
    return GroupedSpace(ParameterSpace(tuple(all_parameters)), np.array(source), columns, names)


def grouped_effects(effects: RandomEffects, space: GroupedSpace) -> tuple[RandomEffects, set[frozenset[str]]]:
    """Spell out random effects.

    Parameters
    ----------
    effects : RandomEffects
    space : GroupedSpace

    Returns
    -------
    effects : RandomEffects
        Grouped ones come last, so that those of all subjects have the same covariance in every group.
    apart : set of frozenset of str
        Pairs that no subject has together: their covariance is none.
    """
    names = space.names

    def spelled(given: Sequence[str]) -> tuple[str, ...]:
        plain = [name for name in given if name not in names]
        return (*plain, *(copy for name in given if name in names for copy in names[name]))

    structure = effects.structure
    if not isinstance(structure, str):
        structure = tuple(spelled(block) for block in structure)
    apart = {frozenset((a, b)) for copies in names.values() for a in copies for b in copies if a != b}
    return RandomEffects(spelled(effects.on), structure), apart


def _levels(group: GroupEffect, covariate_table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    if group.covariate not in covariate_table.columns:
        known = ", ".join(str(c) for c in covariate_table.columns) or "none"
        raise PopulationError(
            "E_POP_COVARIATE_MISSING",
            f"{group.parameter!r} is grouped by {group.covariate!r}, which the data do not have. Covariates "
            f"in the data: {known}. Add the column or remove the group.",
        )
    values = np.asarray(covariate_table[group.covariate], dtype=np.float64)
    levels, level_of = np.unique(values, return_inverse=True)
    if not np.isfinite(values).all() or not 2 <= len(levels) <= MAX_GROUPS:
        raise PopulationError(
            "E_POP_GROUP_LEVELS",
            f"{group.parameter!r} is grouped by {group.covariate!r}, which has {len(levels)} distinct "
            f"values. Allowed: 2 to {MAX_GROUPS} finite ones, each of them a group.",
        )
    return levels, level_of


def _label(level: float) -> str:
    """Write a level as part of an identifier."""
    return f"{level:g}".replace("-", "m").replace(".", "p").replace("+", "")
