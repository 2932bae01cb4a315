"""Population model: how individual parameters are distributed, apart from how one individual behaves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.errors import PopulationError
from amortnlme.core.transforms import transform
from amortnlme.model.parameters import ParameterSpace
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.groups import GroupEffect, grouped_effects, spell_out_groups
from amortnlme.population.networks import NetworkEffect, covariate_column

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationModel:
    """Covariate effects and random effects on the individual parameters phi of a model.

    phi_i = theta + C_i beta + L u_i with u_i ~ N(0, I) and omega = L L'. Rows of L that belong to pooled
    parameters are exactly zero: nothing is ever given a small artificial variance. In occasion k of subject
    i, parameters with inter-occasion variability gain kappa_ik ~ N(0, gamma), one gamma for all occasions.

    Attributes
    ----------
    random_effects : RandomEffects
        Parameters not named there are pooled.
    covariates : tuple of CovariateEffect
    occasion_effects : RandomEffects or None
        Parameters that vary between the occasions of a subject (column OCC), and which of them together.
    groups : tuple of GroupEffect
        Parameters with a typical value and a variance of their own in every group of subjects.
    networks : tuple of NetworkEffect
        Networks of covariates, added to the linear effects.
    fixed : mapping of str to float
        Typical values (residual-error parameters included) that are given instead of estimated, natural
        scale.
    name : str
    parameters : tuple of str or None
        Parameters of the individual model this population is meant for; None leaves the check to `bind`.

    Raises
    ------
    PopulationError
        E_POP_COVARIATE_DUPLICATE, E_POP_UNKNOWN_PARAMETER, E_POP_FIXED, E_POP_GROUP.
    """

    random_effects: RandomEffects
    covariates: tuple[CovariateEffect, ...] = ()
    occasion_effects: RandomEffects | None = None
    groups: tuple[GroupEffect, ...] = ()
    networks: tuple[NetworkEffect, ...] = ()
    fixed: Mapping[str, float] = field(default_factory=dict, hash=False)
    name: str = "population"
    parameters: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse duplicate effects and, where the parameters are given, unknown names."""
        object.__setattr__(self, "covariates", tuple(self.covariates))
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "networks", tuple(self.networks))
        object.__setattr__(self, "fixed", _checked_fixed(self.fixed))
        self._check_groups()
        names = [effect.name for effect in (*self.covariates, *self.networks)]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise PopulationError(
                "E_POP_COVARIATE_DUPLICATE", f"covariate effect {twice!r} is given twice. Keep one."
            )
        if isinstance(self.parameters, ParameterSpace):
            object.__setattr__(self, "parameters", self.parameters.names)
        if self.parameters is not None:
            object.__setattr__(self, "parameters", tuple(self.parameters))
            self._check_names(tuple(self.parameters))

    def bind(
        self,
        covariate_table: pd.DataFrame,
        parameters: ParameterSpace,
        n_occasions: np.ndarray | None = None,
    ) -> BoundPopulation:
        """Join the population model with the covariates of the subjects and the parameters of a model.

        Parameters
        ----------
        covariate_table : pandas.DataFrame
            One row per subject (index: subject id), one column per covariate, as `Dataset.covariate_table()`
            gives.
        parameters : ParameterSpace
            Parameters of the individual model, d of them; those of an `OccasionStudy` with occasion effects.
        n_occasions : ndarray of int, shape (n_subjects,), optional
            Occasions of every subject; needed with occasion effects.

        Returns
        -------
        BoundPopulation

        Raises
        ------
        PopulationError
            E_POP_UNKNOWN_PARAMETER, E_POP_COVARIATE_MISSING, E_POP_OCCASIONS, E_POP_FIXED and the codes of
            `CovariateEffect.regressor`.
        """
        self._check_names(parameters.names)
        if (self.occasion_effects is None) != (n_occasions is None):
            raise PopulationError(
                "E_POP_OCCASIONS",
                f"population {self.name!r} {'lacks' if n_occasions is not None else 'has'} occasion effects, "
                f"but occasions were {'' if n_occasions is not None else 'not '}spelled out. Fit the dataset "
                "with its model by a method that handles them.",
            )
        ids = tuple(str(name) for name in covariate_table.index)
        regressors, centers = [], []
        for effect in self.covariates:
            column = covariate_column(covariate_table, effect.covariate, f"population {self.name!r}")
            regressor, center = effect.regressor(column, ids)
            regressors.append(regressor)
            centers.append(center)
        design = np.stack(regressors, axis=1) if regressors else np.zeros((len(ids), 0))
        self._check_collinear(design)
        effects, apart, grouped = self.random_effects, set[frozenset[str]](), None
        if self.groups:
            grouped = spell_out_groups(self.groups, parameters, covariate_table)
            effects, apart = grouped_effects(effects, grouped)
            parameters = grouped.parameters
        return BoundPopulation(
            parameters=parameters,
            random_effects=effects,
            covariates=self.covariates,
            regressors=design,
            centers=tuple(centers),
            subject_ids=ids,
            fixed=self._fixed_phi(parameters),
            occasion_effects=self.occasion_effects,
            n_occasions=None if n_occasions is None else np.asarray(n_occasions, dtype=np.int64),
            grouped=grouped,
            apart=apart,
            networks=tuple(network.bind(covariate_table) for network in self.networks),
        )

    def to_dict(self) -> dict[str, object]:
        """Return the population model as plain JSON values, with the keys of the TOML file."""
        covariates = [
            {"parameter": e.parameter, "covariate": e.covariate, "transform": e.transform, "center": e.center}
            for e in self.covariates
        ]
        out: dict[str, object] = {
            "name": self.name,
            "random_effects": self.random_effects.to_dict(),
            "covariate": covariates,
        }
        if self.occasion_effects is not None:
            out["occasion_effects"] = self.occasion_effects.to_dict()
        if self.groups:
            out["group"] = [{"parameter": g.parameter, "covariate": g.covariate} for g in self.groups]
        if self.networks:
            out["network"] = [_network_dict(network) for network in self.networks]
        if self.fixed:
            out["fixed"] = dict(self.fixed)
        if self.parameters is not None:
            out["parameters"] = list(self.parameters)
        return out

    def _fixed_phi(self, parameters: ParameterSpace) -> dict[int, float]:
        """Column of phi -> given typical value on the phi scale."""
        found = {}
        for name, value in self.fixed.items():
            column = parameters.index(name)
            kind = transform(parameters.parameters[column].transform)
            if not bool(kind.in_domain(np.asarray(value))):
                raise PopulationError(
                    "E_POP_FIXED",
                    f"{name} is fixed at {value:g}, which its transform {kind.name!r} does not allow. Give a "
                    "value inside its domain.",
                )
            found[column] = float(kind.forward(np.asarray(value)))
        return found

    def _check_collinear(self, design: np.ndarray) -> None:
        for name in {effect.parameter for effect in self.covariates}:
            columns = [c for c, effect in enumerate(self.covariates) if effect.parameter == name]
            scaled = np.column_stack(
                [np.ones(len(design)), design[:, columns] / design[:, columns].std(axis=0)]
            )
            if np.linalg.matrix_rank(scaled, tol=1e-8 * len(design)) < len(columns) + 1:
                given = ", ".join(self.covariates[c].covariate for c in columns)
                raise PopulationError(
                    "E_POP_COVARIATE_COLLINEAR",
                    f"the covariates of {name!r} ({given}) are linearly dependent over the {len(design)} "
                    f"subjects, so "
                    f"their coefficients cannot be told apart. Remove an effect.",
                )

    def _check_groups(self) -> None:
        """Refuse a grouped parameter with anything else that would have to know its group."""
        taken = {e.parameter: "a covariate effect" for e in self.covariates}
        taken |= dict.fromkeys(self.fixed, "a fixed value")
        taken |= {name: "a network" for network in self.networks for name in network.on}
        for group in self.groups:
            if group.parameter in taken:
                raise PopulationError(
                    "E_POP_GROUP",
                    f"population {self.name!r} groups {group.parameter!r} by {group.covariate!r}, but it has "
                    f"{taken[group.parameter]} too. Allowed: one of them. Remove the other.",
                )
            taken[group.parameter] = "another group"
        if self.groups and self.occasion_effects is not None:
            raise PopulationError(
                "E_POP_GROUP",
                f"population {self.name!r} has groups and occasion effects, which cannot be combined. Remove "
                "one of them.",
            )

    def _check_names(self, known: tuple[str, ...]) -> None:
        used = [("random effect", name) for name in self.random_effects.on]
        used += [(f"covariate effect of {e.covariate}", e.parameter) for e in self.covariates]
        if self.occasion_effects is not None:
            used += [("occasion effect", name) for name in self.occasion_effects.on]
        used += [(f"group by {g.covariate}", g.parameter) for g in self.groups]
        used += [("fixed value", name) for name in self.fixed]
        used += [(f"network {n.name}", name) for n in self.networks for name in n.on]
        for what, name in used:
            if name not in known:
                raise PopulationError(
                    "E_POP_UNKNOWN_PARAMETER",
                    f"population {self.name!r} has a {what} on {name!r}, which the model does not have. "
                    f"Its parameters: {', '.join(known)}.",
                )


def _network_dict(network: NetworkEffect) -> dict[str, object]:
    inputs = [
        {
            "covariate": i.covariate,
            "transform": i.transform,
            "center": i.center,
            "scale": i.scale,
            "direction": i.direction,
        }
        for i in network.inputs
    ]
    return {
        "on": list(network.on),
        "inputs": inputs,
        "hidden": list(network.hidden),
        "activation": network.activation,
        "head": network.head,
        "ridge": network.ridge,
    }


def _checked_fixed(fixed: Mapping[str, float]) -> Mapping[str, float]:
    for name, value in fixed.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise PopulationError(
                "E_POP_FIXED", f"{name} is fixed at {value!r}. Give a finite number on the natural scale."
            )
    return MappingProxyType({name: float(value) for name, value in fixed.items()})
