"""What a covariate does to a parameter under a fitted population, with a band over several fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.errors import PopulationError
from amortnlme.population.bound_population import BoundPopulation

if TYPE_CHECKING:
    import pandas as pd

N_GRID = 101
#: Percentiles of the bands.
INNER, OUTER = (25.0, 75.0), (5.0, 95.0)


@dataclass(frozen=True, slots=True, eq=False)
class PartialEffect:
    """Typical values of one parameter along one covariate, the other covariates at their references.

    Attributes
    ----------
    parameter, covariate, unit : str
        The unit is that of the parameter.
    grid : ndarray, shape (n_grid,)
        Covariate units.
    curves : ndarray, shape (n_fits, n_grid)
        Natural scale.
    observed : ndarray, shape (n_observed,)
        The covariate of the subjects the fits come from: where there are none the curve is a guess.
    """

    parameter: str
    covariate: str
    unit: str
    grid: np.ndarray
    curves: np.ndarray
    observed: np.ndarray

    @property
    def median(self) -> np.ndarray:
        """Median curve, shape (n_grid,)."""
        return np.median(self.curves, axis=0)

    def band(self, percentiles: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Pointwise percentiles over the fits.

        Parameters
        ----------
        percentiles : tuple of float

        Returns
        -------
        low, high : ndarray, shape (n_grid,)
        """
        low, high = np.percentile(self.curves, percentiles, axis=0)
        return low, high


def partial_effect(
    members: Sequence[tuple[BoundPopulation, np.ndarray]],
    covariate_table: pd.DataFrame,
    parameter: str,
    covariate: str,
    reference: Mapping[str, float] | None = None,
    grid: np.ndarray | None = None,
) -> PartialEffect:
    """Trace a covariate through one or several fits of the same model.

    Parameters
    ----------
    members : sequence of (BoundPopulation, ndarray)
        Bound populations with their estimates x: replicates, folds, bootstrap samples or an ensemble.
    covariate_table : pandas.DataFrame
        One row per subject, as `Dataset.covariate_table()` gives.
    parameter, covariate : str
    reference : mapping of str to float, optional
        Values of the other covariates; their medians where not given.
    grid : ndarray, shape (n_grid,), optional
        From the smallest to the largest value in the table where not given.

    Returns
    -------
    PartialEffect

    Raises
    ------
    PopulationError
        E_POP_COVARIATE_MISSING, E_POP_NEW_SUBJECTS.
    """
    import pandas as pd

    if covariate not in covariate_table.columns:
        known = ", ".join(str(c) for c in covariate_table.columns) or "none"
        raise PopulationError(
            "E_POP_COVARIATE_MISSING",
            f"there is no covariate {covariate!r} in the data. Covariates in the data: {known}. Name one.",
        )
    observed = np.asarray(covariate_table[covariate], dtype=np.float64)
    points = np.linspace(observed.min(), observed.max(), N_GRID) if grid is None else np.asarray(grid)
    others = covariate_table.median().to_dict() | dict(reference or {})
    table = pd.DataFrame({str(c): np.full(len(points), float(v)) for c, v in others.items()})
    table[covariate] = points
    curves = []
    for population, x in members:
        space = population.parameters
        typical = population.for_subjects(table).unpack(x)[0]
        curves.append(space.to_psi(typical)[:, space.index(parameter)])
    space = members[0][0].parameters
    unit = space.parameters[space.index(parameter)].unit
    return PartialEffect(parameter, covariate, unit, points, np.array(curves), observed)
