"""One individual: design, measurements and covariates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from amortnlme.core.errors import DataError
from amortnlme.data.design import Design, frozen_array


@dataclass(frozen=True, slots=True, eq=False)
class TimeVarying:
    """A covariate that changes with the records of a design: the last value is carried forward.

    Attributes
    ----------
    values : ndarray, shape (k,)
        The value in force from each record of the design on.
    """

    values: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", frozen_array(self.values, np.float64))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TimeVarying):
            return NotImplemented
        return np.array_equal(self.values, other.values, equal_nan=True)


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One individual's records.

    Attributes
    ----------
    id : str
    design : Design
        With m observations.
    y : ndarray, shape (m,)
        Measurements in the unit of the outcome; for censored ones the limit of quantification.
    observed : ndarray of bool, shape (m,)
        False where the time is asked for but nothing was measured.
    censoring : ndarray of int, shape (m,)
        0 none; 1 below the limit in `y`; -1 above the limit in `y`.
    limit : ndarray, shape (m,)
        Other end of the interval of a censored measurement; NaN where there is none.
    occasion : ndarray of int, shape (k,)
        Label of the occasion in force from each record of the design on, as a covariate is.
    covariates : mapping of str to float or TimeVarying
        A time-varying covariate that never changes becomes a float.

    What is not observed has no value: `y` is NaN, `censoring` 0 and `limit` NaN there; `limit` is NaN without
    censoring. So subjects that mean the same are equal.

    Raises
    ------
    DataError
        If lengths do not match, an observed measurement is not finite, a censoring code is unknown, or a
        covariate is infinite.
    """

    id: str
    design: Design
    y: np.ndarray
    observed: np.ndarray
    censoring: np.ndarray
    limit: np.ndarray
    occasion: np.ndarray
    covariates: Mapping[str, float | TimeVarying] = field(default_factory=dict)

    def __post_init__(self) -> None:
        m, k = self.design.n_observations, self.design.n_records
        types = {
            "y": (np.float64, m, "observation"),
            "observed": (np.bool_, m, "observation"),
            "censoring": (np.int8, m, "observation"),
            "limit": (np.float64, m, "observation"),
            "occasion": (np.int32, k, "record"),
        }
        for name, (dtype, length, unit) in types.items():
            values = frozen_array(getattr(self, name), dtype)
            if values.shape != (length,):
                raise DataError(
                    "E_DATA_SHAPE",
                    f"{name} of subject {self.id!r} has shape {values.shape}; its design has {length} "
                    f"{unit}s. Give one value per {unit}.",
                )
            object.__setattr__(self, name, values)
        if not np.isfinite(self.y[self.observed]).all():
            raise DataError(
                "E_DATA_NOT_FINITE",
                f"Subject {self.id!r} has a measurement that is not finite: {self.y[self.observed]}. "
                f"Mark it as not observed or correct it.",
            )
        _clear_meaningless(self)
        covariates = {name: _settled(value, name, self) for name, value in self.covariates.items()}
        object.__setattr__(self, "covariates", MappingProxyType(covariates))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Subject):
            return NotImplemented
        arrays = ("y", "observed", "censoring", "limit", "occasion")
        same = all(
            np.array_equal(getattr(self, a), getattr(other, a), equal_nan=a in ("y", "limit")) for a in arrays
        )
        return (
            same
            and self.id == other.id
            and self.design == other.design
            and set(self.covariates) == set(other.covariates)
            and all(_same(value, other.covariates[name]) for name, value in self.covariates.items())
        )

    @property
    def n_observed(self) -> int:
        """Number of measurements (censored ones included)."""
        return int(self.observed.sum())

    @property
    def n_censored(self) -> int:
        """Number of censored measurements."""
        return int((self.observed & (self.censoring != 0)).sum())

    @property
    def occasion_number(self) -> np.ndarray:
        """Occasions counted from 0 in the order in which they begin, shape (k,)."""
        _, first, label = np.unique(self.occasion, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[label]

    def covariate_values(self, name: str) -> np.ndarray:
        """Return a covariate's value in force from each record on.

        Parameters
        ----------
        name : str
            A covariate of this subject.

        Returns
        -------
        ndarray, shape (k,)

        Raises
        ------
        DataError
            If the subject has no such covariate.
        """
        if name not in self.covariates:
            known = ", ".join(self.covariates) or "none"
            raise DataError(
                "E_DATA_COVARIATE",
                f"Subject {self.id!r} has no covariate {name!r}; it has {known}. Add the column or correct "
                "the name.",
            )
        value = self.covariates[name]
        if isinstance(value, TimeVarying):
            return np.array(value.values)
        return np.full(self.design.n_records, float(value))

    @classmethod
    def from_observations(
        cls,
        subject_id: str,
        design: Design,
        y: np.ndarray,
        covariates: Mapping[str, float | TimeVarying] | None = None,
    ) -> Subject:
        """Build a subject whose measurements are all quantified; NaN means not measured.

        Parameters
        ----------
        subject_id : str
        design : Design
        y : ndarray, shape (m,)
        covariates : mapping, optional

        Returns
        -------
        Subject

        Raises
        ------
        DataError
            As the class.
        """
        values = np.asarray(y, dtype=float)
        return cls(
            id=subject_id,
            design=design,
            y=values,
            observed=~np.isnan(values),
            censoring=np.zeros(values.shape, np.int8),
            limit=np.full(values.shape, np.nan),
            occasion=np.ones(design.n_records, np.int32),
            covariates=covariates or {},
        )


def _clear_meaningless(subject: Subject) -> None:
    unknown = subject.observed & (np.abs(subject.censoring) > 1)
    if unknown.any():
        raise DataError(
            "E_DATA_CENS",
            f"Subject {subject.id!r} has the censoring code {subject.censoring[unknown][0]}. "
            f"Allowed: 0 (measured), 1 (below the limit in y), -1 (above it).",
        )
    censored = subject.observed & (subject.censoring != 0)
    settled = {
        "y": np.where(subject.observed, subject.y, np.nan),
        "censoring": np.where(censored, subject.censoring, 0),
        "limit": np.where(censored, subject.limit, np.nan),
    }
    for name, values in settled.items():
        object.__setattr__(subject, name, frozen_array(values, getattr(subject, name).dtype.type))


def _same(one: float | TimeVarying, other: float | TimeVarying) -> bool:
    if isinstance(one, TimeVarying) or isinstance(other, TimeVarying):
        return one == other
    return one == other or (one != one and other != other)


def _settled(value: float | TimeVarying, name: str, subject: Subject) -> float | TimeVarying:
    values = value.values if isinstance(value, TimeVarying) else np.array([value], dtype=float)
    if isinstance(value, TimeVarying) and values.shape != (subject.design.n_records,):
        raise DataError(
            "E_DATA_SHAPE",
            f"Covariate {name!r} of subject {subject.id!r} has {values.size} values, but its design has "
            f"{subject.design.n_records} records. Give one value per record.",
        )
    if np.isinf(values).any():
        raise DataError(
            "E_DATA_NOT_FINITE",
            f"Covariate {name!r} of subject {subject.id!r} is infinite. Correct it; NaN means not known.",
        )
    if values.size and (np.array_equal(values, np.full(values.shape, values[0]), equal_nan=True)):
        return float(values[0])
    return value
