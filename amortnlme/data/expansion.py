"""Rows of an event table in processing order: resets apart from doses, additional doses written out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.core.errors import DataError
from amortnlme.data.consistency import refuse_double_doses
from amortnlme.data.design import EventKind
from amortnlme.data.records import Records

# more additional doses than this come from a typing error, not from a regimen
MOST_DOSES = 1_000_000
# additional doses this close to a row (relative) are at the time of the row: 0.1 + 2 x 0.1 is not 0.3
_SAME_TIME = 1e-10
_AT_ADDITIONAL, _AT_RESET, _AT_ROW = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Processed:
    """Records in processing order, n_p of them.

    Attributes
    ----------
    origin : ndarray of int, shape (n_p,)
        Row each record comes from.
    in_force : ndarray of int, shape (n_p,)
        Row whose covariates are in force: its own, or the last one before an additional dose.
    time : ndarray, shape (n_p,)
    kind : ndarray of int, shape (n_p,)
        Members of `EventKind`.
    implied : ndarray of bool, shape (n_p,)
        Whether the record is an additional dose.
    late : tuple of (int, int)
        Rows, and how many of their additional doses come too late to change anything.
    """

    origin: np.ndarray
    in_force: np.ndarray
    time: np.ndarray
    kind: np.ndarray
    implied: np.ndarray
    late: tuple[tuple[int, int], ...]


def process(records: Records, *, allow_duplicates: bool = False) -> Processed:
    """Write resets and additional doses out as records of their own.

    An additional dose comes before every row of the table at its time, as in NONMEM: a measurement there
    sees the dose. A reset (EVID 3 or 4) and a steady-state dose with SS = 1 cancel the additional doses
    that are still to come, and none is given after a subject's last row.

    Parameters
    ----------
    records : Records
        Consistent ones.
    allow_duplicates : bool
        Whether an additional dose may coincide with an equal dose.

    Returns
    -------
    Processed

    Raises
    ------
    DataError
        ``E_DATA_TOO_MANY_DOSES``, ``E_DATA_DOUBLE_DOSE``.
    """
    rows = np.arange(len(records.time))
    resets = rows[(records.evid == 3) | (records.evid == 4)]
    others = rows[records.evid != 3]
    source, before, times, late = _additional_doses(records)
    counts = [len(source), len(resets), len(others)]
    rank = np.repeat([_AT_ADDITIONAL, _AT_RESET, _AT_ROW], counts)
    origin = np.concatenate([source, resets, others])
    position = np.concatenate([before, resets, others])
    time = np.concatenate([times, records.time[resets], records.time[others]])
    kind = np.where(rank == _AT_RESET, int(EventKind.RESET), _kinds(records)[origin])
    order = np.lexsort((origin, time, rank, position))
    implied = (rank == _AT_ADDITIONAL)[order]
    processed = Processed(
        origin=origin[order],
        in_force=np.where(implied, position[order] - 1, origin[order]),
        time=time[order],
        kind=kind[order],
        implied=implied,
        late=late,
    )
    if implied.any() and not allow_duplicates:
        _refuse_double_doses(records, processed)
    return processed


def durations(records: Records) -> np.ndarray:
    """Return the duration of each row's infusion.

    Parameters
    ----------
    records : Records

    Returns
    -------
    ndarray, shape (n,)
        0 where there is none.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(records.rate > 0, records.amt / records.rate, records.tinf)


def _kinds(records: Records) -> np.ndarray:
    dose = np.where(durations(records) > 0, int(EventKind.INFUSION), int(EventKind.BOLUS))
    rest = np.where(records.is_observation, int(EventKind.OBSERVATION), int(EventKind.OTHER))
    return np.where(records.is_dose, dose, rest)


def _additional_doses(
    records: Records,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[tuple[int, int], ...]]:
    """Return each additional dose's source row, the row it comes before and its time; what comes too late."""
    sources = np.flatnonzero(records.addl > 0)
    first = np.concatenate([[True], np.diff(records.segment) != 0])
    stretch = np.cumsum(first | (records.is_dose & (records.ss == 1)))
    ends = np.searchsorted(stretch, stretch[sources], side="right")
    origin, before = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    times, late, total = [np.zeros(0)], [], 0
    for row, end in zip(sources, ends, strict=True):
        later = records.time[row + 1 : end]
        start, interval, wanted = records.time[row], records.ii[row], int(records.addl[row])
        last = later[-1] if later.size else start
        slack = _SAME_TIME * max(abs(start), abs(last), 1.0)
        given = int(min(wanted, (last - start + slack) // interval))
        if given < wanted:
            late.append((int(row), wanted - given))
        if not given:
            continue
        total += given
        _refuse_too_many(records, int(row), total)
        at = start + interval * np.arange(1, given + 1)
        # rounding may carry the last one just past the last row
        next_row = np.minimum(np.searchsorted(later, at - slack), later.size - 1)
        times.append(np.where(np.abs(later[next_row] - at) <= slack, later[next_row], at))
        before.append(row + 1 + next_row)
        origin.append(np.full(given, row))
    return np.concatenate(origin), np.concatenate(before), np.concatenate(times), tuple(late)


def _refuse_too_many(records: Records, row: int, total: int) -> None:
    if total > MOST_DOSES:
        raise DataError(
            "E_DATA_TOO_MANY_DOSES",
            f"{records.places.source}, {records.places.name(row)}: ADDL = {records.addl[row]:g} every II = "
            f"{records.ii[row]:g} brings the table to more than {MOST_DOSES} additional doses. Check "
            f"ADDL and the "
            f"unit of II; a regimen that long is better written with SS.",
        )


def _refuse_double_doses(records: Records, processed: Processed) -> None:
    dose = (processed.kind == EventKind.BOLUS) | (processed.kind == EventKind.INFUSION)
    origin, implied = processed.origin[dose], processed.implied[dose]
    fields = {
        "time": processed.time[dose],
        "segment": records.segment[origin],
        "cmt": records.cmt[origin],
        "amt": records.amt[origin],
        "duration": durations(records)[origin],
        "ss": np.where(implied, 0.0, records.ss[origin]),
    }
    refuse_double_doses(records.places, fields, implied, origin)
