"""Observables of linear compartment systems: closed-form states, then the traced outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sympy

from amortnlme.solve.engine import AbstractEngine, Rows
from amortnlme.solve.linear import LinearSolver, LinearSystem
from amortnlme.solve.observables import Observables


@dataclass(frozen=True, slots=True, eq=False)
class ClosedFormEngine(AbstractEngine):
    """States from `LinearSolver`, observables from vectorized numpy functions."""

    solver: LinearSolver
    observables: Observables

    @classmethod
    def build(cls, system: LinearSystem, outputs: Sequence[sympy.Expr]) -> ClosedFormEngine:
        """Compile the outputs of a linear system.

        Parameters
        ----------
        system : LinearSystem
        outputs : sequence of sympy.Expr

        Returns
        -------
        ClosedFormEngine
        """
        return cls(LinearSolver(system), Observables.from_expressions(system.traced.symbols, outputs))

    @property
    def has_sensitivities(self) -> bool:
        """Whether sensitivities are exact."""
        return True

    def predict(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Predict; see `AbstractEngine.predict`."""
        solution = self.solver.solve(rows.psi, rows.schedule, rows.design_index, sensitivities=False)
        index = rows.design_index
        f = self.observables.evaluate(
            solution, rows.psi, rows.time[index], rows.output[index], rows.covariates[index]
        )
        return f, solution.status

    def predict_with_sensitivity(self, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predict with df/dpsi; see `AbstractEngine.predict_with_sensitivity`."""
        solution = self.solver.solve(rows.psi, rows.schedule, rows.design_index, sensitivities=True)
        index = rows.design_index
        arguments = (solution, rows.psi, rows.time[index], rows.output[index], rows.covariates[index])
        f = self.observables.evaluate(*arguments)
        with np.errstate(all="ignore"):  # a failed row may hold anything; its status says so
            df_dpsi = self.observables.sensitivities(*arguments)
        return f, df_dpsi, solution.status
