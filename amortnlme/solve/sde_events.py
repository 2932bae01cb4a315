"""What happens to the lanes of an SDE at events: rows, doses, resets, covariates and observations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from amortnlme.core.status import SolveStatus
from amortnlme.solve.schedule import BOLUS, INFUSION_END, INFUSION_START, OBSERVE, RESET
from amortnlme.solve.sde_lanes import BEGIN, DONE, LANES, N_CLOCK, START, STEP

OK = int(SolveStatus.OK)
MAX_STEPS = int(SolveStatus.MAX_STEPS)
NON_FINITE = int(SolveStatus.NON_FINITE)

# Whole numbers of each lane.
ROW = 0  # row of the batch; -1: idle
EVENT = 1  # next event of its list
LEFT = 2  # steps left to the next event
LEG_LEFT = 3  # steps left before the next look at the step size
USED = 4  # steps planned so far
RUNNING = 5  # infusions that run
SEGMENT = 6  # covariate segment in force
LIST = 7  # event list of the row
N_NUMBERS = 8
# Words of each lane's counter.
DRAW, LOW, HIGH = range(3)
# Columns of the packed event lists.
TIME, AMOUNT = range(2)
ACTION, COMPARTMENT, SLOT, IN_SEGMENT = range(4)


# The functions below allocate nothing: without Numba's run-time they do not count references to their arrays
# (two locked instructions per array and call).
kernel = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)  # pyright: ignore[reportCallIssue]


class SdeBatch(NamedTuple):
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
    start : ndarray, shape (N,)   [time]
        -inf where the states move from the first record on.
    begin : ndarray, shape (N,)   [time]
        Where the clock of each row begins.
    ids : ndarray of uint64, shape (N,)
    """

    floats: np.ndarray
    integers: np.ndarray
    n_events: np.ndarray
    list_index: np.ndarray
    constants: np.ndarray
    initial: np.ndarray
    start: np.ndarray
    begin: np.ndarray
    ids: np.ndarray


@kernel
def _put_initial(work, initial, row, lane):
    """Set a lane to the initial states of its row, with no infusion running."""
    n = initial.shape[1]
    for i in range(n):
        work[(N_CLOCK + i) * LANES + lane] = initial[row, i]
        work[(N_CLOCK + n + i) * LANES + lane] = 0.0


@kernel
def _put_constants(work, n, constants, row, segment, lane):
    """Put a lane under the covariates of a segment."""
    for i in range(constants.shape[2]):
        work[(N_CLOCK + 2 * n + i) * LANES + lane] = constants[row, segment, i]


@kernel
def _enter_row(work, numbers, counters, batch, row, lane):
    """Give a lane a row, which stands at the beginning of its clock."""
    g = batch.list_index[row]
    _put_initial(work, batch.initial, row, lane)
    segment = batch.integers[g, 0, IN_SEGMENT]
    _put_constants(work, batch.initial.shape[1], batch.constants, row, segment, lane)
    work[BEGIN * LANES + lane] = batch.begin[row]
    work[START * LANES + lane] = batch.start[row]
    work[DONE * LANES + lane] = 0.0
    for field in range(N_NUMBERS):
        numbers[field, lane] = 0
    numbers[ROW, lane] = row
    numbers[LIST, lane] = g
    numbers[SEGMENT, lane] = segment
    counters[DRAW * LANES + lane] = np.uint64(0)
    counters[LOW * LANES + lane] = batch.ids[row] & np.uint64(0xFFFFFFFF)
    counters[HIGH * LANES + lane] = batch.ids[row] >> np.uint64(32)


@kernel
def _give_dose(work, numbers, n, action, compartment, amount, lane):
    """Apply a bolus, an infusion start or an infusion end."""
    state = (N_CLOCK + compartment) * LANES + lane
    rate = (N_CLOCK + n + compartment) * LANES + lane
    if action == BOLUS:
        work[state] += amount
    elif action == INFUSION_START:
        numbers[RUNNING, lane] += 1
        work[rate] += amount
    elif action == INFUSION_END:
        numbers[RUNNING, lane] -= 1
        work[rate] -= amount
        if numbers[RUNNING, lane] == 0:
            for i in range(n):  # differences of rates leave rounding residues
                work[(N_CLOCK + n + i) * LANES + lane] = 0.0


@kernel
def _pass_events(work, numbers, floats, integers, n_events, constants, initial, out, lane):
    """Apply the events at which a lane stands; return whether its row is finished."""
    row = numbers[ROW, lane]
    g = numbers[LIST, lane]
    n = initial.shape[1]
    k = numbers[EVENT, lane]
    last = n_events[g]
    now = work[BEGIN * LANES + lane]
    while k < last and (floats[g, k, TIME] <= now or integers[g, k, ACTION] == RESET):
        action = integers[g, k, ACTION]
        if action == RESET:
            now = floats[g, k, TIME]  # which may be earlier
            _put_initial(work, initial, row, lane)
            numbers[RUNNING, lane] = 0
        segment = integers[g, k, IN_SEGMENT]
        if segment != numbers[SEGMENT, lane]:
            numbers[SEGMENT, lane] = segment
            _put_constants(work, n, constants, row, segment, lane)
        if action == OBSERVE:
            slot = integers[g, k, SLOT]
            for i in range(n):
                out[slot, i, row] = work[(N_CLOCK + i) * LANES + lane]
        else:
            _give_dose(work, numbers, n, action, integers[g, k, COMPARTMENT], floats[g, k, AMOUNT], lane)
        k += 1
    work[BEGIN * LANES + lane] = now
    numbers[EVENT, lane] = k
    return k == last


@kernel
def _seat_next(work, numbers, counters, batch, out, status, lane, next_row):
    """Give an idle lane the next row that has an interval to cross; return the row after it."""
    numbers[ROW, lane] = -1
    numbers[LEG_LEFT, lane] = 0
    work[STEP * LANES + lane] = 0.0
    while next_row < status.shape[0]:
        row = next_row
        next_row += 1
        if status[row] != OK:
            continue
        _enter_row(work, numbers, counters, batch, row, lane)
        if not _pass_events(
            work, numbers, batch.floats, batch.integers, batch.n_events, batch.constants, batch.initial,
            out, lane,
        ):  # fmt: skip
            return next_row
        numbers[ROW, lane] = -1
    return next_row


@kernel
def arrive(work, numbers, counters, batch, out, status, next_row):
    """Let the lanes that reached an event pass it, finished ones take new rows.

    Parameters
    ----------
    work : ndarray
        Memory of the lanes; see `amortnlme.solve.sde_lanes`.
    numbers : ndarray of int, shape (N_NUMBERS, LANES)
    counters : ndarray of uint64
        Words of the lanes' counters.
    batch : SdeBatch
    out : ndarray, shape (m, n, N)
    status : ndarray of int, shape (N,)
    next_row : int
        First row that no lane has taken yet.

    Returns
    -------
    int
        `next_row` afterwards.
    """
    floats, integers, n_events = batch.floats, batch.integers, batch.n_events
    constants, initial = batch.constants, batch.initial
    n = initial.shape[1]
    for lane in range(LANES):
        row = numbers[ROW, lane]
        if row >= 0:
            if numbers[LEFT, lane] > 0:
                continue
            # Exactly, not the sum of the steps.
            work[BEGIN * LANES + lane] = floats[numbers[LIST, lane], numbers[EVENT, lane], TIME]
            checksum = 0.0
            for i in range(n):
                checksum += 0.0 * work[(N_CLOCK + i) * LANES + lane]
            if checksum != 0.0:
                status[row] = NON_FINITE
            elif not _pass_events(
                work, numbers, floats, integers, n_events, constants, initial, out, lane
            ):  # fmt: skip
                continue
        next_row = _seat_next(work, numbers, counters, batch, out, status, lane, next_row)
    return next_row


@kernel
def observe_together(work, numbers, floats, integers, n_events, n, out):
    """Pass one observation in all lanes at once; return whether that was all there is to do.

    It was where neighbouring rows on one list have reached the same observation, all finite, and the next
    event comes later: what lanes of one design do at most events. Otherwise nothing is touched.

    Parameters
    ----------
    work : ndarray
        Memory of the lanes; see `amortnlme.solve.sde_lanes`.
    numbers : ndarray of int, shape (N_NUMBERS, LANES)
    floats, integers, n_events : ndarray
        Of an `SdeBatch`.
    n : int
        Number of states.
    out : ndarray, shape (m, n, N)

    Returns
    -------
    bool
    """
    row, g, k = numbers[ROW, 0], numbers[LIST, 0], numbers[EVENT, 0]
    possible = row >= 0 and k + 1 < n_events[g] and integers[g, k, ACTION] == OBSERVE
    if possible:
        time, segment = floats[g, k, TIME], integers[g, k, IN_SEGMENT]
        apart = 0
        for lane in range(LANES):
            apart |= (numbers[ROW, lane] - lane) ^ row
            apart |= numbers[LIST, lane] ^ g
            apart |= numbers[EVENT, lane] ^ k
            apart |= numbers[SEGMENT, lane] ^ segment
            apart |= numbers[LEFT, lane]
        checksum = 0.0
        for i in range(n):
            for lane in range(LANES):
                checksum += 0.0 * work[(N_CLOCK + i) * LANES + lane]
        later = integers[g, k + 1, ACTION] != RESET and floats[g, k + 1, TIME] > time
        possible = apart == 0 and checksum == 0.0 and later
        if possible:
            slot = integers[g, k, SLOT]
            for i in range(n):
                for lane in range(LANES):
                    out[slot, i, row + lane] = work[(N_CLOCK + i) * LANES + lane]
            for lane in range(LANES):
                work[BEGIN * LANES + lane] = time
                numbers[EVENT, lane] = k + 1
    return possible
