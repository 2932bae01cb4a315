"""Observables f(t, y, p) of traced models and their derivatives, as vectorized numpy functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from amortnlme.solve.state_solution import StateSolution
from amortnlme.solve.trace import Symbols, compile_numpy


@dataclass(frozen=True, slots=True, eq=False)
class Observables:
    """All outputs of one model.

    Attributes
    ----------
    symbols : Symbols
    expressions : tuple of sympy.Expr
        One per output.
    """

    symbols: Symbols
    expressions: tuple[sympy.Expr, ...]
    _values: Callable[..., Sequence[Any]]
    _slopes: Callable[..., Sequence[Any]]
    _slope_cells: tuple[tuple[int, int, int], ...]

    @classmethod
    def from_expressions(cls, symbols: Symbols, expressions: Sequence[sympy.Expr]) -> Observables:
        """Compile outputs and their non-zero derivatives.

        Parameters
        ----------
        symbols : Symbols
        expressions : sequence of sympy.Expr

        Returns
        -------
        Observables
        """
        # Cells are (output, 0 for a state or 1 for a parameter, its index).
        groups = (symbols.states, symbols.parameters)
        found = [
            ((o, group, i), slope)
            for o, expression in enumerate(expressions)
            for group, members in enumerate(groups)
            for i, symbol in enumerate(members)
            if (slope := sympy.diff(expression, symbol)) != 0
        ]
        return cls(
            symbols=symbols,
            expressions=tuple(expressions),
            _values=compile_numpy(symbols, expressions),
            _slopes=compile_numpy(symbols, [slope for _, slope in found]),
            _slope_cells=tuple(cell for cell, _ in found),
        )

    def evaluate(
        self,
        solution: StateSolution,
        psi: np.ndarray,
        time: np.ndarray,
        output: np.ndarray,
        covariates: np.ndarray,
    ) -> np.ndarray:
        """Predictions at the observations.

        Parameters
        ----------
        solution : StateSolution
        psi : ndarray, shape (N, d)
        time : ndarray, shape (N, m)   [time]
        output : ndarray of int, shape (N, m)
            0-based output of each observation.
        covariates : ndarray, shape (N, m, c)
            Values in force at each observation.

        Returns
        -------
        ndarray, shape (N, m)
        """
        with np.errstate(all="ignore"):
            values = self._values(*self._arguments(solution, psi, time, covariates))
        shape = solution.x.shape[:2]
        if len(values) == 1:
            return np.array(np.broadcast_to(values[0], shape), dtype=np.float64)
        f = np.full(shape, np.nan)
        for o, value in enumerate(values):
            np.copyto(f, value, where=output == o)
        return f

    def sensitivities(
        self,
        solution: StateSolution,
        psi: np.ndarray,
        time: np.ndarray,
        output: np.ndarray,
        covariates: np.ndarray,
    ) -> np.ndarray:
        """Differentiate the predictions with respect to psi: directly and through the states.

        Parameters
        ----------
        solution : StateSolution
            With `dx_dpsi`.
        psi, time, output, covariates : ndarray
            As `evaluate`.

        Returns
        -------
        ndarray, shape (N, m, d)
            df/dpsi_k = dg/dpsi_k + sum_i dg/dy_i dy_i/dpsi_k
        """
        assert solution.dx_dpsi is not None, "solve with sensitivities=True"
        with np.errstate(all="ignore"):
            slopes = self._slopes(*self._arguments(solution, psi, time, covariates))
        result = np.zeros((*solution.x.shape[:2], psi.shape[1]))
        single = len(self.expressions) == 1
        for (o, group, i), slope in zip(self._slope_cells, slopes, strict=True):
            here = slope if single else np.where(output == o, slope, 0.0)
            if group == 1:
                result[:, :, i] += here
                continue
            for q, column in enumerate(solution.sensitive):
                result[:, :, column] += here * solution.dx_dpsi[:, :, q, i]
        return result

    def _arguments(
        self, solution: StateSolution, psi: np.ndarray, time: np.ndarray, covariates: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        return (
            time,
            *(solution.x[:, :, i] for i in range(solution.x.shape[2])),
            *(psi[:, i : i + 1] for i in range(psi.shape[1])),
            *(covariates[:, :, i] for i in range(covariates.shape[2])),
        )
