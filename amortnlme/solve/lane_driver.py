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


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, forceinline=True)
def _observe_between(v, W, lane, sizes, times, block, buffer):
    """Record the observations that the last step passed, by interpolation.

    Whole blocks are interpolated, also beyond the step: what is not valid yet is overwritten later. That costs
    less than a loop of unpredictable length.
    """
    design = lane[v, at.DESIGN]
    q, end = np.uint64(lane[v, at.NEXT]), np.uint64(lane[v, at.END])
    now, before = W[at.TIME * LANES + v], W[at.BEFORE * LANES + v]
    per_length = 1.0 / W[at.LENGTH * LANES + v]
    while q < end and times[design, q] <= now:
        passed = np.uint64(0)
        for i in range(block):
            passed += np.uint64(times[design, q + i] <= now)
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
    lane[v, at.NEXT] = np.int64(min(q, end))


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _finish(v, status, W, lane, outputs, psi, times, output, at_observations, buffer, f, statuses):
    """Write the outputs of a simulation, and vacate the lane."""
    row = lane[v, at.ROW]
    seen = lane[v, at.NEXT]
    outputs(seen, v, row, lane[v, at.DESIGN], buffer, psi, times, output, at_observations, f)
    for q in range(seen, f.shape[1]):
        f[row, q] = math.nan
    statuses[row] = status
    lane[v, at.ROW] = at.NOBODY


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _failure(v, W):
    """Return the status of a lane whose steps cannot go on."""
    if W[at.TROUBLE * LANES + v] == at.TOO_MANY_STEPS:
        return at.MAX_STEPS
    return at.STEP_UNDERFLOW if W[at.ERROR * LANES + v] < math.inf else at.NON_FINITE


@njit([SIGNATURE], cache=True, nogil=True, error_model="numpy", _nrt=False)
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
    """Simulate the rows first_row ... last_row - 1; see `amortnlme.solve.ode.OdeEngine`."""
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
                        v, W, lane, number, rows, sizes, options, derivative, numbers, integers, lists, initial, start, covariates,
                        times, buffer,
                    )  # fmt: skip
                active += 1
                if status != at.ON_THE_WAY:
                    _finish(
                        v, status, W, lane, outputs, psi, times, output, at_observations, buffer, f, statuses
                    )
                    active -= 1
        if active == 0:
            break
        step(W, options[at.OPTION_MAX_STEPS])
        for v in range(LANES):
            if lane[v, at.ROW] == at.NOBODY:
                continue
            outcome = W[at.OUTCOME * LANES + v]
            status = at.ON_THE_WAY
            if outcome != at.REJECTED_STEP:
                if lane[v, at.KIND] > 0:
                    if outcome == at.ACCEPTED_STEP:
                        number[v, at.FIRST_STEPS + lane[v, at.KIND] - 1] = W[at.LENGTH * LANES + v]
                    lane[v, at.KIND] = 0
                _observe_between(v, W, lane, sizes, times, block, buffer)
            if outcome == at.LANDED_STEP:
                status = land(
                    v, W, lane, number, rows, sizes, options, derivative, numbers, integers, lists, initial, start, covariates,
                    times, buffer,
                )  # fmt: skip
            elif W[at.TROUBLE * LANES + v] != at.NO_TROUBLE:
                status = _failure(v, W)
            if status != at.ON_THE_WAY:
                _finish(v, status, W, lane, outputs, psi, times, output, at_observations, buffer, f, statuses)
                active -= 1
