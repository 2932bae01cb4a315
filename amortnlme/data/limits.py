"""Measurements that were simulated, and limits of quantification applied to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from amortnlme.core.errors import DataError
from amortnlme.data.dataset import Dataset
from amortnlme.data.subject import Subject


def with_measurements(dataset: Dataset, y: np.ndarray) -> Dataset:
    """Return the study with other measurements at its times, for instance simulated ones.

    Parameters
    ----------
    dataset : Dataset
    y : ndarray, shape (S, m)   [output units]
        Columns as in `Dataset.y_padded`; NaN is not measured. What was not measured in the study stays so.

    Returns
    -------
    Dataset
        Nothing in it is censored: apply `censor`.

    Raises
    ------
    DataError
        E_DATA_SHAPE.
    """
    observed = dataset.y_padded()[1]
    if np.shape(y) != observed.shape:
        raise DataError(
            "E_DATA_SHAPE",
            f"y has shape {np.shape(y)}, but the study has {observed.shape[0]} subjects with up to "
            f"{observed.shape[1]} observations. Give one row per subject, padded to the longest.",
        )
    values = np.where(observed, y, np.nan)
    subjects = []
    for subject, row in zip(dataset.subjects, values, strict=True):
        own = row[: subject.design.n_observations]
        plain = Subject.from_observations(subject.id, subject.design, own, subject.covariates)
        subjects.append(replace(plain, occasion=subject.occasion))
    return replace(dataset, subjects=tuple(subjects))


def censor(
    dataset: Dataset,
    lloq: float | Mapping[int, float] | None = None,
    uloq: float | Mapping[int, float] | None = None,
) -> Dataset:
    """Return the study as an assay with limits of quantification would have reported it.

    Measurements below `lloq` become censored at it (CENS 1), those above `uloq` at that one (CENS -1); all
    likelihood methods but FO use them (method M3). What is censored already stays as it is.

    Parameters
    ----------
    dataset : Dataset
    lloq, uloq : float or mapping of int to float, optional   [output units]
        Limits of every outcome, or by its number (DVID); outcomes that are not named have none.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        E_DATA_LOQ for a limit that is not a finite number, an outcome the study does not have, or a lower
        limit that is not below the upper one.
    """
    outcomes = sorted({int(o) for s in dataset.subjects for o in s.design.observation_outputs})
    low, high = _by_outcome("lloq", lloq, outcomes), _by_outcome("uloq", uloq, outcomes)
    for outcome in low.keys() & high.keys():
        if low[outcome] >= high[outcome]:
            raise DataError(
                "E_DATA_LOQ",
                f"lloq of outcome {outcome} is {low[outcome]:g} and its uloq is {high[outcome]:g}. The lower "
                "limit must be below the upper one.",
            )
    return replace(dataset, subjects=tuple(_censor(subject, low, high) for subject in dataset.subjects))


def _by_outcome(
    name: str, limits: float | Mapping[int, float] | None, outcomes: list[int]
) -> dict[int, float]:
    if limits is None:
        return {}
    named = limits if isinstance(limits, Mapping) else dict.fromkeys(outcomes, float(limits))
    for outcome, value in named.items():
        if outcome not in outcomes or not np.isfinite(value):
            raise DataError(
                "E_DATA_LOQ",
                f"{name} of outcome {outcome} is {value!r}. Allowed: a finite number for each of the "
                f"outcomes {', '.join(map(str, outcomes))}.",
            )
    return dict(named)


def _censor(subject: Subject, low: Mapping[int, float], high: Mapping[int, float]) -> Subject:
    outcome = subject.design.observation_outputs
    below = np.array([low.get(int(o), -np.inf) for o in outcome])
    above = np.array([high.get(int(o), np.inf) for o in outcome])
    measured = subject.observed & (subject.censoring == 0)
    is_low, is_high = measured & (subject.y < below), measured & (subject.y > above)
    if not (is_low | is_high).any():
        return subject
    return replace(
        subject,
        y=np.where(is_low, below, np.where(is_high, above, subject.y)),
        censoring=np.where(is_low, 1, np.where(is_high, -1, subject.censoring)),
    )
