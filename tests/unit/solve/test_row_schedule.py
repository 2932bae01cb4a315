"""Event lists of single rows against a slow reference that sorts what happens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from amortnlme.core.status import SolveStatus
from amortnlme.solve.entry import Entry, EntryFunctions
from amortnlme.solve.row_schedule import MAX_ARRIVALS, row_events
from amortnlme.solve.schedule import (
    BOLUS,
    INFUSION_END,
    INFUSION_START,
    NEW_SEGMENT,
    OBSERVE,
    RECORD_BOLUS,
    RECORD_INFUSION,
    RECORD_OBSERVATION,
    RECORD_OTHER,
    RECORD_RESET,
    RESET,
    Records,
    covariate_segments,
    make_schedule,
)
from amortnlme.solve.trace import Names, make_symbols

NAMES = Names(("gut", "blood"), ("late", "latest", "share", "whole"), ("w",))
ENTRY = Entry.from_functions(
    EntryFunctions(
        lag={"gut": lambda p: p.late * p.w, "blood": lambda p: p.latest},
        bioavailability={"gut": lambda p: p.share, "blood": lambda p: p.whole * p.w},
    ),
    NAMES,
    make_symbols(NAMES),
)


def schedule_of(rows, w=None):
    """Schedule of one design from (time, kind, compartment, amount, duration, ii, ss) rows."""
    time, kind, compartment, amount, duration, ii, ss = (
        np.array([column]) for column in zip(*rows, strict=True)
    )
    seen = np.cumsum(kind == RECORD_OBSERVATION, axis=1)
    slot = np.where(kind == RECORD_OBSERVATION, seen - 1, -1)
    values = np.ones((1, len(rows), 1)) if w is None else np.array(w, dtype=float)[None, :, None]
    n_records = np.array([len(rows)])
    segment, distinct = covariate_segments(values, n_records)
    records = Records(time, kind, compartment, amount, duration, ii, ss, slot, segment, n_records)
    return make_schedule(records, int(seen.max()), distinct)


def lists(rows, psi, w=None):
    """Events of one row per parameter vector, as lists of dicts, and the statuses."""
    schedule = schedule_of(rows, w)
    index = np.zeros(len(psi), dtype=np.int64)
    values = ENTRY.evaluate(np.array(psi, dtype=float), schedule, index)
    events, list_index, status = row_events(schedule, index, ENTRY, values)
    found = [
        [
            {name: getattr(events, name)[g, k].item() for name in events._fields if name != "n_events"}
            for k in range(events.n_events[g])
        ]
        for g in list_index
    ]
    return found, status


def expected(rows, psi, w):
    """What happens, in order: (time, action, compartment, amount, slot, segment, phase)."""
    late, latest, share, whole = psi
    segments = np.concatenate([[0], np.cumsum(np.diff(w) != 0)])
    out, pending, slot, current, last = [], [], -1, None, 0

    def announce(arrival, into, rate, duration, infusion):
        pending.append((arrival, INFUSION_START if infusion else BOLUS, into, rate))
        if infusion:
            pending.append((arrival + duration, INFUSION_END, into, rate))

    for i, (time, kind, into, amount, duration, ii, ss) in enumerate(rows):
        if kind == RECORD_OTHER and segments[i] == current:
            continue  # such a record is no event
        if kind == RECORD_RESET:
            pending = []
        while pending:
            first = min(pending, key=lambda one: one[0])  # the first of the earliest
            if first[0] > time:
                break
            pending.remove(first)
            out.append((*first, -1, current, 0.0))
        moved, current = segments[i] != current, segments[i]
        if kind == RECORD_OTHER:
            out.append((time, NEW_SEGMENT, 0, 0.0, -1, current, 0.0))
        elif kind == RECORD_RESET:
            out.append((time, RESET, 0, 0.0, -1, current, 0.0))
        elif kind == RECORD_OBSERVATION:
            slot += 1
            out.append((time, OBSERVE, 0, 0.0, slot, current, 0.0))
            last = len(out)
        else:
            infusion = kind == RECORD_INFUSION
            lag = late * w[i] if into == 0 else latest
            given = (amount / duration if infusion else amount) * (share if into == 0 else whole * w[i])
            action = INFUSION_START if infusion else BOLUS
            if ss:
                pending = [] if ss == 1 else pending
                m = math.ceil(lag / ii)
                phase = m * ii - lag
                out.append((time, action, into, given, -1, current, phase))
                if infusion:
                    pending += [
                        (time - phase + duration - k * ii, INFUSION_END, into, given)
                        for k in range(64)
                        if k * ii + phase < duration
                    ]
                for j in range(1, m + 1):
                    announce(time + (lag - (m - j) * ii), into, given, duration, infusion)
            elif lag == 0.0:
                out.append((time, action, into, given, -1, current, 0.0))
                if infusion:
                    pending.append((time + duration, INFUSION_END, into, given))
            else:
                if moved:
                    out.append((time, NEW_SEGMENT, 0, 0.0, -1, current, 0.0))
                announce(time + lag, into, given, duration, infusion)
    return out[:last]


KINDS = [RECORD_OBSERVATION] * 3 + [RECORD_BOLUS] * 2 + [RECORD_INFUSION] * 2 + [RECORD_RESET, RECORD_OTHER]


@st.composite
def tables(draw):
    """Records with whole-numbered times (so that ties abound), ending in an observation."""
    rows, w, time = [], [], 0.0
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(KINDS))
        time += draw(st.integers(0, 3))
        if kind == RECORD_RESET and draw(st.booleans()):
            time = 0.0
        ss = draw(st.sampled_from([0, 0, 1, 2])) if kind in (RECORD_BOLUS, RECORD_INFUSION) else 0
        duration = float(draw(st.integers(1, 20))) if kind == RECORD_INFUSION else 0.0
        into = draw(st.integers(0, 1)) if kind in (RECORD_BOLUS, RECORD_INFUSION) else 0
        amount = float(draw(st.integers(1, 9))) if duration or kind == RECORD_BOLUS else 0.0
        rows.append((time, kind, into, amount, duration, float(draw(st.integers(1, 8))) if ss else 0.0, ss))
        w.append(float(draw(st.integers(1, 2))))
    rows.append((time + draw(st.integers(0, 30)), RECORD_OBSERVATION, 0, 0.0, 0.0, 0.0, 0))
    return rows, [*w, w[-1]]


# Quarters are exact in binary: no two times differ by rounding alone.
LAGS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 3.5, 9.0, 40.0])


@settings(max_examples=200, deadline=None)
@given(tables(), LAGS, LAGS, st.sampled_from([0.5, 1.0, 2.0]))
def test_row_events_agree_with_a_slow_reference_on_random_tables(table, late, latest, share):
    rows, w = table
    others = [(1.0, 60.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)]
    found, status = lists(rows, [(late, latest, share, 0.25), *others], w)
    assert_array_equal(status, 0)
    names = ("time", "action", "compartment", "amount", "slot", "segment", "phase")
    for events, psi in zip(found, [(late, latest, share, 0.25), *others], strict=True):
        assert [tuple(event[name] for name in names) for event in events] == expected(rows, psi, w)


@settings(max_examples=60, deadline=None)
@given(tables())
def test_row_events_are_the_list_of_the_design_when_nothing_moves(table):
    """As sets: ends of infusions at one time may change places, as the plain list keeps no order of them."""
    rows, w = table
    (found,), _ = lists(rows, [(0.0, 0.0, 1.0, 1.0)], [1.0] * len(w))
    plain = schedule_of(rows).events
    of_plain = [
        {name: getattr(plain, name)[0, k].item() for name in plain._fields if name != "n_events"}
        for k in range(plain.n_events[0])
    ]
    assert [e["time"] for e in found] == [e["time"] for e in of_plain]
    assert sorted(map(repr, found)) == sorted(map(repr, of_plain))


DOSE = (0.0, RECORD_INFUSION, 0, 12.0, 30.0, 12.0, 1)
LOOK = (40.0, RECORD_OBSERVATION, 0, 0.0, 0.0, 0.0, 0)


def test_a_late_steady_state_infusion_leaves_its_copies_running():
    """Arrivals at -7, 5, 17, ...: at 0 those of -7 and -19 run on, until 23 and 11."""
    (events,), _ = lists([DOSE, LOOK], [(5.0, 0.0, 0.5, 1.0)])
    assert [(e["time"], e["action"]) for e in events] == [
        (0.0, INFUSION_START),
        (5.0, INFUSION_START),
        (11.0, INFUSION_END),
        (23.0, INFUSION_END),
        (35.0, INFUSION_END),
        (40.0, OBSERVE),
    ]
    assert (events[0]["phase"], events[0]["arrived"], events[0]["running"]) == (7.0, 1, 2)
    assert (events[0]["recorded"], events[0]["amount"]) == (0.4, 0.2)


@pytest.mark.parametrize("late", [-1e-9, np.nan, np.inf, -np.inf])
def test_an_impossible_lag_is_flagged_in_its_row_alone(late):
    found, status = lists([DOSE, LOOK], [(1.0, 0.0, 1.0, 1.0), (late, 0.0, 1.0, 1.0), (2.0, 0.0, 1.0, 1.0)])
    assert_array_equal(status, [SolveStatus.OK, SolveStatus.INVALID_ENTRY, SolveStatus.OK])
    assert [len(events) for events in found] == [6, 0, 6]


def test_a_lag_of_a_compartment_that_gets_no_dose_does_not_matter():
    assert lists([DOSE, LOOK], [(1.0, np.nan, 1.0, 1.0)])[1][0] == SolveStatus.OK


def test_endless_arrivals_are_cut_at_the_last_observation_and_refused_beyond_their_limit():
    often = (0.0, RECORD_BOLUS, 0, 1.0, 0.0, 0.01, 1)
    few, many = 0.01 * (MAX_ARRIVALS - 1), 0.01 * (MAX_ARRIVALS + 2)
    for end, wanted in ((few, SolveStatus.OK), (many, SolveStatus.MAX_STEPS)):
        _, status = lists([often, (end, *LOOK[1:])], [(1e12, 0.0, 1.0, 1.0)])
        assert status[0] == wanted
