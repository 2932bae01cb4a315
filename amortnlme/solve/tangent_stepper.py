"""Integration of a row with its sensitivities between two events, and its observations on the way."""

from __future__ import annotations

import math

from amortnlme.solve.tangent_interface import (
    BLOCK_RATE,
    ROW_ERROR,
    ROW_TOTAL,
    block,
    inner_kernel,
    lane_row,
)
from amortnlme.solve.tangent_memory import (
    ATOL,
    BETWEEN,
    DESIGN,
    FIRST_STATE,
    LANES,
    LIST,
    MAX_STEPS,
    NEXT,
    NON_FINITE,
    OK,
    RATE,
    RTOL,
    SLOPE,
    SLOT,
    STATE,
    STEP_LIMIT,
    STEP_UNDERFLOW,
    STEPS,
    TIME,
)
from amortnlme.solve.vector_math import rough_inverse_fifth_root

# A step is at most so many times as long as the one before, and at least.
GROWTH, SHRINKAGE, REJECTED_SHRINKAGE, SAFETY = 8.0, 0.2, 0.1, 0.9


@inner_kernel
def _worst_error(error, w, offset, lanes):
    """Largest error of states and lanes; NaN as soon as one of them is not finite."""
    worst = 0.0
    check = error * 0.0
    for lane in range(offset, offset + lanes):
        check += w[lane] * 0.0
        worst = w[lane] if w[lane] > worst else worst
    return max(error, math.sqrt(worst)) + check


@inner_kernel
def _first_step(t, target, y, slope, rate, rtol, atol):
    """Guess a first step from the sizes of state and slope (Hairer, Norsett and Wanner, II.4)."""
    size = 0.0
    speed = 0.0
    for i in range(y.shape[0]):
        scale = atol + rtol * abs(y[i])
        size += (y[i] / scale) ** 2
        speed += ((slope[i] + rate[i]) / scale) ** 2
    h = 0.1 * (target - t)
    # An empty system says nothing about its scale; the error test will.
    ratio = 0.01 * math.sqrt(size / speed) if size > 1e-10 and speed > 1e-10 else 1e-2 * h
    return ratio if ratio < h else h


@inner_kernel
def _record(observe, output, t, theta, y, p, x, w, total, columns, df):
    """Return an observation at the fraction theta of the step in w, and add its derivatives to df (d)."""
    value = observe(output, t, theta, y, p, x, df, w)
    for lane in range(columns.shape[0]):
        df[columns[lane]] += w[total + lane]
    return value


@inner_kernel
def record_state(observe, problem, work, row, segment, k):
    """Write the observation of event k, of the state as it is.

    Parameters
    ----------
    observe : kernel of the model
    problem : Problem
    work : Work
    row, segment, k : int
    """
    e, g = problem.place[row, LIST], problem.place[row, DESIGN]
    slot = problem.marks[e, k, SLOT]
    problem.f[row, slot] = _record(
        observe,
        problem.output[g, slot],
        problem.numbers[e, k, TIME],
        0.0,
        work.v[STATE],
        problem.psi[row],
        problem.covariates[g, segment],
        work.w,
        lane_row(ROW_TOTAL, work.v.shape[1], work.tally[LANES]),
        problem.columns,
        problem.df[row, slot],
    )


@inner_kernel
def _interpolate(theta, y, y_new, dense, between):
    n = y.shape[0]
    rest = 1.0 - theta
    for i in range(n):
        inner = dense[i] + theta * (dense[n + i] + theta * dense[2 * n + i])
        between[i] = rest * y[i] + theta * (y_new[i] + rest * inner)


@inner_kernel
def _accept(y, y_new, w, size):
    for i in range(y.shape[0]):
        y[i] = y_new[i]
    for at in range(size):
        w[at] = w[size + at]


def integrate(step, field, observe, problem, work, row, segment, t, target, direct, first, last):
    """Advance state and sensitivities to a time, recording the events first..last-1, observations.

    Compiled apart, see `amortnlme.solve.tangent_driver`.

    Parameters
    ----------
    step, field, observe : kernels of the model
    problem : Problem
    work : Work
    row, segment : int
    t, target : float   [time]
    direct : float
        0: the sensitivities follow the states alone, parameters do not enter; else 1.
    first, last : int

    Returns
    -------
    int
        SolveStatus.
    """
    e, g = problem.place[row, LIST], problem.place[row, DESIGN]
    while first < last and problem.numbers[e, first, TIME] <= t:
        record_state(observe, problem, work, row, segment, first)
        first += 1
    if not t < target:
        return OK
    v, w, dense, columns = work.v, work.w, work.dense, problem.columns
    y, y_new, rate, between = v[STATE], v[NEXT], v[RATE], v[BETWEEN]
    n, lanes = y.shape[0], work.tally[LANES]
    p, x = problem.psi[row], problem.covariates[g, segment]
    rtol, atol, limit = problem.options[RTOL], problem.options[ATOL], problem.options[STEP_LIMIT]
    numbers, marks, outputs = problem.numbers[e], problem.marks[e], problem.output[g]
    f, df = problem.f[row], problem.df[row]
    errors, total = lane_row(ROW_ERROR, n, lanes), lane_row(ROW_TOTAL, n, lanes)
    field(t, y, p, x, v[SLOPE])
    h = _first_step(t, target, y, v[SLOPE], rate, rtol, atol)
    rejected = False
    steps = work.tally[STEPS]
    status = OK
    while t < target:
        if steps >= limit:
            status = MAX_STEPS
            break
        remaining = target - t
        if h >= remaining:
            h = remaining
        elif h > 0.5 * remaining:
            h = 0.5 * remaining  # two equal steps instead of a long one and a crumb
        error = step(t, h, y, p, x, rate, direct, rtol, atol, y_new, dense, w)
        error = _worst_error(error, w, errors, lanes)
        steps += 1
        if error <= 1.0:
            after = target if h == remaining else t + h
            while first < last and numbers[first, TIME] <= after:
                time, slot = numbers[first, TIME], marks[first, SLOT]
                theta = (time - t) / h
                _interpolate(theta, y, y_new, dense, between)
                f[slot] = _record(
                    observe, outputs[slot], time, theta, between, p, x, w, total, columns, df[slot]
                )
                first += 1
            _accept(y, y_new, w, n * lanes)
            t = after
            factor = min(GROWTH, max(SHRINKAGE, SAFETY * rough_inverse_fifth_root(max(error, 1e-10))))
            h *= min(factor, 1.0) if rejected else factor
            rejected = False
        else:
            factor = SAFETY * rough_inverse_fifth_root(error) if error < 1e300 else 0.0
            h *= max(REJECTED_SHRINKAGE, factor)
            rejected = True
            if not h > 1e-15 * max(abs(t), abs(target)):
                status = STEP_UNDERFLOW if error < math.inf else NON_FINITE
                break
    work.tally[STEPS] = steps
    return status


@inner_kernel
def slope_with_rates(field, t, v, p, x):
    """Write dy/dt into SLOPE, running infusions included.

    Parameters
    ----------
    field : kernel of the model
    t : float   [time]
    v : ndarray, shape (N_VECTORS, n)
    p, x : ndarray
        Parameters and covariates.
    """
    field(t, v[STATE], p, x, v[SLOPE])
    for i in range(v.shape[1]):
        v[SLOPE, i] += v[RATE, i]


@inner_kernel
def clear_rates(v, w, lanes):
    """Switch off what is running.

    Parameters
    ----------
    v, w : ndarray
        See `Work`.
    lanes : int
    """
    n = v.shape[1]
    offset = block(BLOCK_RATE, n, lanes)
    for i in range(n):
        v[RATE, i] = 0.0
    for at in range(offset, offset + n * lanes):
        w[at] = 0.0


@inner_kernel
def scale_lanes(psi, columns, w, first, lanes):
    """Weigh the error of a lane by the size of its parameter: a relative change of it counts.

    Parameters
    ----------
    psi : ndarray, shape (d,)
    columns : ndarray of int, shape (p,)
    w : ndarray
        See `Work`.
    first : int
        Where the weights stand.
    lanes : int
    """
    for lane in range(lanes):
        w[first + lane] = abs(psi[columns[lane]]) if lane < columns.shape[0] else 0.0


@inner_kernel
def set_initial(entry, d_entry, v, w, lanes):
    """Write the initial state and its sensitivities; switch off what is running.

    Parameters
    ----------
    entry : ndarray, shape (1 + n,)
    d_entry : ndarray, shape (p, 1 + n)
        See `Problem`.
    v, w : ndarray
        See `Work`.
    lanes : int
    """
    clear_rates(v, w, lanes)
    for i in range(v.shape[1]):
        v[STATE, i] = entry[FIRST_STATE + i]
        for lane in range(lanes):
            known = lane < d_entry.shape[0]
            w[i * lanes + lane] = d_entry[lane, FIRST_STATE + i] if known else 0.0


@inner_kernel
def is_finite(v, w, lanes):
    """Whether state and sensitivities are finite.

    Parameters
    ----------
    v, w : ndarray
        See `Work`.
    lanes : int

    Returns
    -------
    bool
    """
    check = 0.0
    for i in range(v.shape[1]):
        check += v[STATE, i] * 0.0
    for at in range(v.shape[1] * lanes):
        check += w[at] * 0.0
    return check == 0.0
