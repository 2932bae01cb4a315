"""Engine of ordinary differential equations: options and assembly of generated kernels and drivers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sympy

from amortnlme.core.errors import ModelError
from amortnlme.solve.engine import AbstractEngine, Rows
from amortnlme.solve.entry import Entry
from amortnlme.solve.trace import TracedSystem


@dataclass(frozen=True, slots=True)
class OdeOptions:
    """How an ODE is solved; see `amortnlme.model.dynamics.Ode`."""

    method: str = "rodas5p"
    rtol: float = 1e-8
    atol: float = 1e-10
    max_steps: int = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class OdeEngine(AbstractEngine):
    """Numerical solution of a traced system."""

    system: TracedSystem
    entry: Entry
    outputs: tuple[sympy.Expr, ...]
    options: OdeOptions

    @classmethod
    def build(
        cls, system: TracedSystem, entry: Entry, outputs: Sequence[sympy.Expr], options: OdeOptions
    ) -> OdeEngine:
        """Generate and load the kernels of a model.

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

    def predict(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Predict; see `AbstractEngine.predict`."""
        raise ModelError("E_MODEL_ENGINE", "under construction")

    def predict_with_sensitivity(self, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predict with df/dpsi; see `AbstractEngine.predict_with_sensitivity`."""
        raise ModelError("E_MODEL_ENGINE", "under construction")
