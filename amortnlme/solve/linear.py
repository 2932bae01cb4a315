"""Linear compartment systems dx/dt = K(psi, covariates) x + input, solved in closed form between events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from amortnlme.core.errors import ModelError
from amortnlme.solve.eigenbasis import eigenbases
from amortnlme.solve.entry import Entry
from amortnlme.solve.linear_kernel import Rates, make_work, propagate
from amortnlme.solve.schedule import Schedule
from amortnlme.solve.solver import AbstractSolver, StateSolution
from amortnlme.solve.threads import for_each_chunk
from amortnlme.solve.trace import TracedSystem, compile_numpy


@dataclass(frozen=True, slots=True, eq=False)
class LinearSystem:
    """The rate matrix of a traced linear system as vectorized numpy functions.

    Attributes
    ----------
    order : tuple of int
        Declared index of each internal state. Internally a state comes after the states that feed it, which
        makes K lower triangular whenever the compartments form no loop.
    is_triangular : bool
    sensitive : tuple of int
        Columns of psi that occur in K.
    """

    traced: TracedSystem
    entry: Entry
    order: tuple[int, ...]
    is_triangular: bool
    sensitive: tuple[int, ...]
    _entries: tuple[tuple[int, int], ...]
    _derivative_entries: tuple[tuple[int, int, int], ...]
    _values: Callable[..., Sequence[Any]]
    _derivatives: Callable[..., Sequence[Any]]

    @classmethod
    def from_trace(cls, traced: TracedSystem, entry: Entry) -> LinearSystem:
        """Derive rate matrix and derivatives.

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
            E_MODEL_NOT_LINEAR when dy/dt is not K y with K free of states and time.
        """
        _require_linear(traced)
        K = traced.jacobian
        n = len(K)
        order, is_triangular = _feeding_order([[K[i][j] != 0 for j in range(n)] for i in range(n)])
        internal = {declared: i for i, declared in enumerate(order)}
        cells = [(i, j) for i in range(n) for j in range(n) if K[i][j] != 0]
        used = set().union(*(K[i][j].free_symbols for i, j in cells)) if cells else set()
        parameters = traced.symbols.parameters
        sensitive = tuple(i for i, symbol in enumerate(parameters) if symbol in used)
        slopes = [
            (q, i, j, slope)
            for q, column in enumerate(sensitive)
            for i, j in cells
            if (slope := sympy.diff(K[i][j], parameters[column])) != 0
        ]
        values = [K[i][j] for i, j in cells]
        return cls(
            traced=traced,
            entry=entry,
            order=order,
            is_triangular=is_triangular,
            sensitive=sensitive,
            _entries=tuple((internal[i], internal[j]) for i, j in cells),
            _derivative_entries=tuple((q, internal[i], internal[j]) for q, i, j, _ in slopes),
            _values=compile_numpy(traced.symbols, values),
            _derivatives=compile_numpy(traced.symbols, [slope for *_, slope in slopes]),
        )

    def rates(
        self, psi: np.ndarray, covariates: np.ndarray, *, derivatives: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate K and dK/dpsi for many rows, in internal state order.

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
        """
        R, n = psi.shape[0], len(self.order)
        K = np.zeros((R, n, n))
        dK = np.zeros((R, len(self.sensitive) if derivatives else 0, n, n))
        # K is free of states and time, so their arguments are never used.
        arguments = (0.0, *(0.0,) * n, *psi.T, *covariates.T)
        with np.errstate(all="ignore"):
            for (i, j), value in zip(self._entries, self._values(*arguments), strict=True):
                K[:, i, j] = value
            # A function of its own: shared subexpressions would change the rounding of K.
            slopes = self._derivatives(*arguments) if derivatives else ()
        for (q, i, j), value in zip(self._derivative_entries if derivatives else (), slopes, strict=True):
            dK[:, q, i, j] = value
        return K, dK


@dataclass(frozen=True, slots=True, eq=False)
class LinearSolver(AbstractSolver):
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
        """Solve every row; see `AbstractSolver.solve`."""
        system = self.system
        N, n, segments = psi.shape[0], len(system.order), schedule.n_segments
        design_index = np.array(design_index, dtype=np.int64)
        covariates = schedule.segment_covariates[design_index].reshape(N * segments, -1)
        K, dK = system.rates(np.repeat(psi, segments, axis=0), covariates, derivatives=sensitivities)
        rates = Rates(K, dK, *eigenbases(K, system.is_triangular))
        p = dK.shape[1]
        order = np.array(system.order, dtype=np.int64)
        position = np.argsort(order)
        x = np.full((N, schedule.n_observations, n), np.nan)
        s = np.zeros((N, schedule.n_observations, p, n))
        status = np.zeros(N, dtype=np.int64)

        def task(first: int, last: int) -> None:
            propagate(
                first,
                last,
                design_index,
                segments,
                schedule.events,
                rates,
                order,
                position,
                make_work(n, p),
                x,
                s,
                status,
            )

        for_each_chunk(N, task)
        return StateSolution(
            x, status, s if sensitivities else None, system.sensitive if sensitivities else ()
        )


def _require_linear(traced: TracedSystem) -> None:
    if traced.is_linear_constant and all(b == 0 for b in traced.inputs):
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
                "LinearCompartments needs dy/dt = K y with K free of states and time.",
            )
        if sympy.simplify(f.subs({s: 0 for s in traced.symbols.states})) != 0:
            raise ModelError(
                "E_MODEL_NOT_LINEAR",
                f"d{name}/dt = {f} has a part that does not vanish with the states (a constant or "
                "time-dependent input). LinearCompartments needs dy/dt = K y; give inputs as doses or "
                "infusions.",
            )


def _feeding_order(coupled: list[list[bool]]) -> tuple[tuple[int, ...], bool]:
    """Order the states so that each follows those that feed it; (declared order, False) if they loop."""
    n = len(coupled)
    order: list[int] = []
    while len(order) < n:
        ready = [
            i
            for i in range(n)
            if i not in order and all(j in order or j == i or not coupled[i][j] for j in range(n))
        ]
        if not ready:
            return tuple(range(n)), False
        order.append(ready[0])
    return tuple(order), True
