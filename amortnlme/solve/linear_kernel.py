"""Event-to-event propagation of dx/dt = K x + b + r and its sensitivities, compiled once for all models."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import typeof, types

from amortnlme.core.status import SolveStatus
from amortnlme.solve.lane_jit import lane_jit as kernel
from amortnlme.solve.linear_advance import (
    advance,
    advance_slopes,
    apply_basis,
    mode_slopes,
    response,
)
from amortnlme.solve.linear_arrays import Entries, Rates, Regimen, make_entries, make_work
from amortnlme.solve.linear_lanes import (
    FEWEST_LANES,
    ROUNDING,
    make_lane_work,
    rows_alike,
    solve_lanes,
)
from amortnlme.solve.linear_steady import steady_state
from amortnlme.solve.pointers import Pointer
from amortnlme.solve.schedule import (
    BOLUS,
    INFUSION_END,
    INFUSION_START,
    NEW_SEGMENT,
    OBSERVE,
    RESET,
    Events,
    copies_running,
    empty_events,
)

OK = int(SolveStatus.OK)
NON_FINITE = int(SolveStatus.NON_FINITE)
NO_STEADY_STATE = int(SolveStatus.NO_STEADY_STATE)

# Literal arguments are wrapped (np.int64(0), np.bool_(False)), because Numba compiles a function again for
# each literal.
@kernel
def _clear_rows(rows):
    for q in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            rows[q, i] = 0.0


@kernel
def _refresh_input(rates, r, work):
    """U <- W (rate + b) with derivatives."""
    W, inputs, rate, U = rates.W, rates.inputs, work.rate, work.U
    n = U.shape[1]
    for q in range(U.shape[0]):
        for i in range(n):
            total = 0.0
            for j in range(n):
                total += W[r, i, j] * (rate[q, j] + inputs[r, q, j] if inputs.shape[0] > 0 else rate[q, j])
            U[q, i] = total


@kernel
def _enter_basis(rates, r, work):
    """Take a row from state to basis coordinates and prepare what its advances need."""
    apply_basis(rates.W, r, work.X, work.scratch)
    if rates.modal[r]:
        mode_slopes(rates.W, rates.dK, rates.V, r, work.A, work.small)
    _refresh_input(rates, r, work)


@kernel
def _begin(rates, r, entries, row, work):
    """Put the initial state and switch off what is running."""
    X, initial = work.X, entries.initial
    _clear_rows(work.rate)
    _clear_rows(work.U)
    for q in range(X.shape[0]):
        for i in range(X.shape[1]):
            X[q, i] = initial[row, q, i] if initial.shape[0] > 0 else 0.0
    if initial.shape[0] > 0 or rates.inputs.shape[0] > 0 or X.shape[0] > 1:
        _enter_basis(rates, r, work)


@kernel
def _change_basis(rates, old, new, work):
    """Take a row from one basis to another."""
    apply_basis(rates.V, old, work.X, work.scratch)
    _enter_basis(rates, new, work)


@kernel
def _add_flow(rates, r, factors, work):
    """S_q <- S_q + f factors_q, with f = K x + u the flow: added before a moving event, taken after."""
    X, U = work.X, work.U
    n = X.shape[1]
    for i in range(n):
        f = U[0, i]
        if rates.modal[r]:
            f += rates.eigenvalues[r, i] * X[0, i]
        else:
            for j in range(n):
                f += rates.K[r, i, j] * X[0, j]
        for q in range(factors.shape[0]):
            X[q + 1, i] += f * factors[q]


@kernel
def _dose(rates, r, entries, events, g, k, row, into, n_running, is_moving, work, advance, steady_state):
    """Apply a dose or an infusion end; return the number of running infusions, -1 without a steady state.

    At an event whose time tau depends on parameters S+ = S- + (f- - f+) dtau/dp + d(jump)/dp.
    """
    X, rate = work.X, work.rate
    p, n = X.shape[0] - 1, X.shape[1]
    action, amount, ss = events.action[g, k], events.amount[g, k], events.ss[g, k]
    lag_slopes, fraction_slopes, segment = (
        entries.lag_slopes,
        entries.fraction_slopes,
        events.dose_segment[g, k],
    )
    slopes, shift = work.amount_slopes, work.phase_slopes
    moves = fraction_slopes.shape[0] > 0
    for q in range(p):
        slopes[q] = fraction_slopes[row, segment, q, into] * events.recorded[g, k] if moves else 0.0
        shift[q] = -lag_slopes[row, segment, q, into] if moves else 0.0
    if ss > 0:
        n_running = _enter_steady_state(
            rates, r, events, g, k, into, n_running, moves, work, advance, steady_state
        )
        if n_running < 0 or moves:
            return n_running
    shifts = moves and is_moving and p > 0
    if shifts:
        for q in range(p):
            shift[q] = -shift[q]
        _add_flow(rates, r, shift, work)
    if action == BOLUS:
        for q in range(p + 1):
            given = amount if q == 0 else slopes[q - 1]
            for i in range(n):
                X[q, i] += rates.W[r, i, into] * given
    else:
        copies = -1 if action == INFUSION_END else events.running[g, k] + 1
        n_running += copies
        for q in range(p + 1):
            rate[q, into] += (amount if q == 0 else slopes[q - 1]) * copies
        if n_running == 0:
            # Differences of rates leave rounding residues, which must not drip on.
            _clear_rows(rate)
        _refresh_input(rates, r, work)
    if shifts:
        for q in range(p):
            shift[q] = -shift[q]
        _add_flow(rates, r, shift, work)
    return n_running


@kernel
def _enter_steady_state(rates, r, events, g, k, into, n_running, moves, work, advance, steady_state):
    """Put the row into (ss = 1), or add (ss = 2), a steady state; as `_dose`.

    Where doses move the regimen's last arrival and its infusions are in, else the dose is still to come.
    """
    X, rate, P = work.X, work.rate, work.periodic
    p = X.shape[0] - 1
    into_rest = events.ss[g, k] == 1
    is_bolus = events.action[g, k] == BOLUS
    regimen = Regimen(
        is_bolus,
        moves,
        into_rest and rates.inputs.shape[0] > 0,
        into,
        events.running[g, k],
        events.amount[g, k],
        events.ii[g, k],
        events.duration[g, k],
        events.phase[g, k],
    )
    if not steady_state(rates, r, regimen, work, advance):
        return np.int64(-1)
    if into_rest:
        _clear_rows(X)
        _clear_rows(rate)
        n_running = np.int64(0)
    for q in range(p + 1):
        for i in range(X.shape[1]):
            X[q, i] += P[q, i]
    if moves and not is_bolus:
        copies = copies_running(regimen.duration, regimen.period, regimen.phase)
        n_running += copies
        for q in range(p + 1):
            rate[q, into] += (regimen.amount if q == 0 else work.amount_slopes[q - 1]) * copies
    _refresh_input(rates, r, work)
    return n_running


@kernel(forceinline=True)
def _observe(V, r, X, order, row, column, x, s):
    """Write states and sensitivities of an observation; the sum returned is 0 if all are finite."""
    n = X.shape[1]
    checksum = 0.0
    for i in range(n):
        total = 0.0
        for j in range(n):
            total += V[r, i, j] * X[0, j]
        x[row, column, order[i]] = total
        checksum += total * 0.0
    for q in range(s.shape[2]):
        for i in range(n):
            total = 0.0
            for j in range(n):
                total += V[r, i, j] * X[q + 1, j]
            s[row, column, q, order[i]] = total
            checksum += total * 0.0
    return checksum


@kernel
def _run(
    k, g, row, r, n_segments, clock, may_advance, has_input, has_input_slopes, only_plain, events, rates,
    work, order, position, x, s,
):  # fmt: skip
    """Work through events from k on while they are frequent ones: advances by modes, observations, boluses.

    Returns the first event left over, the time reached, and whether all that was observed is finite.
    """
    time, action, slot, segment, count = (
        events.time,
        events.action,
        events.slot,
        events.segment,
        events.n_events,
    )
    compartment, amount, ss = events.compartment, events.amount, events.ss
    eigenvalues, V, W, X, U, e = rates.eigenvalues, rates.V, rates.W, work.X, work.U, work.e
    n = X.shape[1]
    checksum = 0.0
    last_dt = -1.0
    while k < count[g]:
        what = action[g, k]
        dt = time[g, k] - clock
        frequent = what in (OBSERVE, NEW_SEGMENT) or (what == BOLUS and ss[g, k] == 0 and only_plain)
        if not frequent or row * n_segments + segment[g, k] != r or (dt > 0.0 and not may_advance):
            break
        rounding = ROUNDING * abs(time[g, k])
        if dt > rounding:
            # Intervals of a regular grid differ by rounding alone. The clock then runs on by the interval
            # taken, so that what is neglected never adds up.
            is_new = not abs(dt - last_dt) <= rounding
            if is_new:
                for i in range(n):
                    e[i] = math.exp(eigenvalues[r, i] * dt)
                last_dt = dt
                clock = time[g, k]
            else:
                dt = last_dt
                clock += dt
            if X.shape[0] > 1:
                advance_slopes(
                    eigenvalues, r, dt, is_new, has_input, has_input_slopes, X, U, work.A, e, work.small
                )
            for i in range(n):
                X[0, i] *= e[i]
                if has_input:
                    X[0, i] += U[0, i] * response(eigenvalues[r, i], dt)
        if what == OBSERVE:
            checksum += _observe(V, r, X, order, row, slot[g, k], x, s)
        elif what == BOLUS:
            for i in range(n):
                X[0, i] += W[r, i, position[compartment[g, k]]] * amount[g, k]
        k += 1
    return k, clock, checksum == 0.0


@kernel
def _negate(table, row, out):
    for q in range(out.shape[0]):
        out[q] = -table[row, q]


@kernel
def _give_up(row, k, g, events, s):
    """Mark the sensitivities from event k on; x is not a number wherever nothing was written."""
    for later in range(k, events.n_events[g]):
        if events.action[g, later] == OBSERVE:
            for q in range(s.shape[2]):
                for i in range(s.shape[3]):
                    s[row, events.slot[g, later], q, i] = math.nan


@kernel(forceinline=True)
def _solve_row(
    row, g, n_segments, events, rates, entries, order, position, work, x, s,
    advance, begin, change_basis, add_flow, dose, steady_state,
):  # fmt: skip
    """Solve one row: runs of frequent events, and between them one event of any kind at a time."""
    time, action, segment, ss, start = (
        events.time,
        events.action,
        events.segment,
        events.ss,
        entries.start[row],
    )
    has_base = rates.inputs.shape[0] > 0
    only_plain = entries.fraction_slopes.shape[0] == 0 or s.shape[2] == 0
    r = row * n_segments + segment[g, 0]
    begin(rates, r, entries, row, work)
    n_running = np.int64(0)
    finite = True
    is_moving = start == -math.inf
    # States that started before the first record have moved by then.
    clock = start if -math.inf < start < time[g, 0] else time[g, 0]
    k = np.int64(0)
    while True:
        k, clock, is_finite = _run(
            k, g, row, r, n_segments, clock, is_moving and rates.modal[r] == 1, n_running > 0 or has_base,
            has_base or not only_plain, only_plain, events, rates, work, order, position, x, s,
        )  # fmt: skip
        finite = finite and is_finite
        if k == events.n_events[g]:
            break
        what = action[g, k]
        if what == RESET:
            begin(rates, r, entries, row, work)
            n_running = np.int64(0)
            is_moving = start <= time[g, k]
        elif is_moving:
            advance(rates, r, time[g, k] - clock, n_running > 0 or has_base, work.X, work.U, work)
        elif time[g, k] > start:
            _negate(entries.d_start, row, work.phase_slopes)  # S(start) = dy0/dp - f dstart/dp
            add_flow(rates, r, work.phase_slopes, work)
            is_moving = True
            advance(rates, r, time[g, k] - start, n_running > 0 or has_base, work.X, work.U, work)
        clock = time[g, k]
        if row * n_segments + segment[g, k] != r:
            change_basis(rates, r, row * n_segments + segment[g, k], work)
            r = row * n_segments + segment[g, k]
        is_dose = what in (INFUSION_START, INFUSION_END) or (
            what == BOLUS and (ss[g, k] > 0 or not only_plain)
        )
        if is_dose:
            n_running = dose(
                rates, r, entries, events, g, k, row, position[events.compartment[g, k]], n_running,
                is_moving, work, advance, steady_state,
            )  # fmt: skip
            if n_running < 0:
                _give_up(row, k, g, events, s)
                return NO_STEADY_STATE
        # What is left is a frequent event, which now takes no time.
        if is_dose or what == RESET:
            k += 1
    return OK if finite else NON_FINITE


def _propagate(
    list_index, n_segments, events, rates, entries, order, position, work, lanes, x, s, status,
    advance, begin, change_basis, add_flow, dose, steady_state, solve_lanes,
):  # fmt: skip
    row = 0
    while row < list_index.shape[0]:
        g = list_index[row]
        alike = rows_alike(row, list_index, n_segments, events, rates, entries, status, s.shape[2])
        if alike >= FEWEST_LANES:
            solve_lanes(
                row, alike, g, events, rates, entries, order, position, work, lanes, x, s,
                begin, add_flow, advance,
            )  # fmt: skip
            for lane in range(alike):
                status[row + lane] = OK if lanes.checksum[lane] == 0.0 else NON_FINITE
            row += alike
            continue
        for single in range(row, row + max(alike, 1)):
            if status[single] == OK and events.n_events[g] > 0:
                status[single] = _solve_row(
                    single, g, n_segments, events, rates, entries, order, position, work, x, s,
                    advance, begin, change_basis, add_flow, dose, steady_state,
                )  # fmt: skip
        row += max(alike, 1)


def _signatures() -> dict[Callable[..., Any], Any]:
    """Types of the functions that `propagate` reaches through pointers, in the order of its arguments."""
    one, two, three = np.zeros((1, 1)), np.zeros((1, 1, 1)), np.zeros((1, 1, 1, 1))
    rates = typeof(Rates(two, three, two, one, two, two, np.zeros(1, dtype=np.int64)))
    events = typeof(empty_events((1, 1)))
    entries = typeof(make_entries(None, np.zeros(1, dtype=np.int64), 1, 0))
    work = typeof(make_work(1, 0))
    regimen = typeof(Regimen(True, True, True, 0, 0, 0.0, 0.0, 0.0, 0.0))
    i, f, b, matrix = types.int64, types.float64, types.boolean, types.float64[:, ::1]
    full = types.void(rates, i, f, b, matrix, matrix, work)
    steady = b(rates, i, regimen, work, types.FunctionType(full))
    pointers = {
        advance: full,
        _begin: types.void(rates, i, entries, i, work),
        _change_basis: types.void(rates, i, i, work),
        _add_flow: types.void(rates, i, types.float64[::1], work),
        _dose: i(
            rates,
            i,
            entries,
            events,
            i,
            i,
            i,
            i,
            i,
            b,
            work,
            types.FunctionType(full),
            types.FunctionType(steady),
        ),
        steady_state: steady,
    }
    lanes = typeof(make_lane_work(1, 0))
    ones, x = types.int64[::1], types.float64[:, :, ::1]
    s = types.float64[:, :, :, ::1]
    single = (types.FunctionType(pointers[f]) for f in (_begin, _add_flow, advance))
    table = (events, rates, entries, ones, ones, work, lanes, x, s)
    pointers[solve_lanes] = types.void(i, i, i, *table, *single)
    pointers[_propagate] = types.void(
        ones,
        i,
        events,
        rates,
        entries,
        ones,
        ones,
        work,
        lanes,
        x,
        s,
        ones,
        *map(types.FunctionType, pointers.values()),
    )
    return pointers


@functools.cache
def _compiled() -> tuple[Any, ...]:
    """Compile the pointed-to functions and the driver, or load them from the cache.

    Linked as ordinary callees they would be compiled again inside every caller.
    """
    signatures = _signatures()
    *pointed, drive = (
        kernel(signature)(getattr(function, "py_func", function))
        for function, signature in signatures.items()
    )
    return (*(Pointer(f, s) for f, s in zip(pointed, signatures.values(), strict=False)), drive)


def propagate(
    list_index: np.ndarray,
    n_segments: int,
    events: Events,
    rates: Rates,
    entries: Entries,
    order: np.ndarray,
    x: np.ndarray,
    s: np.ndarray,
    status: np.ndarray,
) -> None:
    """Solve the rows of a batch whose status is OK.

    Parameters
    ----------
    list_index : ndarray of int, shape (N,)
        Event list of each row.
    n_segments : int
        Row i uses the rates i * n_segments + segment.
    events : Events
    rates : Rates
        In internal state order.
    entries : Entries
        In internal state order.
    order : ndarray of int, shape (n,)
        Declared index of each internal state.
    x : ndarray, shape (N, m, n)
        Receives the states at the observations, in declared order; columns a design does not have are
        untouched.
    s : ndarray, shape (N, m, p, n)
        Receives dx/d(sensitive parameter).
    status : ndarray of int, shape (N,)
        Receives NON_FINITE for a row with a non-finite state, NO_STEADY_STATE for one whose regimen never
        settles.
    """
    *pointed, drive = _compiled()
    size = x.shape[2], s.shape[2]
    drive(
        list_index, n_segments, events, rates, entries, order, np.argsort(order),
        make_work(*size), make_lane_work(*size), x, s, status, *pointed,
    )  # fmt: skip
