"""What happens to one lane between steps: a new simulation, doses, infusions, resets, covariates."""

from __future__ import annotations

import math

from numba import njit

from amortnlme.solve import lane_tables as table
from amortnlme.solve import lanes as at
from amortnlme.solve.lane_steady import begin_steady, land_in_steady
from amortnlme.solve.lanes import LANES
from amortnlme.solve.schedule import BOLUS, INFUSION_END, INFUSION_START, RESET

# The first step of a simulation counts as one after a reset.
KIND_OF_START = RESET


@njit(cache=True, nogil=True, error_model="numpy")
def begin(l, row, W, lane, number, sizes, options, psi, initial, start, covariates, first):
    """Put a simulation into a lane, at the time from which its states move."""
    for q in range(at.N_CLOCK):
        W[q * LANES + l] = 0.0
    W[at.RTOL * LANES + l] = options[at.OPTION_RTOL]
    W[at.ATOL * LANES + l] = options[at.OPTION_ATOL]
    lane[l, at.ROW] = row
    lane[l, at.NEXT] = 0
    lane[l, at.NEXT_STOP] = 0
    lane[l, at.MODE] = at.TRAVEL
    lane[l, at.KIND] = KIND_OF_START + 1
    for kind in range(at.RESUME):
        number[l, at.FIRST_STEPS + kind] = 0.0
    for j in range(sizes[at.N_PARAMETERS]):
        W[(sizes[at.INPUT] + j) * LANES + l] = psi[row, j]
    _enter_segment(l, 0, W, lane, sizes, covariates)
    _clear(l, W, lane, sizes, initial)
    clock = first[lane[l, at.LIST]]
    W[at.TIME * LANES + l] = start[row] if start[row] > -math.inf else clock


@njit(cache=True, nogil=True, error_model="numpy")
def _enter_segment(l, segment, W, lane, sizes, covariates):
    first = sizes[at.INPUT] + sizes[at.N_PARAMETERS]
    for j in range(sizes[at.N_INPUTS] - sizes[at.N_PARAMETERS]):
        W[(first + j) * LANES + l] = covariates[lane[l, at.DESIGN], segment, j]


@njit(cache=True, nogil=True, error_model="numpy")
def _clear(l, W, lane, sizes, initial):
    """Start anew from the initial states, with nothing running."""
    lane[l, at.N_RUNNING] = 0
    for i in range(sizes[at.N_STATES]):
        W[(sizes[at.STATE] + i) * LANES + l] = initial[lane[l, at.ROW], i]
        W[(sizes[at.RATE] + i) * LANES + l] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def proceed(l, W, lane, number, rows, sizes, options, derivative, tables, initial, start, covariates, times,
            buffer):  # fmt: skip
    """Pass the stops that need no integration; return ON_THE_WAY, OK at the end of the list, or a failure."""
    numbers, integers, lists = tables
    g, design = lane[l, at.LIST], lane[l, at.DESIGN]
    n_stops, n_observations = lists[g, table.N_STOPS], lists[g, table.N_OBSERVATIONS]
    while True:
        k = lane[l, at.NEXT_STOP]
        now = W[at.TIME * LANES + l]
        if k < n_stops:
            end = integers[g, k, table.N_BEFORE]
            land = numbers[g, k, table.LAND]
        else:
            end = n_observations
            land = times[design, end - 1] if end > 0 else now
        _observe_here(l, end, now, W, lane, sizes, times, buffer)
        if land > now:
            W[at.STOP * LANES + l] = land
            return _set_out(l, W, lane, number, sizes, derivative)
        if k >= n_stops:
            return at.OK
        status = apply_stop(
            l, k, W, lane, number, rows, sizes, options, numbers, integers, initial, start, covariates
        )
        if status == at.ON_THE_WAY:
            return _set_out(l, W, lane, number, sizes, derivative)
        if status != at.OK:
            return status


@njit(cache=True, nogil=True, error_model="numpy")
def _observe_here(l, end, now, W, lane, sizes, times, buffer):
    """Record the observations at or before the lane's time: before its start, or with a stop."""
    q = lane[l, at.NEXT]
    while q < end and times[lane[l, at.DESIGN], q] <= now:
        for j in range(sizes[at.N_OBSERVED]):
            state = sizes[at.STATE] + sizes[at.FIRST_OBSERVED + j]
            buffer[l, j, q] = W[state * LANES + l]
        q += 1
    lane[l, at.NEXT] = q
    lane[l, at.END] = end


@njit(cache=True, nogil=True, error_model="numpy")
def _set_out(l, W, lane, number, sizes, derivative):
    """Choose the first step towards the stop: as long as after the last such event, else by the slopes."""
    derivative(W, l)
    n, state, slope = sizes[at.N_STATES], sizes[at.STATE], sizes[at.SLOPE]
    rtol, atol = W[at.RTOL * LANES + l], W[at.ATOL * LANES + l]
    size = 0.0
    speed = 0.0
    finite = 0.0
    for i in range(n):
        y, f = W[(state + i) * LANES + l], W[(slope + i) * LANES + l]
        weight = 1.0 / (atol + rtol * abs(y))
        size += (y * weight) ** 2
        speed += (f * weight) ** 2
        finite += 0.0 * y + 0.0 * f
    if finite != 0.0:
        return at.NON_FINITE
    remaining = W[at.STOP * LANES + l] - W[at.TIME * LANES + l]
    h = number[l, at.FIRST_STEPS + lane[l, at.KIND] - 1] if lane[l, at.KIND] > 0 else 0.0
    if h == 0.0:
        h = 1e-6
        if speed > 1e-10:
            # Hairer, Norsett and Wanner, II.4; an empty system has no size to compare with.
            h = 0.01 * math.sqrt(size / speed) if size > 1e-10 else 0.01 / math.sqrt(speed)
        h = min(h, 0.1 * remaining)
    W[at.PROPOSED * LANES + l] = h
    W[at.REJECTED * LANES + l] = 0.0
    return at.ON_THE_WAY


@njit(cache=True, nogil=True, error_model="numpy")
def land(l, W, lane, number, rows, sizes, options, derivative, tables, initial, start, covariates, times,
         buffer):  # fmt: skip
    """Act on having landed on a stop; return as `proceed`."""
    numbers, integers, lists = tables
    k = lane[l, at.NEXT_STOP]
    if lane[l, at.MODE] != at.TRAVEL:
        status = land_in_steady(l, k, W, lane, number, rows, sizes, options, numbers, integers)
        lane[l, at.KIND] = integers[lane[l, at.LIST], k, table.ACTION] + 1
        if status == at.ON_THE_WAY:
            return _set_out(l, W, lane, number, sizes, derivative)
        if status != at.OK:
            return status
        lane[l, at.NEXT_STOP] = k + 1
    elif k < lists[lane[l, at.LIST], table.N_STOPS]:
        status = apply_stop(
            l, k, W, lane, number, rows, sizes, options, numbers, integers, initial, start, covariates
        )
        if status == at.ON_THE_WAY:
            return _set_out(l, W, lane, number, sizes, derivative)
        if status != at.OK:
            return status
    else:
        return at.OK
    return proceed(
        l, W, lane, number, rows, sizes, options, derivative, tables, initial, start, covariates, times, buffer
    )


@njit(cache=True, nogil=True, error_model="numpy")
def apply_stop(l, k, W, lane, number, rows, sizes, options, numbers, integers, initial, start, covariates):
    """Apply a stop; return OK, ON_THE_WAY when a steady state has to be found first, or a failure."""
    g = lane[l, at.LIST]
    action = integers[g, k, table.ACTION]
    into = integers[g, k, table.COMPARTMENT]
    amount = numbers[g, k, table.AMOUNT]
    lane[l, at.KIND] = action + 1
    _enter_segment(l, integers[g, k, table.SEGMENT], W, lane, sizes, covariates)
    if action == RESET:
        _clear(l, W, lane, sizes, initial)
        W[at.TIME * LANES + l] = max(numbers[g, k, table.TIME], start[lane[l, at.ROW]])
    elif action == INFUSION_END:
        lane[l, at.N_RUNNING] -= 1
        W[(sizes[at.RATE] + into) * LANES + l] -= amount
        if lane[l, at.N_RUNNING] == 0:
            # Differences of rates leave rounding residues, which must not drip on.
            for i in range(sizes[at.N_STATES]):
                W[(sizes[at.RATE] + i) * LANES + l] = 0.0
    elif action == BOLUS or action == INFUSION_START:
        if integers[g, k, table.STEADY] > 0:
            return begin_steady(
                l, k, W, lane, number, rows, sizes, options, numbers, integers, initial
            )
        if action == BOLUS:
            W[(sizes[at.STATE] + into) * LANES + l] += amount
        else:
            lane[l, at.N_RUNNING] += 1
            W[(sizes[at.RATE] + into) * LANES + l] += amount
    lane[l, at.NEXT_STOP] = k + 1
    finite = 0.0
    for i in range(sizes[at.N_STATES]):
        finite += 0.0 * W[(sizes[at.STATE] + i) * LANES + l]
    return at.OK if finite == 0.0 else at.NON_FINITE
