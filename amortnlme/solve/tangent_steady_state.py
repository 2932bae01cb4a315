"""Steady states of repeated doses and their sensitivities, by Newton's method on the map of one period.

With P(x, p) the state one period after x, the steady state solves x = P(x, p), and differentiating that
gives dx/dp = (I - dP/dx)^-1 dP/dp. Both derivatives of P are sensitivities of one period: the lanes carry
the states' directions in the first case, the parameters in the second.
"""

from __future__ import annotations

import math

from amortnlme.solve.schedule import BOLUS, copies_running
from amortnlme.solve.tangent_fixed_point import is_approached, newton_size, solve_fixed_point
from amortnlme.solve.tangent_interface import BLOCK_RATE, ROW_CLOCK, ROW_SCALE, block, inner_kernel, lane_row
from amortnlme.solve.tangent_memory import (
    ACTION,
    AMOUNT,
    ATOL,
    BIOAVAILABILITY,
    COMPARTMENT,
    DESIGN,
    DOSE_SEGMENT,
    DURATION,
    GUESS,
    IMAGE,
    INTERVAL,
    KEPT,
    KEPT_RATE,
    LAG,
    LANES,
    LIST,
    MATRIX,
    MAX_STEPS,
    MONODROMY,
    NO_STEADY_STATE,
    NONE,
    OK,
    PHASE,
    POWER,
    RATE,
    RECORDED,
    RTOL,
    RUNNING,
    SLOPE,
    STATE,
    STEADY,
    TIME,
)
from amortnlme.solve.tangent_stepper import clear_rates, scale_lanes, set_initial, slope_with_rates

# Periods simulated before Newton's method, and how often that may try.
SETTLING_PERIODS = 2
MAX_TRIALS = 60


@inner_kernel
def _dose(numbers, marks, d_dose, v, w, lanes, copies, direct):
    """Give a bolus, or set the rates to those of so many copies of an infusion, alone."""
    into = marks[COMPARTMENT]
    slopes = d_dose[marks[DOSE_SEGMENT]]
    clear_rates(v, w, lanes)
    if marks[ACTION] == BOLUS:
        v[STATE, into] += numbers[AMOUNT]
        offset = into * lanes
        factor = direct * numbers[RECORDED]
    else:
        v[RATE, into] = numbers[AMOUNT] * copies
        offset = block(BLOCK_RATE, v.shape[1], lanes) + into * lanes
        factor = direct * numbers[RECORDED] * copies
    for lane in range(slopes.shape[2]):
        w[offset + lane] += factor * slopes[BIOAVAILABILITY, into, lane]


@inner_kernel
def _follow(step, field, observe, integrate, problem, work, row, segment, k, arrival, span, direct):
    """Give a dose of the regimen of event k at `arrival` and advance by `span`, at most its interval.

    Infusions of earlier doses may still run; the oldest ends within the interval. Rates stay on. Returns a
    status and how many infusions run at the end.
    """
    e, lanes, v, w = problem.place[row, LIST], work.tally[LANES], work.v, work.w
    numbers, marks, d_dose = problem.numbers[e, k], problem.marks[e, k], problem.d_dose[row]
    copies, ends = NONE, math.inf
    if marks[ACTION] != BOLUS:
        copies = copies_running(numbers[DURATION], numbers[INTERVAL], 0.0)
        ends = numbers[DURATION] - (copies - 1) * numbers[INTERVAL]
    _dose(numbers, marks, d_dose, v, w, lanes, copies, direct)
    t = arrival
    status = OK
    for part in range(2):
        until = arrival + (min(ends, span) if part == 0 else span)
        status = integrate(
            step, field, observe, problem, work, row, segment, t, until, direct, NONE, NONE
        )  # fmt: skip
        if status != OK or ends > span:
            break
        if part == 0:
            t = until
            copies -= 1
            _dose(numbers, marks, d_dose, v, w, lanes, copies, direct)
    return status, copies


@inner_kernel
def _set_directions(v, w, lanes, first, last):
    """Let the lanes carry the directions of the states first..last-1 from the guess on."""
    n = v.shape[1]
    scale = lane_row(ROW_SCALE, n, lanes)
    largest = 0.0
    for i in range(n):
        v[STATE, i] = v[GUESS, i]
        largest = max(largest, abs(v[GUESS, i]))
    for lane in range(lanes):
        i = first + lane
        w[scale + lane] = max(abs(v[GUESS, i]), 1e-3 * largest) if i < last else 0.0
    for at in range(n * lanes):
        w[at] = 0.0
    for i in range(first, last):
        w[i * lanes + i - first] = 1.0


@inner_kernel
def _map_period(step, field, observe, integrate, problem, work, row, segment, k, before):
    """Follow one period from the guess; write its image and its derivative, the monodromy."""
    v, lanes = work.v, work.tally[LANES]
    n = v.shape[1]
    ii = problem.numbers[problem.place[row, LIST], k, INTERVAL]
    for first in range(0, n, lanes):
        last = min(n, first + lanes)
        _set_directions(v, work.w, lanes, first, last)
        status, _ = _follow(
            step, field, observe, integrate, problem, work, row, segment, k, before, ii, 0.0
        )  # fmt: skip
        if status != OK:
            return status
        for i in range(n):
            for j in range(first, last):
                work.square[MONODROMY, i, j] = work.w[i * lanes + j - first]
    for i in range(n):
        v[IMAGE, i] = v[STATE, i]
    return OK


@inner_kernel
def _settle(step, field, observe, integrate, problem, work, row, segment, k, arrival):
    """Leave in GUESS the state just before a dose, and in MONODROMY the derivative of one period."""
    v, square = work.v, work.square
    n = v.shape[1]
    before = arrival - problem.numbers[problem.place[row, LIST], k, INTERVAL]
    set_initial(problem.entry[row], problem.d_entry[row], v, work.w, work.tally[LANES])
    for i in range(n):
        v[GUESS, i] = v[STATE, i]
    for trial in range(SETTLING_PERIODS + MAX_TRIALS):
        status = _map_period(step, field, observe, integrate, problem, work, row, segment, k, before)
        if status != OK:
            # After the first period, states that cannot be solved are those the search ran away to.
            return status if trial == 0 or status == MAX_STEPS else NO_STEADY_STATE
        size = math.inf
        if trial >= SETTLING_PERIODS:
            change = work.right[0]
            for i in range(n):
                change[i] = v[IMAGE, i] - v[GUESS, i]
            solve_fixed_point(square[MONODROMY], square[MATRIX], work.right, 1)
            size = newton_size(v[GUESS], v[IMAGE], change, problem.options[RTOL], problem.options[ATOL])
        for i in range(n):
            v[GUESS, i] = v[GUESS, i] + work.right[0, i] if size < math.inf else v[IMAGE, i]
        if size <= 1.0:
            approached = is_approached(square[MONODROMY], square[MATRIX], square[POWER])
            return OK if approached else NO_STEADY_STATE
    return NO_STEADY_STATE


@inner_kernel
def _differentiate(step, field, observe, integrate, problem, work, row, segment, k, arrival):
    """Turn the settled guess into state and sensitivities just before a dose."""
    v, w, lanes, columns = work.v, work.w, work.tally[LANES], problem.columns
    n = v.shape[1]
    ii = problem.numbers[problem.place[row, LIST], k, INTERVAL]
    scale_lanes(problem.psi[row], columns, w, lane_row(ROW_SCALE, n, lanes), lanes)
    for i in range(n):
        v[STATE, i] = v[GUESS, i]
    for at in range(n * lanes):
        w[at] = 0.0
    status, _ = _follow(
        step, field, observe, integrate, problem, work, row, segment, k, arrival - ii, ii, 1.0
    )  # fmt: skip
    for lane in range(columns.shape[0]):
        for i in range(n):
            work.right[lane, i] = w[i * lanes + lane]
    solve_fixed_point(work.square[MONODROMY], work.square[MATRIX], work.right, columns.shape[0])
    for i in range(n):
        v[STATE, i] = v[GUESS, i]
        for lane in range(columns.shape[0]):
            w[i * lanes + lane] = work.right[lane, i]
    return status


@inner_kernel
def _set_clock(slopes, w, first, lanes, factor):
    """Let the regimen's clock depend on the lag: right-hand sides may depend on time."""
    for lane in range(lanes):
        w[first + lane] = factor * slopes[lane] if lane < slopes.shape[0] else 0.0


@inner_kernel
def _keep(v, w, kept, lanes):
    """Put aside what a superposed regimen is added to."""
    rates = block(BLOCK_RATE, v.shape[1], lanes)
    for i in range(v.shape[1]):
        v[KEPT, i] = v[STATE, i]
        v[KEPT_RATE, i] = v[RATE, i]
    for at in range(kept.shape[1]):
        kept[0, at] = w[at]
        kept[1, at] = w[rates + at]


@inner_kernel
def _add_kept(v, w, kept, lanes):
    rates = block(BLOCK_RATE, v.shape[1], lanes)
    for i in range(v.shape[1]):
        v[STATE, i] += v[KEPT, i]
        v[RATE, i] += v[KEPT_RATE, i]
    for at in range(kept.shape[1]):
        w[at] += kept[0, at]
        w[rates + at] += kept[1, at]


def give_steady_dose(step, field, observe, integrate, problem, work, row, segment, k):
    """Set (SS=1) or add (SS=2) the steady state of a regimen, apply its last dose, advance by the phase.

    Compiled apart, see `amortnlme.solve.tangent_driver`.

    Parameters
    ----------
    step, field, observe : kernels of the model
    integrate : compiled `amortnlme.solve.tangent_stepper.integrate`
    problem : Problem
    work : Work
    row, segment, k : int

    Returns
    -------
    int
        SolveStatus.
    """
    e, v, w, lanes = problem.place[row, LIST], work.v, work.w, work.tally[LANES]
    numbers, marks = problem.numbers[e, k], problem.marks[e, k]
    superposed = marks[STEADY] != 1
    if superposed:
        _keep(v, w, work.kept, lanes)
    else:
        work.tally[RUNNING] = 0
    arrival = numbers[TIME] - numbers[PHASE]
    slopes = problem.d_dose[row, marks[DOSE_SEGMENT], LAG, marks[COMPARTMENT]]
    clock = lane_row(ROW_CLOCK, v.shape[1], lanes)
    status = _settle(step, field, observe, integrate, problem, work, row, segment, k, arrival)
    _set_clock(slopes, w, clock, lanes, 1.0)
    if status == OK:
        status = _differentiate(step, field, observe, integrate, problem, work, row, segment, k, arrival)
    if status == OK:
        status, copies = _follow(
            step, field, observe, integrate, problem, work, row, segment, k, arrival, numbers[PHASE], 1.0
        )  # fmt: skip
        work.tally[RUNNING] += copies
    _set_clock(slopes, w, clock, lanes, 0.0)
    # The phase shrinks as the lag grows.
    g = problem.place[row, DESIGN]
    slope_with_rates(field, numbers[TIME], v, problem.psi[row], problem.covariates[g, segment])
    for i in range(v.shape[1]):
        for lane in range(slopes.shape[0]):
            w[i * lanes + lane] -= v[SLOPE, i] * slopes[lane]
    if superposed:
        _add_kept(v, w, work.kept, lanes)
    return status
