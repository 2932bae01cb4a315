"""The rows of an event table as numbers, with the defaults filled in and every contradiction refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from amortnlme.data.cells import identifiers, numbers, whole_numbers
from amortnlme.data.columns import ColumnMap, Layout
from amortnlme.data.refusals import Places
from amortnlme.data.table_text import RawTable

# bounds of whole-number columns; SS = 3, MDV > 1 and negative CMT exist in NONMEM but not here
_WHOLE = {
    "evid": (0, 4),
    "mdv": (0, 1),
    "cmt": (0, 32767),
    "addl": (0, 2**31 - 1),
    "ss": (0, 2),
    "cens": (-1, 1),
    "occ": (-(2**31), 2**31 - 1),
    "dvid": (0, 32767),
}
_ZERO_WHERE_MISSING = ("amt", "rate", "tinf", "ii", "addl", "ss")
_REAL = ("time", "dv", "amt", "rate", "tinf", "ii", "limit")


@dataclass(frozen=True, slots=True)
class Records:
    """One entry per row of a table, all of length n; missing dose items are 0.

    Attributes
    ----------
    places : Places
        Where the rows come from.
    subject : ndarray of int
        Number of the subject, ascending.
    segment : ndarray of int
        Number of the stretch between resets, ascending over the table; time does not fall within one.
    time, dv, amt, rate, tinf, ii, limit : ndarray
        DV and LIMIT are NaN where nothing is given.
    evid, cmt, addl, ss, cens, occ, dvid : ndarray
        Whole numbers as floats; DVID and OCC are 1 where their column is missing.
    amt_missing : ndarray of bool
        Where AMT is not given.
    measured : ndarray of bool
        Observations that count.
    covariates : dict of str to ndarray
        Last value carried forward; NaN where nothing is known yet.
    """

    places: Places
    subject: np.ndarray
    segment: np.ndarray
    time: np.ndarray
    dv: np.ndarray
    amt: np.ndarray
    rate: np.ndarray
    tinf: np.ndarray
    ii: np.ndarray
    limit: np.ndarray
    evid: np.ndarray
    cmt: np.ndarray
    addl: np.ndarray
    ss: np.ndarray
    cens: np.ndarray
    occ: np.ndarray
    dvid: np.ndarray
    amt_missing: np.ndarray
    measured: np.ndarray
    covariates: dict[str, np.ndarray]

    @property
    def is_observation(self) -> np.ndarray:
        """Which rows are observations, measured or not, shape (n,)."""
        return self.evid == 0

    @property
    def is_dose(self) -> np.ndarray:
        """Which rows are doses (EVID 1 or 4), shape (n,)."""
        return (self.evid == 1) | (self.evid == 4)


def parse(table: RawTable, layout: Layout, columns: ColumnMap) -> Records:
    """Turn cells into records.

    Parameters
    ----------
    table : RawTable
        With at least one row.
    layout : Layout
        Where the columns are.
    columns : ColumnMap
        What they are called, for messages.

    Returns
    -------
    Records

    Raises
    ------
    DataError
        If a cell is not what its column holds, a subject comes back after another one, or time falls
        within a subject.
    """
    places = Places(table.source, table.rows, header_line=table.header_line)
    ids = identifiers(table.columns[layout.parts["id"]], columns.id, places)
    places = replace(places, ids=ids)
    subject = _subjects(ids, places, columns.id)
    cells: dict[str, np.ndarray] = {}
    for part in (*_REAL, *_WHOLE):
        if part in layout.parts:
            raw, label = table.columns[layout.parts[part]], getattr(columns, part)
            if part in _REAL:
                cells[part] = numbers(raw, label, places)
            else:
                low, high = _WHOLE[part]
                cells[part] = whole_numbers(raw, label, places, part=part, lowest=low, highest=high)
    covariates = {name: numbers(table.columns[at], name, places) for name, at in layout.covariates.items()}
    evid = _event_types(cells, places)
    segment = np.cumsum(np.isin(evid, (3, 4)) | _starts(subject))
    _refuse_times(cells["time"], segment, places)
    measured = _measured(cells, evid, places)
    nothing = np.full(len(ids), np.nan)
    _refuse_empty_censoring(cells, evid, places)
    cens = np.where(measured, np.nan_to_num(cells.get("cens", nothing)), 0.0)
    # the compartment of a row that neither doses nor measures says nothing
    cmt = np.where((evid == 2) | (evid == 3), 0.0, np.nan_to_num(cells.get("cmt", nothing)))
    return Records(
        places=places,
        subject=subject,
        segment=segment,
        time=cells["time"],
        dv=np.where(measured, cells["dv"], np.nan),
        limit=np.where(measured & (cens != 0), cells.get("limit", nothing), np.nan),
        evid=evid,
        cmt=cmt,
        cens=cens,
        occ=_filled(_labels(cells, "occ", evid, places), subject),
        dvid=np.nan_to_num(_labels(cells, "dvid", evid, places)),
        amt_missing=np.isnan(cells.get("amt", nothing)),
        measured=measured,
        covariates={name: _carried(values, subject) for name, values in covariates.items()},
        **{part: np.nan_to_num(cells.get(part, nothing)) for part in _ZERO_WHERE_MISSING},
    )


def _starts(subject: np.ndarray) -> np.ndarray:
    return np.concatenate([[True], subject[1:] != subject[:-1]])


def _subjects(ids: np.ndarray, places: Places, label: str) -> np.ndarray:
    subject, _ = pd.factorize(ids)
    earlier = np.concatenate([[-1], np.maximum.accumulate(subject)[:-1]])
    places.refuse(
        "E_DATA_ID_RETURNS",
        _starts(subject) & (subject <= earlier),
        "the subject comes back after another one",
        f"All rows of a subject must be together; sort by {label} and keep the order of time within it, "
        f"or give the later rows an {label} of their own.",
    )
    return subject


def _event_types(cells: dict[str, np.ndarray], places: Places) -> np.ndarray:
    if "evid" not in cells:
        amount = np.nan_to_num(cells["amt"]) if "amt" in cells else np.zeros(len(places.rows))
        return (amount != 0).astype(float)
    places.refuse(
        "E_DATA_EVID",
        np.isnan(cells["evid"]),
        "EVID is missing",
        "Every row needs one: 0 observation, 1 dose, 2 other event, 3 reset, 4 reset and dose.",
    )
    return cells["evid"]


def _refuse_times(time: np.ndarray, segment: np.ndarray, places: Places) -> None:
    places.refuse(
        "E_DATA_TIME_MISSING", np.isnan(time), "TIME is missing", "Every row needs a time; fill it in."
    )
    falls = np.concatenate([[False], (np.diff(time) < 0) & (np.diff(segment) == 0)])
    before = np.concatenate([[np.nan], time[:-1]])
    places.refuse(
        "E_DATA_TIME_ORDER",
        falls,
        "TIME falls, {}",
        "Sort the rows of a subject by time; only a reset (EVID 3 or 4) may restart the clock.",
        [f"from {a:g} to {b:g}" for a, b in zip(before, time, strict=True)] if falls.any() else None,
    )


def _measured(cells: dict[str, np.ndarray], evid: np.ndarray, places: Places) -> np.ndarray:
    dv, unknown = cells["dv"], np.full(len(evid), np.nan)
    mdv = cells.get("mdv", unknown)
    places.refuse(
        "E_DATA_MDV",
        (evid != 0) & (mdv == 0),
        "MDV is 0 on a row that is no observation (EVID {})",
        "Only observations (EVID 0) carry a measurement; set MDV to 1, or correct EVID or AMT.",
        evid,
    )
    places.refuse(
        "E_DATA_DV_MISSING",
        (evid == 0) & (mdv == 0) & np.isnan(dv),
        "MDV is 0 but there is no DV",
        "Fill in DV, or set MDV to 1 to keep the time without a measurement.",
    )
    places.refuse(
        "E_DATA_DV_ELSEWHERE",
        (evid != 0) & np.isnan(mdv) & (np.nan_to_num(dv) != 0),
        "DV is {} on a row that is no observation",
        "A dose and a measurement need a row each; split the row, or set MDV to 1 if DV means nothing there.",
        dv,
    )
    return (evid == 0) & (mdv != 1) & ~np.isnan(dv)


def _refuse_empty_censoring(cells: dict[str, np.ndarray], evid: np.ndarray, places: Places) -> None:
    if "cens" not in cells:
        places.refuse(
            "E_DATA_LIMIT_WITHOUT_CENS",
            ~np.isnan(cells.get("limit", np.full(len(evid), np.nan))),
            "LIMIT is {} but the table has no column CENS",
            "LIMIT means something for censored measurements only; add CENS (1 below the limit in "
            "DV, -1 above it, "
            "0 measured), or leave the column out with ColumnMap(ignore=...).",
            cells.get("limit"),
        )
        return
    asked = (evid == 0) & (cells["mdv"] != 1 if "mdv" in cells else True)
    places.refuse(
        "E_DATA_CENS_WITHOUT_DV",
        asked & np.isnan(cells["dv"]) & (np.nan_to_num(cells["cens"]) != 0),
        "CENS is {} but there is no DV",
        "DV holds the limit of a censored measurement; fill it in, or set CENS to 0.",
        cells["cens"],
    )


def _labels(cells: dict[str, np.ndarray], part: str, evid: np.ndarray, places: Places) -> np.ndarray:
    if part not in cells:
        return np.ones(len(evid))
    bad = np.isnan(cells[part]) | ((cells[part] < 1) if part == "dvid" else False)
    places.refuse(
        f"E_DATA_{part.upper()}",
        (evid == 0) & bad,
        f"{part.upper()} of an observation is {{}}",
        "Every observation needs a whole number there"
        + (", counting outcomes from 1; fill it in." if part == "dvid" else "; fill it in."),
        cells[part],
    )
    return cells[part]


def _filled(values: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """Give rows without an occasion that of the row before, or else of the subject's first that has one."""
    if not np.isnan(values).any():
        return values
    carried = pd.Series(_carried(values, subject)).groupby(subject).bfill()
    # a subject without any observation may have no occasion at all
    return carried.fillna(1.0).to_numpy()


def _carried(values: np.ndarray, subject: np.ndarray) -> np.ndarray:
    if not np.isnan(values).any():
        return values
    return pd.Series(values).groupby(subject).ffill().to_numpy()
