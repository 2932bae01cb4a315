"""Steady states inside the lanes: the periodic solution of a regimen, by accelerated iteration over periods.

A period maps the state x just before an arrival to G(x) just before the next one; the steady state is its
fixed point. Anderson's method (1965) combines the last periods so that the residual G(x) - x would vanish if
G were linear: slow modes of the body then cost no more periods than fast ones.
"""

from __future__ import annotations

import math

import numpy as np

from amortnlme.solve import lane_tables as table
from amortnlme.solve import lanes as at
from amortnlme.solve.lane_jit import part_jit
from amortnlme.solve.lanes import LANES
from amortnlme.solve.schedule import BOLUS, copies_running

# Periods simulated at most.
MAX_PERIODS = 1000
# Periods run at tighter tolerances: acceleration amplifies the differences between their errors.
TIGHTER = 0.1
# The next iterate may differ from this one by so much of the tolerance.
SETTLED = 0.5
# States this many times larger than anything in the first period are out of reach: it would take about as
# many doses to get there, and one more would vanish in the rounding of such a state.
FURTHEST = 2.0**20
# A remembered period that says nothing new: smaller than this after the newer ones have been projected out.
DEPENDENT = 1e-8


@part_jit()
def begin_steady(v, k, W, lane, number, rows, sizes, options, numbers, integers, initial):
    """Leave what the lane was doing and start the first period of the regimen of a stop.

    Parameters
    ----------
    v : int
        Lane.
    k : int
        Stop.
    W, lane, number, rows : ndarray
        Memory of the lanes; see `amortnlme.solve.lanes.lane_memory`.
    sizes : ndarray of int
        See `LaneLayout.sizes`.
    options : ndarray, shape (3,)
        See `OPTION_RTOL` and its neighbours.
    numbers, integers : ndarray
        Stops of all event lists; see `StopTables`.
    initial : ndarray, shape (N, n)
        Initial states of the simulations.

    Returns
    -------
    int
        ON_THE_WAY when steps are needed first, NO_STEADY_STATE when a period is lost in the rounding of time.
    """
    g = lane[v, at.LIST]
    n, state, rate = sizes[at.N_STATES], sizes[at.STATE], sizes[at.RATE]
    adds = integers[g, k, table.STEADY] == 2
    for i in range(n):
        rows[v, at.SAVED_STATE, i] = W[(state + i) * LANES + v] if adds else 0.0
        rows[v, at.SAVED_RATE, i] = W[(rate + i) * LANES + v] if adds else 0.0
        # Endogenous states have their steady level without the drug from the start.
        W[(state + i) * LANES + v] = 0.0 if adds else initial[lane[v, at.ROW], i]
    if not adds:
        lane[v, at.N_RUNNING] = 0
    number[v, at.RESUME] = W[at.TIME * LANES + v]
    number[v, at.REACH] = numbers[g, k, table.AMOUNT] * (
        1.0 if integers[g, k, table.ACTION] == BOLUS else numbers[g, k, table.DURATION]
    )
    lane[v, at.PERIODS] = 0
    lane[v, at.KEPT] = 0
    W[at.RTOL * LANES + v] = TIGHTER * options[at.OPTION_RTOL]
    W[at.ATOL * LANES + v] = TIGHTER * options[at.OPTION_ATOL]
    return _begin_period(v, k, W, lane, rows, sizes, numbers, integers)


@part_jit()
def _set_rate(v, W, sizes, compartment, value):
    """Let nothing run but this."""
    for i in range(sizes[at.N_STATES]):
        W[(sizes[at.RATE] + i) * LANES + v] = 0.0
    W[(sizes[at.RATE] + compartment) * LANES + v] = value


@part_jit()
def _arrive(v, k, span, first_mode, W, lane, sizes, numbers, integers):
    """Give a dose of the regimen at the lane's time and set out for a span; return a status."""
    g = lane[v, at.LIST]
    compartment, amount = integers[g, k, table.COMPARTMENT], numbers[g, k, table.AMOUNT]
    begin = W[at.TIME * LANES + v]
    lane[v, at.MODE] = first_mode + 1
    end = begin + span
    if integers[g, k, table.ACTION] == BOLUS:
        W[(sizes[at.STATE] + compartment) * LANES + v] += amount
        _set_rate(v, W, sizes, compartment, 0.0)
    else:
        duration, interval = numbers[g, k, table.DURATION], numbers[g, k, table.INTERVAL]
        copies = copies_running(duration, interval, 0.0)
        _set_rate(v, W, sizes, compartment, amount * copies)
        oldest_ends = duration - (copies - 1) * interval
        if oldest_ends < span:
            end = begin + oldest_ends
            lane[v, at.MODE] = first_mode
    W[at.STOP * LANES + v] = end
    return at.ON_THE_WAY if end > begin else at.NO_STEADY_STATE


@part_jit()
def _begin_period(v, k, W, lane, rows, sizes, numbers, integers):
    g = lane[v, at.LIST]
    for i in range(sizes[at.N_STATES]):
        rows[v, at.ORIGIN, i] = W[(sizes[at.STATE] + i) * LANES + v]
    interval = numbers[g, k, table.INTERVAL]
    arrival = numbers[g, k, table.TIME] - numbers[g, k, table.PHASE]
    W[at.TIME * LANES + v] = arrival - interval
    return _arrive(v, k, interval, at.PERIOD_PART, W, lane, sizes, numbers, integers)


@part_jit()
def land_in_steady(v, k, W, lane, number, rows, sizes, options, numbers, integers):
    """Go on at the end of a part of a period.

    Parameters
    ----------
    v : int
        Lane.
    k : int
        Stop.
    W, lane, number, rows : ndarray
        Memory of the lanes; see `amortnlme.solve.lanes.lane_memory`.
    sizes : ndarray of int
        See `LaneLayout.sizes`.
    options : ndarray, shape (3,)
        See `OPTION_RTOL` and its neighbours.
    numbers, integers : ndarray
        Stops of all event lists; see `StopTables`.

    Returns
    -------
    int
        ON_THE_WAY when steps are needed first, OK after the regimen was applied, or the status of a failure.
    """
    g = lane[v, at.LIST]
    mode = lane[v, at.MODE]
    interval, phase = numbers[g, k, table.INTERVAL], numbers[g, k, table.PHASE]
    arrival = numbers[g, k, table.TIME] - phase
    if mode == at.PERIOD_PART or mode == at.PHASE_PART:
        # The oldest infusion has ended: the others go on to the end of the span.
        span = interval if mode == at.PERIOD_PART else phase
        copies = copies_running(numbers[g, k, table.DURATION], interval, span)
        _set_rate(v, W, sizes, integers[g, k, table.COMPARTMENT], numbers[g, k, table.AMOUNT] * copies)
        end = arrival if mode == at.PERIOD_PART else arrival + phase
        lane[v, at.MODE] = mode + 1
        W[at.STOP * LANES + v] = end
        if end > W[at.TIME * LANES + v]:
            return at.ON_THE_WAY
        mode += 1
    if mode == at.PERIOD_REST:
        lane[v, at.PERIODS] += 1
        settled = _accelerate(v, W, lane, number, rows, sizes, options)
        if not settled:
            if lane[v, at.PERIODS] >= MAX_PERIODS or _is_out_of_reach(v, W, number, sizes):
                return at.NO_STEADY_STATE
            return _begin_period(v, k, W, lane, rows, sizes, numbers, integers)
        W[at.TIME * LANES + v] = arrival
        if phase > 0.0:
            return _arrive(v, k, phase, at.PHASE_PART, W, lane, sizes, numbers, integers)
        if integers[g, k, table.ACTION] == BOLUS:
            into = sizes[at.STATE] + integers[g, k, table.COMPARTMENT]
            W[into * LANES + v] += numbers[g, k, table.AMOUNT]
    _leave_steady(v, k, W, lane, number, rows, sizes, options, numbers, integers)
    return at.OK


@part_jit()
def _leave_steady(v, k, W, lane, number, rows, sizes, options, numbers, integers):
    """Return to the event with the regimen's state and infusions, added to what was kept."""
    g = lane[v, at.LIST]
    compartment = integers[g, k, table.COMPARTMENT]
    copies = np.int64(0)
    if integers[g, k, table.ACTION] != BOLUS:
        duration, interval = numbers[g, k, table.DURATION], numbers[g, k, table.INTERVAL]
        copies = copies_running(duration, interval, numbers[g, k, table.PHASE])
    _set_rate(v, W, sizes, compartment, numbers[g, k, table.AMOUNT] * copies)
    for i in range(sizes[at.N_STATES]):
        W[(sizes[at.STATE] + i) * LANES + v] += rows[v, at.SAVED_STATE, i]
        W[(sizes[at.RATE] + i) * LANES + v] += rows[v, at.SAVED_RATE, i]
    lane[v, at.N_RUNNING] += copies
    lane[v, at.MODE] = at.TRAVEL
    W[at.TIME * LANES + v] = number[v, at.RESUME]
    W[at.RTOL * LANES + v] = options[at.OPTION_RTOL]
    W[at.ATOL * LANES + v] = options[at.OPTION_ATOL]


@part_jit()
def _weight(v, i, W, sizes, options):
    size = abs(W[(sizes[at.STATE] + i) * LANES + v])
    return 1.0 / (options[at.OPTION_ATOL] + options[at.OPTION_RTOL] * size)


@part_jit()
def _is_out_of_reach(v, W, number, sizes):
    largest = 0.0
    for i in range(sizes[at.N_STATES]):
        largest = max(largest, abs(W[(sizes[at.STATE] + i) * LANES + v]))
    return largest > FURTHEST * number[v, at.REACH]


@part_jit()
def _accelerate(v, W, lane, number, rows, sizes, options):
    """Replace the state G(x) by the next iterate; return whether that one differs from x by little enough."""
    n, state = sizes[at.N_STATES], sizes[at.STATE]
    kept = lane[v, at.KEPT]
    r = rows[v]
    for i in range(n):
        r[at.NEXT_ITERATE, i] = W[(state + i) * LANES + v]
        if kept == 0:
            number[v, at.REACH] = max(number[v, at.REACH], abs(r[at.NEXT_ITERATE, i]), abs(r[at.ORIGIN, i]))
    _combine(v, kept, W, r, sizes, options)
    change = 0.0
    plain = 0.0
    allowed = True
    for i in range(n):
        image, x, following = W[(state + i) * LANES + v], r[at.ORIGIN, i], r[at.NEXT_ITERATE, i]
        weight = _weight(v, i, W, sizes, options)
        change = max(change, abs(following - x) * weight)
        plain = max(plain, abs(image - x) * weight)
        # A combination may leave the quarter where the model has a meaning; no regimen leads there.
        allowed &= math.isfinite(following) and not (following < 0.0 and image >= 0.0 and x >= 0.0)
    _remember(v, kept, W, lane, r, sizes)
    if not allowed:
        return False  # one more plain period
    for i in range(n):
        W[(state + i) * LANES + v] = r[at.NEXT_ITERATE, i]
    if _is_out_of_reach(v, W, number, sizes):
        return False
    # Without a remembered period nothing is known of slow modes, unless nothing moves at all.
    return plain == 0.0 or (kept > 0 and change <= SETTLED and plain <= SETTLED)


@part_jit()
def _combine(v, kept, W, r, sizes, options):
    """Anderson's combination, by projecting the residual on the differences of residuals, newest first."""
    n, state = sizes[at.N_STATES], sizes[at.STATE]
    n_basis = 0
    for back in range(kept):
        # CHANGES holds the difference of images that belongs to a difference of residuals.
        length = 0.0
        for i in range(n):
            image, x = W[(state + i) * LANES + v], r[at.ORIGIN, i]
            weight = _weight(v, i, W, sizes, options)
            difference = (image - x) - r[at.RESIDUALS + back, i]
            r[at.BASIS + n_basis, i] = difference * weight
            r[at.CHANGES + n_basis, i] = difference + (x - r[at.ITERATES + back, i])
            length += (difference * weight) ** 2
        rest = length
        for b in range(n_basis):
            overlap = 0.0
            for i in range(n):
                overlap += r[at.BASIS + b, i] * r[at.BASIS + n_basis, i]
            rest = 0.0
            for i in range(n):
                r[at.BASIS + n_basis, i] -= overlap * r[at.BASIS + b, i]
                r[at.CHANGES + n_basis, i] -= overlap * r[at.CHANGES + b, i]
                rest += r[at.BASIS + n_basis, i] ** 2
        if not (rest > DEPENDENT**2 * length and n_basis < n):
            continue
        scale = 1.0 / math.sqrt(rest)
        for i in range(n):
            r[at.BASIS + n_basis, i] *= scale
            r[at.CHANGES + n_basis, i] *= scale
        n_basis += 1
    for b in range(n_basis):
        share = 0.0
        for i in range(n):
            residual = W[(state + i) * LANES + v] - r[at.ORIGIN, i]
            share += r[at.BASIS + b, i] * residual * _weight(v, i, W, sizes, options)
        for i in range(n):
            r[at.NEXT_ITERATE, i] -= share * r[at.CHANGES + b, i]


@part_jit()
def _remember(v, kept, W, lane, r, sizes):
    """Put this period before the remembered ones."""
    n, state = sizes[at.N_STATES], sizes[at.STATE]
    last = min(kept, at.DEPTH - 1)
    for back in range(last, 0, -1):
        for i in range(n):
            r[at.ITERATES + back, i] = r[at.ITERATES + back - 1, i]
            r[at.RESIDUALS + back, i] = r[at.RESIDUALS + back - 1, i]
    for i in range(n):
        r[at.ITERATES, i] = r[at.ORIGIN, i]
        r[at.RESIDUALS, i] = W[(state + i) * LANES + v] - r[at.ORIGIN, i]
    lane[v, at.KEPT] = last + 1
