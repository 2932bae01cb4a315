"""Paths of Markov jump processes: reaction by reaction (Gillespie 1977), or by leaps of Poisson numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit, types

from amortnlme.core.status import SolveStatus
from amortnlme.solve.philox import PURPOSE_REACTIONS, exponential, random_pair, uniform
from amortnlme.solve.poisson import poisson
from amortnlme.solve.schedule import BOLUS, INFUSION_END, INFUSION_START, OBSERVE, RESET

OK = int(SolveStatus.OK)
MAX_STEPS = int(SolveStatus.MAX_STEPS)
NON_FINITE = int(SolveStatus.NON_FINITE)

# Columns of the packed event lists.
TIME, AMOUNT = range(2)
ACTION, COMPARTMENT, SLOT, IN_SEGMENT = range(4)
# Words of a stream: next draw, halves of the number of the simulation, key.
DRAW, LOW, HIGH, KEY_0, KEY_1 = range(5)
# An interval of a whole number of leaps, up to rounding, takes this number of leaps.
SLACK = 1e-9
# Whole numbers are exact up to here.
MOST_MOLECULES = 2.0**53


# These functions allocate nothing: without Numba's run-time they do not count references to their arrays.
kernel = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)  # pyright: ignore[reportCallIssue]


class JumpBatch(NamedTuple):
    """What the simulations of some rows read (plain arrays for the kernel).

    Attributes
    ----------
    floats : ndarray, shape (lists, e, 2)
        Time and amount (or rate) of every event.
    integers : ndarray of int, shape (lists, e, 4)
        Action, compartment, observation column and covariate segment.
    n_events : ndarray of int, shape (lists,)
    list_index : ndarray of int, shape (N,)
    constants : ndarray, shape (N, n_segments, n_constants)
    initial : ndarray, shape (N, n)
        Whole numbers.
    start : ndarray, shape (N,)   [time]
        -inf where the states move from the first record on.
    ids : ndarray of uint64, shape (N,)
    changes : ndarray, shape (n_reactions, n)
        Change of every state by every reaction.
    """

    floats: np.ndarray
    integers: np.ndarray
    n_events: np.ndarray
    list_index: np.ndarray
    constants: np.ndarray
    initial: np.ndarray
    start: np.ndarray
    ids: np.ndarray
    changes: np.ndarray


@kernel
def _put(target, source):
    """Copy numbers; an assignment to a slice would allocate."""
    for i in range(target.shape[0]):
        target[i] = source[i]


@kernel
def _total_rate(rates):
    """Sum the rates of all reactions; NaN when one is negative or not finite."""
    total = 0.0
    for j in range(rates.shape[0]):
        total += rates[j] if rates[j] >= 0.0 else math.nan
    return total if total < math.inf else math.nan


@kernel
def _is_possible(y):
    """Whether all states are numbers of molecules."""
    possible = True
    for i in range(y.shape[0]):
        possible &= 0.0 <= y[i] <= MOST_MOLECULES
    return possible


@kernel
def _choose(rates, level):
    """Return the first reaction at which the sum of the rates exceeds a level."""
    chosen = 0
    passed = 0.0
    last = 0
    found = False
    for j in range(rates.shape[0]):
        if rates[j] > 0.0:
            last = j  # rounding may leave the sum below the level: then it is the last possible one
        passed += rates[j]
        if not found and passed > level:
            chosen = j
            found = True
    return chosen if found else last


@kernel
def _react(propensities, t, stop, y, c, rates, arrivals, changes, stream, left):
    """Simulate every reaction up to a time; return how many more reactions are allowed, and a status.

    The waiting time that reaches beyond the end is dropped: at constant propensities it has no memory.
    """
    n_reactions = changes.shape[0]
    n = y.shape[0]
    purpose = np.uint64(PURPOSE_REACTIONS)
    while True:
        propensities(t, y, c, rates)
        for i in range(n):
            rates[n_reactions + i] = arrivals[i]
        total = _total_rate(rates)
        if total != total:
            return left, NON_FINITE
        if total == 0.0:
            return left, OK
        first, second = random_pair(
            stream[DRAW], purpose, stream[LOW], stream[HIGH], stream[KEY_0], stream[KEY_1]
        )
        stream[DRAW] += np.uint64(1)
        t += exponential(first) / total
        if t >= stop:
            return left, OK
        if left == 0:
            return left, MAX_STEPS
        left -= 1
        j = _choose(rates, uniform(second) * total)
        if j < n_reactions:
            for i in range(n):
                y[i] += changes[j, i]
        else:
            y[j - n_reactions] += 1.0
        if not _is_possible(y):
            return left, NON_FINITE


@kernel
def _leap(rates, h, y, after, changes, stream):
    """Write the states after a leap; return whether all numbers could be drawn."""
    n_reactions = changes.shape[0]
    _put(after, y)
    for j in range(rates.shape[0]):
        count, stream[DRAW] = poisson(
            rates[j] * h, stream[DRAW], stream[LOW], stream[HIGH], stream[KEY_0], stream[KEY_1]
        )
        if count != count:
            return False
        if j < n_reactions:
            for i in range(y.shape[0]):
                after[i] += count * changes[j, i]
        else:
            after[j - n_reactions] += count
    return True


@kernel
def _leap_to(propensities, t, stop, tau, y, after, c, rates, arrivals, changes, stream, left):
    """Leap up to a time; return how many more leaps are allowed, and a status.

    A leap that would make a state negative is drawn anew at half its length.
    """
    n_reactions = changes.shape[0]
    while t < stop:
        h = (stop - t) / max(1.0, math.ceil((stop - t) / tau - SLACK))
        propensities(t, y, c, rates)
        for i in range(y.shape[0]):
            rates[n_reactions + i] = arrivals[i]
        total = _total_rate(rates)
        if total != total:
            return left, NON_FINITE
        done = False
        while not done:
            if left == 0:
                return left, MAX_STEPS
            left -= 1
            if not _leap(rates, h, y, after, changes, stream):
                return left, NON_FINITE
            done = True
            for i in range(y.shape[0]):
                done &= after[i] >= 0.0
            h = h if done else 0.5 * h
        if not _is_possible(after):
            return left, NON_FINITE
        _put(y, after)
        t = stop if t + h >= stop - SLACK * tau else t + h
    return left, OK


@kernel
def _begin_row(batch, row, y, arrivals, c, stream, key):
    """Put a row at its initial states; return the time at which it stands and its covariate segment."""
    g = batch.list_index[row]
    _put(y, batch.initial[row])
    arrivals[:] = 0.0
    segment = batch.integers[g, 0, IN_SEGMENT]
    _put(c, batch.constants[row, segment])
    stream[DRAW] = np.uint64(0)
    stream[LOW] = batch.ids[row] & np.uint64(0xFFFFFFFF)
    stream[HIGH] = batch.ids[row] >> np.uint64(32)
    stream[KEY_0], stream[KEY_1] = key
    first, start = batch.floats[g, 0, TIME], batch.start[row]
    return start if -math.inf < start < first else first, segment


@kernel
def _give(y, arrivals, running, action, compartment, amount):
    """Apply a bolus, an infusion start or an infusion end; return how many infusions run."""
    if action == BOLUS:
        y[compartment] += np.rint(amount)
    elif action == INFUSION_START:
        running += 1
        arrivals[compartment] += amount
    elif action == INFUSION_END:
        running -= 1
        arrivals[compartment] -= amount
        if running == 0:
            arrivals[:] = 0.0  # differences of rates leave rounding residues
    return running


@kernel
def _walk(propensities, batch, key, tau, left, row, y, after, c, rates, arrivals, stream, out):
    """Simulate one row and return its status."""
    g = batch.list_index[row]
    floats, integers = batch.floats[g], batch.integers[g]
    t, segment = _begin_row(batch, row, y, arrivals, c, stream, key)
    running = 0
    status = OK if _is_possible(y) else NON_FINITE
    k = 0
    while status == OK and k < batch.n_events[g]:
        action, stop = integers[k, ACTION], floats[k, TIME]
        from_here = max(t, batch.start[row])
        if action == RESET:
            _put(y, batch.initial[row])
            arrivals[:] = 0.0
            running = 0
        elif from_here < stop:
            if tau > 0.0:
                left, status = _leap_to(
                    propensities, from_here, stop, tau, y, after, c, rates, arrivals, batch.changes,
                    stream, left,
                )  # fmt: skip
            else:
                left, status = _react(
                    propensities, from_here, stop, y, c, rates, arrivals, batch.changes, stream, left
                )
        t = stop
        if integers[k, IN_SEGMENT] != segment:
            segment = integers[k, IN_SEGMENT]
            _put(c, batch.constants[row, segment])
        if status == OK and action == OBSERVE:
            _put(out[integers[k, SLOT], :, row], y)
        elif status == OK:
            running = _give(y, arrivals, running, action, integers[k, COMPARTMENT], floats[k, AMOUNT])
            status = OK if _is_possible(y) else NON_FINITE
        k += 1
    return status


def run_rows(propensities, batch, key, tau, max_reactions, scratch, c, stream, out, status):
    """Simulate the rows of a batch whose status is OK.

    Parameters
    ----------
    propensities : callable
        Of the generated module.
    batch : JumpBatch
    key : tuple of two uint64
    tau : float   [time]
        Longest leap; 0 for exact simulation.
    max_reactions : int
        Of one row; with leaps, their number.
    scratch : ndarray, shape (4, n_reactions + n)
    c : ndarray, shape (n_constants,)
    stream : ndarray of uint64, shape (5,)
    out : ndarray, shape (m, n, N)
        Receives the states at the observations.
    status : ndarray of int, shape (N,)
    """
    n = batch.initial.shape[1]
    y, after, arrivals, rates = scratch[0, :n], scratch[1, :n], scratch[2, :n], scratch[3]
    for row in range(status.shape[0]):
        if status[row] == OK:
            status[row] = _walk(
                propensities, batch, key, tau, max_reactions, row, y, after, c, rates, arrivals, stream, out
            )  # fmt: skip


@cache
def driver() -> Callable[..., None]:
    """Compile the driver, once for all models and installations; only who uses it pays for loading it.

    Returns
    -------
    callable
        `run_rows`.
    """
    real, whole, word = types.float64, types.int64, types.uint64
    reals, wholes, words, table = real[::1], whole[::1], word[::1], real[:, ::1]
    cube = real[:, :, ::1]
    batch = types.NamedTuple(
        [cube, whole[:, :, ::1], wholes, wholes, cube, table, reals, words, table], JumpBatch
    )
    signature = types.void(
        types.FunctionType(types.void(real, reals, reals, reals)),
        batch,
        types.UniTuple(word, 2),
        real,
        whole,
        table,
        reals,
        words,
        cube,
        wholes,
    )
    options = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
    return njit(signature, **options)(run_rows)
