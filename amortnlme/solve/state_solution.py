"""States at the observations, as engines hand them to `observables.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class StateSolution:
    """States at the observations of many rows.

    Attributes
    ----------
    x : ndarray, shape (N, m, n_states)
        States in declaration order; NaN in columns that a design does not have.
    status : ndarray of int, shape (N,)
        Values of `amortnlme.core.status.SolveStatus`.
    dx_dpsi : ndarray, shape (N, m, p, n_states), or None
        Sensitivities with respect to the parameters `sensitive`.
    sensitive : tuple of int
        Columns of psi that move the states; the others have no sensitivity.
    """

    x: np.ndarray
    status: np.ndarray
    dx_dpsi: np.ndarray | None = None
    sensitive: tuple[int, ...] = ()
