"""One simulation from event to event, the steps taken by functions given from outside.

The untraced engine compiles this for the processor, with the numerical Jacobian of `untraced_step`; the GPU
engine compiles the same text for the device, where `slope`, `step` and `record` are generated from the trace.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from amortnlme.solve.lane_jit import part_jit
from amortnlme.solve.schedule import (
    BOLUS,
    INFUSION_END,
    INFUSION_START,
    OBSERVE,
    RESET,
    Events,
    copies_running,
)
from amortnlme.solve.untraced_step import (
    BETWEEN,
    DENSE_0,
    DENSE_1,
    DENSE_2,
    GUESS,
    IMAGE,
    JACOBIAN,
    NEXT,
    PIVOT,
    RATE,
    SLOPE,
    STATE,
    factorize,
    record,
    slope,
    step,
    substitute,
)

# Values of amortnlme.core.status.SolveStatus; typed, because Numba compiles again for every literal.
OK, MAX_STEPS, NON_FINITE, STEP_UNDERFLOW, NO_STEADY_STATE, INVALID_ENTRY = (np.int64(i) for i in range(6))
NEVER, NO, YES = np.int64(0), np.bool_(False), np.bool_(True)
# Searching for a steady state: periods simulated first, trials of Newton's method, its relative step, what
# counts as zero relative to the trial before, and how many tolerances the noise of the solver may reach.
SETTLING_PERIODS = 3
MAX_TRIALS = 100
NEWTON_WIDTH = 1e-5
ZERO = 1e-3
NOISE = 100.0


class Batch(NamedTuple):
    """Everything that N simulations read.

    Attributes
    ----------
    events : Events
        One list per design or per row.
    list_index, design_index : ndarray of int, shape (N,)
        Event list and design of each row.
    psi : ndarray, shape (N, d)
    covariates : ndarray, shape (n_designs, n_segments, c)
    initial : ndarray, shape (N, n)
    start : ndarray, shape (N,)   [time]
        When the states begin to move.
    output : ndarray of int, shape (n_designs, m)
        0-based output of each observation.
    rtol, atol : float
    max_steps : int
    """

    events: Events
    list_index: np.ndarray
    design_index: np.ndarray
    psi: np.ndarray
    covariates: np.ndarray
    initial: np.ndarray
    start: np.ndarray
    output: np.ndarray
    rtol: float
    atol: float
    max_steps: int


@part_jit()
def first_step(model, t, target, p, w, batch):
    """Guess a first step from the sizes of state and slope (Hairer, Norsett and Wanner, II.4).

    Parameters
    ----------
    model : callable
        Of the processor; the device's steps know their model.
    t, target : float   [time]
    p, w : ndarray
        Parameters and covariates of the row; scratch table.
    batch : Batch

    Returns
    -------
    float   [time]
    """
    n = w.shape[1]
    slope(model, t, w[STATE], p, w[RATE], w[SLOPE])
    size = 0.0
    speed = 0.0
    for i in range(n):
        scale = batch.atol + batch.rtol * abs(w[STATE, i])
        size += (w[STATE, i] / scale) ** 2
        speed += (w[SLOPE, i] / scale) ** 2
    h = 1e-6
    if speed > 1e-10:
        h = 0.01 / math.sqrt(speed)
        if size > 1e-10:
            h *= math.sqrt(size)
    return min(h, 0.1 * (target - t))


@part_jit()
def advance(model, t, target, steps, p, w, batch, row, first, last, out):
    """Integrate to a time and record the events first..last-1, observations, on the way.

    Parameters
    ----------
    model : callable
        Of the processor; the device's steps know their model.
    t, target : float   [time]
    steps : int
        Tried so far.
    p, w : ndarray
        Parameters and covariates of the row; scratch table.
    batch : Batch
    row, first, last : int
    out : ndarray
        Receives the observations.

    Returns
    -------
    steps, status : int
    """
    n = w.shape[1]
    time, slot, e = batch.events.time, batch.events.slot, batch.list_index[row]
    k = first
    while k < last and time[e, k] <= t:
        record(model, time[e, k], w[STATE], p, batch, row, slot[e, k], out)
        k += 1
    if not t < target:
        return steps, OK
    h = first_step(model, t, target, p, w, batch)
    rejected = NO
    while t < target:
        remaining = target - t
        length = h
        if length >= remaining:
            length = remaining
        elif length > 0.5 * remaining:
            length = 0.5 * remaining  # two equal steps instead of a long one and a crumb
        if steps >= batch.max_steps:
            return steps, MAX_STEPS
        error = step(model, t, length, rejected, p, w, batch)
        steps += 1
        if error <= 1.0:
            after = target if length == remaining else t + length
            while k < last and time[e, k] <= after:
                theta = (time[e, k] - t) / length
                rest = 1.0 - theta
                for i in range(n):
                    inner = w[DENSE_0, i] + theta * (w[DENSE_1, i] + theta * w[DENSE_2, i])
                    w[BETWEEN, i] = rest * w[STATE, i] + theta * (w[NEXT, i] + rest * inner)
                record(model, time[e, k], w[BETWEEN], p, batch, row, slot[e, k], out)
                k += 1
            for i in range(n):
                w[STATE, i] = w[NEXT, i]
            t = after
            factor = min(8.0, max(0.2, 0.9 * max(error, 1e-10) ** -0.2))
            h = length * (min(factor, 1.0) if rejected else factor)
            rejected = NO
        else:
            h = length * max(0.1, 0.9 * error**-0.2) if error < 1e300 else 0.1 * length
            rejected = YES
            if not h > 1e-15 * max(abs(t), abs(target)):
                return steps, STEP_UNDERFLOW if error < math.inf else NON_FINITE
    return steps, OK


@part_jit()
def clear(w):
    """Empty the states and switch off what is running.

    Parameters
    ----------
    w : ndarray
        Scratch table.
    """
    for i in range(w.shape[1]):
        w[STATE, i] = 0.0
        w[RATE, i] = 0.0


@part_jit()
def follow_regimen(model, k, arrival, span, steps, p, w, batch, row, out):
    """Give a dose of a steady-state regimen and advance by a time up to its interval.

    The infusions of earlier doses may still run; at most one of them, the oldest, ends within the interval.

    Parameters
    ----------
    model : callable
        Of the processor; the device's steps know their model.
    k : int
        Event of the regimen.
    arrival, span : float   [time]
    steps : int
    p, w : ndarray
        Parameters and covariates of the row; scratch table.
    batch : Batch
    row : int
    out : ndarray

    Returns
    -------
    steps, status : int
        The rates of what runs at the end are left on.
    """
    events, e = batch.events, batch.list_index[row]
    into, amount = events.compartment[e, k], events.amount[e, k]
    duration, ii = events.duration[e, k], events.ii[e, k]
    for i in range(w.shape[1]):
        w[RATE, i] = 0.0
    if events.action[e, k] == BOLUS:
        w[STATE, into] += amount
        return advance(model, arrival, arrival + span, steps, p, w, batch, row, NEVER, NEVER, out)
    copies = copies_running(duration, ii, 0.0)
    ends = duration - (copies - 1) * ii
    w[RATE, into] = amount * copies
    until = arrival + min(ends, span)
    steps, status = advance(model, arrival, until, steps, p, w, batch, row, NEVER, NEVER, out)
    w[RATE, into] = amount * copies_running(duration, ii, span)
    if status == OK and until < arrival + span:
        steps, status = advance(model, until, arrival + span, steps, p, w, batch, row, NEVER, NEVER, out)
    return steps, status


@part_jit()
def _newton_change(model, k, before, steps, p, w, batch, row, out):
    """Solve (I - dP) change = P(z) - z; z, P(z) and the change are in GUESS, IMAGE and SLOPE."""
    n = w.shape[1]
    ii = batch.events.ii[batch.list_index[row], k]
    matrix = w[JACOBIAN + 2 * n : JACOBIAN + 3 * n]
    size = 0.0
    for i in range(n):
        size = max(size, abs(w[GUESS, i]), abs(w[IMAGE, i]))
    for j in range(n):
        width = NEWTON_WIDTH * max(abs(w[GUESS, j]), 1e-3 * size)
        for i in range(n):
            w[STATE, i] = w[GUESS, i]
        w[STATE, j] += width
        steps, status = follow_regimen(model, k, before, ii, steps, p, w, batch, row, out)
        if status != OK:
            return steps, status
        for i in range(n):
            matrix[i, j] = (1.0 if i == j else 0.0) - (w[STATE, i] - w[IMAGE, i]) / width
    factorize(matrix, w[PIVOT])
    for i in range(n):
        w[SLOPE, i] = w[IMAGE, i] - w[GUESS, i]
    substitute(matrix, w[PIVOT], w[SLOPE])
    return steps, OK


@part_jit()
def _newton_step(w, batch):
    """Write GUESS + SLOPE into the state; return the size of the change in units of the tolerance.

    Where that would be negative though guess and image are not, the image is taken and infinity returned,
    unless it is zero up to the accuracy of the derivative and of the solver.
    """
    gap = 0.0
    for i in range(w.shape[1]):
        guess, image = w[GUESS, i], w[IMAGE, i]
        new = guess + w[SLOPE, i]
        if new < 0.0 and guess >= 0.0 and image >= 0.0:
            if new < -ZERO * max(guess, image) - batch.atol:
                gap = math.inf
            new = 0.0
        w[STATE, i] = new
        change = abs(w[SLOPE, i]) / (batch.atol + batch.rtol * abs(image))
        gap = max(gap, change) if math.isfinite(change) else math.inf
    if gap == math.inf:
        for i in range(w.shape[1]):
            w[STATE, i] = w[IMAGE, i]
    return gap


@part_jit()
def settle(model, k, arrival, steps, p, w, batch, row, out):
    """Find the state just before a dose of the regimen of event k, given for ever.

    Newton's method on the map of one period. A step that would make a state negative which the regimen keeps
    positive is replaced by one more period: such a root lies where no regimen leads.

    Parameters
    ----------
    model : callable
        Of the processor; the device's steps know their model.
    k : int
        Event of the regimen.
    arrival : float   [time]
    steps : int
    p, w : ndarray
        Parameters and covariates of the row; scratch table.
    batch : Batch
    row : int
    out : ndarray

    Returns
    -------
    steps, status : int
    """
    n = w.shape[1]
    ii = batch.events.ii[batch.list_index[row], k]
    before = arrival - ii
    for i in range(n):
        w[STATE, i] = batch.initial[row, i]
    for _ in range(SETTLING_PERIODS):
        steps, status = follow_regimen(model, k, before, ii, steps, p, w, batch, row, out)
        if status != OK:
            return steps, status
    gap = math.inf
    for _ in range(MAX_TRIALS):
        for i in range(n):
            w[GUESS, i] = w[STATE, i]
        steps, status = follow_regimen(model, k, before, ii, steps, p, w, batch, row, out)
        if status != OK:
            return steps, status
        for i in range(n):
            w[IMAGE, i] = w[STATE, i]
        steps, status = _newton_change(model, k, before, steps, p, w, batch, row, out)
        if status != OK:
            return steps, status
        before_gap = gap
        gap = _newton_step(w, batch)
        # Newton's method cannot get below the noise of the solver, which 1 / (1 - multiplier) magnifies.
        if gap <= 1.0 or (gap <= NOISE and gap >= 0.5 * before_gap):
            return steps, OK
    return steps, NO_STEADY_STATE


@part_jit()
def apply_dose(model, k, n_running, steps, p, w, batch, row, out):
    """Apply a bolus, an infusion start or an infusion end.

    Parameters
    ----------
    model : callable
        Of the processor; the device's steps know their model.
    k, n_running, steps : int
        Event; infusions running; steps so far.
    p, w : ndarray
        Parameters and covariates of the row; scratch table.
    batch : Batch
    row : int
    out : ndarray

    Returns
    -------
    n_running, steps, status : int
    """
    events, e = batch.events, batch.list_index[row]
    action, into, amount = events.action[e, k], events.compartment[e, k], events.amount[e, k]
    if action == INFUSION_END:
        n_running -= 1
        w[RATE, into] -= amount
        if n_running == 0:
            # Differences of rates leave rounding residues, which must not drip on.
            for i in range(w.shape[1]):
                w[RATE, i] = 0.0
    elif events.ss[e, k] > 0:
        arrival = events.time[e, k] - events.phase[e, k]
        steps, status = settle(model, k, arrival, steps, p, w, batch, row, out)
        if status != OK:
            return n_running, steps, status
        phase = events.phase[e, k]
        n_running = (
            NEVER if action == BOLUS else copies_running(events.duration[e, k], events.ii[e, k], phase)
        )
        steps, status = follow_regimen(model, k, arrival, phase, steps, p, w, batch, row, out)
        return n_running, steps, status
    elif action == BOLUS:
        w[STATE, into] += amount
    elif action == INFUSION_START:
        n_running += 1
        w[RATE, into] += amount
    return n_running, steps, OK


@part_jit()
def enter_segment(g, segment, p, batch):
    """Put the covariates of a segment behind the parameters.

    Parameters
    ----------
    g, segment : int
        Design and its segment.
    p : ndarray, shape (d + c,)
    batch : Batch
    """
    d = batch.psi.shape[1]
    for i in range(batch.covariates.shape[2]):
        p[d + i] = batch.covariates[g, segment, i]


@part_jit()
def walk(model, row, p, w, batch, out):
    """Solve one row.

    Parameters
    ----------
    model : callable
        Of the processor; the device's steps know their model.
    row : int
    p, w : ndarray
        Scratch memory: shape (d + c,); (scratch_rows(n), n).
    batch : Batch
    out : ndarray
        Receives the observations.

    Returns
    -------
    int
        Status.
    """
    events, e, g = batch.events, batch.list_index[row], batch.design_index[row]
    time, action, count, start = events.time, events.action, events.n_events[e], batch.start[row]
    if not start < math.inf:
        return INVALID_ENTRY
    for i in range(batch.psi.shape[1]):
        p[i] = batch.psi[row, i]
    clear(w)
    for i in range(w.shape[1]):
        w[STATE, i] = batch.initial[row, i]
    # With a start of their own the states move even before the first record.
    t = start if start > -math.inf else time[e, 0]
    segment = events.segment[e, 0]
    enter_segment(g, segment, p, batch)
    n_running = NEVER
    steps = NEVER
    k = NEVER
    while k < count:
        stop = k
        while stop < count and action[e, stop] == OBSERVE and events.segment[e, stop] == segment:
            stop += 1
        # Time may fall at a reset: what leads up to it ends with the observation before.
        target = t
        if stop < count and action[e, stop] != RESET:
            target = time[e, stop]
        elif stop > k:
            target = time[e, stop - 1]
        while k < stop and time[e, k] <= start:
            record(model, time[e, k], w[STATE], p, batch, row, events.slot[e, k], out)
            k += 1
        steps, status = advance(model, max(t, start), target, steps, p, w, batch, row, k, stop, out)
        if status != OK or stop == count:
            return status
        t = time[e, stop]
        segment = events.segment[e, stop]
        enter_segment(g, segment, p, batch)
        if action[e, stop] == RESET:
            clear(w)
            n_running = NEVER
            for i in range(w.shape[1]):
                w[STATE, i] = batch.initial[row, i]
        elif action[e, stop] == OBSERVE:
            record(model, t, w[STATE], p, batch, row, events.slot[e, stop], out)
        else:
            n_running, steps, status = apply_dose(model, stop, n_running, steps, p, w, batch, row, out)
        size = 0.0
        for i in range(w.shape[1]):
            size += 0.0 * w[STATE, i]
        if status != OK or size != 0.0:
            return status if status != OK else NON_FINITE
        k = stop + 1
    return OK
