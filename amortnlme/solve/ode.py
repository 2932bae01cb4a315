"""Engine of ordinary differential equations: generated kernels, the lanes' driver, and what they need."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType

import numpy as np
import sympy

from amortnlme.core.errors import DesignError
from amortnlme.solve.engine import AbstractEngine, Rows
from amortnlme.solve.entry import Entry, EntryValues
from amortnlme.solve.kernel_module import load_driver, load_kernels
from amortnlme.solve.lane_tables import StopTables, padded_times, stop_tables
from amortnlme.solve.lanes import lane_memory
from amortnlme.solve.ode_kernels import OdeFormulas
from amortnlme.solve.ode_tangent import LazyTangent
from amortnlme.solve.row_schedule import row_events
from amortnlme.solve.threads import for_each_chunk
from amortnlme.solve.trace import TracedSystem

# Rows that share lanes: many enough that lanes are rarely idle, few enough to spread over threads.
CHUNK_ROWS = 1024
DRIVER_PARTS = (
    "lane_events.py",
    "lane_steady.py",
    "lane_tables.py",
    "lane_jit.py",
    "lanes.py",
    "ode_signatures.py",
    "schedule.py",
)


@dataclass(frozen=True, slots=True)
class OdeOptions:
    """How an ODE is solved; see `amortnlme.model.dynamics.Ode`."""

    method: str = "rodas5p"
    rtol: float = 1e-8
    atol: float = 1e-10
    max_steps: int = 100_000


@cache
def lane_driver() -> ModuleType:
    """Compile or load the driver of the lanes.

    Returns
    -------
    module
    """
    return load_driver("lane_driver.py", DRIVER_PARTS)


class LazyKernels:
    """The generated module of a model, compiled or loaded when it is first needed.

    Parameters
    ----------
    formulas : OdeFormulas
    method : str
    """

    def __init__(self, formulas: OdeFormulas, method: str) -> None:
        self.formulas = formulas
        self.method = method
        self._lock = threading.Lock()
        self._module: ModuleType | None = None

    @property
    def source(self) -> str:
        """Text of the module."""
        return self.formulas.source(self.method)

    def module(self) -> ModuleType:
        """Return the module.

        Returns
        -------
        module
        """
        with self._lock:
            if self._module is None:
                states = "_".join(self.formulas.model.states)
                self._module = load_kernels(f"{self.method}_{states}", self.source)
            return self._module


@dataclass(frozen=True, slots=True, eq=False)
class OdeEngine(AbstractEngine):
    """Numerical solution of a traced system, eight simulations at a time in SIMD lanes.

    Attributes
    ----------
    system : TracedSystem
    entry : Entry
    outputs : tuple of sympy.Expr
    options : OdeOptions
    chunk_rows : int
        Rows a thread takes at a time; results do not depend on it.
    """

    system: TracedSystem
    entry: Entry
    outputs: tuple[sympy.Expr, ...]
    options: OdeOptions
    chunk_rows: int = CHUNK_ROWS
    _kernels: LazyKernels = field(init=False, repr=False)
    _tangent: LazyTangent = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kernels = LazyKernels(OdeFormulas.of(self.system, self.outputs), self.options.method)
        object.__setattr__(self, "_kernels", kernels)
        object.__setattr__(self, "_tangent", LazyTangent(self.system, self.entry, self.outputs))

    @classmethod
    def build(
        cls, system: TracedSystem, entry: Entry, outputs: Sequence[sympy.Expr], options: OdeOptions
    ) -> OdeEngine:
        """Prepare the kernels of a model; they are compiled when they are first needed.

        Parameters
        ----------
        system : TracedSystem
        entry : Entry
        outputs : sequence of sympy.Expr
        options : OdeOptions

        Returns
        -------
        OdeEngine
        """
        return cls(system, entry, tuple(outputs), options)

    @property
    def has_sensitivities(self) -> bool:
        """Whether sensitivities are exact."""
        return True

    @property
    def source(self) -> str:
        """The generated module, as text for people.

        Raises
        ------
        ModelError
            E_MODEL_SOLVER, E_MODEL_FUNCTION.
        """
        return self._kernels.source

    def predict(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Predict; see `AbstractEngine.predict`.

        Raises
        ------
        DesignError
            E_DESIGN_SS_SUPERPOSITION when a dose with SS=2 meets a system that is not linear.
        """
        refuse_superposition(self.system, rows)
        task = _LaneTask(self, rows)
        for_each_chunk(rows.n_rows, task.run, self.chunk_rows)
        return task.f, task.status

    def predict_with_sensitivity(self, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predict with df/dpsi; see `AbstractEngine.predict_with_sensitivity`.

        Raises
        ------
        DesignError
            E_DESIGN_SS_SUPERPOSITION, as `predict`.
        """
        refuse_superposition(self.system, rows)
        options = self.options
        return self._tangent.get().predict(rows, options.rtol, options.atol, options.max_steps)


def refuse_superposition(system: TracedSystem, rows: Rows) -> None:
    """Refuse doses that add a steady state to the present one where states do not add up.

    Parameters
    ----------
    system : TracedSystem
    rows : Rows

    Raises
    ------
    DesignError
        E_DESIGN_SS_SUPERPOSITION.
    """
    adds = rows.schedule.events.ss == 2
    linear = system.is_linear_constant and all(b == 0 for b in system.inputs)
    if linear or not adds.any():
        return
    g, k = (int(i) for i in np.argwhere(adds)[0])
    raise DesignError(
        "E_DESIGN_SS_SUPERPOSITION",
        f"the dose at t = {rows.schedule.events.time[g, k]:g} of design {g + 1} has SS=2, which adds a "
        "steady state to what is there. That holds for linear systems without production only. Use "
        "SS=1, or write the earlier doses out.",
    )


def _contiguous(values: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """Arrays of the one type the driver is compiled for; read-only ones are another type."""
    array = np.ascontiguousarray(values, dtype=dtype)
    return array if array.flags.writeable else array.copy()


class _LaneTask:
    """One call of `OdeEngine.predict`: everything the driver needs, for chunks of rows."""

    def __init__(self, engine: OdeEngine, rows: Rows) -> None:
        self.engine, self.rows, self.run_lanes = engine, rows, lane_driver().run_lanes
        kernels = engine._kernels
        self.module = kernels.module()
        model, options = kernels.formulas.model, engine.options
        self.sizes = model.layout.sizes(len(engine.system.symbols.parameters), model.observed)
        self.options = np.array([options.rtol, options.atol, float(options.max_steps)])
        schedule = rows.schedule
        self.psi = _contiguous(rows.psi)
        self.design_index = _contiguous(rows.design_index, np.int64)
        self.values = engine.entry.evaluate(self.psi, schedule, self.design_index)
        self.f = np.empty((rows.n_rows, rows.time.shape[1]))
        self.status = np.zeros(rows.n_rows, dtype=np.int64)
        self.covariates = _contiguous(schedule.segment_covariates)
        self.output = _contiguous(rows.output, np.int64)
        self.at_observations = _contiguous(rows.covariates)
        own = stop_tables(schedule.events)
        self.times = padded_times(rows.time, own.lists[:, 1])
        self.shared = None if engine.entry.moves_doses else own

    def run(self, first: int, last: int) -> None:
        """Simulate the rows first ... last - 1."""
        chunk = slice(first, last)
        index, entry = self.design_index[chunk], self.engine.entry
        values = _rows_of(self.values, chunk)
        events, list_index, status = row_events(self.rows.schedule, index, entry, values)
        tables: StopTables = stop_tables(events) if self.shared is None else self.shared
        statuses = self.status[chunk]
        statuses[:] = status
        self.run_lanes(
            0,
            last - first,
            self.module.step,
            self.module.derivative,
            self.module.outputs,
            self.sizes,
            self.options,
            self.psi[chunk],
            values.initial,
            values.start,
            list_index,
            index,
            *tables,
            *lane_memory(self.sizes, self.times.shape[1]),
            self.covariates,
            self.times,
            self.output,
            self.at_observations,
            self.f[chunk],
            statuses,
        )


def _rows_of(values: EntryValues, chunk: slice) -> EntryValues:
    plain = (values.start, values.initial, values.lag, values.bioavailability)
    return EntryValues(*(_contiguous(array[chunk]) for array in plain))
