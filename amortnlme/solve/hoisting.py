"""Parts of formulas that stay the same along a path, taken out to be computed once instead of every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from amortnlme.solve.trace import Symbols, compile_numpy


@dataclass(frozen=True, slots=True, eq=False)
class Hoisted:
    """Formulas without the parts that do not move.

    Attributes
    ----------
    expressions : tuple of sympy.Expr
        The formulas, in terms of the moving symbols and of `symbols`.
    symbols : tuple of sympy.Symbol
        One per constant: `c_CL` for the parameter CL, `c0`, `c1`, ... for what is computed from several.
    values : tuple of sympy.Expr
        What each constant stands for: parameters and covariates alone.
    """

    expressions: tuple[sympy.Expr, ...]
    symbols: tuple[sympy.Symbol, ...]
    values: tuple[sympy.Expr, ...]


def hoist(expressions: Sequence[sympy.Expr], moving: Set[sympy.Symbol]) -> Hoisted:
    """Replace every largest part that is free of the moving symbols by a constant.

    Parameters
    ----------
    expressions : sequence of sympy.Expr
    moving : set of sympy.Symbol
        States and time.

    Returns
    -------
    Hoisted
    """
    table: dict[sympy.Expr, sympy.Symbol] = {}

    def constant(part: sympy.Expr) -> sympy.Expr:
        if part.is_number:
            return part
        factor, rest = part.as_coeff_Mul()
        if factor != 1:
            return factor * constant(rest)  # so that p and -p are one constant
        if part not in table:
            # Symbols of parameters and covariates carry their letter and an underscore before the name.
            name = f"c_{str(part)[2:]}" if part.is_Symbol else f"c{len(table)}"
            table[part] = sympy.Symbol(name, real=True)
        return table[part]

    def visit(part: Any) -> Any:
        if isinstance(part, sympy.Expr) and not part.free_symbols & moving:
            return constant(part)
        if part.is_Atom:
            return part
        arguments = list(part.args)
        if part.is_Add or part.is_Mul:
            still = [a for a in arguments if not a.free_symbols & moving]
            if len(still) > 1:
                kept = [a for a in arguments if a.free_symbols & moving]
                return part.func(constant(part.func(*still)), *(visit(a) for a in kept))
        return part.func(*(visit(a) for a in arguments))

    reduced = tuple(visit(sympy.sympify(e)) for e in expressions)
    return Hoisted(reduced, tuple(table.values()), tuple(table))


@dataclass(frozen=True, slots=True, eq=False)
class RowConstants:
    """Evaluates constants for many rows."""

    n_constants: int
    n_states: int
    _values: Callable[..., Sequence[Any]]

    @classmethod
    def from_hoisted(cls, symbols: Symbols, hoisted: Hoisted) -> RowConstants:
        """Compile the values.

        Parameters
        ----------
        symbols : Symbols
        hoisted : Hoisted

        Returns
        -------
        RowConstants
        """
        return cls(len(hoisted.values), len(symbols.states), compile_numpy(symbols, hoisted.values))

    def evaluate(self, psi: np.ndarray, covariates: np.ndarray) -> np.ndarray:
        """Evaluate every constant of every row and covariate segment.

        Parameters
        ----------
        psi : ndarray, shape (R, d)
            Structural parameters on the natural scale.
        covariates : ndarray, shape (R, n_segments, c)

        Returns
        -------
        ndarray, shape (R, n_segments, n_constants)
            Not finite where a formula is not; nothing is raised.
        """
        columns = (psi[:, i : i + 1] for i in range(psi.shape[1]))
        values = (covariates[:, :, i] for i in range(covariates.shape[2]))
        table = np.empty((*covariates.shape[:2], self.n_constants))
        with np.errstate(all="ignore"):
            # Free of time and states, whose arguments are never used.
            for i, value in enumerate(self._values(0.0, *(0.0,) * self.n_states, *columns, *values)):
                table[:, :, i] = value
        return table
