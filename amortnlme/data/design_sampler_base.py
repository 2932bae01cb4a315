"""What every distribution of designs can do, and how drawn doses and observations become records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from amortnlme.data.design import DesignBatch, EventKind
from amortnlme.data.subject import Subject


class AbstractDesignSampler(ABC):
    """A distribution of designs; part of the identity of an estimator trained under it."""

    __slots__ = ()

    @property
    @abstractmethod
    def max_observations(self) -> int:
        """Largest number of observations of a design."""

    @property
    @abstractmethod
    def max_records(self) -> int:
        """Largest number of records of a design."""

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> DesignBatch:
        """Draw designs with their covariates.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator

        Returns
        -------
        DesignBatch
            n designs.
        """

    @abstractmethod
    def contains(self, subject: Subject) -> tuple[str, ...]:
        """Say why a subject lies outside the designs that can be drawn.

        Parameters
        ----------
        subject : Subject

        Returns
        -------
        tuple of str
            Reasons, each a sentence; empty when the subject is inside.
        """

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description; `design_sampler_from_config` rebuilds it.

        Returns
        -------
        dict
        """


def unsampled_features(subject: Subject) -> list[str]:
    """Name what no design sampler draws: resets, steady-state doses, several dosed compartments, censoring.

    Parameters
    ----------
    subject : Subject

    Returns
    -------
    list of str
        Reasons, each a sentence.
    """
    design = subject.design
    reasons = []
    if (design.kind == EventKind.RESET).any():
        reasons.append("it has a reset record; the designs have none")
    if design.is_dose.any() and (design.ss[design.is_dose] > 0).any():
        reasons.append("it has a steady-state dose; the designs list every dose")
    if design.is_dose.any() and len(np.unique(design.compartment[design.is_dose])) > 1:
        reasons.append("its doses go to different compartments; the designs use one")
    if np.any(np.asarray(subject.censoring)[np.asarray(subject.observed, dtype=bool)]):
        reasons.append("it has censored observations; the simulated observations are never censored")
    return reasons


def merge_records(
    dose_time: np.ndarray,
    amount: np.ndarray,
    duration: np.ndarray,
    time: np.ndarray,
    output: np.ndarray,
    covariates: Mapping[str, np.ndarray],
) -> DesignBatch:
    """Sort doses and observations into records; a dose comes first at a tie.

    Parameters
    ----------
    dose_time : ndarray, shape (n, D)   [time]
        inf where a design has fewer doses.
    amount : ndarray, shape (n, D)   [amount]
    duration : ndarray, shape (n,)   [time]
        Of every dose of a design; 0 for a bolus.
    time : ndarray, shape (n, O)   [time]
        Observations in any order; inf where a design has fewer.
    output : ndarray of int, shape (n, O)
        1-based outcome of each observation.
    covariates : mapping of str to ndarray, shape (n,)

    Returns
    -------
    DesignBatch
    """
    n, D = dose_time.shape
    zeros = np.zeros((n, time.shape[1]))
    unsorted = np.concatenate([dose_time, time], axis=1)
    is_real = np.isfinite(unsorted)
    order = np.argsort(unsorted, axis=1, kind="stable")

    def sort(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, order, axis=1)

    is_dose = (order < D) & sort(is_real)
    is_observation = (order >= D) & sort(is_real)
    record_time = sort(unsorted)
    last = np.max(np.where(np.isfinite(record_time), record_time, -np.inf), axis=1, keepdims=True)
    kind = np.full(order.shape, int(EventKind.OTHER), dtype=np.int8)
    kind[is_observation] = EventKind.OBSERVATION
    given = np.where(duration > 0.0, int(EventKind.INFUSION), int(EventKind.BOLUS))
    nothing = np.zeros(order.shape)
    columns = {
        "time": np.where(np.isfinite(record_time), record_time, last),
        "kind": np.where(is_dose, given[:, None], kind),
        "compartment": nothing,
        "amount": np.where(is_dose, sort(np.concatenate([amount, zeros], axis=1)), 0.0),
        "duration": np.where(is_dose, duration[:, None], 0.0),
        "ii": nothing,
        "ss": nothing,
        "output": np.where(is_observation, sort(np.concatenate([np.zeros((n, D)), output], axis=1)), 0),
    }
    return DesignBatch.from_columns(columns, is_real.sum(axis=1), covariates)
