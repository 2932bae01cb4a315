"""Kinds of dynamics a model file can declare; each knows how to build its solver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from amortnlme.core.errors import ModelError
from amortnlme.solve.linear import LinearSolver, LinearSystem
from amortnlme.solve.solver import AbstractSolver
from amortnlme.solve.trace import ModelFunction, Names, TracedSystem, trace


class AbstractDynamics(ABC):
    """How the states of a model move."""

    __slots__ = ()

    @property
    @abstractmethod
    def rhs(self) -> ModelFunction:
        """The right-hand side `rhs(t, y, p)`."""

    @property
    @abstractmethod
    def dose_state(self) -> str:
        """State that receives doses without a compartment number."""

    @property
    @abstractmethod
    def has_sensitivities(self) -> bool:
        """Whether the solver computes derivatives of the states."""

    @abstractmethod
    def build(self, traced: TracedSystem) -> AbstractSolver:
        """Build the solver.

        Parameters
        ----------
        traced : TracedSystem

        Returns
        -------
        AbstractSolver

        Raises
        ------
        ModelError
            When the dynamics do not fit this kind.
        """

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description for the model's fingerprint.

        Returns
        -------
        dict
        """

    def trace(self, names: Names) -> TracedSystem:
        """Trace the right-hand side.

        Parameters
        ----------
        names : Names

        Returns
        -------
        TracedSystem

        Raises
        ------
        ModelError
            E_MODEL_DOSE_STATE, and those of `amortnlme.solve.trace.trace`.
        """
        if self.dose_state not in names.states:
            raise ModelError(
                "E_MODEL_DOSE_STATE",
                f"dose_state is {self.dose_state!r}, which is not a state. States: "
                f"{', '.join(names.states)}.",
            )
        return trace(self.rhs, names)


@dataclass(frozen=True, slots=True)
class LinearCompartments(AbstractDynamics):
    """dy/dt = K(p) y + inputs, solved in closed form.

    Attributes
    ----------
    rhs : callable
        `rhs(t, y, p)` returning one derivative per state, linear in y, free of t.
    dose_state : str
        State that receives doses without a compartment number.
    """

    rhs: ModelFunction  # pyright: ignore[reportIncompatibleMethodOverride]
    dose_state: str  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def has_sensitivities(self) -> bool:
        """Whether the solver computes derivatives of the states."""
        return True

    def build(self, traced: TracedSystem) -> AbstractSolver:
        """Build the solver; see `AbstractDynamics.build`."""
        return LinearSolver(LinearSystem.from_trace(traced))

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {"kind": "linear_compartments", "dose_state": self.dose_state}
