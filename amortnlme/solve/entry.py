"""How a system starts and how doses enter it: initial states, start time, lag times, bioavailability."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from amortnlme.core.errors import ModelError
from amortnlme.solve.schedule import Schedule
from amortnlme.solve.trace import (
    Names,
    ParameterFunction,
    Symbols,
    compile_numpy,
    trace_constants,
)


@dataclass(frozen=True, slots=True, eq=False)
class EntryFunctions:
    """What a model file declares; every function takes p (parameters and covariates) and returns expressions.

    Attributes
    ----------
    initial : callable or None
        `initial(p)` -> one value per state; None: every state starts at zero.
    start : callable or None
        `start(p)` -> the time at which the states begin to move; until then they stay as they are (boluses
        given earlier are added and wait, infusions act from there on). None: they move from the first record
        on.
    lag : mapping of str to callable
        Per state, `fn(p)` -> delay of the doses given to it [time].
    bioavailability : mapping of str to callable
        Per state, `fn(p)` -> fraction by which the doses given to it are multiplied. For an infusion it
        scales the rate; the duration stays as recorded.
    """

    initial: ParameterFunction | None = None
    start: ParameterFunction | None = None
    lag: Mapping[str, ParameterFunction] | None = None
    bioavailability: Mapping[str, ParameterFunction] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class EntryValues:
    """The entry of many rows as numbers.

    R = N x n_segments rows of (row, covariate segment), row-major; p columns follow `Entry.sensitive` of the
    engine that asked.

    Attributes
    ----------
    start : ndarray, shape (N,)   [time]
        -inf where the model has no start function.
    initial : ndarray, shape (N, n)
    lag : ndarray, shape (N, n_segments, n)   [time]
    bioavailability : ndarray, shape (N, n_segments, n)
    d_start : ndarray, shape (N, p), or None
    d_initial : ndarray, shape (N, p, n), or None
    d_lag, d_bioavailability : ndarray, shape (N, n_segments, p, n), or None
        Derivatives with respect to psi.
    """

    start: np.ndarray
    initial: np.ndarray
    lag: np.ndarray
    bioavailability: np.ndarray
    d_start: np.ndarray | None = None
    d_initial: np.ndarray | None = None
    d_lag: np.ndarray | None = None
    d_bioavailability: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The traced and compiled entry of a model.

    Attributes
    ----------
    symbols : Symbols
    initial : tuple of sympy.Expr, length n
    start : sympy.Expr or None
    lag, bioavailability : tuple of sympy.Expr, length n
        Zeros and ones where nothing was declared.
    """

    symbols: Symbols
    initial: tuple[sympy.Expr, ...]
    start: sympy.Expr | None
    lag: tuple[sympy.Expr, ...]
    bioavailability: tuple[sympy.Expr, ...]
    _values: Callable[..., Sequence[Any]]
    _slopes: Callable[..., Sequence[Any]]
    _slope_cells: tuple[tuple[int, int], ...]

    @property
    def moves_doses(self) -> bool:
        """Whether a dose arrives at another time or in another amount than recorded."""
        return any(e != 0 for e in self.lag) or any(e != 1 for e in self.bioavailability)

    @property
    def has_lag(self) -> bool:
        """Whether some dose arrives later than recorded."""
        return any(e != 0 for e in self.lag)

    @property
    def is_plain(self) -> bool:
        """Whether all states start at zero with the first record and doses enter as recorded."""
        return self.start is None and not self.moves_doses and all(e == 0 for e in self.initial)

    @property
    def expressions(self) -> tuple[sympy.Expr, ...]:
        """Initial states, lags, bioavailabilities and start, in this order."""
        start = () if self.start is None else (self.start,)
        return (*self.initial, *self.lag, *self.bioavailability, *start)

    @property
    def moving(self) -> tuple[int, ...]:
        """Structural parameters (columns of psi) that occur here."""
        found = set().union(*(e.free_symbols for e in self.expressions))
        return tuple(i for i, symbol in enumerate(self.symbols.parameters) if symbol in found)

    @classmethod
    def from_functions(cls, functions: EntryFunctions, names: Names, symbols: Symbols) -> Entry:
        """Trace the declared functions.

        Parameters
        ----------
        functions : EntryFunctions
        names : Names
        symbols : Symbols

        Returns
        -------
        Entry

        Raises
        ------
        ModelError
            E_MODEL_ENTRY when a function returns the wrong number of values or a state is unknown, and
            those of `amortnlme.solve.trace.trace`.
        """
        n = len(names.states)
        initial: tuple[sympy.Expr, ...] = (sympy.S.Zero,) * n
        if functions.initial is not None:
            initial = _exactly(n, functions.initial, names, symbols, "initial")
        start = None
        if functions.start is not None:
            (start,) = _exactly(1, functions.start, names, symbols, "start")
        entry = (
            initial,
            start,
            _per_state(functions.lag or {}, sympy.S.Zero, names, symbols, "lag"),
            _per_state(functions.bioavailability or {}, sympy.S.One, names, symbols, "bioavailability"),
        )
        flat = (*initial, *entry[2], *entry[3], *(() if start is None else (start,)))
        slopes = [
            ((i, j), slope)
            for i, expression in enumerate(flat)
            for j, parameter in enumerate(symbols.parameters)
            if (slope := sympy.diff(expression, parameter)) != 0
        ]
        return cls(
            symbols,
            *entry,
            _values=compile_numpy(symbols, flat),
            _slopes=compile_numpy(symbols, [slope for _, slope in slopes]),
            _slope_cells=tuple(cell for cell, _ in slopes),
        )

    def evaluate(
        self,
        psi: np.ndarray,
        schedule: Schedule,
        design_index: np.ndarray,
        *,
        sensitive: tuple[int, ...] = (),
    ) -> EntryValues:
        """Evaluate the entry of every row.

        Initial states and start time use the covariates of the first segment; lags and bioavailabilities
        those in force at the dose.

        Parameters
        ----------
        psi : ndarray, shape (N, d)
            Structural parameters on the natural scale.
        schedule : Schedule
        design_index : ndarray of int, shape (N,)
        sensitive : tuple of int, length p
            Columns of psi to differentiate by; empty: no derivatives.

        Returns
        -------
        EntryValues
        """
        N, n, segments = psi.shape[0], len(self.initial), schedule.n_segments
        # (segments, N) so that a parameter broadcasts along the first axis
        covariates = np.moveaxis(schedule.segment_covariates[design_index], 0, 1)
        arguments = (0.0, *(0.0,) * n, *psi.T, *np.moveaxis(covariates, 2, 0))
        shape = (segments, N)
        with np.errstate(all="ignore"):
            values = [np.broadcast_to(v, shape) for v in self._values(*arguments)]
            slopes = self._slopes(*arguments) if sensitive else ()

        def gather(first: int) -> np.ndarray:
            return np.ascontiguousarray(np.moveaxis(np.array(values[first : first + n]), 0, 2).swapaxes(0, 1))

        start = np.full(N, -np.inf) if self.start is None else np.array(values[3 * n][0], dtype=np.float64)
        initial = np.ascontiguousarray(gather(0)[:, 0], dtype=np.float64)
        plain = (start, initial, gather(n).astype(np.float64), gather(2 * n).astype(np.float64))
        if not sensitive:
            return EntryValues(*plain)
        column = {j: q for q, j in enumerate(sensitive)}
        table = np.zeros((N, segments, len(sensitive), 3 * n + 1))
        for (i, j), slope in zip(self._slope_cells, slopes, strict=True):
            if j in column:
                table[:, :, column[j], i] = np.broadcast_to(slope, shape).T
        parts = (table[:, 0, :, 3 * n], table[:, 0, :, :n], table[..., n : 2 * n], table[..., 2 * n : 3 * n])
        return EntryValues(*plain, *(np.ascontiguousarray(part) for part in parts))


def _exactly(
    n: int, function: ParameterFunction, names: Names, symbols: Symbols, what: str
) -> tuple[sympy.Expr, ...]:
    if not callable(function):
        raise ModelError(
            "E_MODEL_ENTRY",
            f"`{what}` is {function!r}, not a function. Write `def fn(p): return ...` and pass fn, also "
            "for a constant.",
        )
    values = trace_constants(function, names, symbols, f"`{what}`")
    if len(values) != n:
        raise ModelError(
            "E_MODEL_ENTRY",
            f"`{what}` returns {len(values)} value(s); it must return {n}"
            + (f", one per state ({', '.join(names.states)})." if what == "initial" else "."),
        )
    return values


def _per_state(
    functions: Mapping[str, ParameterFunction],
    default: sympy.Expr,
    names: Names,
    symbols: Symbols,
    what: str,
) -> tuple[sympy.Expr, ...]:
    if not isinstance(functions, Mapping):
        raise ModelError(
            "E_MODEL_ENTRY",
            f"`{what}` is {functions!r}. Give a function of p for each state it concerns: "
            f"{what}={{{names.states[0]!r}: fn}} with `def fn(p): return p.<parameter>`.",
        )
    unknown = sorted(set(functions) - set(names.states))
    if unknown:
        raise ModelError(
            "E_MODEL_ENTRY",
            f"`{what}` names {unknown[0]!r}, which is not a state. States: {', '.join(names.states)}.",
        )
    return tuple(
        _exactly(1, functions[state], names, symbols, f"{what} of {state}")[0]
        if state in functions
        else default
        for state in names.states
    )
