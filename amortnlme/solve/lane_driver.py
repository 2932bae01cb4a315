"""The driver of the lanes: compiled once for all models, it calls the generated functions of one of them.

Loaded by `kernel_module.load_driver`, never imported: importing it compiles it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types

from amortnlme.solve import lanes as at
from amortnlme.solve.lane_events import begin, land, proceed
from amortnlme.solve.lane_jit import lane_jit, part_jit
from amortnlme.solve.lane_tables import BLOCK
from amortnlme.solve.lanes import LANES
from amortnlme.solve.ode_signatures import DERIVATIVE, OUTPUTS, STEP

_I = types.int64
_I1, _I2, _I3 = types.int64[::1], types.int64[:, ::1], types.int64[:, :, ::1]
_F1, _F2, _F3 = types.float64[::1], types.float64[:, ::1], types.float64[:, :, ::1]
SIGNATURE = types.void(
    _I, _I,
    types.FunctionType(STEP), types.FunctionType(DERIVATIVE), types.FunctionType(OUTPUTS),
    _I1, _F1,
    _F2, _F2, _F1, _I1, _I1,
    _F3, _I3, _I2, _F1,
    _F1, _I2, _F2, _F3, _F3,
    _F3, _F2, _I2, _F3,
    _F2, _I1,
)  # fmt: skip


@part_jit(forceinline=True)
def _observe_between(v, W, lane, sizes, times, block, buffer):
    """Record the observations that the last step passed, by interpolation.

    Whole blocks are interpolated, also beyond the step: what is not valid yet is overwritten later. That
    costs less than a loop of unpredictable length.
    """
    design = lane[v, at.DESIGN]
    q, end = np.uint64(lane[v, at.NEXT]), np.uint64(lane[v, at.END])
    now, before = W[at.TIME * LANES + v], W[at.BEFORE * LANES + v]
    per_length = 1.0 / W[at.LENGTH * LANES + v]
    while q < end and times[design, q] <= now:
        passed = np.uint64(0)
        for i in range(block):
            # Behind `end`, time may fall: the observations there follow a reset.
            passed += np.uint64((times[design, q + i] <= now) & (q + i < end))
        for j in range(sizes[at.N_OBSERVED]):
            dense = (sizes[at.DENSE] + at.N_DENSE * j) * LANES + v
            d0, d1, d2 = W[dense], W[dense + LANES], W[dense + 2 * LANES]
            d3, d4 = W[dense + 3 * LANES], W[dense + 4 * LANES]
            for i in range(block):
                s = (times[design, q + i] - before) * per_length
                buffer[v, j, q + i] = d0 + s * (d1 + s * (d2 + s * (d3 + s * d4)))
        q += passed
        if passed < block:
            break
    lane[v, at.NEXT] = np.int64(q)


@part_jit(forceinline=True)
def _remember_first_step(v, outcome, W, lane, number):
    """Keep the length wanted after the first step behind an event, for the next event of its kind.

    Not the first step's own length: that would stay what a first dose into an empty system needs.
    """
    if lane[v, at.KIND] > 0:
        if outcome == at.ACCEPTED_STEP:
            number[v, at.FIRST_STEPS + lane[v, at.KIND] - 1] = W[at.PROPOSED * LANES + v]
        lane[v, at.KIND] = 0


@part_jit(forceinline=True)
def _watch(v, W, lane, times):
    """Say when the lane needs attention: at its next observation, or after the first step behind an event."""
    q = lane[v, at.NEXT]
    watch = times[lane[v, at.DESIGN], np.uint64(q)] if q < lane[v, at.END] else math.inf
    W[at.WATCH * LANES + v] = -math.inf if lane[v, at.KIND] > 0 else watch


@part_jit()
def _finish(v, status, W, lane, outputs, psi, times, output, at_observations, buffer, f, statuses):
    """Write the outputs of a simulation, and vacate the lane."""
    row = lane[v, at.ROW]
    seen = lane[v, at.NEXT]
    outputs(seen, v, row, lane[v, at.DESIGN], buffer, psi, times, output, at_observations, f)
    for q in range(seen, f.shape[1]):
        f[row, q] = math.nan
    statuses[row] = status
    lane[v, at.ROW] = at.NOBODY


@part_jit()
def _failure(v, W):
    """Return the status of a lane whose steps cannot go on."""
    if W[at.TROUBLE * LANES + v] == at.TOO_MANY_STEPS:
        return at.MAX_STEPS
    return at.STEP_UNDERFLOW if W[at.ERROR * LANES + v] < math.inf else at.NON_FINITE


@lane_jit([SIGNATURE])
def run_lanes(
    first_row, last_row,
    step, derivative, outputs,
    sizes, options,
    psi, initial, start, list_index, design_index,
    numbers, integers, lists, first,
    W, lane, number, rows, buffer,
    covariates, times, output, at_observations,
    f, statuses,
):  # fmt: skip
    """Simulate rows: fill the lanes, let all of them step, act on those that landed, until nobody is left.

    Parameters
    ----------
    first_row, last_row : int
        The rows first_row ... last_row - 1 are simulated.
    step, derivative, outputs : function
        Generated; see `amortnlme.solve.ode_signatures`.
    sizes, options : ndarray
        See `LaneLayout.sizes` and `OPTION_RTOL`.
    psi : ndarray, shape (N, d)
    initial : ndarray, shape (N, n)
    start : ndarray, shape (N,)   [time]
        When the states begin to move; -infinity: with the first record.
    list_index, design_index : ndarray of int, shape (N,)
        Event list and design of every row.
    numbers, integers, lists, first : ndarray
        Event lists; see `StopTables`.
    W, lane, number, rows, buffer : ndarray
        Memory; see `amortnlme.solve.lanes.lane_memory`.
    covariates : ndarray, shape (n_designs, n_segments, c)
    times : ndarray, shape (n_designs, m + BLOCK)   [time]
        Of the observations, padded with infinity.
    output : ndarray of int, shape (n_designs, m)
    at_observations : ndarray, shape (n_designs, m, c)
        Covariates at the observations.
    f : ndarray, shape (N, m)
        Receives the observables; NaN behind the last one and behind a failure.
    statuses : ndarray of int, shape (N,)
        Receives SolveStatus; a row that comes with another one than OK is not simulated.
    """
    n = sizes[at.N_STATES]
    block = np.uint64(BLOCK) if n > 0 else np.uint64(0)
    next_row = first_row
    active = 0
    while True:
        for v in range(LANES):
            while lane[v, at.ROW] == at.NOBODY and next_row < last_row:
                row = next_row
                next_row += 1
                lane[v, at.LIST] = list_index[row]
                lane[v, at.DESIGN] = design_index[row]
                begin(v, row, W, lane, number, sizes, options, psi, initial, start, covariates, first)
                status = statuses[row]
                if status == at.OK:
                    status = proceed(
                        v, W, lane, number, rows, sizes, options, derivative, numbers, integers, lists,
                        initial, start, covariates, times, buffer,
                    )  # fmt: skip
                active += 1
                if status != at.ON_THE_WAY:
                    _finish(
                        v, status, W, lane, outputs, psi, times, output, at_observations, buffer, f, statuses
                    )
                    active -= 1
                _watch(v, W, lane, times)
        if active == 0:
            break
        step(W, options[at.OPTION_MAX_STEPS])
        for v in range(LANES):
            if W[at.ATTENTION * LANES + v] == 0.0 or lane[v, at.ROW] == at.NOBODY:
                continue
            outcome = W[at.OUTCOME * LANES + v]
            status = at.ON_THE_WAY
            if outcome != at.REJECTED_STEP:
                _remember_first_step(v, outcome, W, lane, number)
                _observe_between(v, W, lane, sizes, times, block, buffer)
            if outcome == at.LANDED_STEP:
                status = land(
                    v, W, lane, number, rows, sizes, options, derivative, numbers, integers, lists,
                    initial, start, covariates, times, buffer,
                )  # fmt: skip
            elif W[at.TROUBLE * LANES + v] != at.NO_TROUBLE:
                status = _failure(v, W)
            if status != at.ON_THE_WAY:
                _finish(v, status, W, lane, outputs, psi, times, output, at_observations, buffer, f, statuses)
                active -= 1
            _watch(v, W, lane, times)
