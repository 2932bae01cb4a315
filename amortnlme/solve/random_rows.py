"""What all engines of random dynamics share: rows cut into pieces, their events packed, outputs evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from amortnlme.core.errors import DesignError
from amortnlme.solve.engine import Rows
from amortnlme.solve.entry import Entry
from amortnlme.solve.observables import Observables
from amortnlme.solve.row_schedule import row_events
from amortnlme.solve.schedule import Events
from amortnlme.solve.state_solution import StateSolution
from amortnlme.solve.threads import for_each_chunk

# Rows simulated before their outputs are evaluated: enough that starting a kernel costs nothing.
PIECE_ROWS = 2048
# Rows whose outputs are evaluated at a time: few enough that intermediate results stay in the cache.
OUTPUT_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class PathRows:
    """Some rows, ready for a kernel.

    Attributes
    ----------
    floats : ndarray, shape (lists, e, 2)
        Time [time] and amount [amount, or amount/time for an infusion] of every event.
    integers : ndarray of int, shape (lists, e, 4)
        Action, compartment, observation column and covariate segment of every event.
    n_events : ndarray of int, shape (lists,)
    list_index : ndarray of int, shape (N,)
        List of each row.
    psi : ndarray, shape (N, d)
    covariates : ndarray, shape (N, n_segments, c)
    initial : ndarray, shape (N, n)
    start : ndarray, shape (N,)   [time]
        -inf where the states move from the first record on.
    ids : ndarray of uint64, shape (N,)
    """

    floats: np.ndarray
    integers: np.ndarray
    n_events: np.ndarray
    list_index: np.ndarray
    psi: np.ndarray
    covariates: np.ndarray
    initial: np.ndarray
    start: np.ndarray
    ids: np.ndarray


# simulate(paths, out, status): writes the states at the observations to out, shape (m, n, N), and how each
# row ended to status; rows whose status is not OK beforehand are left alone.
PathSimulator = Callable[[PathRows, np.ndarray, np.ndarray], None]


def draw_outputs(
    rows: Rows, ids: np.ndarray, entry: Entry, observables: Observables, simulate: PathSimulator
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate all rows and evaluate their outputs.

    Parameters
    ----------
    rows : Rows
    ids : ndarray of int, shape (N,)
    entry : Entry
    observables : Observables
    simulate : callable

    Returns
    -------
    f : ndarray, shape (N, m)   [observation units]
    status : ndarray of int, shape (N,)

    Raises
    ------
    DesignError
        E_DESIGN_SS_STOCHASTIC when a dose claims a steady state.
    """
    _refuse_steady_state(rows)
    f = np.empty((rows.n_rows, rows.schedule.n_observations))
    status = np.zeros(rows.n_rows, dtype=np.int64)
    numbers = np.asarray(ids, dtype=np.int64).astype(np.uint64)

    def task(first: int, last: int) -> None:
        # Used again for every piece: fresh memory of this size costs as much as a tenth of a simulation.
        size = rows.schedule.n_observations * len(entry.initial) * min(PIECE_ROWS, last - first)
        memory = np.empty(size)
        for begin in range(first, last, PIECE_ROWS):
            piece = slice(begin, min(begin + PIECE_ROWS, last))
            x, status[piece] = _draw_states(rows, piece, numbers[piece], entry, simulate, memory)
            for row in range(begin, piece.stop, OUTPUT_ROWS):
                part = slice(row, min(row + OUTPUT_ROWS, piece.stop))
                states = StateSolution(x[row - begin : part.stop - begin], status[part])
                f[part] = _evaluate(rows, part, states, observables)

    for_each_chunk(rows.n_rows, task)
    return f, status


def _refuse_steady_state(rows: Rows) -> None:
    events = rows.schedule.events
    used = np.unique(rows.design_index)
    inside = np.arange(events.time.shape[1]) < events.n_events[used][:, None]
    if (inside & (events.ss[used] > 0)).any():
        raise DesignError(
            "E_DESIGN_SS_STOCHASTIC",
            "a dose claims a steady state (SS > 0), but the states of this model move at random and never "
            "repeat. Give the doses that lead up to it one by one (ADDL, II).",
        )


def _draw_states(
    rows: Rows, piece: slice, ids: np.ndarray, entry: Entry, simulate: PathSimulator, memory: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate some rows: states at the observations, shape (N, m, n), which stand in `memory`; statuses."""
    index = np.array(rows.design_index[piece], dtype=np.int64)
    psi = np.array(rows.psi[piece], dtype=np.float64, order="C")
    values = entry.evaluate(psi, rows.schedule, index)
    events, list_index, status = row_events(rows.schedule, index, entry, values)
    used, list_index = np.unique(list_index, return_inverse=True)
    floats, integers = _pack(events, used)
    paths = PathRows(
        floats=floats,
        integers=integers,
        n_events=np.array(events.n_events[used], dtype=np.int64),
        list_index=np.array(list_index, dtype=np.int64),
        psi=psi,
        covariates=rows.schedule.segment_covariates[index],
        initial=np.array(values.initial, dtype=np.float64, order="C"),
        start=np.array(values.start, dtype=np.float64),
        ids=np.ascontiguousarray(ids),
    )
    # Rows innermost: neighbouring lanes write, and the outputs read, neighbouring numbers.
    shape = (rows.schedule.n_observations, values.initial.shape[1], psi.shape[0])
    out = memory[: math.prod(shape)].reshape(shape)
    out.fill(np.nan)
    simulate(paths, out, status)
    return out.transpose(2, 0, 1), status


def _evaluate(rows: Rows, part: slice, states: StateSolution, observables: Observables) -> np.ndarray:
    index = rows.design_index[part]
    # A design that all rows share is broadcast instead of copied for every row.
    shared = index[:1] if (index == index[0]).all() else index
    return observables.evaluate(
        states,
        np.array(rows.psi[part], dtype=np.float64, order="F"),
        rows.time[shared],
        rows.output[shared],
        rows.covariates[shared],
    )


def _pack(events: Events, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pack event lists: extracting an array from a named tuple counts references at every use."""
    floats = np.stack((events.time[used], events.amount[used]), axis=2)
    whole = (events.action, events.compartment, events.slot, events.segment)
    return floats.astype(np.float64), np.stack([a[used] for a in whole], axis=2).astype(np.int64)
