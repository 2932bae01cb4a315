"""What every engine offers to the models above: observables of many rows, deterministic or random."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from amortnlme.solve.schedule import Schedule


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """N parameter vectors, each under one of n designs.

    Attributes
    ----------
    psi : ndarray, shape (N, d)
        Structural parameters on the natural scale.
    schedule : Schedule
        Events of the n designs.
    design_index : ndarray of int, shape (N,)
        Design of each row.
    time : ndarray, shape (n, m)   [time]
        Times of the observations.
    output : ndarray of int, shape (n, m)
        0-based output of each observation; 0 where a design has none.
    covariates : ndarray, shape (n, m, c)
        Values in force at each observation.
    """

    psi: np.ndarray
    schedule: Schedule
    design_index: np.ndarray
    time: np.ndarray
    output: np.ndarray
    covariates: np.ndarray

    @property
    def n_rows(self) -> int:
        """Number of parameter vectors, N."""
        return self.psi.shape[0]


class AbstractEngine(ABC):
    """Predicts the observables of deterministic dynamics."""

    @property
    @abstractmethod
    def has_sensitivities(self) -> bool:
        """Whether `predict_with_sensitivity` is exact (not a finite difference)."""

    @abstractmethod
    def predict(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Predict the observations of every row.

        Parameters
        ----------
        rows : Rows

        Returns
        -------
        f : ndarray, shape (N, m)   [observation units]
            NaN in columns a design does not have.
        status : ndarray of int, shape (N,)
            Values of `amortnlme.core.status.SolveStatus`; nothing is raised.
        """

    @abstractmethod
    def predict_with_sensitivity(self, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `predict`, with the derivatives with respect to psi.

        Parameters
        ----------
        rows : Rows

        Returns
        -------
        f : ndarray, shape (N, m)
        df_dpsi : ndarray, shape (N, m, d)
        status : ndarray of int, shape (N,)
        """


class AbstractStochasticEngine(ABC):
    """Draws observables of random dynamics; there is no prediction, only a distribution."""

    @abstractmethod
    def simulate(self, rows: Rows, key: tuple[int, int], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw one path for every row.

        Parameters
        ----------
        rows : Rows
        key : tuple of two int
            Key of the counter-based generator (each 0 <= k < 2**32).
        ids : ndarray of int, shape (N,)
            Number of each simulation: the same key and number give the same path, wherever the row stands.

        Returns
        -------
        f : ndarray, shape (N, m)   [observation units]
            NaN in columns a design does not have.
        status : ndarray of int, shape (N,)
        """
