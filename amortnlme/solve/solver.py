"""What every solver of individual dynamics offers to the models above."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from amortnlme.solve.schedule import Schedule


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


class AbstractSolver(ABC):
    """Solves the dynamics of one model for many rows (parameter vectors), each with its own design."""

    @abstractmethod
    def solve(
        self,
        psi: np.ndarray,
        schedule: Schedule,
        design_index: np.ndarray,
        *,
        sensitivities: bool,
    ) -> StateSolution:
        """Solve every row.

        Parameters
        ----------
        psi : ndarray, shape (N, d)
            Structural parameters on the natural scale.
        schedule : Schedule
            Events of the designs.
        design_index : ndarray of int, shape (N,)
            Design of each row.
        sensitivities : bool
            Whether to compute `dx_dpsi`.

        Returns
        -------
        StateSolution
            A row that cannot be solved has a non-zero status; nothing is raised.
        """
