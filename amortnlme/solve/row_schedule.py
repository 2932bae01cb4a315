"""Event lists of single rows, whose doses arrive late (lag) and in other amounts (bioavailability)."""

from __future__ import annotations

import math

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


# Columns of the packed lists of designs and of the plan of a row: extracting an array from a named tuple
# counts references at every use, and kernels with twenty array arguments cannot be read.
TIME, DURATION, II, RECORDED = range(4)
ACTION, COMPARTMENT, SS, RUNNING, SLOT, SEGMENT = range(6)
PLAN_ACTION, PLAN_SOURCE, PLAN_SEGMENT, PLAN_STEADY = range(4)


def _pack(events: Events) -> tuple[np.ndarray, np.ndarray]:
    """Pack the lists of designs: floats, shape (n, e, 4), and integers, shape (n, e, 6)."""
    floats = np.stack((events.time, events.duration, events.ii, events.recorded), axis=2)
    integers = np.stack(
        (events.action, events.compartment, events.ss, events.running, events.slot, events.segment), axis=2
    )
    return floats, integers


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
    floats, integers = _pack(schedule.events)
    n_events = schedule.events.n_events
    lag = np.ascontiguousarray(values.lag)
    width = max(1, _count(floats, integers, n_events, index, lag, status))
    events = empty_events((N, width))
    plan = np.zeros((N, width, 4), dtype=np.int64)
    _merge(floats, integers, n_events, index, lag, status, plan, events.time, events.phase, events.n_events)
    _fill(floats, integers, index, np.ascontiguousarray(values.bioavailability), plan, events)
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
def _horizon(floats, n_events, g):
    """Find the latest time of a design, which need not be the last: time may fall at a reset."""
    horizon = -math.inf
    for k in range(n_events[g]):
        horizon = max(horizon, floats[g, k, TIME])
    return horizon


@njit(cache=True, nogil=True, error_model="numpy")
def _count(floats, integers, n_events, design_index, lag, status):
    """Find an upper bound of the events of any row, and flag the rows that cannot be solved."""
    largest = 0
    for row in range(design_index.shape[0]):
        g = design_index[row]
        horizon = _horizon(floats, n_events, g)
        total = 0
        for k in range(n_events[g]):
            action = integers[g, k, ACTION]
            if action == INFUSION_END:
                continue
            total += 1
            if action != BOLUS and action != INFUSION_START:
                continue
            later = lag[row, integers[g, k, SEGMENT], integers[g, k, COMPARTMENT]]
            if not (later >= 0.0 and later < math.inf):
                status[row] = INVALID_ENTRY
            if status[row] != OK:
                break
            each = 1 if action == BOLUS else 2
            total += each
            if integers[g, k, SS] > 0:
                _, within = _arrivals(floats[g, k, TIME], later, floats[g, k, II], horizon)
                if not within <= MAX_ARRIVALS:
                    status[row] = MAX_STEPS
                    break
                total += each * int(within)
                if each == 2:
                    total += copies_running(floats[g, k, DURATION], floats[g, k, II], 0.0)
        if status[row] == OK:
            largest = max(largest, total)
    return largest


@njit(cache=True, nogil=True, error_model="numpy")
def _push(times, sources, n, time, action, k):
    """Insert into the pending events, after those at the same time; return the new number."""
    i = n
    while i > 0 and times[i - 1] > time:
        times[i] = times[i - 1]
        sources[i, 0] = sources[i - 1, 0]
        sources[i, 1] = sources[i - 1, 1]
        i -= 1
    times[i] = time
    sources[i, 0] = action
    sources[i, 1] = k
    return n + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _push_dose(floats, g, k, action, arrival, horizon, times, sources, n):
    """Announce a dose and, of an infusion, its end; what lies beyond the horizon is left out."""
    if arrival <= horizon:
        n = _push(times, sources, n, arrival, action, k)
        end = arrival + floats[g, k, DURATION]
        if action == INFUSION_START and end <= horizon:
            n = _push(times, sources, n, end, np.int64(INFUSION_END), k)
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def _push_regimen(floats, g, k, action, lag, horizon, times, sources, n):
    """Announce what a steady-state dose leaves running and what arrives within its lag; return the phase."""
    time, ii, duration = floats[g, k, TIME], floats[g, k, II], floats[g, k, DURATION]
    m, within = _arrivals(time, lag, ii, horizon)
    # Between the bounds up to rounding, which must not take a copy off or add one.
    phase = min(max(m * ii - lag, 0.0), ii)
    if action == INFUSION_START:
        for back in range(copies_running(duration, ii, phase)):
            end = max(time, time - phase + duration - back * ii)
            if end <= horizon:
                n = _push(times, sources, n, end, np.int64(INFUSION_END), k)
    for j in range(int(within)):
        arrival = time + (lag - (m - 1.0 - j) * ii)
        n = _push_dose(floats, g, k, action, arrival, horizon, times, sources, n)
    return phase, n


@njit(cache=True, nogil=True, error_model="numpy")
def _plan_event(plan, row, e, action, source, segment, steady):
    plan[row, e, PLAN_ACTION] = action
    plan[row, e, PLAN_SOURCE] = source
    plan[row, e, PLAN_SEGMENT] = segment
    plan[row, e, PLAN_STEADY] = steady


@njit(cache=True, nogil=True, error_model="numpy")
def _merge(floats, integers, n_events, design_index, lag, status, plan, to_time, to_phase, to_n_events):
    """Plan the list of every row that is OK: time, action, segment and the event it descends from."""
    times = np.empty(plan.shape[1])
    sources = np.empty((plan.shape[1], 2), dtype=np.int64)
    for row in range(design_index.shape[0]):
        if status[row] != OK:
            continue
        g = design_index[row]
        horizon = _horizon(floats, n_events, g)
        e = 0
        first, n = 0, 0  # pending are first ... n - 1
        current = np.int64(-1)
        for k in range(n_events[g]):
            action = integers[g, k, ACTION]
            time = floats[g, k, TIME]
            if action == INFUSION_END:
                continue  # announced again by its start, whose lag it shares
            if action == RESET:
                first, n = 0, 0
            while first < n and times[first] <= time:
                to_time[row, e] = times[first]
                _plan_event(plan, row, e, sources[first, 0], sources[first, 1], current, 0)
                first += 1
                e += 1
            if first == n:
                first, n = 0, 0
            segment = integers[g, k, SEGMENT]
            changes = segment != current
            current = segment
            to_time[row, e] = time
            if action != BOLUS and action != INFUSION_START:
                _plan_event(plan, row, e, action, k, current, 0)
                e += 1
                if action == OBSERVE:
                    to_n_events[row] = e
                continue
            later = lag[row, current, integers[g, k, COMPARTMENT]]
            ss = integers[g, k, SS]
            if ss > 0:
                if ss == 1:
                    first, n = 0, 0
                _plan_event(plan, row, e, action, k, current, 1)
                to_phase[row, e], n = _push_regimen(floats, g, k, action, later, horizon, times, sources, n)
                e += 1
                continue
            if time + later > time:
                if changes:
                    _plan_event(plan, row, e, np.int64(NEW_SEGMENT), k, current, 0)
                    e += 1
                n = _push_dose(floats, g, k, action, time + later, horizon, times, sources, n)
                continue
            _plan_event(plan, row, e, action, k, current, 0)
            e += 1
            end = time + floats[g, k, DURATION]
            if action == INFUSION_START and end <= horizon:
                n = _push(times, sources, n, end, np.int64(INFUSION_END), k)


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(floats, integers, design_index, fraction, plan, events):
    """Write the columns that follow from the plan."""
    action, compartment, amount, recorded = events.action, events.compartment, events.amount, events.recorded
    duration, ii, ss, running, slot = events.duration, events.ii, events.ss, events.running, events.slot
    segment, dose_segment, arrived = events.segment, events.dose_segment, events.arrived
    for row in range(plan.shape[0]):
        g = design_index[row]
        for e in range(events.n_events[row]):
            what = plan[row, e, PLAN_ACTION]
            k = plan[row, e, PLAN_SOURCE]
            action[row, e] = what
            segment[row, e] = plan[row, e, PLAN_SEGMENT]
            slot[row, e] = integers[g, k, SLOT] if what == OBSERVE else -1
            if what != BOLUS and what != INFUSION_START and what != INFUSION_END:
                dose_segment[row, e] = segment[row, e]
                continue
            at_dose = integers[g, k, SEGMENT]
            into = integers[g, k, COMPARTMENT]
            dose_segment[row, e] = at_dose
            compartment[row, e] = into
            recorded[row, e] = floats[g, k, RECORDED]
            amount[row, e] = floats[g, k, RECORDED] * fraction[row, at_dose, into]
            if what != INFUSION_END:
                duration[row, e] = floats[g, k, DURATION]
                ii[row, e] = floats[g, k, II]
            if plan[row, e, PLAN_STEADY] == 1:
                ss[row, e] = integers[g, k, SS]
                running[row, e] = integers[g, k, RUNNING]
                arrived[row, e] = 1
