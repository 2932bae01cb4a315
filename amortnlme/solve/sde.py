"""Engine of stochastic differential equations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sympy

from amortnlme.core.errors import ModelError
from amortnlme.solve.engine import AbstractStochasticEngine, Rows
from amortnlme.solve.entry import Entry
from amortnlme.solve.trace import ModelFunction, Names, Symbols, TracedSystem


@dataclass(frozen=True, slots=True)
class SdeOptions:
    """How an SDE is simulated; see `amortnlme.model.dynamics.Sde`."""

    method: str
    dt: float
    non_negative: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class SdeEngine(AbstractStochasticEngine):
    """Simulates paths in SIMD lanes."""

    @classmethod
    def build(
        cls,
        system: TracedSystem,
        entry: Entry,
        noise: tuple[tuple[sympy.Expr, ...], ...],
        outputs: Sequence[sympy.Expr],
        options: SdeOptions,
    ) -> SdeEngine:
        """Generate and load the kernels of a model."""
        return cls()

    def simulate(self, rows: Rows, key: tuple[int, int], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw paths; see `AbstractStochasticEngine.simulate`."""
        raise ModelError("E_MODEL_ENGINE", "under construction")


def trace_diffusion(
    diffusion: ModelFunction, names: Names, symbols: Symbols
) -> tuple[tuple[sympy.Expr, ...], ...]:
    """Trace a diffusion matrix."""
    raise ModelError("E_MODEL_ENGINE", "under construction")
