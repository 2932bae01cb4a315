"""Engine of stochastic differential equations: Euler-Maruyama and Milstein in SIMD lanes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from amortnlme.core.errors import ModelError
from amortnlme.solve.engine import AbstractStochasticEngine, Rows
from amortnlme.solve.entry import Entry
from amortnlme.solve.hoisting import RowConstants
from amortnlme.solve.kernel_module import load_kernels
from amortnlme.solve.observables import Observables
from amortnlme.solve.random_rows import PathRows, draw_outputs
from amortnlme.solve.sde_driver import driver
from amortnlme.solve.sde_events import N_NUMBERS, TIME, SdeBatch
from amortnlme.solve.sde_kernels import Matrix, SdeFormulas, sde_source
from amortnlme.solve.sde_lanes import LANES, LEG, NORMALS, aligned_zeros
from amortnlme.solve.trace import ModelFunction, Names, Symbols, TracedSystem, trace_table

METHODS = ("euler_maruyama", "milstein")
# Steps a row may wait from time 0 to its first event; see `_beginnings`.
LONGEST_WAIT = 64


@dataclass(frozen=True, slots=True)
class SdeOptions:
    """How an SDE is simulated; see `amortnlme.model.dynamics.Sde`."""

    method: str
    dt: float
    non_negative: tuple[str, ...] = ()
    max_steps: int = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class SdeEngine(AbstractStochasticEngine):
    """Simulates paths in SIMD lanes.

    The interval between two events is crossed in n = ceil(length / dt) steps of equal length, or in more
    where the drift is faster: a step is at most half the shortest time constant of the drift at its present
    states (looked at after every event and every 32 steps), so that a stiff row takes more steps instead of
    exploding. A row depends on the key and on its own number only, to the last bit; another number of lanes
    or another processor may change last bits. `source` is the generated text, compiled when first used.
    """

    entry: Entry
    observables: Observables
    options: SdeOptions
    formulas: SdeFormulas
    constants: RowConstants
    label: str
    source: str

    @classmethod
    def build(
        cls,
        system: TracedSystem,
        entry: Entry,
        noise: Matrix,
        outputs: Sequence[sympy.Expr],
        options: SdeOptions,
    ) -> SdeEngine:
        """Generate and load the kernels of a model.

        Parameters
        ----------
        system : TracedSystem
            The drift.
        entry : Entry
        noise : tuple of tuple of sympy.Expr, n_states x n_noises
        outputs : sequence of sympy.Expr
        options : SdeOptions

        Returns
        -------
        SdeEngine

        Raises
        ------
        ModelError
            E_MODEL_SDE_OPTION, E_MODEL_MILSTEIN.
        """
        _check_options(options, system.names)
        is_milstein = options.method == "milstein"
        if is_milstein:
            _require_own_noise(noise, system)
        formulas = SdeFormulas.from_model(
            system, noise, is_milstein=is_milstein, non_negative=options.non_negative
        )
        label = re.sub(r"\W+", "_", "_".join(system.names.states))
        return cls(
            entry=entry,
            observables=Observables.from_expressions(system.symbols, outputs),
            options=options,
            formulas=formulas,
            constants=RowConstants.from_hoisted(system.symbols, formulas.hoisted),
            label=f"sde_{options.method}_{label}",
            source=sde_source(formulas),
        )

    def simulate(self, rows: Rows, key: tuple[int, int], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw paths; see `AbstractStochasticEngine.simulate`."""
        return draw_outputs(rows, ids, self.entry, self.observables, self._runner(key))

    def _runner(self, key: tuple[int, int]) -> Any:
        layout, module = self.formulas.layout, load_kernels(self.label, self.source)
        words = (np.uint64(key[0]), np.uint64(key[1]))
        run = driver()

        def simulate(paths: PathRows, out: np.ndarray, status: np.ndarray) -> None:
            batch = SdeBatch(
                paths.floats,
                paths.integers,
                paths.n_events,
                paths.list_index,
                self.constants.evaluate(paths.psi, paths.covariates),
                paths.initial,
                paths.start,
                _beginnings(paths, self.options.dt),
                paths.ids,
            )
            n_words = 2 * layout.n_pairs * LEG * LANES
            run(
                module.advance,
                module.fastest_rate,
                batch,
                words,
                float(self.options.dt),
                int(self.options.max_steps),
                layout.n_pairs,
                LANES,
                aligned_zeros(layout.size * LANES, np.float64),
                aligned_zeros(NORMALS * LANES + n_words, np.float64),
                aligned_zeros(n_words, np.uint64),
                aligned_zeros(3 * LANES, np.uint64),
                np.zeros((N_NUMBERS, LANES), dtype=np.int64),
                out,
                status,
            )

        return simulate


def _beginnings(paths: PathRows, dt: float) -> np.ndarray:
    """Where the clock of every row begins: before its first event, or at its start if that is earlier.

    Rows that start at different times soon after 0 all begin at 0 and wait: lanes that crossed their first
    interval in different numbers of steps would never again meet an event together.
    """
    first = paths.floats[paths.list_index, 0, TIME]
    own = np.where((paths.start > -np.inf) & (paths.start < first), paths.start, first)
    return np.where((paths.start >= 0.0) & (first > 0.0) & (first <= LONGEST_WAIT * dt), 0.0, own)


def trace_diffusion(diffusion: ModelFunction, names: Names, symbols: Symbols) -> Matrix:
    """Trace a diffusion matrix.

    Parameters
    ----------
    diffusion : callable
        `diffusion(t, y, p)` returning one row per state, each a tuple with one entry per Brownian motion; or
        one value per state: state i is moved by a Brownian motion of its own.
    names : Names
    symbols : Symbols

    Returns
    -------
    tuple of tuple of sympy.Expr, n_states x n_noises

    Raises
    ------
    ModelError
        E_MODEL_DIFFUSION when the numbers of rows or columns do not fit, and those of
        `amortnlme.solve.trace.trace`.
    """
    table = trace_table(diffusion, names, symbols, "the diffusion")
    n = len(names.states)
    if len(table) != n:
        raise ModelError(
            "E_MODEL_DIFFUSION",
            f"the diffusion returns {len(table)} row(s) for {n} states ({', '.join(names.states)}). Return "
            "one row per state, with one entry per Brownian motion, or one value per state.",
        )
    own = [row for row in table if isinstance(row, sympy.Expr)]
    if len(own) == n:
        zero: sympy.Expr = sympy.S.Zero
        return tuple(tuple(value if i == j else zero for j in range(n)) for i, value in enumerate(own))
    lengths = {len(row) if isinstance(row, tuple) else 0 for row in table}
    if len(lengths) != 1 or 0 in lengths:
        raise ModelError(
            "E_MODEL_DIFFUSION",
            "the rows of the diffusion differ in length, or some are numbers and some are rows. Give every "
            "state a row with one entry per Brownian motion (0 where it does not move the state).",
        )
    return tuple(row for row in table if isinstance(row, tuple))


def _check_options(options: SdeOptions, names: Names) -> None:
    def refuse(text: str) -> ModelError:
        return ModelError("E_MODEL_SDE_OPTION", text)

    if options.method not in METHODS:
        raise refuse(f"method is {options.method!r}. Choose one of: {', '.join(METHODS)}.")
    if not 0.0 < options.dt < float("inf"):
        raise refuse(
            f"dt is {options.dt!r}; the longest step of an SDE must be positive. Give it in units of time."
        )
    if options.max_steps < 1:
        raise refuse(f"max_steps is {options.max_steps!r}; it must be at least 1.")
    unknown = [name for name in options.non_negative if name not in names.states]
    if unknown:
        raise refuse(
            f"non_negative names {unknown[0]!r}, which is not a state. States: {', '.join(names.states)}."
        )


def _require_own_noise(noise: Matrix, system: TracedSystem) -> None:
    """Refuse what would need iterated integrals of several Brownian motions."""
    names, states = system.names.states, system.symbols.states
    n = len(states)
    reason = "" if len(noise[0]) == n else f"{n} states are moved by {len(noise[0])} Brownian motions"
    for i, row in enumerate(noise):
        for j, entry in enumerate(row):
            if i != j and entry != 0:
                reason = reason or f"Brownian motion {j + 1} moves {names[i]!r} as well"
            foreign = entry.free_symbols & (set(states) - {states[i]})
            if foreign:
                reason = reason or f"the noise of {names[i]!r} depends on {str(min(foreign, key=str))[2:]!r}"
    if reason:
        raise ModelError(
            "E_MODEL_MILSTEIN",
            "the Milstein scheme needs one Brownian motion per state, with a size that depends on that state "
            f"only; here {reason}. Use method='euler_maruyama'.",
        )
