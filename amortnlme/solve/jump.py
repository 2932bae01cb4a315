"""Engine of Markov jump processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sympy

from amortnlme.core.errors import ModelError
from amortnlme.solve.engine import AbstractStochasticEngine, Rows
from amortnlme.solve.entry import Entry
from amortnlme.solve.trace import ModelFunction, Names, TracedSystem


@dataclass(frozen=True, slots=True)
class JumpOptions:
    """How a jump process is simulated; see `amortnlme.model.dynamics.Jump`."""

    method: str
    tau: float | None
    max_reactions: int


@dataclass(frozen=True, slots=True, eq=False)
class JumpEngine(AbstractStochasticEngine):
    """Simulates paths reaction by reaction, or by leaps."""

    @classmethod
    def build(
        cls,
        system: TracedSystem,
        entry: Entry,
        propensities: tuple[sympy.Expr, ...],
        changes: np.ndarray,
        outputs: Sequence[sympy.Expr],
        options: JumpOptions,
    ) -> JumpEngine:
        """Generate and load the kernels of a model."""
        return cls()

    def simulate(self, rows: Rows, key: tuple[int, int], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw paths; see `AbstractStochasticEngine.simulate`."""
        raise ModelError("E_MODEL_ENGINE", "under construction")


def trace_reactions(
    propensities: ModelFunction, stoichiometry: Sequence[Mapping[str, int]], names: Names
) -> tuple[TracedSystem, tuple[sympy.Expr, ...]]:
    """Trace propensities and form the mean-field system."""
    raise ModelError("E_MODEL_ENGINE", "under construction")


def stoichiometry_matrix(stoichiometry: Sequence[Mapping[str, int]], names: Names) -> np.ndarray:
    """Write the changes as a matrix, reactions x states."""
    raise ModelError("E_MODEL_ENGINE", "under construction")
