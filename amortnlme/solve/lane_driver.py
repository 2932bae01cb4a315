"""The driver of the lanes: compiled once for all models, it calls the generated functions of one of them.

Importing this module compiles the driver, or loads it from Numba's cache.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, types

from amortnlme.solve import lane_tables as table
from amortnlme.solve import lanes as at
from amortnlme.solve.lane_events import begin, land, proceed
from amortnlme.solve.lane_steady import N_ROWS
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
    _F3, _F2, _I2, _F3,
    _F2, _I1,
)  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _observe_between(l, W, lane, sizes, times, block, buffer):
    """Record the observations that the last step passed, by interpolation.

    Whole blocks are interpolated, also beyond the step: what is not valid yet is overwritten later. That costs
    less than a loop of unpredictable length.
    """
    design, q, end = lane[l, at.DESIGN], lane[l, at.NEXT], lane[l, at.END]
    now, before = W[at.TIME * LANES + l], W[at.BEFORE * LANES + l]
    per_length = 1.0 / W[at.LENGTH * LANES + l]
    while q < end and times[design, q] <= now:
        there = times[design, q : q + BLOCK]
        passed = 0
        for i in range(block):
            passed += there[i] <= now
        for j in range(sizes[at.N_OBSERVED]):
            dense = (sizes[at.DENSE] + at.N_DENSE * j) * LANES + l
            d0, d1, d2 = W[dense], W[dense + LANES], W[dense + 2 * LANES]
            d3, d4 = W[dense + 3 * LANES], W[dense + 4 * LANES]
            to = buffer[l, j, q : q + BLOCK]
            for i in range(block):
                s = (there[i] - before) * per_length
                to[i] = d0 + s * (d1 + s * (d2 + s * (d3 + s * d4)))
        q += passed
        if passed < block:
            break
    lane[l, at.NEXT] = min(q, end)


@njit(cache=True, nogil=True, error_model="numpy")
def _finish(l, status, W, lane, outputs, psi, times, output, at_observations, buffer, f, statuses):
    """Write the outputs of a simulation, and vacate the lane."""
    row = lane[l, at.ROW]
    seen = lane[l, at.NEXT]
    outputs(seen, l, row, lane[l, at.DESIGN], buffer, psi, times, output, at_observations, f)
    for q in range(seen, f.shape[1]):
        f[row, q] = math.nan
    statuses[row] = status
    lane[l, at.ROW] = at.NOBODY


@njit(cache=True, nogil=True, error_model="numpy")
def _failure(l, W):
    """Return the status of a lane whose steps cannot go on."""
    if W[at.TROUBLE * LANES + l] == at.TOO_MANY_STEPS:
        return at.MAX_STEPS
    return at.STEP_UNDERFLOW if W[at.ERROR * LANES + l] < math.inf else at.NON_FINITE


@njit([SIGNATURE], cache=True, nogil=True, error_model="numpy")
def run_lanes(
    first_row, last_row,
    step, derivative, outputs,
    sizes, options,
    psi, initial, start, list_index, design_index,
    numbers, integers, lists, first,
    covariates, times, output, at_observations,
    f, statuses,
):  # fmt: skip
    """Simulate the rows first_row ... last_row - 1; see `amortnlme.solve.ode.OdeEngine`."""
    n, n_observed = sizes[at.N_STATES], sizes[at.N_OBSERVED]
    W = np.ones((sizes[at.DENSE] + at.N_DENSE * n_observed) * LANES)
    lane = np.full((LANES, at.N_LANE_INTEGERS), at.NOBODY)
    number = np.zeros((LANES, at.N_LANE_NUMBERS))
    rows = np.zeros((LANES, N_ROWS, n))
    buffer = np.zeros((LANES, max(1, n_observed), times.shape[1]))
    tables = (numbers, integers, lists)
    block = np.int64(BLOCK) if n > 0 else np.int64(0)
    next_row = first_row
    active = 0
    while True:
        for l in range(LANES):
            while lane[l, at.ROW] == at.NOBODY and next_row < last_row:
                row = next_row
                next_row += 1
                lane[l, at.LIST] = list_index[row]
                lane[l, at.DESIGN] = design_index[row]
                begin(l, row, W, lane, number, sizes, options, psi, initial, start, covariates, first)
                status = statuses[row]
                if status == at.OK:
                    status = proceed(
                        l, W, lane, number, rows, sizes, options, derivative, tables, initial, start, covariates,
                        times, buffer,
                    )  # fmt: skip
                active += 1
                if status != at.ON_THE_WAY:
                    _finish(l, status, W, lane, outputs, psi, times, output, at_observations, buffer, f, statuses)
                    active -= 1
        if active == 0:
            break
        step(W, options[at.OPTION_MAX_STEPS])
        for l in range(LANES):
            if lane[l, at.ROW] == at.NOBODY:
                continue
            outcome = W[at.OUTCOME * LANES + l]
            status = at.ON_THE_WAY
            if outcome != at.REJECTED_STEP:
                if lane[l, at.KIND] > 0:
                    if outcome == at.ACCEPTED_STEP:
                        number[l, at.FIRST_STEPS + lane[l, at.KIND] - 1] = W[at.LENGTH * LANES + l]
                    lane[l, at.KIND] = 0
                _observe_between(l, W, lane, sizes, times, block, buffer)
            if outcome == at.LANDED_STEP:
                status = land(
                    l, W, lane, number, rows, sizes, options, derivative, tables, initial, start, covariates,
                    times, buffer,
                )  # fmt: skip
            elif W[at.TROUBLE * LANES + l] != at.NO_TROUBLE:
                status = _failure(l, W)
            if status != at.ON_THE_WAY:
                _finish(l, status, W, lane, outputs, psi, times, output, at_observations, buffer, f, statuses)
                active -= 1
