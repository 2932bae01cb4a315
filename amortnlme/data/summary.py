"""What a table holds, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from amortnlme.data.subject import Subject, TimeVarying


@dataclass(frozen=True, slots=True)
class CovariateSummary:
    """Range of one covariate over subjects (value at the first record).

    Attributes
    ----------
    name : str
    minimum, median, maximum : float
        Over the subjects where it is known; NaN where it never is.
    n_missing : int
        Subjects without a value.
    time_varying : bool
        Whether it changes within a subject.
    """

    name: str
    minimum: float
    median: float
    maximum: float
    n_missing: int
    time_varying: bool


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """What a data set holds.

    Attributes
    ----------
    name : str
    n_subjects, n_doses, n_observations, n_censored, n_not_measured : int
    time_range : tuple of float
        First and last record.
    outputs : tuple of int
        1-based outcomes that were observed.
    covariates : tuple of CovariateSummary
    exclusions : tuple of (int, str, str)
        Row, subject, reason.
    without_observations : tuple of str
        Subjects that have no measurement; they are kept.
    source : str
        Where the data came from.
    """

    name: str
    n_subjects: int
    n_doses: int
    n_observations: int
    n_censored: int
    n_not_measured: int
    time_range: tuple[float, float]
    outputs: tuple[int, ...]
    covariates: tuple[CovariateSummary, ...]
    exclusions: tuple[tuple[int, str, str], ...]
    without_observations: tuple[str, ...] = ()
    source: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return the summary as JSON-able values (NaN becomes None).

        Returns
        -------
        dict
        """
        values = asdict(self)
        for covariate in values["covariates"]:
            for key in ("minimum", "median", "maximum"):
                covariate[key] = covariate[key] if np.isfinite(covariate[key]) else None
        values["covariates"] = list(values["covariates"])
        values["exclusions"] = [dict(zip(("row", "id", "reason"), e, strict=True)) for e in self.exclusions]
        return values

    def lines(self) -> list[str]:
        """Return the summary as lines of text.

        Returns
        -------
        list of str
        """
        text = [
            f"{self.name}: {self.n_subjects} subjects, {self.n_doses} doses, {self.n_observations} "
            "observations "
            f"({self.n_censored} beyond a limit of quantification, {self.n_not_measured} times without a "
            "measurement)",
            f"time from {self.time_range[0]:g} to {self.time_range[1]:g}; outcomes: "
            f"{', '.join(map(str, self.outputs))}",
        ]
        for c in self.covariates:
            kind = "time-varying, each value holds from its record on" if c.time_varying else "constant"
            text.append(
                f"covariate {c.name} ({kind}): {c.minimum:g} to {c.maximum:g}, median {c.median:g}, "
                f"{c.n_missing} missing"
            )
        if self.source:
            text.insert(1, f"read from {self.source}")
        if self.without_observations:
            text.append(f"without a measurement: {', '.join(map(repr, self.without_observations))}")
        text += [f"left out: row {row}, subject {i}: {reason}" for row, i, reason in self.exclusions]
        return text


def summarize(
    name: str, subjects: Sequence[Subject], exclusions: Sequence[tuple[int, str, str]], *, source: str = ""
) -> DatasetSummary:
    """Count what subjects hold.

    Parameters
    ----------
    name : str
    subjects : sequence of Subject
        At least one.
    exclusions : sequence of (int, str, str)
        Row, subject, reason.
    source : str
        Where the data came from.

    Returns
    -------
    DatasetSummary
    """
    times = np.concatenate([s.design.time for s in subjects])
    outputs = np.unique(np.concatenate([s.design.observation_outputs[s.observed] for s in subjects]))
    return DatasetSummary(
        name=name,
        n_subjects=len(subjects),
        n_doses=sum(s.design.n_doses for s in subjects),
        n_observations=sum(s.n_observed for s in subjects),
        n_censored=sum(s.n_censored for s in subjects),
        n_not_measured=sum(int((~s.observed).sum()) for s in subjects),
        time_range=(float(times.min()), float(times.max())),
        outputs=tuple(int(o) for o in outputs),
        covariates=tuple(_covariate(label, subjects) for label in subjects[0].covariates),
        exclusions=tuple(exclusions),
        without_observations=tuple(s.id for s in subjects if not s.n_observed),
        source=source,
    )


def _covariate(name: str, subjects: Sequence[Subject]) -> CovariateSummary:
    first = np.array([s.covariate_values(name)[0] for s in subjects])
    known = first[~np.isnan(first)]
    low, middle, high = (known.min(), np.median(known), known.max()) if known.size else (np.nan,) * 3
    varying = any(isinstance(s.covariates[name], TimeVarying) for s in subjects)
    return CovariateSummary(
        name, float(low), float(middle), float(high), int(first.size - known.size), varying
    )
