"""A study: subjects, the rows that were left out, and what a reader wants to know first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from types import MappingProxyType

import numpy as np
import pandas as pd

from amortnlme.core.errors import DataError
from amortnlme.core.fingerprint import fingerprint_arrays, fingerprint_json
from amortnlme.data.design import FIELDS, DesignBatch
from amortnlme.data.subject import Subject
from amortnlme.data.summary import DatasetSummary, summarize


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A row of a table that was read but not used.

    Attributes
    ----------
    row : int
        1-based row of the table, the header not counted.
    id : str
        Subject of the row.
    reason : str
        Why it was left out.
    """

    row: int
    id: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Subjects of one study.

    Attributes
    ----------
    subjects : tuple of Subject
    name : str
    exclusions : tuple of Exclusion
        Rows that were left out when the table was read.
    units : mapping of str to str
        Unit of a column where known.
    source : str
        Where the data came from, in a few words; not part of what makes data sets equal.

    Raises
    ------
    DataError
        If there is no subject, no observation, an identifier twice, or subjects with different covariates.
    """

    subjects: tuple[Subject, ...]
    name: str = "data"
    exclusions: tuple[Exclusion, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "subjects", tuple(self.subjects))
        object.__setattr__(self, "exclusions", tuple(self.exclusions))
        object.__setattr__(self, "units", MappingProxyType(dict(self.units)))
        if not self.subjects:
            raise DataError("E_DATA_EMPTY", f"Data {self.name!r} has no subject. At least one is needed.")
        if len(set(self.ids)) != len(self.ids):
            twice = sorted(i for i, count in Counter(self.ids).items() if count > 1)
            raise DataError(
                "E_DATA_DUPLICATE_ID",
                f"Identifiers occur more than once: {', '.join(twice)}. Make them unique.",
            )
        if not self.n_observations:
            raise DataError(
                "E_DATA_NO_OBSERVATIONS", f"Data {self.name!r} holds no observation. At least one is needed."
            )
        for subject in self.subjects:
            if set(subject.covariates) != set(self.subjects[0].covariates):
                raise DataError(
                    "E_DATA_COVARIATE",
                    f"Subject {subject.id!r} has covariates {sorted(subject.covariates)}, but subject "
                    f"{self.ids[0]!r} has "
                    f"{sorted(self.subjects[0].covariates)}. Give every subject the same ones.",
                )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Dataset):
            return NotImplemented
        return self.subjects == other.subjects

    @property
    def ids(self) -> tuple[str, ...]:
        """Identifiers of the subjects, in order."""
        return tuple(subject.id for subject in self.subjects)

    @property
    def n_subjects(self) -> int:
        """Number of subjects."""
        return len(self.subjects)

    @property
    def n_observations(self) -> int:
        """Number of measurements of all subjects, censored ones included."""
        return sum(subject.n_observed for subject in self.subjects)

    @property
    def covariate_names(self) -> tuple[str, ...]:
        """Names of the covariates, in column order."""
        return tuple(self.subjects[0].covariates)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of identifiers, designs, measurements and covariates."""
        parts = [fingerprint_json([list(self.ids), list(self.covariate_names)])]
        for subject in self.subjects:
            # what is missing counts as missing, whatever NaN or leftover number stands there
            y = np.where(subject.observed, subject.y, 0.0)
            limit = np.where(np.isnan(subject.limit), np.inf, subject.limit)
            arrays = [getattr(subject.design, name) for name in FIELDS]
            arrays += [y, subject.observed, subject.censoring, limit, subject.occasion]
            arrays += [subject.covariate_values(name) for name in self.covariate_names]
            parts.append(fingerprint_arrays(*arrays))
        return fingerprint_json(parts)

    def covariate_table(self) -> pd.DataFrame:
        """Return each subject's covariates at its first record.

        Returns
        -------
        pandas.DataFrame
            Index: subject id; one float column per covariate.
        """
        rows = {name: [s.covariate_values(name)[0] for s in self.subjects] for name in self.covariate_names}
        return pd.DataFrame(rows, index=pd.Index(self.ids, name="id"), dtype=float)

    def select(self, ids: Sequence[str]) -> Dataset:
        """Return the study restricted to some subjects, in the order asked for.

        Parameters
        ----------
        ids : sequence of str
            Identifiers of subjects.

        Returns
        -------
        Dataset

        Raises
        ------
        DataError
            If an identifier is unknown.
        """
        by_id = {subject.id: subject for subject in self.subjects}
        unknown = [i for i in ids if i not in by_id]
        if unknown:
            raise DataError(
                "E_DATA_UNKNOWN_ID",
                f"No subject is called {', '.join(map(repr, unknown))}. There are {', '.join(self.ids)}.",
            )
        asked = set(ids)
        kept = tuple(e for e in self.exclusions if e.id in asked)
        return Dataset(tuple(by_id[i] for i in ids), self.name, kept, self.units, self.source)

    def design_batch(self) -> DesignBatch:
        """Return all designs, padded, with covariates per record.

        Returns
        -------
        DesignBatch
            Of S designs.
        """
        width = max(subject.design.n_records for subject in self.subjects)
        covariates = {}
        for name in self.covariate_names:
            columns = [subject.covariate_values(name) for subject in self.subjects]
            covariates[name] = np.stack(
                [np.pad(column, (0, width - len(column)), mode="edge") for column in columns]
            )
        return DesignBatch.from_designs([subject.design for subject in self.subjects], covariates)

    def y_padded(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the measurements in rectangular arrays, columns as in `design_batch().observation_times`.

        Returns
        -------
        y : ndarray, shape (S, m)
            NaN where nothing was measured.
        observed : ndarray of bool, shape (S, m)
        censoring : ndarray of int, shape (S, m)
        limit : ndarray, shape (S, m)
            NaN where there is none.
        """
        width = reduce(max, (subject.design.n_observations for subject in self.subjects))
        shape = (self.n_subjects, width)
        y, limit = np.full(shape, np.nan), np.full(shape, np.nan)
        observed, censoring = np.zeros(shape, bool), np.zeros(shape, np.int8)
        for row, subject in enumerate(self.subjects):
            m = subject.design.n_observations
            y[row, :m] = np.where(subject.observed, subject.y, np.nan)
            observed[row, :m], censoring[row, :m], limit[row, :m] = (
                subject.observed,
                subject.censoring,
                subject.limit,
            )
        return y, observed, censoring, limit

    def summary(self) -> DatasetSummary:
        """Return what a reader wants to know first.

        Returns
        -------
        DatasetSummary
        """
        exclusions = [(e.row, e.id, e.reason) for e in self.exclusions]
        return summarize(self.name, self.subjects, exclusions, source=self.source)

    def to_dict(self) -> dict[str, object]:
        """Return the summary and the fingerprint as JSON-able values.

        Returns
        -------
        dict
        """
        return {**self.summary().to_dict(), "fingerprint": self.fingerprint, "units": dict(self.units)}
