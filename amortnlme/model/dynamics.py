"""Kinds of dynamics a model file can declare; each knows how to trace itself and to build its engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amortnlme.core.errors import ModelError
from amortnlme.solve.closed_form import ClosedFormEngine
from amortnlme.solve.engine import AbstractEngine, AbstractStochasticEngine
from amortnlme.solve.entry import Entry, EntryFunctions
from amortnlme.solve.jump import (
    JumpEngine,
    JumpOptions,
    stoichiometry_matrix,
    trace_reactions,
)
from amortnlme.solve.linear import LinearSystem
from amortnlme.solve.ode import OdeEngine, OdeOptions
from amortnlme.solve.sde import SdeEngine, SdeOptions, trace_diffusion
from amortnlme.solve.trace import (
    Expression,
    ModelFunction,
    Names,
    ParameterFunction,
    TracedSystem,
    trace,
    used_names,
)
from amortnlme.solve.untraced import UntracedEngine
from amortnlme.solve.untraced_source import opaque_system

Engine = AbstractEngine | AbstractStochasticEngine
PerState = Mapping[str, ParameterFunction]


@dataclass(frozen=True, slots=True, eq=False)
class Equations:
    """A model's dynamics as expressions.

    Attributes
    ----------
    system : TracedSystem
        The right-hand side; the drift of an SDE, the mean rates of a jump process.
    entry : Entry
    noise : tuple of tuple of Expression, n_states x n_noises
        Diffusion matrix of an SDE; empty otherwise.
    propensities : tuple of Expression
        Of a jump process; empty otherwise.
    """

    system: TracedSystem
    entry: Entry
    noise: tuple[tuple[Expression, ...], ...] = ()
    propensities: tuple[Expression, ...] = ()

    @property
    def extra(self) -> tuple[Expression, ...]:
        """Every expression beside the right-hand side."""
        return (*self.entry.expressions, *(e for row in self.noise for e in row), *self.propensities)

    def used_names(self, outputs: Sequence[Expression]) -> frozenset[str]:
        """Names of the parameters and covariates that occur anywhere.

        Parameters
        ----------
        outputs : sequence of Expression

        Returns
        -------
        frozenset of str
        """
        return used_names(self.system, (*self.extra, *outputs))


class AbstractDynamics(ABC):
    """How the states of a model move."""

    __slots__ = ()

    # State that receives doses without a compartment number.
    dose_state: str

    @property
    @abstractmethod
    def entry(self) -> EntryFunctions:
        """How the system starts and doses enter it."""

    @property
    @abstractmethod
    def is_stochastic(self) -> bool:
        """Whether the states move at random, so that there is no prediction."""

    @abstractmethod
    def build(self, equations: Equations, outputs: Sequence[Expression]) -> Engine:
        """Build the engine.

        Parameters
        ----------
        equations : Equations
        outputs : sequence of Expression
            Observables, one per output.

        Returns
        -------
        AbstractEngine or AbstractStochasticEngine

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

    @abstractmethod
    def trace(self, names: Names) -> Equations:
        """Trace every declared function.

        Parameters
        ----------
        names : Names

        Returns
        -------
        Equations

        Raises
        ------
        ModelError
            E_MODEL_DOSE_STATE, and those of `amortnlme.solve.trace.trace`.
        """


def _require_state(dose_state: str, names: Names) -> None:
    if dose_state not in names.states:
        raise ModelError(
            "E_MODEL_DOSE_STATE",
            f"dose_state is {dose_state!r}, which is not a state. States: {', '.join(names.states)}.",
        )


def _trace_rhs(rhs: ModelFunction, dynamics: AbstractDynamics, names: Names) -> Equations:
    _require_state(dynamics.dose_state, names)
    system = trace(rhs, names)
    return Equations(system, Entry.from_functions(dynamics.entry, names, system.symbols))


@dataclass(frozen=True, slots=True, eq=False)
class LinearCompartments(AbstractDynamics):
    """dy/dt = K(p) y + b(p) + inputs, solved in closed form.

    Attributes
    ----------
    rhs : callable
        `rhs(t, y, p)` returning one derivative per state, linear in y, free of t.
    dose_state : str
        State that receives doses without a compartment number.
    initial, start : callable, optional
        See `EntryFunctions`.
    lag, bioavailability : mapping of str to callable, optional
        See `EntryFunctions`.
    """

    rhs: ModelFunction
    dose_state: str
    initial: ParameterFunction | None = None
    start: ParameterFunction | None = None
    lag: PerState | None = None
    bioavailability: PerState | None = None

    @property
    def entry(self) -> EntryFunctions:
        """How the system starts and doses enter it."""
        return EntryFunctions(self.initial, self.start, self.lag, self.bioavailability)

    @property
    def is_stochastic(self) -> bool:
        """Whether the states move at random."""
        return False

    def trace(self, names: Names) -> Equations:
        """Trace right-hand side and entry; see `AbstractDynamics.trace`."""
        return _trace_rhs(self.rhs, self, names)

    def build(self, equations: Equations, outputs: Sequence[Expression]) -> Engine:
        """Build the engine; see `AbstractDynamics.build`."""
        return ClosedFormEngine.build(LinearSystem.from_trace(equations.system, equations.entry), outputs)

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {"kind": "linear_compartments", "dose_state": self.dose_state}


@dataclass(frozen=True, slots=True, eq=False)
class Ode(AbstractDynamics):
    """dy/dt = rhs(t, y, p), solved numerically with exact forward sensitivities.

    Attributes
    ----------
    rhs : callable
        `rhs(t, y, p)` returning one derivative per state.
    dose_state : str
        State that receives doses without a compartment number.
    initial, start : callable, optional
        See `EntryFunctions`.
    lag, bioavailability : mapping of str to callable, optional
        See `EntryFunctions`.
    method : {"auto", "closed_form", "rodas5p", "tsit5"}
        "auto": closed form where dy/dt is linear with constant rates, else Rodas5P.
    rtol, atol : float
        Tolerances of the step-size control; atol in units of the states.
    max_steps : int
        Steps (accepted or not) after which a simulation ends with status MAX_STEPS.
    """

    rhs: ModelFunction
    dose_state: str
    initial: ParameterFunction | None = None
    start: ParameterFunction | None = None
    lag: PerState | None = None
    bioavailability: PerState | None = None
    method: str = "auto"
    rtol: float = 1e-8
    atol: float = 1e-10
    max_steps: int = 100_000

    @property
    def entry(self) -> EntryFunctions:
        """How the system starts and doses enter it."""
        return EntryFunctions(self.initial, self.start, self.lag, self.bioavailability)

    @property
    def is_stochastic(self) -> bool:
        """Whether the states move at random."""
        return False

    def trace(self, names: Names) -> Equations:
        """Trace right-hand side and entry; see `AbstractDynamics.trace`."""
        return _trace_rhs(self.rhs, self, names)

    def build(self, equations: Equations, outputs: Sequence[Expression]) -> Engine:
        """Build the engine; see `AbstractDynamics.build`."""
        system, entry = equations.system, equations.entry
        if self.method == "closed_form" or (self.method == "auto" and system.is_linear_constant):
            return ClosedFormEngine.build(LinearSystem.from_trace(system, entry), outputs)
        scheme = "rodas5p" if self.method == "auto" else self.method
        options = OdeOptions(scheme, self.rtol, self.atol, self.max_steps)
        return OdeEngine.build(system, entry, outputs, options)

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description; method and tolerances do not change what is solved."""
        return {"kind": "ode", "dose_state": self.dose_state}


@dataclass(frozen=True, slots=True, eq=False)
class CompiledOde(AbstractDynamics):
    """dy/dt = rhs(t, y, p) for code that cannot be traced; slower than `Ode`, without exact sensitivities.

    Attributes
    ----------
    rhs : callable
        `rhs(t, y, p)` returning one derivative per state; what Numba can compile: loops, branches on states,
        table look-ups, functions of the model file. It is solved by Rodas5P with numerical Jacobians.
    dose_state : str
        State that receives doses without a compartment number.
    initial, start : callable, optional
        See `EntryFunctions`; traced, as outputs are.
    lag, bioavailability : mapping of str to callable, optional
        See `EntryFunctions`; traced.
    rtol, atol : float
        Tolerances of the step-size control; atol in units of the states.
    max_steps : int
        Steps (accepted or not) after which a simulation ends with status MAX_STEPS.
    """

    rhs: ModelFunction
    dose_state: str
    initial: ParameterFunction | None = None
    start: ParameterFunction | None = None
    lag: PerState | None = None
    bioavailability: PerState | None = None
    rtol: float = 1e-8
    atol: float = 1e-10
    max_steps: int = 100_000

    @property
    def entry(self) -> EntryFunctions:
        """How the system starts and doses enter it."""
        return EntryFunctions(self.initial, self.start, self.lag, self.bioavailability)

    @property
    def is_stochastic(self) -> bool:
        """Whether the states move at random."""
        return False

    def trace(self, names: Names) -> Equations:
        """Trace the entry; the right-hand side stays opaque, see `amortnlme.solve.untraced_source`."""
        _require_state(self.dose_state, names)
        system = opaque_system(self.rhs, names)
        return Equations(system, Entry.from_functions(self.entry, names, system.symbols))

    def build(self, equations: Equations, outputs: Sequence[Expression]) -> Engine:
        """Compile the right-hand side and build the engine; see `AbstractDynamics.build`."""
        options = OdeOptions("rodas5p", self.rtol, self.atol, self.max_steps)
        return UntracedEngine.build(self.rhs, equations.system.names, equations.entry, outputs, options)

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description; tolerances do not change what is solved."""
        return {"kind": "compiled_ode", "dose_state": self.dose_state}


@dataclass(frozen=True, slots=True, eq=False)
class Sde(AbstractDynamics):
    """dy = drift(t, y, p) dt + diffusion(t, y, p) dW, states kept non-negative where declared.

    Attributes
    ----------
    rhs : callable
        The drift, `rhs(t, y, p)` returning one value per state.
    diffusion : callable
        `diffusion(t, y, p)` returning one row (tuple) per state, each with one entry per Brownian motion; or
        one value per state: each state is moved by a Brownian motion of its own. (One motion that moves
        several states is written as rows of one entry.)
    dose_state : str
    initial, start, lag, bioavailability
        See `EntryFunctions`.
    method : {"euler_maruyama", "milstein"}
        Milstein needs diagonal noise whose entry i depends on state i only.
    dt : float
        Largest step [time]. Intervals between events are cut into equal steps; where the drift is faster
        (half its shortest time constant is less than dt) the steps are shorter.
    non_negative : tuple of str
        States set to zero when a step makes them negative (this biases paths near extinction).
    max_steps : int
        Steps after which a simulation ends with status MAX_STEPS.
    """

    rhs: ModelFunction
    diffusion: ModelFunction
    dose_state: str
    dt: float
    initial: ParameterFunction | None = None
    start: ParameterFunction | None = None
    lag: PerState | None = None
    bioavailability: PerState | None = None
    method: str = "euler_maruyama"
    non_negative: tuple[str, ...] = ()
    max_steps: int = 1_000_000

    @property
    def entry(self) -> EntryFunctions:
        """How the system starts and doses enter it."""
        return EntryFunctions(self.initial, self.start, self.lag, self.bioavailability)

    @property
    def is_stochastic(self) -> bool:
        """Whether the states move at random."""
        return True

    def trace(self, names: Names) -> Equations:
        """Trace drift, diffusion and entry; see `AbstractDynamics.trace`."""
        equations = _trace_rhs(self.rhs, self, names)
        noise = trace_diffusion(self.diffusion, names, equations.system.symbols)
        return Equations(equations.system, equations.entry, noise=noise)

    def build(self, equations: Equations, outputs: Sequence[Expression]) -> Engine:
        """Build the engine; see `AbstractDynamics.build`."""
        options = SdeOptions(self.method, self.dt, self.non_negative, self.max_steps)
        return SdeEngine.build(equations.system, equations.entry, equations.noise, outputs, options)

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description; scheme and step size belong to the distribution of the paths."""
        return {
            "kind": "sde",
            "dose_state": self.dose_state,
            "method": self.method,
            "dt": self.dt,
            "non_negative": list(self.non_negative),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Jump(AbstractDynamics):
    """A Markov jump process: reactions with propensities change the states by whole numbers.

    Attributes
    ----------
    propensities : callable
        `propensities(t, y, p)` returning one rate per reaction [1/time]; constant between reactions.
    stoichiometry : tuple of mapping of str to int
        Per reaction, the change of each state it touches.
    dose_state : str
    initial, start, lag, bioavailability
        See `EntryFunctions`; states and doses are rounded to whole numbers.
    method : {"ssa", "tau_leaping"}
        Exact simulation, or steps of length tau with Poisson numbers of reactions.
    tau : float, optional
        Step of tau-leaping [time].
    max_reactions : int
        Reactions (or leaps) after which a simulation ends with status MAX_STEPS.
    """

    propensities: ModelFunction
    stoichiometry: tuple[Mapping[str, int], ...]
    dose_state: str
    initial: ParameterFunction | None = None
    start: ParameterFunction | None = None
    lag: PerState | None = None
    bioavailability: PerState | None = None
    method: str = "ssa"
    tau: float | None = None
    max_reactions: int = 10_000_000

    @property
    def entry(self) -> EntryFunctions:
        """How the system starts and doses enter it."""
        return EntryFunctions(self.initial, self.start, self.lag, self.bioavailability)

    @property
    def is_stochastic(self) -> bool:
        """Whether the states move at random."""
        return True

    def trace(self, names: Names) -> Equations:
        """Trace propensities and entry; see `AbstractDynamics.trace`."""
        _require_state(self.dose_state, names)
        system, propensities = trace_reactions(self.propensities, self.stoichiometry, names)
        return Equations(
            system, Entry.from_functions(self.entry, names, system.symbols), propensities=propensities
        )

    def build(self, equations: Equations, outputs: Sequence[Expression]) -> Engine:
        """Build the engine; see `AbstractDynamics.build`."""
        changes = stoichiometry_matrix(self.stoichiometry, equations.system.names)
        options = JumpOptions(self.method, self.tau, self.max_reactions)
        return JumpEngine.build(
            equations.system, equations.entry, equations.propensities, changes, outputs, options
        )

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "kind": "jump",
            "dose_state": self.dose_state,
            "stoichiometry": [dict(sorted(change.items())) for change in self.stoichiometry],
            "method": self.method,
            "tau": self.tau,
        }


# Dynamics with a right-hand side that can be integrated independently of the engines.
Deterministic = LinearCompartments | Ode | CompiledOde
