"""Rows of a batch from event to event with their sensitivities; compiled once for all models."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit, typeof, types

from amortnlme.solve.schedule import BOLUS, INFUSION_END, INFUSION_START, OBSERVE, RESET
from amortnlme.solve.tangent_events import give_bolus, switch_infusion, wake
from amortnlme.solve.tangent_interface import (
    FIELD,
    OBSERVE_OUTPUT,
    ROW_SCALE,
    STEP,
    WITHOUT_COUNTING,
    inner_kernel,
    lane_row,
)
from amortnlme.solve.tangent_memory import (
    ACTION,
    DESIGN,
    HAS_LAG,
    LANES,
    LIST,
    NON_FINITE,
    NONE,
    OK,
    RUNNING,
    SEGMENT,
    START,
    STEADY,
    STEPS,
    TIME,
    Problem,
    Work,
    empty_problem,
    make_work,
)
from amortnlme.solve.tangent_steady_state import give_steady_dose
from amortnlme.solve.tangent_stepper import integrate, is_finite, record_state, scale_lanes, set_initial


@inner_kernel
def _begin(field, problem, work, row, segment, clock, is_first):
    """Set the initial state; return the time from which it is known and whether it moves."""
    entry, d_entry = problem.entry[row], problem.d_entry[row]
    set_initial(entry, d_entry, work.v, work.w, work.tally[LANES])
    work.tally[RUNNING] = 0
    if entry[START] > clock:
        return clock, False
    if is_first and entry[START] > -np.inf:
        x = problem.covariates[problem.place[row, DESIGN], segment]
        wake(field, entry, d_entry, problem.psi[row], x, work.v, work.w, work.tally[LANES])
        return entry[START], True
    return clock, True


@inner_kernel
def _wait(field, observe, problem, work, row, segment, clock, target, first, last):
    """Record what lies before the start; return the clock, the first event left, whether the states move."""
    entry = problem.entry[row]
    e = problem.place[row, LIST]
    while first < last and problem.numbers[e, first, TIME] <= entry[START]:
        record_state(observe, problem, work, row, segment, first)
        first += 1
    if target <= entry[START]:
        return clock, first, False
    x = problem.covariates[problem.place[row, DESIGN], segment]
    wake(field, entry, problem.d_entry[row], problem.psi[row], x, work.v, work.w, work.tally[LANES])
    return entry[START], first, True


@inner_kernel
def _give_dose(field, problem, work, row, segment, k, moving):
    """Apply an ordinary bolus, infusion start or infusion end."""
    e = problem.place[row, LIST]
    numbers, marks, d_dose = problem.numbers[e, k], problem.marks[e, k], problem.d_dose[row]
    if marks[ACTION] == BOLUS:
        shifts = moving and problem.options[HAS_LAG] != 0.0
        p, x = problem.psi[row], problem.covariates[problem.place[row, DESIGN], segment]
        give_bolus(field, numbers, marks, d_dose, p, x, work.v, work.w, work.tally[LANES], shifts)
    else:
        switch_infusion(numbers, marks, d_dose, work.v, work.w, work.tally, moving)


@inner_kernel
def _apply(step, field, observe, integrate, give_steady, problem, work, row, segment, k, moving):
    """Apply whatever event k is but a reset; return a status."""
    marks = problem.marks[problem.place[row, LIST], k]
    lanes = work.tally[LANES]
    status = OK
    if marks[ACTION] == OBSERVE:
        record_state(observe, problem, work, row, segment, k)
    elif marks[STEADY] > 0:
        status = give_steady(step, field, observe, integrate, problem, work, row, segment, k)
        scale = lane_row(ROW_SCALE, work.v.shape[1], lanes)
        scale_lanes(problem.psi[row], problem.columns, work.w, scale, lanes)
    elif marks[ACTION] in (BOLUS, INFUSION_START, INFUSION_END):
        _give_dose(field, problem, work, row, segment, k, moving)
    if status == OK and not is_finite(work.v, work.w, lanes):
        status = NON_FINITE
    return status


@inner_kernel
def _solve_row(step, field, observe, integrate, give_steady, problem, work, row):
    e = problem.place[row, LIST]
    numbers, marks, count = problem.numbers[e], problem.marks[e], problem.counts[e]
    if count == 0:
        return OK
    lanes = work.tally[LANES]
    work.tally[STEPS] = 0
    scale = lane_row(ROW_SCALE, work.v.shape[1], lanes)
    scale_lanes(problem.psi[row], problem.columns, work.w, scale, lanes)
    segment = marks[0, SEGMENT]
    clock, moving = _begin(field, problem, work, row, segment, numbers[0, TIME], True)
    status = OK if is_finite(work.v, work.w, lanes) else NON_FINITE
    k = NONE
    while status == OK and k < count:
        stop = k
        while stop < count and marks[stop, ACTION] == OBSERVE and marks[stop, SEGMENT] == segment:
            stop += 1
        # Time may fall at a reset: what leads up to it ends with the observation before.
        target = numbers[stop - 1, TIME] if stop > k else clock
        if stop < count and marks[stop, ACTION] != RESET:
            target = numbers[stop, TIME]
        if not moving:
            clock, k, moving = _wait(
                field, observe, problem, work, row, segment, clock, target, k, stop
            )  # fmt: skip
        if moving:
            status = integrate(
                step, field, observe, problem, work, row, segment, clock, target, 1.0, k, stop
            )  # fmt: skip
        if status != OK or stop == count:
            return status
        clock, segment = numbers[stop, TIME], marks[stop, SEGMENT]
        if marks[stop, ACTION] == RESET:
            clock, moving = _begin(field, problem, work, row, segment, clock, False)
        else:
            status = _apply(
                step, field, observe, integrate, give_steady, problem, work, row, segment, stop, moving
            )  # fmt: skip
        k = stop + 1
    return status


def _solve_rows(step, field, observe, integrate, give_steady, first, last, problem, work, status):
    """Solve the rows first..last-1 whose status is 0; see `compiled_driver`."""
    for row in range(first, last):
        if status[row] == OK:
            status[row] = _solve_row(step, field, observe, integrate, give_steady, problem, work, row)


@cache
def compiled_driver() -> Callable[..., None]:
    """Return the driver `solve_rows(step, field, observe, first, last, problem, work, status)`.

    It is compiled once per installation, not per model: the kernels of a model are arguments of a fixed type.
    Its larger parts call one another in the same way, because Numba optimizes a function again within each
    of its callers. The first call loads the machine code, which importing this module does not.

    Returns
    -------
    callable
        Writes the results into `problem.f` and `problem.df`, and SolveStatus into `status` (N,), whose rows
        other than 0 it skips. Observations that were not reached are left as they were.
    """
    integer, real, kernel = types.int64, types.float64, types.FunctionType
    problem_type, work_type = typeof(empty_problem()), typeof(make_work(1, 1))
    model = (kernel(STEP), kernel(FIELD), kernel(OBSERVE_OUTPUT))
    row = (problem_type, work_type, integer, integer)
    integrating = integer(*model, *row, real, real, real, integer, integer)
    steady = integer(*model, kernel(integrating), *row, integer)
    rows = types.void(
        *model,
        kernel(integrating),
        kernel(steady),
        integer,
        integer,
        problem_type,
        work_type,
        types.int64[::1],
    )

    def compiled(signature: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        return njit(signature, cache=True, nogil=True, error_model="numpy", **WITHOUT_COUNTING)(function)

    integrate_row, give_dose = compiled(integrating, integrate), compiled(steady, give_steady_dose)
    solve = compiled(rows, _solve_rows)

    def solve_rows(
        step: Any,
        field: Any,
        observe: Any,
        first: int,
        last: int,
        problem: Problem,
        work: Work,
        status: np.ndarray,
    ) -> None:
        solve(step, field, observe, integrate_row, give_dose, first, last, problem, work, status)

    return solve_rows
