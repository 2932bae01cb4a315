"""Engine of right-hand sides that cannot be traced: compiled as written, with numerical Jacobians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import sympy

from amortnlme.core.errors import DesignError
from amortnlme.solve.engine import AbstractEngine, Rows
from amortnlme.solve.entry import Entry
from amortnlme.solve.kernel_module import load_driver
from amortnlme.solve.observables import Observables
from amortnlme.solve.ode import OdeOptions
from amortnlme.solve.row_schedule import row_events
from amortnlme.solve.scalar_walk import Batch
from amortnlme.solve.state_solution import StateSolution
from amortnlme.solve.threads import for_each_chunk
from amortnlme.solve.trace import Names
from amortnlme.solve.untraced_source import compile_rhs, module_source
from amortnlme.solve.untraced_step import scratch_rows

# Sensitivities: relative steps of psi, and how much tighter than asked the solutions behind them are. Shorter
# steps meet the noise of the solver's own steps, longer ones look across the kink at a start or a lag.
DIFFERENCE_STEP = 5e-4
TIGHTER = 1e-3
TIGHTEST = 1e-11
# What a parameter at zero is moved by, in units of itself.
SMALLEST_SCALE = 1e-3

# What the machine code of the driver is made of.
DRIVER_PARTS = ("untraced_step.py", "scalar_walk.py", "rodas5p.py", "schedule.py", "lane_jit.py")


def make_batch(
    rows: Rows, first: int, last: int, entry: Entry, options: OdeOptions
) -> tuple[Batch, np.ndarray]:
    """Gather what the simulations of some rows read.

    Parameters
    ----------
    rows : Rows
    first, last : int
        The rows first..last-1.
    entry : Entry
    options : OdeOptions

    Returns
    -------
    batch : Batch
        Of these rows, counted from 0.
    status : ndarray of int, shape (last - first,)
        A row whose status is not OK must not be solved.
    """
    design_index = np.array(rows.design_index[first:last], dtype=np.int64)
    psi = np.array(rows.psi[first:last], dtype=np.float64, order="C")
    values = entry.evaluate(psi, rows.schedule, design_index)
    events, list_index, status = row_events(rows.schedule, design_index, entry, values)
    batch = Batch(
        events=events,
        list_index=list_index,
        design_index=design_index,
        psi=psi,
        covariates=np.array(rows.schedule.segment_covariates, dtype=np.float64, order="C"),
        initial=np.array(values.initial, dtype=np.float64, order="C"),
        start=np.array(values.start, dtype=np.float64),
        output=np.array(rows.output, dtype=np.int64, order="C"),
        rtol=float(options.rtol),
        atol=float(options.atol),
        max_steps=int(options.max_steps),
    )
    return batch, status


def refuse_superposition(rows: Rows) -> None:
    """Refuse doses with SS=2, whose steady state is added to what is there.

    Parameters
    ----------
    rows : Rows

    Raises
    ------
    DesignError
        E_DESIGN_SS_SUPERPOSITION.
    """
    if (rows.schedule.events.ss[rows.design_index] == 2).any():
        raise DesignError(
            "E_DESIGN_SS_SUPERPOSITION",
            "a dose has SS=2: its steady state is added to what is there, which holds for linear systems "
            "only, and this engine takes none to be linear. Give SS=1, or the doses one by one.",
        )


@cache
def _driver() -> Callable[..., None]:
    """Compile the driver, once for all models; only who uses it pays for loading it."""
    return load_driver("untraced_driver.py", DRIVER_PARTS).solve_rows


@dataclass(frozen=True, slots=True, eq=False)
class UntracedEngine(AbstractEngine):
    """Rodas5P with numerical Jacobians on compiled, untraced code; observables are formulas.

    Attributes
    ----------
    entry : Entry
    observables : Observables
    options : OdeOptions
    source : str
        The module in which the right-hand side was compiled.
    """

    entry: Entry
    observables: Observables
    options: OdeOptions
    source: str
    _derivative: Any

    @classmethod
    def build(
        cls,
        rhs: Callable[..., Any],
        names: Names,
        entry: Entry,
        outputs: Sequence[sympy.Expr],
        options: OdeOptions,
    ) -> UntracedEngine:
        """Compile a right-hand side.

        Parameters
        ----------
        rhs : callable
            `rhs(t, y, p)` returning one derivative per state, which Numba can compile.
        names : Names
        entry : Entry
        outputs : sequence of sympy.Expr
        options : OdeOptions

        Returns
        -------
        UntracedEngine

        Raises
        ------
        ModelError
            E_MODEL_UNTRACED_SOURCE, E_MODEL_UNTRACED_GLOBAL, E_MODEL_UNTRACED_COMPILE.
        """
        observables = Observables.from_expressions(entry.symbols, outputs)
        return cls(entry, observables, options, module_source(rhs, names), compile_rhs(rhs, names))

    @property
    def has_sensitivities(self) -> bool:
        """No: they are differences of solutions."""
        return False

    def predict(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Predict; see `AbstractEngine.predict`."""
        refuse_superposition(rows)
        return self._predict(rows, self.options)

    def predict_with_sensitivity(self, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predict with df/dpsi by central differences; see `AbstractEngine.predict_with_sensitivity`.

        One Richardson step removes the truncation error of second order. The solutions behind the differences
        are tighter than those of `predict`, because a difference magnifies their errors. Next to a kink (an
        observation right after a start or an arrival that depends on parameters) differences stay wrong.
        """
        f, status = self.predict(rows)
        tight = replace(
            self.options,
            rtol=min(self.options.rtol, max(self.options.rtol * TIGHTER, TIGHTEST)),
            atol=self.options.atol * TIGHTER,
        )
        df_dpsi = np.zeros((*f.shape, rows.psi.shape[1]))
        for column in range(rows.psi.shape[1]):
            wide = self._slope(rows, column, DIFFERENCE_STEP, tight)
            narrow = self._slope(rows, column, 0.5 * DIFFERENCE_STEP, tight)
            df_dpsi[:, :, column] = (4.0 * narrow - wide) / 3.0
        return f, df_dpsi, status

    def _slope(self, rows: Rows, column: int, relative: float, options: OdeOptions) -> np.ndarray:
        up, down = rows.psi.copy(), rows.psi.copy()
        with np.errstate(all="ignore"):  # a failed row may hold anything; its status says so
            step = relative * np.maximum(np.abs(rows.psi[:, column]), SMALLEST_SCALE)
            up[:, column] += step
            down[:, column] -= step
            above, _ = self._predict(replace(rows, psi=up), options)
            below, _ = self._predict(replace(rows, psi=down), options)
            return (above - below) / (up - down)[:, column, None]

    def _predict(self, rows: Rows, options: OdeOptions) -> tuple[np.ndarray, np.ndarray]:
        N, n = rows.n_rows, len(self.entry.initial)
        x = np.full((N, rows.schedule.n_observations, n), np.nan)
        status = np.zeros(N, dtype=np.int64)
        n_inputs = rows.psi.shape[1] + rows.schedule.segment_covariates.shape[2]
        solve = _driver()

        def task(first: int, last: int) -> None:
            batch, status[first:last] = make_batch(rows, first, last, self.entry, options)
            p, w = np.zeros(n_inputs), np.zeros((scratch_rows(n), n))
            solve(self._derivative, batch, p, w, x[first:last], status[first:last])

        for_each_chunk(N, task)
        index = rows.design_index
        f = self.observables.evaluate(
            StateSolution(x, status), rows.psi, rows.time[index], rows.output[index], rows.covariates[index]
        )
        return f, status
