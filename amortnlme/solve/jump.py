"""Engine of Markov jump processes: Gillespie's exact simulation and tau-leaping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from amortnlme.core.errors import ModelError
from amortnlme.solve.engine import AbstractStochasticEngine, Rows
from amortnlme.solve.entry import Entry
from amortnlme.solve.hoisting import RowConstants, hoist
from amortnlme.solve.jump_driver import JumpBatch, driver
from amortnlme.solve.jump_kernels import jump_source
from amortnlme.solve.kernel_module import load_kernels
from amortnlme.solve.observables import Observables
from amortnlme.solve.random_rows import PathRows, PathSimulator, draw_outputs
from amortnlme.solve.trace import ModelFunction, Names, TracedSystem, make_symbols, trace_rates

METHODS = ("ssa", "tau_leaping")


@dataclass(frozen=True, slots=True)
class JumpOptions:
    """How a jump process is simulated; see `amortnlme.model.dynamics.Jump`."""

    method: str
    tau: float | None
    max_reactions: int


@dataclass(frozen=True, slots=True, eq=False)
class JumpEngine(AbstractStochasticEngine):
    """Simulates paths reaction by reaction, or by leaps.

    Initial states and boluses are rounded to whole numbers; an infusion is a stream of single arrivals at its
    rate, at random times. A propensity that is negative or not finite, or a state that becomes negative, ends
    the simulation with status NON_FINITE. `source` is the generated text, compiled when first used.

    Tau-leaping holds the propensities constant over a leap, an error of the order of tau; a leap that would
    make a state negative is drawn anew at half its length, which favours leaps that consume less where few
    molecules are left.
    """

    entry: Entry
    observables: Observables
    options: JumpOptions
    constants: RowConstants
    label: str
    source: str
    changes: np.ndarray

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
        """Generate and load the kernel of a model.

        Parameters
        ----------
        system : TracedSystem
            The mean rates, whose names and symbols the propensities share.
        entry : Entry
        propensities : tuple of sympy.Expr, length r
        changes : ndarray, shape (r, n_states)
        outputs : sequence of sympy.Expr
        options : JumpOptions

        Returns
        -------
        JumpEngine

        Raises
        ------
        ModelError
            E_MODEL_JUMP_OPTION; E_MODEL_JUMP_TIME when exact simulation meets propensities that change with
            time between reactions.
        """
        _check_options(options)
        time = system.symbols.time
        moving = [i for i, e in enumerate(propensities, 1) if time in e.free_symbols]
        if options.method == "ssa" and moving:
            raise ModelError(
                "E_MODEL_JUMP_TIME",
                f"the propensity of reaction {moving[0]} depends on t, but exact simulation holds it "
                "constant between reactions. Give the change as a time-varying covariate, or use "
                "method='tau_leaping'.",
            )
        hoisted = hoist(propensities, {time, *system.symbols.states})
        label = "_".join(system.names.states)
        return cls(
            entry=entry,
            observables=Observables.from_expressions(system.symbols, outputs),
            options=options,
            constants=RowConstants.from_hoisted(system.symbols, hoisted),
            label=f"jump_{label}",
            source=jump_source(system, hoisted),
            changes=np.array(changes, dtype=np.float64, order="C"),
        )

    def simulate(self, rows: Rows, key: tuple[int, int], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw paths; see `AbstractStochasticEngine.simulate`."""
        return draw_outputs(rows, ids, self.entry, self.observables, self._runner(key))

    def _runner(self, key: tuple[int, int]) -> PathSimulator:
        words = (np.uint64(key[0]), np.uint64(key[1]))
        n_reactions, n_states = self.changes.shape
        tau = float(self.options.tau or 0.0) if self.options.method == "tau_leaping" else 0.0
        run, module = driver(), load_kernels(self.label, self.source)

        def simulate(paths: PathRows, out: np.ndarray, status: np.ndarray) -> None:
            batch = JumpBatch(
                paths.floats,
                paths.integers,
                paths.n_events,
                paths.list_index,
                self.constants.evaluate(paths.psi, paths.covariates),
                np.rint(paths.initial),
                paths.start,
                paths.ids,
                self.changes,
            )
            run(
                module.propensities,
                batch,
                words,
                tau,
                int(self.options.max_reactions),
                np.zeros((4, n_reactions + n_states)),
                np.zeros(self.constants.n_constants),
                np.zeros(5, dtype=np.uint64),
                out,
                status,
            )

        return simulate


def trace_reactions(
    propensities: ModelFunction, stoichiometry: Sequence[Mapping[str, int]], names: Names
) -> tuple[TracedSystem, tuple[sympy.Expr, ...]]:
    """Trace propensities and form the mean-field system dy/dt = stoichiometry^T propensities.

    Parameters
    ----------
    propensities : callable
        `propensities(t, y, p)` returning one rate per reaction.
    stoichiometry : sequence of mapping of str to int
        Per reaction, the change of each state it touches.
    names : Names

    Returns
    -------
    system : TracedSystem
    rates : tuple of sympy.Expr
        The propensities.

    Raises
    ------
    ModelError
        E_MODEL_PROPENSITIES when their number is not that of the reactions, E_MODEL_STOICHIOMETRY, and those
        of `amortnlme.solve.trace.trace`.
    """
    symbols = make_symbols(names)
    changes = stoichiometry_matrix(stoichiometry, names)
    rates = trace_rates(propensities, names, symbols, "the propensities")
    if len(rates) != len(stoichiometry):
        raise ModelError(
            "E_MODEL_PROPENSITIES",
            f"there are {len(rates)} propensities for {len(stoichiometry)} reactions. Return one rate per "
            "reaction, in the order of the stoichiometry.",
        )
    derivatives = tuple(
        sympy.Add(*(int(change) * rate for change, rate in zip(changes[:, i], rates, strict=True)))
        for i in range(len(names.states))
    )
    jacobian = tuple(tuple(sympy.diff(f, s) for s in symbols.states) for f in derivatives)
    # Never solved in closed form, whatever its mean rates are.
    return TracedSystem(names, symbols, derivatives, jacobian, (), False), rates


def stoichiometry_matrix(stoichiometry: Sequence[Mapping[str, int]], names: Names) -> np.ndarray:
    """Write the changes as a matrix.

    Parameters
    ----------
    stoichiometry : sequence of mapping of str to int
    names : Names

    Returns
    -------
    ndarray of int, shape (n_reactions, n_states)

    Raises
    ------
    ModelError
        E_MODEL_STOICHIOMETRY when there is no reaction, a reaction changes nothing or an unknown state, or a
        change is not a whole number.
    """

    def refuse(text: str) -> ModelError:
        return ModelError("E_MODEL_STOICHIOMETRY", text)

    if not stoichiometry:
        raise refuse("the stoichiometry lists no reaction. Give at least one, such as {'x': 1}.")
    matrix = np.zeros((len(stoichiometry), len(names.states)), dtype=np.int64)
    for i, change in enumerate(stoichiometry):
        for state, value in change.items():
            if state not in names.states:
                raise refuse(
                    f"reaction {i + 1} changes {state!r}, which is not a state. States: "
                    f"{', '.join(names.states)}."
                )
            if not _is_whole(value):
                raise refuse(f"reaction {i + 1} changes {state!r} by {value!r}. Changes are whole numbers.")
            matrix[i, names.states.index(state)] = int(value)
        if not matrix[i].any():
            raise refuse(f"reaction {i + 1} changes no state. Say what it changes, or remove it.")
    return matrix


def _is_whole(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return math.isfinite(value) and float(value) == int(value)


def _check_options(options: JumpOptions) -> None:
    def refuse(text: str) -> ModelError:
        return ModelError("E_MODEL_JUMP_OPTION", text)

    if options.method not in METHODS:
        raise refuse(f"method is {options.method!r}. Choose one of: {', '.join(METHODS)}.")
    if options.method == "tau_leaping" and not (options.tau is not None and 0.0 < options.tau < math.inf):
        raise refuse(f"tau is {options.tau!r}; tau-leaping needs a positive step. Give tau in units of time.")
    if options.method == "ssa" and options.tau is not None:
        raise refuse(f"tau is {options.tau!r}, but method='ssa' is exact and takes no steps. Remove tau.")
    if options.max_reactions < 1:
        raise refuse(f"max_reactions is {options.max_reactions!r}; it must be at least 1.")
