"""Linear compartment systems dx/dt = K(psi, covariates) x + b(psi, covariates) + doses, in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from amortnlme.core.errors import ModelError
from amortnlme.core.status import SolveStatus
from amortnlme.solve.eigenbasis import eigenbases
from amortnlme.solve.entry import Entry
from amortnlme.solve.linear_arrays import Entries, Rates, make_entries
from amortnlme.solve.linear_kernel import propagate
from amortnlme.solve.row_schedule import row_events
from amortnlme.solve.schedule import Events, Schedule
from amortnlme.solve.state_solution import StateSolution
from amortnlme.solve.threads import for_each_chunk
from amortnlme.solve.trace import TracedSystem, compile_numpy


@dataclass(frozen=True, slots=True, eq=False)
class LinearSystem:
    """Rate matrix and constant inputs of a traced linear system as vectorized numpy functions.

    Attributes
    ----------
    order : tuple of int
        Declared index of each internal state. Internally a state comes after the states that feed it, but
        for those it feeds itself: K is lower triangular in blocks.
    blocks : tuple of int
        Sizes of the groups of states that feed each other, in internal order; ones without loops.
    has_inputs : bool
        Whether something is produced without states.
    sensitive : tuple of int
        Columns of psi that occur in K, in the inputs or in the entry.
    """

    traced: TracedSystem
    entry: Entry
    order: tuple[int, ...]
    blocks: tuple[int, ...]
    has_inputs: bool
    sensitive: tuple[int, ...]
    _cells: tuple[tuple[int, ...], ...]
    _slope_cells: tuple[tuple[int, ...], ...]
    _values: Callable[..., Sequence[Any]]
    _slopes: Callable[..., Sequence[Any]]

    @classmethod
    def from_trace(cls, traced: TracedSystem, entry: Entry) -> LinearSystem:
        """Derive rate matrix, inputs and derivatives.

        Parameters
        ----------
        traced : TracedSystem
        entry : Entry

        Returns
        -------
        LinearSystem

        Raises
        ------
        ModelError
            E_MODEL_NOT_LINEAR when dy/dt is not K y + b with K and b free of states and time.
        """
        _require_linear(traced)
        K = traced.jacobian
        n = len(K)
        order, blocks = _feeding_order([[K[i][j] != 0 for j in range(n)] for i in range(n)])
        internal = {declared: i for i, declared in enumerate(order)}
        # Cells of K have two indices, those of b one.
        values = [((internal[i], internal[j]), K[i][j]) for i in range(n) for j in range(n) if K[i][j] != 0]
        inputs = [((internal[i],), b) for i, b in enumerate(traced.inputs) if b != 0]
        parameters = traced.symbols.parameters
        used = set().union(*(e.free_symbols for _, e in (*values, *inputs)))
        moving = {i for i, symbol in enumerate(parameters) if symbol in used} | set(entry.moving)
        sensitive = tuple(sorted(moving))
        slopes = [
            ((q, *cell), slope)
            for cells in (values, inputs)
            for q, column in enumerate(sensitive)
            for cell, value in cells
            if (slope := sympy.diff(value, parameters[column])) != 0
        ]
        return cls(
            traced=traced,
            entry=entry,
            order=order,
            blocks=blocks,
            has_inputs=bool(inputs),
            sensitive=sensitive,
            _cells=tuple(cell for cell, _ in (*values, *inputs)),
            _slope_cells=tuple(cell for cell, _ in slopes),
            _values=compile_numpy(traced.symbols, [value for _, value in (*values, *inputs)]),
            _slopes=compile_numpy(traced.symbols, [slope for _, slope in slopes]),
        )

    def rates(
        self, psi: np.ndarray, covariates: np.ndarray, *, derivatives: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Evaluate K, b and their derivatives for many rows, in internal state order.

        Parameters
        ----------
        psi : ndarray, shape (R, d)
            Structural parameters on the natural scale.
        covariates : ndarray, shape (R, c)
        derivatives : bool

        Returns
        -------
        K : ndarray, shape (R, n, n)   [1/time]
        dK : ndarray, shape (R, p, n, n)
            p = len(sensitive), or 0 without derivatives.
        inputs : ndarray, shape (R, p + 1, n)   [amount/time]
            b and its derivatives; shape (0, p + 1, n) for a system without inputs.
        """
        R, n = psi.shape[0], len(self.order)
        p = len(self.sensitive) if derivatives else 0
        K = np.zeros((R, n, n))
        dK = np.zeros((R, p, n, n))
        inputs = np.zeros((R if self.has_inputs else 0, p + 1, n))
        # K and b are free of states and time, so their arguments are never used.
        arguments = (0.0, *(0.0,) * n, *psi.T, *covariates.T)
        with np.errstate(all="ignore"):
            for cell, value in zip(self._cells, self._values(*arguments), strict=True):
                (K if len(cell) == 2 else inputs[:, 0])[:, *cell] = value
            # A function of its own: shared subexpressions would change the rounding of K.
            slopes = self._slopes(*arguments) if derivatives else ()
        for (q, *cell), slope in zip(self._slope_cells if derivatives else (), slopes, strict=True):
            (dK[:, q] if len(cell) == 2 else inputs[:, q + 1])[:, *cell] = slope
        return K, dK, inputs


@dataclass(frozen=True, slots=True, eq=False)
class LinearSolver:
    """Closed-form solver: eigenbasis per row, matrix exponential where that cannot be trusted."""

    system: LinearSystem

    def solve(
        self,
        psi: np.ndarray,
        schedule: Schedule,
        design_index: np.ndarray,
        *,
        sensitivities: bool,
    ) -> StateSolution:
        """Solve every row.

        Parameters
        ----------
        psi : ndarray, shape (N, d)
            Structural parameters on the natural scale.
        schedule : Schedule
            Events of the designs.
        design_index : ndarray of int, shape (N,)
            Design of each row.
        sensitivities : bool
            Whether to compute `dx_dpsi`.

        Returns
        -------
        StateSolution
            A row that cannot be solved has a non-zero status; nothing is raised.
        """
        system = self.system
        N, n = psi.shape[0], len(system.order)
        sensitive = system.sensitive if sensitivities else ()
        design_index = np.array(design_index, dtype=np.int64)
        x = np.full((N, schedule.n_observations, n), np.nan)
        s = np.zeros((N, schedule.n_observations, len(sensitive), n))
        status = np.zeros(N, dtype=np.int64)

        # By chunks, so that matrices and event lists of a chunk stay in the cache and memory is bounded.
        def task(first: int, last: int) -> None:
            here = slice(first, last)
            self._solve_chunk(
                psi[here], schedule, design_index[here], sensitive, x[here], s[here], status[here]
            )

        for_each_chunk(N, task)
        return StateSolution(x, status, s if sensitivities else None, sensitive)

    def _solve_chunk(
        self,
        psi: np.ndarray,
        schedule: Schedule,
        design_index: np.ndarray,
        sensitive: tuple[int, ...],
        x: np.ndarray,
        s: np.ndarray,
        status: np.ndarray,
    ) -> None:
        system, segments = self.system, schedule.n_segments
        R = psi.shape[0] * segments
        events, list_index, entries, found = self._enter(psi, schedule, design_index, sensitive)
        covariates = schedule.segment_covariates[design_index].reshape(R, -1)
        K, dK, inputs = system.rates(
            psi if segments == 1 else np.repeat(psi, segments, axis=0),
            covariates,
            derivatives=bool(sensitive),
        )
        rates = Rates(K, dK, inputs, *eigenbases(K, system.blocks, sensitivities=bool(sensitive)))
        status[:] = found
        s[found != SolveStatus.OK] = np.nan
        order = np.array(system.order, dtype=np.int64)
        propagate(list_index, segments, events, rates, entries, order, x, s, status)

    def _enter(
        self, psi: np.ndarray, schedule: Schedule, design_index: np.ndarray, sensitive: tuple[int, ...]
    ) -> tuple[Events, np.ndarray, Entries, np.ndarray]:
        """Event lists, their index, entries and status of some rows."""
        entry = self.system.entry
        order = np.array(self.system.order, dtype=np.int64)
        N, p = psi.shape[0], len(sensitive)
        if entry.is_plain:
            entries = make_entries(None, order, N, p)
            return schedule.events, design_index, entries, np.zeros(N, dtype=np.int64)
        values = entry.evaluate(psi, schedule, design_index, sensitive=sensitive)
        events, list_index, status = row_events(schedule, design_index, entry, values)
        entries = make_entries(values, order, N, p, moves_doses=entry.moves_doses)
        return events, list_index, entries, status


def _require_linear(traced: TracedSystem) -> None:
    if traced.is_linear_constant:
        return
    moving = {traced.symbols.time, *traced.symbols.states}
    for name, f, row in zip(traced.names.states, traced.derivatives, traced.jacobian, strict=True):
        culprits = sorted(
            str(s)[2:] if s != traced.symbols.time else "t" for e in row for s in e.free_symbols & moving
        )
        if culprits:
            raise ModelError(
                "E_MODEL_NOT_LINEAR",
                f"d{name}/dt = {f} is not linear with constant rates: its rates depend on {culprits[0]!r}. "
                "LinearCompartments needs dy/dt = K y + b with K and b free of states and time; give it as "
                "Ode(...).",
            )
    name, f = next(
        (name, f)
        for name, f, b in zip(traced.names.states, traced.derivatives, traced.inputs, strict=True)
        if traced.symbols.time in b.free_symbols
    )
    raise ModelError(
        "E_MODEL_NOT_LINEAR",
        f"d{name}/dt = {f} has an input that depends on time. LinearCompartments needs dy/dt = K y + b with "
        "K and b free of states and time; give it as Ode(...), or the input as doses or infusions.",
    )


def _feeding_order(coupled: list[list[bool]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Order the states so that each follows those that feed it; states that feed each other form a block.

    Returns the order and the sizes of the blocks.
    """
    n = len(coupled)
    fed = [[coupled[i][j] or i == j for j in range(n)] for i in range(n)]  # i by j, by whatever way
    for k in range(n):
        fed = [[fed[i][j] or (fed[i][k] and fed[k][j]) for j in range(n)] for i in range(n)]
    order: list[int] = []
    blocks: list[int] = []
    while len(order) < n:
        first = next(
            i
            for i in range(n)
            if i not in order and all(j in order or fed[j][i] for j in range(n) if fed[i][j])
        )
        block = [j for j in range(n) if fed[first][j] and fed[j][first]]
        order += block
        blocks.append(len(block))
    return tuple(order), tuple(blocks)
