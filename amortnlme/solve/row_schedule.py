"""Event lists of single rows, whose doses arrive late (lag) and in other amounts (bioavailability)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from amortnlme.core.status import SolveStatus
from amortnlme.solve.entry import Entry, EntryValues
from amortnlme.solve.schedule import (
    BOLUS,
    INFUSION_END,
    INFUSION_START,
    NEW_SEGMENT,
    OBSERVE,
    RESET,
    Events,
    Schedule,
    copies_running,
    empty_events,
)

# Arrivals of one lagged steady-state regimen that are written out; a row that needs more is not solved.
MAX_ARRIVALS = 1000

OK = int(SolveStatus.OK)
MAX_STEPS = int(SolveStatus.MAX_STEPS)
INVALID_ENTRY = int(SolveStatus.INVALID_ENTRY)


class _Pending(NamedTuple):
    """Doses and infusion ends of one row that are still to come, earliest first (plain arrays).

    `source` is the column of the dose in the list of the design.
    """

    time: np.ndarray
    action: np.ndarray
    source: np.ndarray


def row_events(
    schedule: Schedule, design_index: np.ndarray, entry: Entry, values: EntryValues
) -> tuple[Events, np.ndarray, np.ndarray]:
    """Give every row its list of events: lagged doses moved, amounts multiplied by bioavailability.

    A row's list begins at the first record and ends at the last observation of its design. Where a dose moved
    away, a NEW_SEGMENT stays behind if covariates change with it or the list begins there. At equal times a
    moved dose comes before what was recorded then, and a dose without lag keeps its place. Doses on their way
    at a reset, or at a dose with SS=1, never arrive.

    A steady-state dose of lag l and interval ii recorded at t stays at t, with `phase` = m ii - l the time
    since its last arrival (m = ceil(l / ii)); its later arrivals, up to t + l, follow as ordinary doses. The
    times of all ordinary boluses, infusion starts and infusion ends move with the lag of their compartment in
    `dose_segment`; the phase moves against it.

    Lists are padded to the longest, so the memory is N times that: call it for a chunk of rows at a time.

    Parameters
    ----------
    schedule : Schedule
    design_index : ndarray of int, shape (N,)
    entry : Entry
    values : EntryValues
        Of these N rows.

    Returns
    -------
    events : Events
        `schedule.events` itself where no dose moves.
    list_index : ndarray of int, shape (N,)
        List of each row: `design_index` where no dose moves, else 0 ... N - 1.
    status : ndarray of int, shape (N,)
        SolveStatus: INVALID_ENTRY (a lag of a dose is negative or not finite, or the start time is not
        finite), MAX_STEPS (a steady-state regimen arrives more than 1000 times within its lag), else OK.
        A row that is not OK must not be solved.
    """
    index = np.array(design_index, dtype=np.int64)
    N = index.shape[0]
    status = np.zeros(N, dtype=np.int64)
    if entry.start is not None:
        status[~np.isfinite(values.start)] = INVALID_ENTRY
    if not entry.moves_doses:
        return schedule.events, index, status
    source = schedule.events
    lag = np.ascontiguousarray(values.lag)
    size = _count(source, index, lag, status)
    events = empty_events((N, max(1, size)))
    pending = _Pending(np.empty(size + 1), np.empty(size + 1, np.int64), np.empty(size + 1, np.int64))
    _merge(source, index, lag, np.ascontiguousarray(values.bioavailability), pending, status, events)
    return events, np.arange(N, dtype=np.int64), status


@njit(cache=True, nogil=True, error_model="numpy")
def _arrivals(time, lag, ii, horizon):
    """Count the arrivals of a steady-state regimen within the lag: all, and those up to the horizon.

    Arrival j = 1 ... m comes at time + (lag - (m - j) ii), the last one at time + lag. Both numbers are
    floats: they may be too large for integers.
    """
    m = np.ceil(lag / ii) if lag > 0.0 else 0.0
    if m > 0.0 and (m - 1.0) * ii >= lag:
        m -= 1.0  # the quotient was rounded up across a whole number
    within = min(m, max(0.0, np.floor((horizon - time - lag) / ii + m) + 1.0))
    return m, within


@njit(cache=True, nogil=True, error_model="numpy")
def _count(source, design_index, lag, status):
    """Find an upper bound of the events of any row, and flag the rows that cannot be solved."""
    action, compartment, segment = source.action, source.compartment, source.segment
    time, duration, ii, ss = source.time, source.duration, source.ii, source.ss
    n_events = source.n_events
    largest = 0
    for row in range(design_index.shape[0]):
        g = design_index[row]
        horizon = -math.inf
        for k in range(n_events[g]):
            horizon = max(horizon, time[g, k])
        total = 0
        for k in range(n_events[g]):
            if action[g, k] == INFUSION_END:
                continue
            total += 1
            if action[g, k] != BOLUS and action[g, k] != INFUSION_START:
                continue
            later = lag[row, segment[g, k], compartment[g, k]]
            if not (later >= 0.0 and later < math.inf):
                status[row] = INVALID_ENTRY
                break
            each = 1 if action[g, k] == BOLUS else 2
            total += each
            if ss[g, k] > 0:
                _, within = _arrivals(time[g, k], later, ii[g, k], horizon)
                if not within <= MAX_ARRIVALS:
                    status[row] = MAX_STEPS
                    break
                total += each * int(within)
                if each == 2:
                    total += copies_running(duration[g, k], ii[g, k], 0.0)
        if status[row] == OK:
            largest = max(largest, total)
    return largest


@njit(cache=True, nogil=True, error_model="numpy")
def _push(times, actions, sources, n, time, action, k):
    """Insert into the pending events, after those at the same time; return the new number."""
    i = n
    while i > 0 and times[i - 1] > time:
        times[i] = times[i - 1]
        actions[i] = actions[i - 1]
        sources[i] = sources[i - 1]
        i -= 1
    times[i] = time
    actions[i] = action
    sources[i] = k
    return n + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _push_dose(source, g, k, arrival, horizon, pending, n):
    """Announce a dose and, of an infusion, its end; what lies beyond the horizon is left out."""
    action = source.action[g, k]
    if arrival <= horizon:
        n = _push(pending.time, pending.action, pending.source, n, arrival, action, k)
        end = arrival + source.duration[g, k]
        if action == INFUSION_START and end <= horizon:
            n = _push(pending.time, pending.action, pending.source, n, end, np.int64(INFUSION_END), k)
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def _push_regimen(source, g, k, lag, horizon, pending, n):
    """Announce what a steady-state dose leaves running and what arrives within its lag; return the phase."""
    time, ii, duration = source.time[g, k], source.ii[g, k], source.duration[g, k]
    m, within = _arrivals(time, lag, ii, horizon)
    # Between the bounds up to rounding, which must not take a copy off or add one.
    phase = min(max(m * ii - lag, 0.0), ii)
    if source.action[g, k] == INFUSION_START:
        for back in range(copies_running(duration, ii, phase)):
            end = max(time, time - phase + duration - back * ii)
            if end <= horizon:
                n = _push(pending.time, pending.action, pending.source, n, end, np.int64(INFUSION_END), k)
    for j in range(int(within)):
        n = _push_dose(source, g, k, time + (lag - (m - 1.0 - j) * ii), horizon, pending, n)
    return phase, n


@njit(cache=True, nogil=True, error_model="numpy")
def _write_dose(source, g, k, fraction, time, action, segment, events, row, e):
    """Write a bolus, infusion start or infusion end that descends from the dose k of a design."""
    events.time[row, e] = time
    events.action[row, e] = action
    events.compartment[row, e] = source.compartment[g, k]
    events.recorded[row, e] = source.recorded[g, k]
    events.amount[row, e] = source.recorded[g, k] * fraction
    events.slot[row, e] = -1
    events.segment[row, e] = segment
    events.dose_segment[row, e] = source.segment[g, k]
    if action != INFUSION_END:
        events.duration[row, e] = source.duration[g, k]
        events.ii[row, e] = source.ii[g, k]


@njit(cache=True, nogil=True, error_model="numpy")
def _write_mark(time, action, segment, slot, events, row, e):
    """Write what is not a dose."""
    events.time[row, e] = time
    events.action[row, e] = action
    events.slot[row, e] = slot
    events.segment[row, e] = segment
    events.dose_segment[row, e] = segment


@njit(cache=True, nogil=True, error_model="numpy")
def _release(source, g, fraction, until, segment, pending, first, last, events, row, e):
    """Write the pending events up to a time; return how many of all are written now."""
    while first < last and pending.time[first] <= until:
        k = pending.source[first]
        share = fraction[row, source.segment[g, k], source.compartment[g, k]]
        _write_dose(source, g, k, share, pending.time[first], pending.action[first], segment, events, row, e)
        first += 1
        e += 1
    return first, e


@njit(cache=True, nogil=True, error_model="numpy")
def _merge(source, design_index, lag, fraction, pending, status, events):
    """Write the list of every row that is OK."""
    for row in range(design_index.shape[0]):
        if status[row] != OK:
            continue
        g = design_index[row]
        horizon = -math.inf
        for k in range(source.n_events[g]):
            horizon = max(horizon, source.time[g, k])
        _merge_row(source, g, lag, fraction, horizon, pending, events, row)


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_row(source, g, lag, fraction, horizon, pending, events, row):
    e = 0
    n = 0
    current = np.int64(-1)
    for k in range(source.n_events[g]):
        action = source.action[g, k]
        time = source.time[g, k]
        if action == INFUSION_END:
            continue  # announced again by its start, whose lag it shares
        if action == RESET:
            n = 0
        elif n > 0 and pending.time[0] <= time:
            taken, e = _release(source, g, fraction, time, current, pending, 0, n, events, row, e)
            for i in range(taken, n):
                pending.time[i - taken] = pending.time[i]
                pending.action[i - taken] = pending.action[i]
                pending.source[i - taken] = pending.source[i]
            n -= taken
        changes = source.segment[g, k] != current
        current = source.segment[g, k]
        if action != BOLUS and action != INFUSION_START:
            _write_mark(time, action, current, source.slot[g, k], events, row, e)
            e += 1
            if action == OBSERVE:
                events.n_events[row] = e
            continue
        later = lag[row, current, source.compartment[g, k]]
        if source.ss[g, k] == 0 and time + later > time:
            if changes:
                _write_mark(time, np.int64(NEW_SEGMENT), current, np.int64(-1), events, row, e)
                e += 1
            n = _push_dose(source, g, k, time + later, horizon, pending, n)
            continue
        share = fraction[row, current, source.compartment[g, k]]
        _write_dose(source, g, k, share, time, action, current, events, row, e)
        if source.ss[g, k] > 0:
            if source.ss[g, k] == 1:
                n = 0
            events.ss[row, e] = source.ss[g, k]
            events.running[row, e] = source.running[g, k]
            events.arrived[row, e] = 1
            events.phase[row, e], n = _push_regimen(source, g, k, later, horizon, pending, n)
        elif action == INFUSION_START and time + source.duration[g, k] <= horizon:
            n = _push(pending.time, pending.action, pending.source, n, time + source.duration[g, k],
                      np.int64(INFUSION_END), k)  # fmt: skip
        e += 1
