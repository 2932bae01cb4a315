"""Many rows of one design side by side: the frequent case of linear systems, as SIMD instructions.

Rows are lanes of the innermost loops. Every lane takes the steps, and does the arithmetic, that its row would
take alone (`linear_kernel`), in the same order: results do not depend, to the last bit, on which rows share a
call. What differs between lanes, and the exponentials, is computed lane by lane.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from amortnlme.solve.expm import divided_difference
from amortnlme.solve.lane_jit import lane_jit as kernel
from amortnlme.solve.schedule import BOLUS, NEW_SEGMENT, OBSERVE

#: Most lanes, whose memory fits the cache next to the core. Loops over a fixed small number would be unrolled
#: and stay scalar.
LANES = 64
# Two intervals are the same when they differ by less than times are known: a few units in the last place.
ROUNDING = 4.0 * 2.0**-52


class LaneWork(NamedTuple):
    """State and scratch memory of the lanes; the last axis is the lane.

    Attributes
    ----------
    X : ndarray, shape (p + 1, n, LANES)
        As in `amortnlme.solve.linear_arrays.Work`, like the next ones.
    A : ndarray, shape (p, n, n, LANES)
    V, weights : ndarray, shape (n, n, LANES)
    e : ndarray, shape (n, LANES)
    first, second : ndarray, shape (LANES,)
        Scratch.
    clock, last_dt, checksum : ndarray, shape (LANES,)
    moving, going : ndarray of int, shape (LANES,)
        Whether the lane has started, and whether it advances to the event at hand.
    """

    X: np.ndarray
    A: np.ndarray
    V: np.ndarray
    weights: np.ndarray
    e: np.ndarray
    first: np.ndarray
    second: np.ndarray
    clock: np.ndarray
    last_dt: np.ndarray
    checksum: np.ndarray
    moving: np.ndarray
    going: np.ndarray


def make_lane_work(n: int, p: int) -> LaneWork:
    """Allocate the memory of the lanes of one thread.

    Parameters
    ----------
    n, p : int
        Number of states and of parameters that move them.

    Returns
    -------
    LaneWork
    """
    shapes = [(p + 1, n), (p, n, n), (n, n), (n, n), (n,), *[()] * 5]
    numbers = [np.zeros((*shape, LANES)) for shape in shapes]
    return LaneWork(*numbers, *(np.zeros(LANES, dtype=np.int64) for _ in range(2)))


@kernel
def is_plain(events, g):
    """Whether a list holds nothing but observations and boluses.

    Parameters
    ----------
    events : Events
    g : int

    Returns
    -------
    bool
    """
    action, ss = events.action, events.ss
    for k in range(events.n_events[g]):
        what = action[g, k]
        if not (what in (OBSERVE, NEW_SEGMENT) or (what == BOLUS and ss[g, k] == 0)):
            return False
    return True


@kernel
def _load(lane, X, A, lane_X, lane_A):
    """Copy state and couplings of a lane to the memory of a single row."""
    for q in range(X.shape[0]):
        for i in range(X.shape[1]):
            X[q, i] = lane_X[q, i, lane]
    for q in range(A.shape[0]):
        for i in range(A.shape[1]):
            for j in range(A.shape[1]):
                A[q, i, j] = lane_A[q, i, j, lane]


@kernel
def _store(lane, X, A, lane_X, lane_A):
    """Copy them back."""
    for q in range(X.shape[0]):
        for i in range(X.shape[1]):
            lane_X[q, i, lane] = X[q, i]
    for q in range(A.shape[0]):
        for i in range(A.shape[1]):
            for j in range(A.shape[1]):
                lane_A[q, i, j, lane] = A[q, i, j]


@kernel
def _start(row, n_lanes, t, rates, entries, work, lanes, add_flow, advance):
    """Set lanes in motion whose start lies before t: S(start) = dy0/dp - f dstart/dp."""
    start, d_start, shift, moving, clock = (
        entries.start,
        entries.d_start,
        work.phase_slopes,
        lanes.moving,
        lanes.clock,
    )
    for lane in range(n_lanes):
        if moving[lane] == 0:
            r = row + lane
            if t > start[r]:
                _load(lane, work.X, work.A, lanes.X, lanes.A)
                for q in range(shift.shape[0]):
                    shift[q] = -d_start[r, q]
                add_flow(rates, r, shift, work)
                advance(rates, r, t - start[r], False, work.X, work.U, work)
                _store(lane, work.X, work.A, lanes.X, lanes.A)
                moving[lane] = 1
            clock[lane] = t


@kernel
def _prepare(row, n_lanes, t, eigenvalues, lanes, has_slopes):
    """Move the clocks to t, with exponentials of new intervals; return how many lanes advance."""
    clock, last_dt, going, e, weights = lanes.clock, lanes.last_dt, lanes.going, lanes.e, lanes.weights
    rounding = ROUNDING * abs(t)
    n_going = 0
    for lane in range(n_lanes):
        dt = t - clock[lane]
        going[lane] = 1 if dt > rounding else 0
        n_going += going[lane]
        if going[lane] == 0:
            continue
        if abs(dt - last_dt[lane]) <= rounding:
            # As in `linear_kernel._run`: the clock runs on by the interval taken.
            clock[lane] += last_dt[lane]
            continue
        r = row + lane
        for i in range(e.shape[0]):
            e[i, lane] = math.exp(eigenvalues[r, i] * dt)
        if has_slopes:
            for i in range(e.shape[0]):
                for j in range(i + 1):
                    weights[i, j, lane] = dt * divided_difference(
                        eigenvalues[r, i] * dt, eigenvalues[r, j] * dt, e[i, lane], e[j, lane]
                    )
        last_dt[lane], clock[lane] = dt, t
    return n_going


@kernel
def _advance_all(n_lanes, X, A, e, weights, to_i, to_j):
    """Advance all lanes by one interval without input."""
    p, n = A.shape[0], e.shape[0]
    for q in range(1, p + 1):
        for i in range(n):
            for lane in range(n_lanes):
                X[q, i, lane] *= e[i, lane]
    for i in range(n if p > 0 else 0):
        for j in range(i + 1):
            for lane in range(n_lanes):
                to_i[lane] = weights[i, j, lane] * X[0, j, lane]
                to_j[lane] = weights[i, j, lane] * X[0, i, lane]
            for q in range(p):
                for lane in range(n_lanes):
                    X[q + 1, i, lane] += A[q, i, j, lane] * to_i[lane]
            if i != j:
                for q in range(p):
                    for lane in range(n_lanes):
                        X[q + 1, j, lane] += A[q, j, i, lane] * to_j[lane]
    for i in range(n):
        for lane in range(n_lanes):
            X[0, i, lane] *= e[i, lane]


@kernel
def _advance_one(lane, X, A, e, weights):
    """Advance one lane, where others stand still."""
    p, n = A.shape[0], e.shape[0]
    for q in range(1, p + 1):
        for i in range(n):
            X[q, i, lane] *= e[i, lane]
    for i in range(n if p > 0 else 0):
        for j in range(i + 1):
            to_i, to_j = weights[i, j, lane] * X[0, j, lane], weights[i, j, lane] * X[0, i, lane]
            for q in range(p):
                X[q + 1, i, lane] += A[q, i, j, lane] * to_i
                if i != j:
                    X[q + 1, j, lane] += A[q, j, i, lane] * to_j
    for i in range(n):
        X[0, i, lane] *= e[i, lane]


@kernel
def _observe_all(n_lanes, V, X, total, checksum, order, row, column, x, s):
    """Write states and sensitivities of an observation of all lanes."""
    n = X.shape[1]
    for q in range(X.shape[0]):
        for i in range(n):
            for lane in range(n_lanes):
                total[lane] = 0.0
            for j in range(n):
                for lane in range(n_lanes):
                    total[lane] += V[i, j, lane] * X[q, j, lane]
            for lane in range(n_lanes):
                checksum[lane] += total[lane] * 0.0
            if q == 0:
                for lane in range(n_lanes):
                    x[row + lane, column, order[i]] = total[lane]
            else:
                for lane in range(n_lanes):
                    s[row + lane, column, q - 1, order[i]] = total[lane]


@kernel
def solve_lanes(
    row, n_lanes, g, events, rates, entries, order, position, work, lanes, x, s, begin, add_flow, advance
):
    """Solve n_lanes rows from `row` on, whose list g is plain and whose bases are all modal.

    Parameters
    ----------
    row, n_lanes, g : int
    events : Events
    rates : Rates
    entries : Entries
    order, position : ndarray of int, shape (n,)
        Declared index of each internal state, and the reverse.
    work : Work
    lanes : LaneWork
        Receives a checksum per lane, 0 if all that was observed is finite.
    x, s : ndarray
        See `linear_kernel.propagate`.
    begin, add_flow, advance : compiled functions of a single row
    """
    time, action, slot, count = events.time, events.action, events.slot, events.n_events
    compartment, amount = events.compartment, events.amount
    start, W, V, X = entries.start, rates.W, rates.V, lanes.X
    p, n = lanes.A.shape[0], X.shape[1]
    for lane in range(n_lanes):
        r = row + lane
        begin(rates, r, entries, r, work)
        _store(lane, work.X, work.A, X, lanes.A)
        for i in range(n):
            for j in range(n):
                lanes.V[i, j, lane] = V[r, i, j]
        lanes.moving[lane] = 1 if start[r] == -math.inf else 0
        lanes.clock[lane] = start[r] if -math.inf < start[r] < time[g, 0] else time[g, 0]
        lanes.last_dt[lane] = -1.0
        lanes.checksum[lane] = 0.0
    n_moving = 0
    for k in range(count[g]):
        t = time[g, k]
        if n_moving < n_lanes:
            _start(row, n_lanes, t, rates, entries, work, lanes, add_flow, advance)
            n_moving = 0
            for lane in range(n_lanes):
                n_moving += lanes.moving[lane]
        n_going = _prepare(row, n_lanes, t, rates.eigenvalues, lanes, p > 0)
        if n_going == n_lanes:
            _advance_all(n_lanes, X, lanes.A, lanes.e, lanes.weights, lanes.first, lanes.second)
        elif n_going > 0:
            for lane in range(n_lanes):
                if lanes.going[lane] == 1:
                    _advance_one(lane, X, lanes.A, lanes.e, lanes.weights)
        if action[g, k] == OBSERVE:
            _observe_all(n_lanes, lanes.V, X, lanes.first, lanes.checksum, order, row, slot[g, k], x, s)
        elif action[g, k] == BOLUS:
            for lane in range(n_lanes):
                for i in range(n):
                    X[0, i, lane] += W[row + lane, i, position[compartment[g, k]]] * amount[g, k]
