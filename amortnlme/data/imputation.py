"""Filling in covariates that were not recorded: a decision of the analyst, made on the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from amortnlme.core.errors import DataError
from amortnlme.data.dataset import Dataset
from amortnlme.data.subject import Subject, TimeVarying

_LOGGER = logging.getLogger(__name__)
TYPICAL = ("median", "mode")


def fill_covariate(
    dataset: Dataset, name: str, values: Mapping[float, float] | float | str, *, by: str | None = None
) -> Dataset:
    """Replace missing values of a covariate, for all or by the groups of another covariate.

    Models never fill in a covariate themselves, because that would hide a decision inside the equations:
    they refuse data in which a covariate they need is missing.

    Parameters
    ----------
    dataset : Dataset
        The covariate is NaN where it is missing ("." in a table).
    name : str
        The covariate to fill.
    values : mapping of float to float, float, "median" or "mode"   [covariate units]
        Value for every group of `by`; one number for everybody without `by`. "median" and "mode" (the most
        frequent value, the smallest of several) are those of the subjects in whom the covariate is recorded,
        by group where `by` is given.
    by : str, optional
        Covariate that defines the groups, such as "sex"; its value at the first record counts.

    Returns
    -------
    Dataset
        The same study with the values filled in; which subjects were filled is logged as a warning.

    Raises
    ------
    DataError
        E_DATA_COVARIATE for an unknown covariate, E_DATA_IMPUTATION for a group without a value or values
        that do not fit `by`.
    """
    if isinstance(values, str):
        values = _typical(dataset, name, values, by)
    if isinstance(values, Mapping) != (by is not None):
        raise DataError(
            "E_DATA_IMPUTATION",
            f"values is {values!r} and by is {by!r}. Give a number without `by`, or a mapping from the "
            "values of the covariate `by` to numbers.",
        )
    filled = [_fill(subject, name, values, by) for subject in dataset.subjects]
    changed = [new.id for new, old in zip(filled, dataset.subjects, strict=True) if new is not old]
    if changed:
        _LOGGER.warning(
            "%r was filled in for %d of %d subjects: %s",
            name,
            len(changed),
            dataset.n_subjects,
            ", ".join(changed),
        )
    return replace(dataset, subjects=tuple(filled))


def _typical(dataset: Dataset, name: str, kind: str, by: str | None) -> Mapping[float, float] | float:
    """Median or mode of the recorded values, for everybody or for every group."""
    if kind not in TYPICAL:
        raise DataError("E_DATA_IMPUTATION", f"values is {kind!r}. Allowed words: {', '.join(TYPICAL)}.")
    recorded = np.array([subject.covariate_values(name)[0] for subject in dataset.subjects])
    group = np.zeros(len(recorded))
    if by is not None:
        group = np.array([subject.covariate_values(by)[0] for subject in dataset.subjects])
    known = np.isfinite(recorded)
    if not known.any():
        raise DataError(
            "E_DATA_IMPUTATION", f"{name!r} is missing in all {len(recorded)} subjects: it has no {kind}."
        )
    found = {float(g): _middle(recorded[known & (group == g)], kind) for g in np.unique(group[known])}
    return found if by is not None else found[0.0]


def _middle(values: np.ndarray, kind: str) -> float:
    if kind == "median":
        return float(np.median(values))
    each, count = np.unique(values, return_counts=True)
    return float(each[count.argmax()])


def _fill(subject: Subject, name: str, values: Mapping[float, float] | float, by: str | None) -> Subject:
    recorded = subject.covariate_values(name)
    missing = np.isnan(recorded)
    if not missing.any():
        return subject
    if isinstance(values, Mapping):
        group = float(subject.covariate_values(str(by))[0])
        if group not in values:
            raise DataError(
                "E_DATA_IMPUTATION",
                f"subject {subject.id!r} lacks {name!r}, and there is no value for its group {by} = "
                f"{group:g}. Given: {', '.join(f'{key:g}' for key in values)}. Add the group.",
            )
        value = float(values[group])
    else:
        value = float(values)
    complete = TimeVarying(np.where(missing, value, recorded))
    return replace(subject, covariates={**subject.covariates, name: complete})
