"""Designs turned into flat lists of solver events: doses, infusion ends, resets, observations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

# Kinds of design records; the numbers of amortnlme.data.design.EventKind, which this floor cannot import.
RECORD_OBSERVATION, RECORD_BOLUS, RECORD_INFUSION, RECORD_RESET, RECORD_OTHER = range(5)
# What the solver does when it reaches an event.
OBSERVE, BOLUS, INFUSION_START, INFUSION_END, RESET, NEW_SEGMENT = range(6)
ACTION_OF_RECORD = (OBSERVE, BOLUS, INFUSION_START, RESET, NEW_SEGMENT)
# Earlier doses of a steady-state regimen that may still be running when the steady-state record is reached.
MAX_RUNNING = 64


class Records(NamedTuple):
    """Right-padded design records, one row per design, in processing order (plain arrays for the kernel).

    Attributes
    ----------
    time, amount, duration, ii : ndarray, shape (n, k)   [time], [amount], [time], [time]
    kind, compartment, ss, slot : ndarray of int, shape (n, k)
        Record kind; 0-based compartment; 0, 1 or 2; observation column or -1.
    segment : ndarray of int, shape (n, k)
        Which of the design's distinct covariate values is in force from the record on.
    n_records : ndarray of int, shape (n,)
    """

    time: np.ndarray
    kind: np.ndarray
    compartment: np.ndarray
    amount: np.ndarray
    duration: np.ndarray
    ii: np.ndarray
    ss: np.ndarray
    slot: np.ndarray
    segment: np.ndarray
    n_records: np.ndarray


class Events(NamedTuple):
    """Solver events, one row per design, padded to the longest.

    Attributes
    ----------
    time : ndarray, shape (n, e)   [time]
    action, compartment : ndarray of int, shape (n, e)
    amount : ndarray, shape (n, e)
        Bolus: amount. Infusion start and end: rate [amount/time].
    duration, ii : ndarray, shape (n, e)   [time]
    ss : ndarray of int, shape (n, e)
    running : ndarray of int, shape (n, e)
        At a steady-state infusion: how many earlier infusions of the regimen still run when the next arrives.
    slot, segment : ndarray of int, shape (n, e)
    recorded : ndarray, shape (n, e)
        As `amount`, before bioavailability.
    dose_segment : ndarray of int, shape (n, e)
        Bolus, infusion start and end: covariate segment in force at the record of the dose, whose lag and
        bioavailability apply; elsewhere as `segment`.
    phase : ndarray, shape (n, e)   [time]
        At a steady-state dose: time since the regimen's last arrival, 0 <= phase < ii; 0 without lag.
    arrived : ndarray of int, shape (n, e)
        At a steady-state dose: 1, the event itself applies the regimen's last arrival and then advances it by
        `phase`; elsewhere 0.
    n_events : ndarray of int, shape (n,)
        Number of events of each design, up to its last observation.
    """

    time: np.ndarray
    action: np.ndarray
    compartment: np.ndarray
    amount: np.ndarray
    duration: np.ndarray
    ii: np.ndarray
    ss: np.ndarray
    running: np.ndarray
    slot: np.ndarray
    segment: np.ndarray
    recorded: np.ndarray
    dose_segment: np.ndarray
    phase: np.ndarray
    arrived: np.ndarray
    n_events: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The events of a batch of designs, ready for a solver.

    Attributes
    ----------
    events : Events
    n_designs, n_observations : int
        `n_observations` is the number of observation columns m (the longest design).
    segment_covariates : ndarray, shape (n, n_segments, n_covariates)
        Distinct covariate values of each design, in order of appearance.
    """

    events: Events
    n_observations: int
    segment_covariates: np.ndarray

    @property
    def n_designs(self) -> int:
        """Number of designs."""
        return self.segment_covariates.shape[0]

    @property
    def n_segments(self) -> int:
        """Largest number of distinct covariate values within a design; 1 without time-varying covariates."""
        return self.segment_covariates.shape[1]


def covariate_segments(values: np.ndarray, n_records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Enumerate the distinct covariate values along each design.

    Parameters
    ----------
    values : ndarray, shape (n, k, c)
        Covariate values in force from each record on.
    n_records : ndarray of int, shape (n,)

    Returns
    -------
    segment : ndarray of int, shape (n, k)
    segment_covariates : ndarray, shape (n, n_segments, c)
    """
    n, k, c = values.shape
    segment = np.zeros((n, k), dtype=np.int64)
    if c and k > 1:
        inside = np.arange(1, k) < np.asarray(n_records)[:, None]
        changed = (values[:, 1:] != values[:, :-1]).any(axis=2) & inside
        segment[:, 1:] = np.cumsum(changed, axis=1)
    distinct = np.zeros((n, int(segment.max(initial=0)) + 1, c))
    if c and k:
        distinct[:] = values[:, :1]
        rows = np.broadcast_to(np.arange(n)[:, None], (n, k))
        inside = np.arange(k) < np.asarray(n_records)[:, None]
        distinct[rows[inside], segment[inside]] = values[inside]
    return segment, distinct


def make_schedule(records: Records, n_observations: int, segment_covariates: np.ndarray) -> Schedule:
    """Insert infusion ends, drop what follows the last observation, and fix the event arrays.

    Parameters
    ----------
    records : Records
    n_observations : int
        Number of observation columns m.
    segment_covariates : ndarray, shape (n, n_segments, n_covariates)

    Returns
    -------
    Schedule
    """
    # Fresh contiguous copies: a read-only or strided array would be another type, and compile the kernel
    # again.
    floats = ("time", "amount", "duration", "ii")
    plain = Records(
        *(
            np.array(values, dtype=np.float64 if name in floats else np.int64, order="C")
            for name, values in zip(Records._fields, records, strict=True)
        )
    )
    extra = int(_infusion_ends(plain).max(initial=0))
    shape = (plain.time.shape[0], plain.time.shape[1] + extra)
    events = empty_events(shape)
    _expand(plain, events, max(1, extra))
    events.recorded[:] = events.amount
    events.arrived[:] = events.ss > 0
    width = max(1, int(events.n_events.max(initial=1)))
    trimmed = Events._make([*(np.ascontiguousarray(a[:, :width]) for a in events[:-1]), events.n_events])
    return Schedule(trimmed, n_observations, np.array(segment_covariates, dtype=np.float64, order="C"))


def _infusion_ends(records: Records) -> np.ndarray:
    """Count the infusion ends of every design (at most, up to rounding), shape (n,).

    The kernel writes without bounds checks: too small a count here would overwrite foreign memory.
    """
    steady = (records.ss > 0) & (records.ii > 0.0)
    periods = np.ceil(records.duration / np.where(steady, records.ii, np.inf))
    # One more than the copies that run: the kernel's comparison of products may round the other way.
    copies = np.where(steady, np.minimum(periods + 1.0, MAX_RUNNING), 1.0)
    return np.where(records.kind == RECORD_INFUSION, copies, 0.0).sum(axis=1)


def empty_events(shape: tuple[int, int]) -> Events:
    """Allocate event lists.

    Parameters
    ----------
    shape : tuple of two int
        Number of lists and their width.

    Returns
    -------
    Events
        Zeros; numpy leaves the memory untouched until it is written.
    """

    def floats() -> np.ndarray:
        return np.zeros(shape)

    def integers() -> np.ndarray:
        return np.zeros(shape, dtype=np.int64)

    return Events(
        time=floats(),
        action=integers(),
        compartment=integers(),
        amount=floats(),
        duration=floats(),
        ii=floats(),
        ss=integers(),
        running=integers(),
        slot=integers(),
        segment=integers(),
        recorded=floats(),
        dose_segment=integers(),
        phase=floats(),
        arrived=integers(),
        n_events=np.zeros(shape[0], dtype=np.int64),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def copies_running(duration: float, ii: float, phase: float) -> int:
    """Count the infusions of an endless regimen that run at some time after an arrival.

    Kernels that switch rates on and off and the list of infusion ends must agree: both count with this.

    Parameters
    ----------
    duration, ii : float   [time]
    phase : float   [time]
        Time since the last arrival, 0 <= phase < ii.

    Returns
    -------
    int
        The arrival itself included, at most MAX_RUNNING.
    """
    copies = 0
    while copies * ii + phase < duration and copies < MAX_RUNNING:
        copies += 1
    return copies


# Hot functions take plain arrays: extracting an array from a named tuple counts references at every use.
@njit(cache=True, nogil=True, error_model="numpy")
def _emit_ends(
    g, until, segment, e, n_pending, ends, time, action, compartment, amount, slot, segments, dose_segments
):
    """Emit the pending infusion ends up to a time, earliest first; return the new counts."""
    while n_pending > 0:
        first = 0
        for i in range(1, n_pending):
            if ends[i, 0] < ends[first, 0]:
                first = i
        if ends[first, 0] > until:
            break
        time[g, e] = ends[first, 0]
        action[g, e] = INFUSION_END
        amount[g, e] = ends[first, 1]
        compartment[g, e] = int(ends[first, 2])
        slot[g, e] = -1
        segments[g, e] = segment
        dose_segments[g, e] = int(ends[first, 3])
        e += 1
        n_pending -= 1
        for column in range(4):
            ends[first, column] = ends[n_pending, column]
    return e, n_pending


@njit(cache=True, nogil=True, error_model="numpy")
def _register_ends(time, duration, ii, ss, rate, compartment, segment, n_pending, ends):
    """Register the end of an infusion, and those of earlier doses of a steady-state regimen."""
    running = 0
    if ss > 0 and ii > 0.0:
        running = max(0, copies_running(duration, ii, 0.0) - 1)
    for back in range(running + 1):
        ends[n_pending, 0] = time + duration - back * ii
        ends[n_pending, 1] = rate
        ends[n_pending, 2] = compartment
        ends[n_pending, 3] = segment
        n_pending += 1
    return running, n_pending


@njit(cache=True, nogil=True, error_model="numpy")
def _expand(records, events, n_ends):
    time, kind, compartment, amount = records.time, records.kind, records.compartment, records.amount
    duration, ii, ss, slot, segment = records.duration, records.ii, records.ss, records.slot, records.segment
    n_records = records.n_records
    to_time, to_action, to_compartment, to_amount = (
        events.time,
        events.action,
        events.compartment,
        events.amount,
    )
    to_duration, to_ii, to_ss, to_running = events.duration, events.ii, events.ss, events.running
    to_slot, to_segment, n_events = events.slot, events.segment, events.n_events
    to_dose_segment = events.dose_segment
    ends = np.empty((n_ends, 4))
    for g in range(time.shape[0]):
        e = 0
        n_pending = 0
        current = -1
        last = 0
        for k in range(n_records[g]):
            what = kind[g, k]
            if n_pending > 0 and what != RECORD_RESET:
                e, n_pending = _emit_ends(
                    g, time[g, k], current, e, n_pending, ends, to_time, to_action, to_compartment,
                    to_amount, to_slot, to_segment, to_dose_segment,
                )  # fmt: skip
            is_dose = what in (RECORD_BOLUS, RECORD_INFUSION)
            if what == RECORD_RESET or (is_dose and ss[g, k] == 1):
                n_pending = 0  # both switch off what is running
            if what == RECORD_OTHER and segment[g, k] == current:
                continue
            current = segment[g, k]
            to_time[g, e] = time[g, k]
            to_segment[g, e] = current
            to_dose_segment[g, e] = current
            to_slot[g, e] = slot[g, k]
            to_action[g, e] = ACTION_OF_RECORD[what]
            if is_dose:
                to_compartment[g, e] = compartment[g, k]
                to_ii[g, e] = ii[g, k]
                to_ss[g, e] = ss[g, k]
                to_amount[g, e] = amount[g, k]
                if what == RECORD_INFUSION:
                    to_amount[g, e] = amount[g, k] / duration[g, k]
                    to_duration[g, e] = duration[g, k]
                    to_running[g, e], n_pending = _register_ends(
                        time[g, k], duration[g, k], ii[g, k], ss[g, k], to_amount[g, e], compartment[g, k],
                        current, n_pending, ends,
                    )  # fmt: skip
            e += 1
            if what == RECORD_OBSERVATION:
                last = e
        n_events[g] = last
