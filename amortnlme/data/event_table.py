"""Event tables in NONMEM conventions: one row per dose or observation."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from amortnlme.core.errors import DataError
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, EventKind
from amortnlme.data.subject import Subject

_STANDARD = ("ID", "TIME", "AMT", "DV", "EVID")


def read_frame(frame: pd.DataFrame, *, name: str = "data") -> Dataset:
    """Read an event table from a data frame.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns ID, TIME, DV, AMT, EVID and covariates.
    name : str
        Name of the study.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If a column is missing or a feature of the table is not supported.
    """
    missing = [column for column in _STANDARD if column not in frame.columns]
    if missing:
        raise DataError("E_DATA_MISSING_COLUMN", f"Columns {', '.join(missing)} are missing. Add them.")
    subjects = tuple(_subject(str(i), rows) for i, rows in frame.groupby("ID", sort=False))
    return Dataset(subjects, name)


def read_csv(path: str | os.PathLike[str], *, name: str | None = None) -> Dataset:
    """Read an event table from a comma-separated file.

    Parameters
    ----------
    path : str or path
        UTF-8 file.
    name : str, optional
        Name of the study; the file's name without it.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        As `read_frame`.
    """
    label = name or os.path.splitext(os.path.basename(path))[0]
    return read_frame(pd.read_csv(path, na_values=["."], dtype={"ID": str}), name=label)


def _subject(identifier: str, rows: pd.DataFrame) -> Subject:
    evid = rows["EVID"].to_numpy(dtype=int)
    if not np.isin(evid, (0, 1)).all():
        raise DataError("E_DATA_EVID", f"Subject {identifier!r} has an EVID other than 0 and 1.")
    zeros, dose = np.zeros(len(evid)), evid == 1
    design = Design(
        time=rows["TIME"].to_numpy(dtype=float),
        kind=np.where(dose, int(EventKind.BOLUS), int(EventKind.OBSERVATION)),
        compartment=zeros,
        amount=np.where(dose, rows["AMT"].to_numpy(dtype=float), 0.0),
        duration=zeros,
        ii=zeros,
        ss=zeros,
        output=np.where(dose, 0, 1),
    )
    covariates = {str(c): float(rows[c].iloc[0]) for c in rows.columns if c not in _STANDARD}
    return Subject.from_observations(identifier, design, rows["DV"].to_numpy(dtype=float)[~dose], covariates)
