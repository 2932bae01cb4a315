"""A study as an event table that reads back to the same study."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from amortnlme.core.errors import DataError
from amortnlme.core.files import write_text_atomic
from amortnlme.data.cells import MISSING, plain_identifiers
from amortnlme.data.columns import COMMENT_COLUMN, PARTS, ColumnMap
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import FIELDS, EventKind


def to_frame(dataset: Dataset) -> pd.DataFrame:
    """Write a study as an event table; `read_frame` makes the same study of it.

    Additional doses stay written out, one row each. Columns that say nothing are left out. Read a study
    with repeated rows back with ``allow_duplicates=True``, one with missing covariates with
    ``allow_missing_covariates=True``.

    Parameters
    ----------
    dataset : Dataset
        Any study; a subject without any measurement is written, but the reader will leave it out.

    Returns
    -------
    pandas.DataFrame
        ID, TIME, AMT, DV, EVID, what else is needed of `ColumnMap`'s names, and the covariates; missing
        cells are NaN.

    Raises
    ------
    DataError
        ``E_DATA_NOT_WRITABLE`` if an identifier or the name of a covariate would be read as something else.
    """
    _refuse_unwritable(dataset)
    subjects = dataset.subjects
    design = {
        label: np.concatenate([getattr(s.design, label) for s in subjects]).astype(float) for label in FIELDS
    }
    subject = np.repeat(np.arange(len(subjects)), [s.design.n_records for s in subjects])
    covariates = {
        name: np.concatenate([s.covariate_values(name) for s in subjects]) for name in dataset.covariate_names
    }
    observation = design["kind"] == EventKind.OBSERVATION
    dose = (design["kind"] == EventKind.BOLUS) | (design["kind"] == EventKind.INFUSION)
    reset = design["kind"] == EventKind.RESET
    occasion = np.concatenate([s.occasion for s in subjects])
    merged = _merged_resets(reset, dose, [subject, design["time"], occasion, *covariates.values()])
    evid = np.select([observation, dose, reset], [0, 1, 3], 2)
    evid[np.flatnonzero(merged) + 1] = 4
    measurements = _measurements(dataset, observation)
    table = {
        "ID": np.array(dataset.ids, dtype=object)[subject],
        "TIME": design["time"],
        "AMT": np.where(dose, design["amount"], np.nan),
        "DV": measurements.pop("DV"),
        "EVID": evid,
    }
    optional = measurements | _dose_items(design, dose)
    optional["OCC"] = occasion.astype(float)
    optional["CMT"] = np.where(dose | observation, design["compartment"], 0.0)
    optional["DVID"] = np.where(observation, design["output"], np.nan)
    for label, silent in _SILENT.items():
        says = optional[label] != silent
        if (says & ~np.isnan(optional[label])).any():
            table[label] = optional[label]
    return pd.DataFrame({name: values[~merged] for name, values in (table | covariates).items()})


def to_csv(dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """Write a study as a comma-separated file; `read_csv` makes the same study of it.

    Parameters
    ----------
    dataset : Dataset
    path : str or path
        Target; its folder must exist.

    Raises
    ------
    DataError
        As `to_frame`.
    ArtefactError
        If the file cannot be written (``E_IO_WRITE``).
    """
    frame = to_frame(dataset)
    text = pd.DataFrame({name: _texts(frame[name].to_numpy()) for name in frame.columns})
    write_text_atomic(Path(path), text.to_csv(index=False, lineterminator="\n"))


# columns that are written only where they say something, and the value that says nothing
_SILENT = {
    "MDV": np.nan,
    "CMT": 0.0,
    "RATE": 0.0,
    "TINF": 0.0,
    "II": 0.0,
    "SS": 0.0,
    "CENS": 0.0,
    "LIMIT": np.nan,
    "OCC": 1.0,
    "DVID": 1.0,
}


def _measurements(dataset: Dataset, observation: np.ndarray) -> dict[str, np.ndarray]:
    """Return DV, MDV, CENS and LIMIT of all records; NaN where a row has none."""

    def spread(label: str) -> np.ndarray:
        values = np.full(len(observation), np.nan)
        values[observation] = np.concatenate([getattr(s, label) for s in dataset.subjects])
        return values

    measured = spread("observed") == 1
    censoring = np.where(measured, spread("censoring"), 0.0)
    # MDV follows from EVID unless there is an observation without a measurement
    unmeasured = (observation & ~measured).any()
    return {
        "DV": np.where(measured, spread("y"), np.nan),
        "MDV": np.where(measured, 0.0, 1.0) if unmeasured else np.full(len(observation), np.nan),
        "CENS": censoring,
        "LIMIT": np.where(censoring != 0, spread("limit"), np.nan),
    }


def _dose_items(design: dict[str, np.ndarray], dose: np.ndarray) -> dict[str, np.ndarray]:
    """Return RATE where it gives every duration back exactly, else TINF; II and SS."""
    amount, duration = design["amount"], np.where(dose, design["duration"], 0.0)
    infusion = duration > 0
    rate = np.zeros(len(dose))
    with np.errstate(all="ignore"):
        rate[infusion] = amount[infusion] / duration[infusion]
    for candidate in (np.nextafter(rate, 0.0), np.nextafter(rate, np.inf)):
        # dividing twice may miss by the last bit, which a neighboring rate sets right
        with np.errstate(all="ignore"):
            wrong = infusion & (amount / rate != duration)
            better = wrong & (amount / candidate == duration)
        rate = np.where(better, candidate, rate)
    with np.errstate(all="ignore"):
        exact = bool((amount[infusion] / rate[infusion] == duration[infusion]).all())
    zero = np.zeros(len(dose))
    steady = dose & (design["ss"] > 0)
    return {
        "RATE": rate if exact else zero,
        "TINF": zero if exact else duration,
        "II": np.where(steady, design["ii"], 0.0),
        "SS": np.where(steady, design["ss"], 0.0),
    }


def _merged_resets(reset: np.ndarray, dose: np.ndarray, alike: list[np.ndarray]) -> np.ndarray:
    """Return which resets become one row (EVID 4) with the dose after them."""
    merged = np.zeros(len(reset), dtype=bool)
    merged[:-1] = reset[:-1] & dose[1:]
    for values in alike:
        merged[:-1] &= (values[:-1] == values[1:]) | (
            (values[:-1] != values[:-1]) & (values[1:] != values[1:])
        )
    return merged


def _refuse_unwritable(dataset: Dataset) -> None:
    ids = list(dataset.ids)
    strange = [
        i for i in ids if i in MISSING or i != i.strip() or i.startswith("#") or len(i.splitlines()) != 1
    ]
    strange += (
        [] if strange else [i for i, plain in zip(ids, plain_identifiers(ids), strict=True) if i != plain]
    )
    if strange:
        raise DataError(
            "E_DATA_NOT_WRITABLE",
            f"The identifier {strange[0]!r} would be read back as something else. Identifiers must "
            f"be one line without spaces "
            f"around them, must not begin with '#' and not be '.' or 'NA'; rename the subject.",
        )
    reserved = {getattr(ColumnMap(), part).casefold() for part in PARTS}
    for name in dataset.covariate_names:
        if (
            name.casefold() in reserved
            or name in (COMMENT_COLUMN, "")
            or name != name.strip()
            or len(name.splitlines()) != 1
        ):
            raise DataError(
                "E_DATA_NOT_WRITABLE",
                f"The covariate {name!r} has the name of another column of event tables, or none "
                f"that a header can hold. "
                f"Rename it.",
            )


def _texts(column: np.ndarray) -> np.ndarray:
    if column.dtype == object:
        return column
    codes, values = pd.factorize(column)
    # repr is the shortest text that reads back to the same number
    return np.array([repr(float(v)).removesuffix(".0") for v in values] + ["."], dtype=object)[codes]
