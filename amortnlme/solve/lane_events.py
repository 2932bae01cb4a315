"""What happens to one lane between steps: a new simulation, doses, infusions, resets, covariates."""

from __future__ import annotations

import math

from amortnlme.solve import lane_tables as table
from amortnlme.solve import lanes as at
from amortnlme.solve.lane_jit import part_jit
from amortnlme.solve.lane_steady import begin_steady, land_in_steady
from amortnlme.solve.lanes import LANES
from amortnlme.solve.schedule import BOLUS, INFUSION_END, INFUSION_START, RESET

# The first step of a simulation counts as one after a reset.
KIND_OF_START = RESET


@part_jit()
def begin(v, row, W, lane, number, sizes, options, psi, initial, start, covariates, first):
    """Put a simulation into a lane, at the time from which its states move.

    Parameters
    ----------
    v, row : int
        Lane and simulation.
    W, lane, number : ndarray
        Memory of the lanes; see `amortnlme.solve.lanes.lane_memory`.
    sizes, options : ndarray
        See `LaneLayout.sizes` and `OPTION_RTOL`.
    psi, initial, start : ndarray
        Of the simulations.
    covariates : ndarray, shape (n_designs, n_segments, c)
    first : ndarray, shape (G,)
        Time of the first event of every list.
    """
    for q in range(at.N_CLOCK):
        W[q * LANES + v] = 0.0
    W[at.RTOL * LANES + v] = options[at.OPTION_RTOL]
    W[at.ATOL * LANES + v] = options[at.OPTION_ATOL]
    lane[v, at.ROW] = row
    lane[v, at.NEXT] = 0
    lane[v, at.NEXT_STOP] = 0
    lane[v, at.MODE] = at.TRAVEL
    lane[v, at.KIND] = KIND_OF_START + 1
    for kind in range(at.RESUME):
        number[v, at.FIRST_STEPS + kind] = 0.0
    for j in range(sizes[at.N_PARAMETERS]):
        W[(sizes[at.INPUT] + j) * LANES + v] = psi[row, j]
    _enter_segment(v, 0, W, lane, sizes, covariates)
    _clear(v, W, lane, sizes, initial)
    clock = first[lane[v, at.LIST]]
    W[at.TIME * LANES + v] = start[row] if start[row] > -math.inf else clock


@part_jit()
def _enter_segment(v, segment, W, lane, sizes, covariates):
    first = sizes[at.INPUT] + sizes[at.N_PARAMETERS]
    for j in range(sizes[at.N_INPUTS] - sizes[at.N_PARAMETERS]):
        W[(first + j) * LANES + v] = covariates[lane[v, at.DESIGN], segment, j]


@part_jit()
def _clear(v, W, lane, sizes, initial):
    """Start anew from the initial states, with nothing running."""
    lane[v, at.N_RUNNING] = 0
    for i in range(sizes[at.N_STATES]):
        W[(sizes[at.STATE] + i) * LANES + v] = initial[lane[v, at.ROW], i]
        W[(sizes[at.RATE] + i) * LANES + v] = 0.0


@part_jit()
def proceed(
    v, W, lane, number, rows, sizes, options, derivative, numbers, integers, lists, initial, start,
    covariates, times, buffer,
):  # fmt: skip
    """Pass the stops that need no integration, and set out for the first one that does.

    Parameters
    ----------
    v : int
        Lane.
    W, lane, number, rows : ndarray
        Memory of the lanes; see `amortnlme.solve.lanes.lane_memory`.
    sizes : ndarray of int
        See `LaneLayout.sizes`.
    options : ndarray, shape (3,)
        See `OPTION_RTOL` and its neighbours.
    derivative : function
        Generated.
    numbers, integers, lists : ndarray
        Event lists; see `StopTables`.
    initial, start, covariates : ndarray
        Of the simulations and designs; see `run_lanes`.
    times, buffer : ndarray
        Observation times, and the observed states at them.

    Returns
    -------
    int
        ON_THE_WAY when steps are needed first, OK at the end of the list, or the status of a failure.
    """
    g, design = lane[v, at.LIST], lane[v, at.DESIGN]
    n_stops, n_observations = lists[g, table.N_STOPS], lists[g, table.N_OBSERVATIONS]
    while True:
        k = lane[v, at.NEXT_STOP]
        now = W[at.TIME * LANES + v]
        if k < n_stops:
            end = integers[g, k, table.N_BEFORE]
            land = numbers[g, k, table.LAND]
        else:
            end = n_observations
            land = times[design, end - 1] if end > 0 else now
        _observe_here(v, end, now, W, lane, sizes, times, buffer)
        if land > now:
            W[at.STOP * LANES + v] = land
            return _set_out(v, W, lane, number, sizes, derivative, times)
        if k >= n_stops:
            return at.OK
        status = _apply_stop(
            v, k, W, lane, number, rows, sizes, options, numbers, integers, initial, start, covariates
        )
        if status == at.ON_THE_WAY:
            return _set_out(v, W, lane, number, sizes, derivative, times)
        if status != at.OK:
            return status


@part_jit()
def _observe_here(v, end, now, W, lane, sizes, times, buffer):
    """Record the observations at or before the lane's time: before its start, or with a stop."""
    q = lane[v, at.NEXT]
    while q < end and times[lane[v, at.DESIGN], q] <= now:
        for j in range(sizes[at.N_OBSERVED]):
            state = sizes[at.STATE] + sizes[at.FIRST_OBSERVED + j]
            buffer[v, j, q] = W[state * LANES + v]
        q += 1
    lane[v, at.NEXT] = q
    lane[v, at.END] = end


@part_jit()
def _set_out(v, W, lane, number, sizes, derivative, times):
    """Choose the first step towards the stop: as long as after the last such event, else by the slopes."""
    derivative(W, v)
    n, state, slope = sizes[at.N_STATES], sizes[at.STATE], sizes[at.SLOPE]
    rtol, atol = W[at.RTOL * LANES + v], W[at.ATOL * LANES + v]
    size = 0.0
    speed = 0.0
    finite = 0.0
    for i in range(n):
        y, f = W[(state + i) * LANES + v], W[(slope + i) * LANES + v]
        weight = 1.0 / (atol + rtol * abs(y))
        size += (y * weight) ** 2
        speed += (f * weight) ** 2
        finite += 0.0 * y + 0.0 * f
    if finite != 0.0:
        return at.NON_FINITE
    remaining = W[at.STOP * LANES + v] - W[at.TIME * LANES + v]
    h = number[v, at.FIRST_STEPS + lane[v, at.KIND] - 1] if lane[v, at.KIND] > 0 else 0.0
    if h == 0.0:
        h = 1e-6
        if speed > 1e-10:
            # Hairer, Norsett and Wanner, II.4; an empty system has no size to compare with.
            h = 0.01 * math.sqrt(size / speed) if size > 1e-10 else 0.01 / math.sqrt(speed)
        # An infusion into an empty system asks for a step of nothing: below 1e-6 of the way the rule knows
        # no more than the error test, and below the rounding of time no step would arrive.
        h = max(min(max(h, 1e-6 * remaining), 0.1 * remaining), 1e-12 * abs(W[at.TIME * LANES + v]))
    q = lane[v, at.NEXT]
    if q < lane[v, at.END]:
        gap = times[lane[v, at.DESIGN], q] - W[at.TIME * LANES + v]
        if gap > 0.0:
            # What grows from nothing is small within the first step and large at its end, where errors are
            # controlled: the first observation is no point within it.
            h = min(h, max(gap, 1e-3 * h))
    W[at.PROPOSED * LANES + v] = h
    W[at.REJECTED * LANES + v] = 0.0
    return at.ON_THE_WAY


@part_jit()
def land(
    v, W, lane, number, rows, sizes, options, derivative, numbers, integers, lists, initial, start,
    covariates, times, buffer,
):  # fmt: skip
    """Act on having landed on a stop, and go on.

    Parameters
    ----------
    v : int
        Lane.
    W, lane, number, rows : ndarray
        Memory of the lanes; see `amortnlme.solve.lanes.lane_memory`.
    sizes : ndarray of int
        See `LaneLayout.sizes`.
    options : ndarray, shape (3,)
        See `OPTION_RTOL` and its neighbours.
    derivative : function
        Generated.
    numbers, integers, lists : ndarray
        Event lists; see `StopTables`.
    initial, start, covariates : ndarray
        Of the simulations and designs; see `run_lanes`.
    times, buffer : ndarray
        Observation times, and the observed states at them.

    Returns
    -------
    int
        ON_THE_WAY when steps are needed first, OK at the end of the list, or the status of a failure.
    """
    k = lane[v, at.NEXT_STOP]
    if lane[v, at.MODE] != at.TRAVEL:
        status = land_in_steady(v, k, W, lane, number, rows, sizes, options, numbers, integers)
        lane[v, at.KIND] = integers[lane[v, at.LIST], k, table.ACTION] + 1
        if status == at.ON_THE_WAY:
            return _set_out(v, W, lane, number, sizes, derivative, times)
        if status != at.OK:
            return status
        lane[v, at.NEXT_STOP] = k + 1
    elif k < lists[lane[v, at.LIST], table.N_STOPS]:
        status = _apply_stop(
            v, k, W, lane, number, rows, sizes, options, numbers, integers, initial, start, covariates
        )
        if status == at.ON_THE_WAY:
            return _set_out(v, W, lane, number, sizes, derivative, times)
        if status != at.OK:
            return status
    else:
        return at.OK
    return proceed(
        v,
        W,
        lane,
        number,
        rows,
        sizes,
        options,
        derivative,
        numbers,
        integers,
        lists,
        initial,
        start,
        covariates,
        times,
        buffer,
    )


@part_jit()
def _apply_stop(v, k, W, lane, number, rows, sizes, options, numbers, integers, initial, start, covariates):
    """Apply a stop; return OK, ON_THE_WAY if a steady state has to be found first, or a failure."""
    g = lane[v, at.LIST]
    action = integers[g, k, table.ACTION]
    into = integers[g, k, table.COMPARTMENT]
    amount = numbers[g, k, table.AMOUNT]
    lane[v, at.KIND] = action + 1
    _enter_segment(v, integers[g, k, table.SEGMENT], W, lane, sizes, covariates)
    if action == RESET:
        _clear(v, W, lane, sizes, initial)
        W[at.TIME * LANES + v] = max(numbers[g, k, table.TIME], start[lane[v, at.ROW]])
    elif action == INFUSION_END:
        lane[v, at.N_RUNNING] -= 1
        W[(sizes[at.RATE] + into) * LANES + v] -= amount
        if lane[v, at.N_RUNNING] == 0:
            # Differences of rates leave rounding residues, which must not drip on.
            for i in range(sizes[at.N_STATES]):
                W[(sizes[at.RATE] + i) * LANES + v] = 0.0
    elif action in (BOLUS, INFUSION_START):
        if integers[g, k, table.STEADY] > 0:
            return begin_steady(v, k, W, lane, number, rows, sizes, options, numbers, integers, initial)
        if action == BOLUS:
            W[(sizes[at.STATE] + into) * LANES + v] += amount
        else:
            lane[v, at.N_RUNNING] += 1
            W[(sizes[at.RATE] + into) * LANES + v] += amount
    lane[v, at.NEXT_STOP] = k + 1
    finite = 0.0
    for i in range(sizes[at.N_STATES]):
        finite += 0.0 * W[(sizes[at.STATE] + i) * LANES + v]
    return at.OK if finite == 0.0 else at.NON_FINITE
