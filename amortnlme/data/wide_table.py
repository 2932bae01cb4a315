"""Wide tables of measurements: one row per subject and one column per time, or the other way round.

Cells under a microscope and plate readers are exported like this. There are no doses, covariates or limits
in such a table; a study that has them is an event table.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from amortnlme.core.errors import DataError
from amortnlme.data.cells import identifiers, numbers
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.refusals import Places
from amortnlme.data.subject import Subject
from amortnlme.data.table_text import RawTable, read_text, split_table


def is_wide(header: Sequence[str]) -> bool:
    """Whether a header is that of a wide table.

    Parameters
    ----------
    header : sequence of str

    Returns
    -------
    bool
        True where all columns but the first are named by numbers (times), or where the first one is a time
        and none is called ID or DV.
    """
    if len(header) < 2:
        return False
    return _has_time_columns(header) or _has_time_rows(header)


def read_wide(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    time_factor: float = 1.0,
    log: bool = False,
    delimiter: str | None = None,
) -> Dataset:
    """Read a wide table from a text file.

    Either the first column names the subjects and the other columns are called by their times, or the first
    column is called time (``time``, ``time_s`` ...) and every other column is a subject. An empty cell, a dot
    or NA was not measured.

    Parameters
    ----------
    path : str or path
        UTF-8 file with a header line.
    name : str, optional
        Name of the study; by default the file's name without its suffix.
    time_factor : float
        Times are multiplied by it: 1/3600 turns seconds into hours.
    log : bool
        Take the natural logarithm of the measurements, for models of log values.
    delimiter : str, optional
        As in `read_csv`.

    Returns
    -------
    Dataset
        One outcome, no doses.

    Raises
    ------
    DataError
        Whatever is wrong with the text; E_DATA_WIDE for a header that is none of the two, for times that are
        negative or repeated, for a subject without a measurement, and for a value without a logarithm.
    """
    if not (np.isfinite(time_factor) and time_factor > 0):
        raise DataError("E_DATA_WIDE", f"time_factor must be positive; {time_factor!r} was given.")
    table = split_table(read_text(path), Path(path).name, delimiter)
    ids, times, values = _rectangle(table)
    times = _checked_times(times * time_factor, table.source)
    if log:
        values = _logarithm(values, ids, table.source)
    order = np.argsort(times)
    design = Design.from_doses([], times[order])
    empty = np.flatnonzero(np.isnan(values).all(axis=1))
    if len(empty):
        raise DataError(
            "E_DATA_WIDE",
            f"{table.source}: subject {ids[empty[0]]!r} has no measurement at all. Remove it.",
        )
    subjects = tuple(
        Subject.from_observations(label, design, row[order]) for label, row in zip(ids, values, strict=True)
    )
    return Dataset(subjects, Path(path).stem if name is None else name, (), {}, table.description)


def _has_time_columns(header: Sequence[str]) -> bool:
    return all(_as_number(cell) is not None for cell in header[1:])


def _has_time_rows(header: Sequence[str]) -> bool:
    words = [cell.strip().lower() for cell in header]
    return words[0].split("_")[0] in ("time", "t") and not {"id", "dv", "subject"} & set(words)


def _as_number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _rectangle(table: RawTable) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Find identifiers (n), times (m) and values (n, m) in either orientation."""
    places = Places(table.source, table.rows, None, table.header_line)
    if len(table.header) > 1 and _has_time_columns(table.header):
        ids = [str(label) for label in identifiers(table.columns[0], table.header[0], places)]
        named = Places(table.source, table.rows, ids, table.header_line)
        columns = zip(table.columns[1:], table.header[1:], strict=True)
        values = np.stack([numbers(column, label, named) for column, label in columns], axis=1)
        times = np.array([float(label) for label in table.header[1:]])
    elif len(table.header) > 1 and _has_time_rows(table.header):
        ids = [label.strip() for label in table.header[1:]]
        times = numbers(table.columns[0], table.header[0], places)
        columns = zip(table.columns[1:], table.header[1:], strict=True)
        values = np.stack([numbers(column, label, places) for column, label in columns])
    else:
        raise DataError(
            "E_DATA_WIDE",
            f"{table.source} is no wide table: its columns are {', '.join(table.header[:6])}... Name the "
            "columns after the first by their times, or call the first column time and give every subject a "
            "column.",
        )
    repeated = sorted({label for label in ids if ids.count(label) > 1}) if len(set(ids)) < len(ids) else []
    if repeated:
        raise DataError("E_DATA_WIDE", f"{table.source}: subject {repeated[0]!r} occurs more than once.")
    return ids, times, values


def _checked_times(times: np.ndarray, source: str) -> np.ndarray:
    if not np.isfinite(times).all() or (times < 0).any():
        raise DataError("E_DATA_WIDE", f"{source}: times must be numbers of at least 0; found {times.min()}.")
    values, counts = np.unique(times, return_counts=True)
    if (counts > 1).any():
        raise DataError("E_DATA_WIDE", f"{source}: time {values[counts > 1][0]:g} occurs more than once.")
    return times


def _logarithm(values: np.ndarray, ids: list[str], source: str) -> np.ndarray:
    bad = np.flatnonzero((values <= 0).any(axis=1))
    if len(bad):
        worst = float(np.nanmin(values[bad[0]]))
        raise DataError(
            "E_DATA_WIDE",
            f"{source}: subject {ids[bad[0]]!r} has the value {worst:g}, which has no logarithm. Leave the "
            "cell empty, or read the table without log.",
        )
    return np.log(values)
