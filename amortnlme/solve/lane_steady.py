"""Steady states inside the lanes: the periodic solution of a regimen, by accelerated iteration over periods.

A period maps the state x just before an arrival to G(x) just before the next one; the steady state is its fixed
point. Anderson's method (1965) combines the last periods so that the residual G(x) - x would vanish if G were
linear; slow modes of the body then cost no more periods than fast ones.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from amortnlme.solve import lane_tables as table
from amortnlme.solve import lanes as at
from amortnlme.solve.lanes import LANES
from amortnlme.solve.schedule import BOLUS, copies_running

# Periods remembered, and simulated at most.
DEPTH = 6
MAX_PERIODS = 1000
# Periods run at tighter tolerances: acceleration amplifies the differences between their errors.
TIGHTER = 0.1
# The next iterate may differ from this one by so much of the tolerance.
SETTLED = 0.5
# A remembered period that says nothing new: smaller than this after the newer ones have been projected out.
DEPENDENT = 1e-8

# Rows of a lane's memory of states: what is kept for ss=2, the period's initial state, then the remembered
# iterates and residuals, then the residuals' orthonormal differences, and the next iterate.
SAVED_STATE, SAVED_RATE, ORIGIN, ITERATES, RESIDUALS = 0, 1, 2, 3, 3 + DEPTH
BASIS, CHANGES, NEXT_ITERATE, N_ROWS = 3 + 2 * DEPTH, 3 + 3 * DEPTH, 3 + 4 * DEPTH, 4 + 4 * DEPTH


@njit(cache=True, nogil=True, error_model="numpy")
def begin_steady(l, k, W, lane, number, rows, sizes, options, numbers, integers, initial):
    """Leave what the lane was doing and start the first period of the regimen of stop k; return a status."""
    g = lane[l, at.LIST]
    n, state, rate = sizes[at.N_STATES], sizes[at.STATE], sizes[at.RATE]
    adds = integers[g, k, table.STEADY] == 2
    for i in range(n):
        rows[l, SAVED_STATE, i] = W[(state + i) * LANES + l] if adds else 0.0
        rows[l, SAVED_RATE, i] = W[(rate + i) * LANES + l] if adds else 0.0
        # Endogenous states have their steady level without the drug from the start.
        W[(state + i) * LANES + l] = 0.0 if adds else initial[lane[l, at.ROW], i]
    if not adds:
        lane[l, at.N_RUNNING] = 0
    number[l, at.RESUME] = W[at.TIME * LANES + l]
    lane[l, at.PERIODS] = 0
    lane[l, at.KEPT] = 0
    W[at.RTOL * LANES + l] = TIGHTER * options[at.OPTION_RTOL]
    W[at.ATOL * LANES + l] = TIGHTER * options[at.OPTION_ATOL]
    return _begin_period(l, k, W, lane, rows, sizes, numbers, integers)


@njit(cache=True, nogil=True, error_model="numpy")
def _set_rate(l, W, sizes, compartment, value):
    """Let nothing run but this."""
    for i in range(sizes[at.N_STATES]):
        W[(sizes[at.RATE] + i) * LANES + l] = 0.0
    W[(sizes[at.RATE] + compartment) * LANES + l] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _arrive(l, k, span, first_mode, W, lane, sizes, numbers, integers):
    """Give a dose of the regimen at the lane's time and set out for a span; return a status."""
    g = lane[l, at.LIST]
    compartment, amount = integers[g, k, table.COMPARTMENT], numbers[g, k, table.AMOUNT]
    begin = W[at.TIME * LANES + l]
    lane[l, at.MODE] = first_mode + 1
    end = begin + span
    if integers[g, k, table.ACTION] == BOLUS:
        W[(sizes[at.STATE] + compartment) * LANES + l] += amount
        _set_rate(l, W, sizes, compartment, 0.0)
    else:
        duration, interval = numbers[g, k, table.DURATION], numbers[g, k, table.INTERVAL]
        copies = copies_running(duration, interval, 0.0)
        _set_rate(l, W, sizes, compartment, amount * copies)
        oldest_ends = duration - (copies - 1) * interval
        if oldest_ends < span:
            end = begin + oldest_ends
            lane[l, at.MODE] = first_mode
    W[at.STOP * LANES + l] = end
    return at.ON_THE_WAY if end > begin else at.NO_STEADY_STATE


@njit(cache=True, nogil=True, error_model="numpy")
def _begin_period(l, k, W, lane, rows, sizes, numbers, integers):
    g = lane[l, at.LIST]
    for i in range(sizes[at.N_STATES]):
        rows[l, ORIGIN, i] = W[(sizes[at.STATE] + i) * LANES + l]
    interval = numbers[g, k, table.INTERVAL]
    arrival = numbers[g, k, table.TIME] - numbers[g, k, table.PHASE]
    W[at.TIME * LANES + l] = arrival - interval
    return _arrive(l, k, interval, at.PERIOD_PART, W, lane, sizes, numbers, integers)


@njit(cache=True, nogil=True, error_model="numpy")
def land_in_steady(l, k, W, lane, number, rows, sizes, options, numbers, integers):
    """Go on at the end of a part of a period; return ON_THE_WAY, OK once all is done, or a failure."""
    g = lane[l, at.LIST]
    mode = lane[l, at.MODE]
    interval, phase = numbers[g, k, table.INTERVAL], numbers[g, k, table.PHASE]
    arrival = numbers[g, k, table.TIME] - phase
    if mode == at.PERIOD_PART or mode == at.PHASE_PART:
        # The oldest infusion has ended: the others go on to the end of the span.
        span = interval if mode == at.PERIOD_PART else phase
        copies = copies_running(numbers[g, k, table.DURATION], interval, span)
        _set_rate(l, W, sizes, integers[g, k, table.COMPARTMENT], numbers[g, k, table.AMOUNT] * copies)
        end = arrival if mode == at.PERIOD_PART else arrival + phase
        lane[l, at.MODE] = mode + 1
        W[at.STOP * LANES + l] = end
        if end > W[at.TIME * LANES + l]:
            return at.ON_THE_WAY
        mode += 1
    if mode == at.PERIOD_REST:
        lane[l, at.PERIODS] += 1
        settled = _accelerate(l, W, lane, rows, sizes, options)
        if not settled:
            if lane[l, at.PERIODS] >= MAX_PERIODS:
                return at.NO_STEADY_STATE
            return _begin_period(l, k, W, lane, rows, sizes, numbers, integers)
        W[at.TIME * LANES + l] = arrival
        if phase > 0.0:
            return _arrive(l, k, phase, at.PHASE_PART, W, lane, sizes, numbers, integers)
        if integers[g, k, table.ACTION] == BOLUS:
            into = sizes[at.STATE] + integers[g, k, table.COMPARTMENT]
            W[into * LANES + l] += numbers[g, k, table.AMOUNT]
    _leave_steady(l, k, W, lane, number, rows, sizes, options, numbers, integers)
    return at.OK


@njit(cache=True, nogil=True, error_model="numpy")
def _leave_steady(l, k, W, lane, number, rows, sizes, options, numbers, integers):
    """Return to the event with the regimen's state and infusions, added to what was kept."""
    g = lane[l, at.LIST]
    compartment = integers[g, k, table.COMPARTMENT]
    copies = np.int64(0)
    if integers[g, k, table.ACTION] != BOLUS:
        duration, interval = numbers[g, k, table.DURATION], numbers[g, k, table.INTERVAL]
        copies = copies_running(duration, interval, numbers[g, k, table.PHASE])
    _set_rate(l, W, sizes, compartment, numbers[g, k, table.AMOUNT] * copies)
    for i in range(sizes[at.N_STATES]):
        W[(sizes[at.STATE] + i) * LANES + l] += rows[l, SAVED_STATE, i]
        W[(sizes[at.RATE] + i) * LANES + l] += rows[l, SAVED_RATE, i]
    lane[l, at.N_RUNNING] += copies
    lane[l, at.MODE] = at.TRAVEL
    W[at.TIME * LANES + l] = number[l, at.RESUME]
    W[at.RTOL * LANES + l] = options[at.OPTION_RTOL]
    W[at.ATOL * LANES + l] = options[at.OPTION_ATOL]


@njit(cache=True, nogil=True, error_model="numpy")
def _weight(l, i, W, sizes, options):
    size = abs(W[(sizes[at.STATE] + i) * LANES + l])
    return 1.0 / (options[at.OPTION_ATOL] + options[at.OPTION_RTOL] * size)


@njit(cache=True, nogil=True, error_model="numpy")
def _accelerate(l, W, lane, rows, sizes, options):
    """Replace the state G(x) by the next iterate; return whether that one differs from x by little enough."""
    n, state = sizes[at.N_STATES], sizes[at.STATE]
    kept = lane[l, at.KEPT]
    r = rows[l]
    for i in range(n):
        r[NEXT_ITERATE, i] = W[(state + i) * LANES + l]
    _combine(l, kept, W, r, sizes, options)
    change = 0.0
    plain = 0.0
    allowed = True
    for i in range(n):
        image, x, following = W[(state + i) * LANES + l], r[ORIGIN, i], r[NEXT_ITERATE, i]
        weight = _weight(l, i, W, sizes, options)
        change = max(change, abs(following - x) * weight)
        plain = max(plain, abs(image - x) * weight)
        # A combination may leave the quarter where the model has a meaning; no regimen leads there.
        allowed &= math.isfinite(following) and not (following < 0.0 and image >= 0.0 and x >= 0.0)
    _remember(l, kept, W, lane, r, sizes)
    if not allowed:
        return False  # one more plain period
    for i in range(n):
        W[(state + i) * LANES + l] = r[NEXT_ITERATE, i]
    # Without a remembered period nothing is known of slow modes, unless nothing moves at all.
    return plain == 0.0 or (kept > 0 and change <= SETTLED and plain <= SETTLED)


@njit(cache=True, nogil=True, error_model="numpy")
def _combine(l, kept, W, r, sizes, options):
    """Anderson's combination, by projecting the residual on the differences of residuals, newest first."""
    n, state = sizes[at.N_STATES], sizes[at.STATE]
    n_basis = 0
    for back in range(kept):
        # CHANGES holds the difference of images that belongs to a difference of residuals.
        length = 0.0
        for i in range(n):
            image, x = W[(state + i) * LANES + l], r[ORIGIN, i]
            weight = _weight(l, i, W, sizes, options)
            difference = (image - x) - r[RESIDUALS + back, i]
            r[BASIS + n_basis, i] = difference * weight
            r[CHANGES + n_basis, i] = difference + (x - r[ITERATES + back, i])
            length += (difference * weight) ** 2
        rest = length
        for b in range(n_basis):
            overlap = 0.0
            for i in range(n):
                overlap += r[BASIS + b, i] * r[BASIS + n_basis, i]
            rest = 0.0
            for i in range(n):
                r[BASIS + n_basis, i] -= overlap * r[BASIS + b, i]
                r[CHANGES + n_basis, i] -= overlap * r[CHANGES + b, i]
                rest += r[BASIS + n_basis, i] ** 2
        if not (rest > DEPENDENT**2 * length and n_basis < n):
            continue
        scale = 1.0 / math.sqrt(rest)
        for i in range(n):
            r[BASIS + n_basis, i] *= scale
            r[CHANGES + n_basis, i] *= scale
        n_basis += 1
    for b in range(n_basis):
        share = 0.0
        for i in range(n):
            residual = W[(state + i) * LANES + l] - r[ORIGIN, i]
            share += r[BASIS + b, i] * residual * _weight(l, i, W, sizes, options)
        for i in range(n):
            r[NEXT_ITERATE, i] -= share * r[CHANGES + b, i]


@njit(cache=True, nogil=True, error_model="numpy")
def _remember(l, kept, W, lane, r, sizes):
    """Put this period before the remembered ones."""
    n, state = sizes[at.N_STATES], sizes[at.STATE]
    last = min(kept, DEPTH - 1)
    for back in range(last, 0, -1):
        for i in range(n):
            r[ITERATES + back, i] = r[ITERATES + back - 1, i]
            r[RESIDUALS + back, i] = r[RESIDUALS + back - 1, i]
    for i in range(n):
        r[ITERATES, i] = r[ORIGIN, i]
        r[RESIDUALS, i] = W[(state + i) * LANES + l] - r[ORIGIN, i]
    lane[l, at.KEPT] = last + 1
