"""Population model: how individual parameters are distributed, apart from how one individual behaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.errors import PopulationError
from amortnlme.model.parameters import ParameterSpace
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.effects import CovariateEffect, RandomEffects

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationModel:
    """Covariate effects and random effects on the individual parameters phi of a model.

    phi_i = theta + C_i beta + L u_i with u_i ~ N(0, I) and omega = L L'. Rows of L that belong to pooled
    parameters are exactly zero: nothing is ever given a small artificial variance.

    Attributes
    ----------
    random_effects : RandomEffects
        Parameters not named there are pooled.
    covariates : tuple of CovariateEffect
    name : str
    parameters : tuple of str or None
        Parameters of the individual model this population is meant for; None leaves the check to `bind`.

    Raises
    ------
    PopulationError
        E_POP_COVARIATE_DUPLICATE, E_POP_UNKNOWN_PARAMETER.
    """

    random_effects: RandomEffects
    covariates: tuple[CovariateEffect, ...] = ()
    name: str = "population"
    parameters: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse duplicate effects and, where the parameters are given, unknown names."""
        object.__setattr__(self, "covariates", tuple(self.covariates))
        names = [effect.name for effect in self.covariates]
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

    def bind(self, covariate_table: pd.DataFrame, parameters: ParameterSpace) -> BoundPopulation:
        """Join the population model with the covariates of the subjects and the parameters of a model.

        Parameters
        ----------
        covariate_table : pandas.DataFrame
            One row per subject (index: subject id), one column per covariate, as `Dataset.covariate_table()`
            gives.
        parameters : ParameterSpace
            Parameters of the individual model, d of them.

        Returns
        -------
        BoundPopulation

        Raises
        ------
        PopulationError
            E_POP_UNKNOWN_PARAMETER, E_POP_COVARIATE_MISSING and the codes of `CovariateEffect.regressor`.
        """
        self._check_names(parameters.names)
        ids = tuple(str(name) for name in covariate_table.index)
        regressors, centers = [], []
        for effect in self.covariates:
            if effect.covariate not in covariate_table.columns:
                known = ", ".join(str(c) for c in covariate_table.columns) or "none"
                raise PopulationError(
                    "E_POP_COVARIATE_MISSING",
                    f"population {self.name!r} uses covariate {effect.covariate!r}, which the data do not "
                    f"have. "
                    f"Covariates in the data: {known}. Add the column or remove the effect on "
                    f"{effect.parameter}.",
                )
            column = np.asarray(covariate_table[effect.covariate], dtype=np.float64)
            regressor, center = effect.regressor(column, ids)
            regressors.append(regressor)
            centers.append(center)
        design = np.stack(regressors, axis=1) if regressors else np.zeros((len(ids), 0))
        self._check_collinear(design)
        return BoundPopulation(
            parameters=parameters,
            random_effects=self.random_effects,
            covariates=self.covariates,
            regressors=design,
            centers=tuple(centers),
            subject_ids=ids,
        )

    def to_dict(self) -> dict[str, object]:
        """Return the population model as plain JSON values, with the keys of the TOML file."""
        structure = self.random_effects.structure
        effects: dict[str, object] = {"on": list(self.random_effects.on)}
        if isinstance(structure, str):
            effects["structure"] = structure
        else:
            effects["blocks"] = [list(block) for block in structure]
        covariates = [
            {"parameter": e.parameter, "covariate": e.covariate, "transform": e.transform, "center": e.center}
            for e in self.covariates
        ]
        out: dict[str, object] = {"name": self.name, "random_effects": effects, "covariate": covariates}
        if self.parameters is not None:
            out["parameters"] = list(self.parameters)
        return out

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

    def _check_names(self, known: tuple[str, ...]) -> None:
        used = [("random effect", name) for name in self.random_effects.on]
        used += [(f"covariate effect of {e.covariate}", e.parameter) for e in self.covariates]
        for what, name in used:
            if name not in known:
                raise PopulationError(
                    "E_POP_UNKNOWN_PARAMETER",
                    f"population {self.name!r} has a {what} on {name!r}, which the model does not have. "
                    f"Its parameters: {', '.join(known)}.",
                )
