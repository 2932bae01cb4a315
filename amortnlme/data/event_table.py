"""Event tables in NONMEM conventions: one row per dose, measurement or other event.

What a table may hold, and what happens to it, is described in `read_frame`; `to_frame` and `to_csv` write
a study back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from amortnlme.core.errors import DataError
from amortnlme.data.cells import MISSING
from amortnlme.data.columns import ColumnMap, lay_out
from amortnlme.data.consistency import refuse_contradictions
from amortnlme.data.dataset import Dataset, Exclusion
from amortnlme.data.design import Design
from amortnlme.data.expansion import Processed, durations, process
from amortnlme.data.records import Records, parse
from amortnlme.data.subject import Subject, TimeVarying
from amortnlme.data.table_text import RawTable, raw_frame, read_text, split_table
from amortnlme.data.table_writer import to_csv as to_csv
from amortnlme.data.table_writer import to_frame as to_frame


def read_frame(
    frame: pd.DataFrame,
    *,
    columns: ColumnMap | None = None,
    name: str = "data",
    units: Mapping[str, str] | None = None,
    allow_duplicates: bool = False,
    allow_missing_covariates: bool = False,
) -> Dataset:
    """Read an event table from a data frame.

    ID, TIME and DV must be there; AMT, EVID, MDV, CMT, RATE (or TINF), ADDL, II, SS, CENS, LIMIT, OCC and
    DVID may be; every other column is a covariate. A dot, a blank or NA is a missing cell. Without EVID a
    row with an AMT is a dose. The order of rows decides what happens first at one time. Covariates keep
    their last value until the next one. Additional doses (ADDL, II) are written out; at one time they come
    before the rows of the table, as in NONMEM. EVID 3 and 4 empty the compartments and may restart the
    clock. An observation with MDV 1 or without DV stays as a time without measurement.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row per event, the rows of a subject together and in order of time.
    columns : ColumnMap, optional
        What the columns are called, if not as above.
    name : str
        Name of the study.
    units : mapping of str to str, optional
        Unit of a column where known.
    allow_duplicates : bool
        Accept rows that repeat an earlier one.
    allow_missing_covariates : bool
        Accept subjects without a value of a covariate; it is NaN there.

    Returns
    -------
    Dataset
        With the rows that were left out, and why, in `exclusions`.

    Raises
    ------
    DataError
        Whatever is wrong with the table, with row, subject, column and value.
    """
    table = raw_frame(frame, name)
    return _read(table, columns or ColumnMap(), name, units, allow_duplicates, allow_missing_covariates)


def read_csv(
    path: str | os.PathLike[str],
    *,
    columns: ColumnMap | None = None,
    name: str | None = None,
    units: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    allow_duplicates: bool = False,
    allow_missing_covariates: bool = False,
) -> Dataset:
    """Read an event table from a text file; ``#`` at the start of a line makes it a comment.

    So does an entry in a column called C, as in NONMEM.

    Parameters
    ----------
    path : str or path
        UTF-8 file with a header line.
    columns : ColumnMap, optional
        What the columns are called, if not as in `read_frame`.
    name : str, optional
        Name of the study; by default the file's name without its suffix.
    units : mapping of str to str, optional
        Unit of a column where known.
    delimiter : str, optional
        ``","``, ``";"``, a tab or ``" "`` (any whitespace); found from the header if not given.
    allow_duplicates, allow_missing_covariates : bool
        As in `read_frame`.

    Returns
    -------
    Dataset
        Equal to what `read_frame` makes of the same table.

    Raises
    ------
    DataError
        As `read_frame`, and if the file is no such text.
    """
    table = split_table(read_text(path), Path(path).name, delimiter)
    label = Path(path).stem if name is None else name
    return _read(table, columns or ColumnMap(), label, units, allow_duplicates, allow_missing_covariates)


def _read(
    table: RawTable,
    columns: ColumnMap,
    name: str,
    units: Mapping[str, str] | None,
    allow_duplicates: bool,
    allow_missing_covariates: bool,
) -> Dataset:
    layout, description = lay_out(table.header, columns, table.source), table.description
    exclusions = [Exclusion(row, "", reason) for row, reason in table.comments]
    if layout.comment is not None:
        table, flagged = _without_comments(table, layout.comment)
        exclusions += flagged
    if not len(table.rows):
        raise DataError(
            "E_DATA_NO_ROWS",
            f"{table.source} has only comments below its header. At least one observation is needed.",
        )
    records = parse(table, layout, columns)
    refuse_contradictions(
        records, allow_duplicates=allow_duplicates, allow_missing_covariates=allow_missing_covariates
    )
    processed = process(records, allow_duplicates=allow_duplicates)
    exclusions += _unused(records, processed)
    notes = tuple(sorted(exclusions, key=lambda note: note.row))
    return Dataset(_subjects(records, processed), name, notes, units or {}, description)


def _without_comments(table: RawTable, at: int) -> tuple[RawTable, list[Exclusion]]:
    missing = pd.isna(table.columns[at]) | np.isin(
        [str(cell).strip() for cell in table.columns[at]], list(MISSING)
    )
    flagged = ~np.asarray(missing, dtype=bool)
    kept = replace(
        table, columns=tuple(column[~flagged] for column in table.columns), rows=table.rows[~flagged]
    )
    return kept, [Exclusion(int(row), "", "flagged as a comment in column C") for row in table.rows[flagged]]


def _unused(records: Records, processed: Processed) -> list[Exclusion]:
    places, rows = records.places, records.places.rows
    silent = np.flatnonzero(records.is_observation & ~records.measured)
    notes = [
        Exclusion(
            int(rows[at]), places.id_at(at), "no measurement (MDV is 1 or DV is missing): the time is kept"
        )
        for at in silent.tolist()
    ]
    return notes + [
        Exclusion(
            int(rows[at]),
            places.id_at(at),
            f"{count} of its additional doses come after the last row before a reset, a steady-state "
            f"dose or the end, "
            f"where they change nothing",
        )
        for at, count in processed.late
    ]


def _subjects(records: Records, processed: Processed) -> tuple[Subject, ...]:
    origin, implied = processed.origin, processed.implied
    dose = (processed.kind == 1) | (processed.kind == 2)
    observation = processed.kind == 0
    steady = dose & ~implied & (records.ss[origin] > 0)
    fields = {
        "time": processed.time,
        "kind": processed.kind,
        "compartment": np.where(dose | observation, records.cmt[origin], 0),
        "amount": np.where(dose, records.amt[origin], 0.0),
        "duration": np.where(dose, durations(records)[origin], 0.0),
        "ii": np.where(steady, records.ii[origin], 0.0),
        "ss": np.where(steady, records.ss[origin], 0),
        "output": np.where(observation, records.dvid[origin], 0),
    }
    covariates = {name: values[processed.in_force] for name, values in records.covariates.items()}
    number = records.subject[origin]
    starts = np.flatnonzero(np.concatenate([[True], number[1:] != number[:-1]]))
    stops = np.append(starts[1:], len(number))
    subjects = []
    for start, stop in zip(starts, stops, strict=True):
        part = slice(int(start), int(stop))
        rows = origin[part][observation[part]]
        first = int(origin[part][0])
        identifier = records.places.id_at(first)
        subjects.append(
            Subject(
                id=identifier,
                design=Design(**{label: values[part] for label, values in fields.items()}),
                y=records.dv[rows],
                observed=records.measured[rows],
                censoring=records.cens[rows],
                limit=records.limit[rows],
                occasion=records.occ[processed.in_force[part]],
                covariates={
                    label: _constant_or_varying(values[part]) for label, values in covariates.items()
                },
            )
        )
    return tuple(subjects)


def _constant_or_varying(values: np.ndarray) -> float | TimeVarying:
    constant = (values == values[0]).all() or np.isnan(values).all()
    return float(values[0]) if constant else TimeVarying(values)
