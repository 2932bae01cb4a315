"""Paths of SDEs in lanes: each lane follows the events of its own row, all lanes step together.

Nothing that a lane computes depends on its neighbours: how far all lanes step at a time is decided by the
lane that first reaches an event, but every step of a lane has the length, the number and the random words
that its own row gives it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numba import njit, types

from amortnlme.solve.philox import PURPOSE_BROWNIAN, normal_pair, random_pair
from amortnlme.solve.sde_events import (
    DRAW,
    EVENT,
    HIGH,
    LEFT,
    LEG_LEFT,
    LIST,
    LOW,
    MAX_STEPS,
    NON_FINITE,
    OK,
    ROW,
    TIME,
    USED,
    SdeBatch,
    arrive,
    kernel,
    observe_together,
)
from amortnlme.solve.sde_lanes import (
    BEGIN,
    BOUND,
    DONE,
    LANES,
    LEG,
    LENGTHS,
    NORMALS,
    ROOTS,
    START,
    STEP,
)

# A step is at most this fraction of the shortest time constant of the drift: far inside the stability
# region of Euler-Maruyama (2), and below 1, where a decay would overshoot zero.
LIMIT = 0.5
# An interval of a whole number of steps, up to rounding, takes this number of steps.
SLACK = 1e-9


@kernel
def _fill_words(first, second, counters, n_draws, key_0, key_1):
    """Draw two random words of 64 bits per draw and lane."""
    purpose = np.uint64(PURPOSE_BROWNIAN)
    for r in range(n_draws):
        offset = np.uint64(r)
        for lane in range(LANES):
            first[r * LANES + lane], second[r * LANES + lane] = random_pair(
                counters[DRAW * LANES + lane] + offset,
                purpose,
                counters[LOW * LANES + lane],
                counters[HIGH * LANES + lane],
                key_0,
                key_1,
            )


# Apart from the words, because two short loops keep the processor busier than a long one; one loop over all,
# because LLVM would unroll a loop over lanes until its constants no longer fit into the registers.
@kernel
def _fill_normals(even, odd, first, second, n_numbers):
    """Turn pairs of words into pairs of normal numbers."""
    for i in range(n_numbers):
        even[i], odd[i] = normal_pair(first[i], second[i])


@kernel
def _fill_lengths(drawn, work, n):
    """Write the length of every step and its root; return how far the lengths of two steps are apart.

    Where every lane moves all the time, the steps of a leg share one length per lane. A lane whose start
    lies within a step takes the part of it behind its start.
    """
    begin, start = work[BEGIN * LANES : (BEGIN + 1) * LANES], work[START * LANES : (START + 1) * LANES]
    done, step = work[DONE * LANES : (DONE + 1) * LANES], work[STEP * LANES : (STEP + 1) * LANES]
    waiting = False
    for lane in range(LANES):
        waiting |= begin[lane] < start[lane]
        drawn[LENGTHS * LANES + lane] = step[lane]
        drawn[ROOTS * LANES + lane] = math.sqrt(step[lane])
    if not waiting:
        return 0
    for k in range(n):
        # Slices, because indices whose sign LLVM does not know keep a loop scalar.
        length = drawn[(LENGTHS + k) * LANES : (LENGTHS + k + 1) * LANES]
        root = drawn[(ROOTS + k) * LANES : (ROOTS + k + 1) * LANES]
        for lane in range(LANES):
            h = step[lane]
            t = begin[lane] + (done[lane] + k) * h
            behind = t + h - start[lane]
            behind = 0.0 if behind < 0.0 else behind
            behind = h if behind > h or t >= start[lane] else behind
            length[lane] = behind
            root[lane] = math.sqrt(behind)
    return LANES


@kernel
def _plan(work, numbers, span, dt, max_steps, lane):
    """Choose number and length of the steps over the span to the next event; return a status."""
    wanted = max(1.0, math.ceil(span / dt - SLACK))
    bound = work[BOUND * LANES + lane]
    if not bound * span <= LIMIT * wanted:
        wanted = math.ceil(bound * span / LIMIT)
    if wanted != wanted:
        return NON_FINITE
    if numbers[USED, lane] + wanted > max_steps:
        return MAX_STEPS
    steps = int(wanted)
    work[DONE * LANES + lane] = 0.0
    work[STEP * LANES + lane] = span / steps
    numbers[USED, lane] += steps
    numbers[LEFT, lane] = steps
    numbers[LEG_LEFT, lane] = min(steps, LEG)
    return OK


@kernel
def _plan_together(work, numbers, span, dt, max_steps):
    """Do what `_plan` does if all lanes are slow enough over one span; return whether they are."""
    wanted = max(1.0, math.ceil(span / dt - SLACK))
    slow = True
    for lane in range(LANES):
        slow &= work[BOUND * LANES + lane] * span <= LIMIT * wanted
        slow &= numbers[USED, lane] + wanted <= max_steps
    if not slow:
        return False
    steps = int(wanted)
    leg = min(steps, LEG)
    step = span / wanted
    for lane in range(LANES):
        work[DONE * LANES + lane] = 0.0
        work[STEP * LANES + lane] = step
        numbers[USED, lane] += steps
        numbers[LEFT, lane] = steps
        numbers[LEG_LEFT, lane] = leg
    return True


@kernel
def _plan_legs(work, numbers, floats, status, dt, max_steps):
    """Plan the next leg of every lane at the end of one; return how many lanes turned out to be hopeless."""
    hopeless = 0
    for lane in range(LANES):
        if numbers[ROW, lane] < 0 or numbers[LEG_LEFT, lane] > 0:
            continue
        left = numbers[LEFT, lane]
        if left > 0:
            step = work[STEP * LANES + lane]
            if work[BOUND * LANES + lane] * step <= LIMIT:
                numbers[LEG_LEFT, lane] = min(left, LEG)
                continue
            work[BEGIN * LANES + lane] += work[DONE * LANES + lane] * step
            numbers[USED, lane] -= left
        span = floats[numbers[LIST, lane], numbers[EVENT, lane], TIME] - work[BEGIN * LANES + lane]
        found = _plan(work, numbers, span, dt, max_steps, lane)
        if found != OK:
            status[numbers[ROW, lane]] = found
            # An idle lane is due for a new row.
            numbers[ROW, lane] = -1
            hopeless += 1
    return hopeless


@kernel
def _count_steps(work, numbers, counters, n, n_pairs):
    """Count n steps of all lanes."""
    for lane in range(LANES):
        numbers[LEFT, lane] -= n
        numbers[LEG_LEFT, lane] -= n
        work[DONE * LANES + lane] += n
        counters[DRAW * LANES + lane] += np.uint64(n * n_pairs)


@kernel
def _steps_together(numbers):
    """Count the steps until one of the lanes is at the end of a leg; 0 if all are idle."""
    n = LEG + 1
    for lane in range(LANES):
        leg = numbers[LEG_LEFT, lane] if numbers[ROW, lane] >= 0 else LEG + 1
        n = min(n, leg)
    return n if n <= LEG else 0


def run_lanes(
    advance, fastest_rate, batch, key, dt, max_steps, n_pairs, lanes,
    work, drawn, words, counters, numbers, out, status,
):  # fmt: skip
    """Simulate the rows of a batch whose status is OK.

    Parameters
    ----------
    advance, fastest_rate : callable
        Of the generated module.
    batch : SdeBatch
    key : tuple of two uint64
    dt : float   [time]
    max_steps : int
    n_pairs : int
        Pairs of normal numbers per step.
    lanes : int
        LANES, for the generated functions.
    work, drawn, words, counters, numbers : ndarray
        Scratch memory of one thread.
    out : ndarray, shape (m, n, N)
        Receives the states at the observations.
    status : ndarray of int, shape (N,)
    """
    floats, integers, n_events, n_states = (
        batch.floats,
        batch.integers,
        batch.n_events,
        batch.initial.shape[1],
    )
    half = LEG * n_pairs * LANES
    first, second = words[:half], words[half:]
    even, odd = drawn[NORMALS * LANES : NORMALS * LANES + half], drawn[NORMALS * LANES + half :]
    next_row = 0
    for lane in range(LANES):
        work[START * LANES + lane] = -math.inf
        numbers[ROW, lane] = -1
    while True:
        if observe_together(work, numbers, floats, integers, n_events, n_states, out):
            fastest_rate(work, lanes)
            span = floats[numbers[LIST, 0], numbers[EVENT, 0], TIME] - work[BEGIN * LANES]
            hopeless = 0
            if not _plan_together(work, numbers, span, dt, max_steps):
                hopeless = _plan_legs(work, numbers, floats, status, dt, max_steps)
        else:
            hopeless = 1
        while hopeless > 0:
            next_row = arrive(work, numbers, counters, batch, out, status, next_row)
            fastest_rate(work, lanes)
            hopeless = _plan_legs(work, numbers, floats, status, dt, max_steps)
        n = _steps_together(numbers)
        if n == 0:
            return
        _fill_words(first, second, counters, n * n_pairs, key[0], key[1])
        _fill_normals(even, odd, first, second, n * n_pairs * LANES)
        stride = _fill_lengths(drawn, work, n)
        advance(work, drawn, n, stride, lanes)
        _count_steps(work, numbers, counters, n, n_pairs)


@cache
def driver() -> Callable[..., None]:
    """Compile the driver, once for all models and installations; only who uses it pays for loading it.

    Returns
    -------
    callable
        `run_lanes`.
    """
    real, whole, word = types.float64, types.int64, types.uint64
    reals, wholes, words = real[::1], whole[::1], word[::1]
    tables = [real[:, :, ::1], whole[:, :, ::1], wholes, wholes, real[:, :, ::1], real[:, ::1]]
    tables += [reals, reals, words]
    advance = types.FunctionType(types.void(reals, reals, whole, whole, whole))
    fastest_rate = types.FunctionType(types.void(reals, whole))
    signature = types.void(
        advance,
        fastest_rate,
        types.NamedTuple(tables, SdeBatch),
        types.UniTuple(word, 2),
        real,
        whole,
        whole,
        whole,
        reals,
        reals,
        words,
        words,
        whole[:, ::1],
        real[:, :, ::1],
        wholes,
    )
    options = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
    return njit(signature, **options)(run_lanes)
