"""Driver of right-hand sides that are not traced, compiled once for all models.

Loaded by `kernel_module.load_driver`, never imported: importing it compiles it.
"""

from __future__ import annotations

from typing import Any

from numba import types

from amortnlme.solve.lane_jit import lane_jit
from amortnlme.solve.scalar_walk import Batch, walk
from amortnlme.solve.schedule import Events
from amortnlme.solve.untraced_source import DERIVATIVE

_FLOATS = {"time", "amount", "duration", "ii", "recorded", "phase"}


def _signature() -> Any:
    real, whole = types.float64, types.int64
    vector, table, cube = real[::1], real[:, ::1], real[:, :, ::1]
    members = [table if name in _FLOATS else whole[:, ::1] for name in Events._fields]
    members[Events._fields.index("n_events")] = whole[::1]
    fields = {
        "events": types.NamedTuple(members, Events),
        "list_index": whole[::1],
        "design_index": whole[::1],
        "psi": table,
        "covariates": cube,
        "initial": table,
        "start": vector,
        "output": whole[:, ::1],
        "rtol": real,
        "atol": real,
        "max_steps": whole,
    }
    batch = types.NamedTuple([fields[name] for name in Batch._fields], Batch)
    return types.void(types.FunctionType(DERIVATIVE), batch, vector, table, cube, whole[::1])


@lane_jit(_signature())
def solve_rows(model, batch, p, w, out, status):
    """Solve the rows of a batch whose status is OK.

    Parameters
    ----------
    model : callable
        `model(t, y, p, out)` writes dy/dt.
    batch : Batch
    p, w : ndarray
        Scratch memory of one thread.
    out : ndarray, shape (N, m, n)
        Receives the states at the observations.
    status : ndarray of int, shape (N,)
    """
    for row in range(status.shape[0]):
        if status[row] == 0:
            status[row] = walk(model, row, p, w, batch, out)
