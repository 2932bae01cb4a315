"""Predictions of ODE models with their derivatives by psi: the exact tangent of the solver, row by row."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sympy

from amortnlme.core.status import SolveStatus
from amortnlme.solve.engine import Rows
from amortnlme.solve.entry import Entry, EntryValues
from amortnlme.solve.row_schedule import row_events
from amortnlme.solve.tangent_driver import compiled_driver
from amortnlme.solve.tangent_interface import count_lanes
from amortnlme.solve.tangent_kernels import TangentKernels, build_tangent_kernels
from amortnlme.solve.tangent_memory import Problem, make_work, pack_events
from amortnlme.solve.threads import for_each_chunk
from amortnlme.solve.trace import TracedSystem

# Rows that a thread takes at a time; they take longer than without derivatives.
CHUNK_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class OdeTangent:
    """Forward sensitivities of one model.

    Attributes
    ----------
    entry : Entry
    sensitive : tuple of int
        Columns of psi that move the states: those in the right-hand side or the entry. The others enter
        outputs only.
    kernels : TangentKernels
    n_states : int
    """

    entry: Entry
    sensitive: tuple[int, ...]
    kernels: TangentKernels
    n_states: int

    @classmethod
    def build(cls, system: TracedSystem, entry: Entry, outputs: Sequence[sympy.Expr]) -> OdeTangent:
        """Generate and load the kernels of a model.

        Parameters
        ----------
        system : TracedSystem
        entry : Entry
        outputs : sequence of sympy.Expr

        Returns
        -------
        OdeTangent
        """
        used = set().union(*(f.free_symbols for f in system.derivatives))
        in_rhs = {i for i, symbol in enumerate(system.symbols.parameters) if symbol in used}
        sensitive = tuple(sorted(in_rhs | set(entry.moving)))
        kernels = build_tangent_kernels(system, outputs, sensitive)
        return cls(entry, sensitive, kernels, len(system.derivatives))

    def predict(
        self, rows: Rows, rtol: float, atol: float, max_steps: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predict the observations of every row with their derivatives.

        Parameters
        ----------
        rows : Rows
        rtol, atol : float
            Tolerances of states and of derivatives by log psi.
        max_steps : int
            Steps (accepted or not) after which a row ends with status MAX_STEPS.

        Returns
        -------
        f : ndarray, shape (N, m)
            NaN in columns a design does not have and where a row failed.
        df_dpsi : ndarray, shape (N, m, d)
            NaN where f is.
        status : ndarray of int, shape (N,)
            Values of `amortnlme.core.status.SolveStatus`.
        """
        N, d = rows.psi.shape
        m = rows.schedule.n_observations
        f = np.full((N, m), np.nan)
        df = np.zeros((N, m, d))
        status = np.zeros(N, dtype=np.int64)
        solve_rows = compiled_driver()
        lanes = count_lanes(len(self.sensitive))
        tolerances = (float(rtol), float(atol), float(max_steps))

        def task(first: int, last: int) -> None:
            part = slice(first, last)
            problem, found = self._problem(rows, part, tolerances, f[part], df[part])
            kernels = (self.kernels.step, self.kernels.field, self.kernels.observe)
            solve_rows(*kernels, 0, last - first, problem, make_work(self.n_states, lanes), found)
            status[part] = found

        for_each_chunk(N, task, CHUNK_ROWS)
        failed = status != SolveStatus.OK
        f[failed] = np.nan
        missing = np.isnan(f)
        if missing.any():
            df[missing] = np.nan
        return f, df, status

    def _problem(
        self, rows: Rows, part: slice, tolerances: tuple[float, float, float], f: np.ndarray, df: np.ndarray
    ) -> tuple[Problem, np.ndarray]:
        # Fresh arrays: a read-only one would be of another type than the driver is compiled for.
        psi = np.array(rows.psi[part], dtype=np.float64, order="C")
        index = np.array(rows.design_index[part], dtype=np.int64)
        values = self.entry.evaluate(psi, rows.schedule, index, sensitive=self.sensitive or (0,))
        events, list_index, status = row_events(rows.schedule, index, self.entry, values)
        numbers, marks, counts = pack_events(events)
        entry, d_entry, d_dose = _pack_entry(values, len(self.sensitive))
        problem = Problem(
            numbers=numbers,
            marks=marks,
            counts=counts,
            place=np.stack((list_index, index), axis=1),
            psi=psi,
            columns=np.array(self.sensitive, dtype=np.int64),
            covariates=np.array(rows.schedule.segment_covariates, dtype=np.float64, order="C"),
            output=np.array(rows.output, dtype=np.int64, order="C"),
            entry=entry,
            d_entry=d_entry,
            d_dose=d_dose,
            options=np.array([*tolerances, float(self.entry.has_lag)]),
            f=f,
            df=df,
        )
        return problem, status


def _pack_entry(values: EntryValues, p: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pack values and the first p derivatives as `Problem.entry`, `.d_entry` and `.d_dose`."""
    assert values.d_start is not None and values.d_initial is not None, "evaluate with sensitive parameters"
    assert values.d_lag is not None and values.d_bioavailability is not None
    d_entry = np.concatenate((values.d_start[:, :p, None], values.d_initial[:, :p]), axis=2)
    d_dose = np.stack((values.d_lag[:, :, :p], values.d_bioavailability[:, :, :p]), axis=2)
    return (
        np.concatenate((values.start[:, None], values.initial), axis=1),
        np.ascontiguousarray(d_entry),
        np.ascontiguousarray(np.moveaxis(d_dose, 3, 4)),
    )


class LazyTangent:
    """The sensitivities of a model, whose kernels are compiled or loaded when they are first needed.

    Parameters
    ----------
    system : TracedSystem
    entry : Entry
    outputs : sequence of sympy.Expr
    """

    def __init__(self, system: TracedSystem, entry: Entry, outputs: Sequence[sympy.Expr]) -> None:
        self._model = (system, entry, outputs)
        self._lock = threading.Lock()
        self._tangent: OdeTangent | None = None

    def get(self) -> OdeTangent:
        """Return the sensitivities.

        Returns
        -------
        OdeTangent
        """
        with self._lock:
            if self._tangent is None:
                self._tangent = OdeTangent.build(*self._model)
            return self._tangent
