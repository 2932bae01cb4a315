"""What the sensitivity driver reads, writes and keeps: few packed arrays, as every array is five arguments.

Machine code that passes named tuples of dozens of arrays around takes a minute to compile.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amortnlme.core.status import SolveStatus
from amortnlme.solve.schedule import Events
from amortnlme.solve.tangent_interface import work_size

# Typed, because Numba compiles a function again for every literal.
OK = np.int64(SolveStatus.OK)
MAX_STEPS = np.int64(SolveStatus.MAX_STEPS)
NON_FINITE = np.int64(SolveStatus.NON_FINITE)
STEP_UNDERFLOW = np.int64(SolveStatus.STEP_UNDERFLOW)
NO_STEADY_STATE = np.int64(SolveStatus.NO_STEADY_STATE)
NONE = np.int64(0)

# Columns of Problem.numbers, .marks and .place; entries of Problem.options.
TIME, AMOUNT, RECORDED, DURATION, INTERVAL, PHASE = range(6)
ACTION, COMPARTMENT, STEADY, SLOT, SEGMENT, DOSE_SEGMENT = range(6)
LIST, DESIGN = range(2)
RTOL, ATOL, STEP_LIMIT, HAS_LAG = range(4)
# Column of Problem.entry and Problem.d_entry that holds the start time; the initial states follow.
START, FIRST_STATE = 0, 1
# Rows of Problem.d_dose.
LAG, BIOAVAILABILITY = range(2)
# Entries of Work.tally.
STEPS, RUNNING, LANES = range(3)
# Rows of Work.v, vectors of n numbers; kept_* belong to superposition, guess and image to steady states.
STATE, NEXT, RATE, SLOPE, SLOPE_BEFORE, BETWEEN, GUESS, IMAGE, KEPT, KEPT_RATE = range(10)
N_VECTORS = 10
# Matrices of Work.square.
MONODROMY, MATRIX, POWER = range(3)


class Problem(NamedTuple):
    """Everything that N rows read and write; p = number of sensitive parameters.

    Attributes
    ----------
    numbers : ndarray, shape (G, e, 6)
        Of the events of every list: TIME, AMOUNT, RECORDED, DURATION, INTERVAL, PHASE.
    marks : ndarray of int, shape (G, e, 6)
        ACTION, COMPARTMENT, STEADY, SLOT, SEGMENT, DOSE_SEGMENT.
    counts : ndarray of int, shape (G,)
        Number of events of every list.
    place : ndarray of int, shape (N, 2)
        LIST and DESIGN of each row.
    psi : ndarray, shape (N, d)
    columns : ndarray of int, shape (p,)
        Column of psi of each lane.
    covariates : ndarray, shape (n, n_segments, c)
    output : ndarray of int, shape (n, m)
        0-based output of each observation.
    entry : ndarray, shape (N, 1 + n_states)
        Start time (-inf: none) and initial states.
    d_entry : ndarray, shape (N, p, 1 + n_states)
    d_dose : ndarray, shape (N, n_segments, 2, n_states, p)
        Derivatives of lag and of bioavailability.
    options : ndarray, shape (4,)
        RTOL, ATOL, STEP_LIMIT (a whole number), HAS_LAG (0 or 1).
    f : ndarray, shape (N, m)
        Receives the predictions.
    df : ndarray, shape (N, m, d)
        Receives their derivatives; zeros before.
    """

    numbers: np.ndarray
    marks: np.ndarray
    counts: np.ndarray
    place: np.ndarray
    psi: np.ndarray
    columns: np.ndarray
    covariates: np.ndarray
    output: np.ndarray
    entry: np.ndarray
    d_entry: np.ndarray
    d_dose: np.ndarray
    options: np.ndarray
    f: np.ndarray
    df: np.ndarray


class Work(NamedTuple):
    """Scratch memory of one thread.

    Attributes
    ----------
    tally : ndarray of int, shape (3,)
        STEPS made, infusions RUNNING, number of LANES.
    v : ndarray, shape (N_VECTORS, n)
    dense : ndarray, shape (3 n,)
        Interpolation of the current step.
    w : ndarray, shape (work_size(n, lanes),)
        Sensitivities; see `amortnlme.solve.tangent_interface`.
    square : ndarray, shape (3, n, n)
    right : ndarray, shape (lanes + 1, n)
        Right-hand sides of the fixed point of a period.
    kept : ndarray, shape (2, n lanes)
        Sensitivities of state and rates to which a regimen is added.
    """

    tally: np.ndarray
    v: np.ndarray
    dense: np.ndarray
    w: np.ndarray
    square: np.ndarray
    right: np.ndarray
    kept: np.ndarray


def make_work(n: int, lanes: int) -> Work:
    """Allocate the scratch memory of one thread.

    Parameters
    ----------
    n, lanes : int
        Number of states and of lanes.

    Returns
    -------
    Work
    """
    return Work(
        tally=np.array([0, 0, lanes], dtype=np.int64),
        v=np.zeros((N_VECTORS, n)),
        dense=np.zeros(3 * n),
        w=np.zeros(work_size(n, lanes)),
        square=np.zeros((3, n, n)),
        right=np.zeros((lanes + 1, n)),
        kept=np.zeros((2, n * lanes)),
    )


def pack_events(events: Events) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pack event lists into `Problem.numbers`, `.marks` and `.counts`.

    Parameters
    ----------
    events : Events

    Returns
    -------
    numbers, marks, counts : ndarray
    """
    numbers = (events.time, events.amount, events.recorded, events.duration, events.ii, events.phase)
    marks = (
        events.action,
        events.compartment,
        events.ss,
        events.slot,
        events.segment,
        events.dose_segment,
    )
    return (
        np.stack(numbers, axis=2, dtype=np.float64),
        np.stack(marks, axis=2, dtype=np.int64),
        np.array(events.n_events, dtype=np.int64),
    )


def empty_problem() -> Problem:
    """Return a problem without rows, whose types are those of every problem.

    Returns
    -------
    Problem
    """

    def floats(rank: int) -> np.ndarray:
        return np.zeros((0,) * rank)

    def integers(rank: int) -> np.ndarray:
        return np.zeros((0,) * rank, dtype=np.int64)

    return Problem(
        numbers=floats(3),
        marks=integers(3),
        counts=integers(1),
        place=integers(2),
        psi=floats(2),
        columns=integers(1),
        covariates=floats(3),
        output=integers(2),
        entry=floats(2),
        d_entry=floats(3),
        d_dose=floats(5),
        options=floats(1),
        f=floats(2),
        df=floats(3),
    )
