"""What the checks of the contract look at: a small sampled world of one model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NoReturn

import numpy as np

from amortnlme.core.rng import stream
from amortnlme.data.design import Design, DesignBatch, EventKind
from amortnlme.model.dynamics import Equations
from amortnlme.model.individual import IndividualModel
from amortnlme.model.program import Program, prepare_inputs
from amortnlme.solve.closed_form import ClosedFormEngine
from amortnlme.solve.engine import AbstractEngine, AbstractStochasticEngine, Rows
from amortnlme.solve.ode import OdeEngine
from amortnlme.solve.trace import Expression, Names, trace_output
from amortnlme.solve.untraced import UntracedEngine

N_ROWS = 64
# Engines whose error is controlled by tolerances.
NUMERICAL = (OdeEngine, UntracedEngine)
# A check at a sharp tolerance over hundreds of doses may take this many times the steps of a prediction.
MORE_STEPS = 100


class Broken(Exception):
    """A promise that is not kept; the text says how."""


class DoesNotApply(Exception):
    """A promise that means nothing for this model; the text says why."""


def require(condition: bool, text: str) -> None:
    """Break the promise unless the condition holds.

    Parameters
    ----------
    condition : bool
    text : str
        How it is broken.

    Raises
    ------
    Broken
    """
    if not condition:
        raise Broken(text)


def broken(text: str) -> NoReturn:
    """Break the promise.

    Parameters
    ----------
    text : str
        How it is broken.

    Raises
    ------
    Broken
    """
    raise Broken(text)


def applies(condition: bool, text: str) -> None:
    """Leave the promise out unless the condition holds.

    Parameters
    ----------
    condition : bool
    text : str
        Why it means nothing here.

    Raises
    ------
    DoesNotApply
    """
    if not condition:
        raise DoesNotApply(text)


@dataclass(frozen=True, eq=False)
class World:
    """Parameters drawn from the prior and designs drawn from the sampler.

    Attributes
    ----------
    model : IndividualModel
    phi : ndarray, shape (64, d)
    batch : DesignBatch
        64 designs.
    design : Design
        The one with the most observations.
    covariates : dict of str to ndarray, shape (k,)
        Of that design.
    """

    model: IndividualModel
    phi: np.ndarray
    batch: DesignBatch
    design: Design
    covariates: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, model: IndividualModel, seed: int) -> World:
        """Draw the world of a model.

        Parameters
        ----------
        model : IndividualModel
        seed : int

        Returns
        -------
        World
        """
        rng = stream(seed, 0)
        phi = model.prior.sample(N_ROWS, rng)
        batch = model.design_sampler.sample(N_ROWS, rng)
        first = int(np.argmax(batch.n_observations))
        design = design_of(batch, first)
        covariates = {
            name: np.asarray(v)[first, : design.n_records]
            for name, v in batch.covariates.items()
            if name in model.covariates
        }
        return cls(model, phi, batch, design, covariates)

    @property
    def is_random(self) -> bool:
        """Whether the states move at random."""
        return isinstance(self.model.program.engine, AbstractStochasticEngine)

    @property
    def engine(self) -> AbstractEngine:
        """The engine of a model that predicts.

        Raises
        ------
        DoesNotApply
            When the states move at random.
        """
        engine = self.model.program.engine
        if not isinstance(engine, AbstractEngine):
            raise DoesNotApply("the states move at random, so there is no prediction")
        return engine

    @property
    def random_engine(self) -> AbstractStochasticEngine:
        """The engine of a model whose states move at random.

        Raises
        ------
        DoesNotApply
            When the model predicts.
        """
        engine = self.model.program.engine
        if not isinstance(engine, AbstractStochasticEngine):
            raise DoesNotApply("the model predicts: its states do not move at random")
        return engine

    @property
    def is_closed_form(self) -> bool:
        """Whether predictions come from a closed form."""
        return isinstance(self.engine, ClosedFormEngine)

    @property
    def rtol(self) -> float:
        """Relative tolerance of predictions; 1e-10 stands for the rounding of a closed form."""
        return self.engine.options.rtol if isinstance(self.engine, NUMERICAL) else 1e-10

    @property
    def some_phi(self) -> np.ndarray:
        """Typical parameters and a few from the prior, shape (4, d)."""
        return np.vstack([self.model.parameters.typical_phi, self.phi[:3]])

    @cached_property
    def names(self) -> Names:
        """Names as the trace knows them."""
        program = self.model.program
        return Names(
            program.states,
            tuple(program.parameters.names[i] for i in program.structural),
            program.covariates,
        )

    @cached_property
    def equations(self) -> Equations:
        """The traced dynamics."""
        return self.model.dynamics.trace(self.names)

    @cached_property
    def output_expressions(self) -> tuple[Expression, ...]:
        """The traced outputs."""
        symbols = self.equations.system.symbols
        return tuple(trace_output(o.fn, self.names, symbols, o.name) for o in self.model.outputs)

    @cached_property
    def state_program(self) -> Program:
        """The model with its states as outputs, in their order."""
        engine = self.model.dynamics.build(self.equations, self.equations.system.symbols.states)
        return replace(self.model.program, engine=engine)

    def sharp_program(self, rtol: float) -> Program:
        """Return the same program at another tolerance.

        Parameters
        ----------
        rtol : float
            The absolute tolerance is changed in proportion; many more steps are allowed.

        Returns
        -------
        Program
            The program itself where the engine has no tolerance.
        """
        engine = self.engine
        if not isinstance(engine, NUMERICAL):
            return self.model.program
        options = engine.options
        atol = options.atol * rtol / options.rtol
        # Rodas5P needs about the fourth root more steps, and long series of doses of a stiff model many.
        steps = int(options.max_steps * max(1.0, options.rtol / rtol))
        sharp = replace(engine, options=replace(options, rtol=rtol, atol=atol, max_steps=steps))
        return replace(self.model.program, engine=sharp)

    def rows(
        self, phi: np.ndarray, design: Design, output: int | None = None, program: Program | None = None
    ) -> Rows:
        """Join parameter vectors with one design.

        Parameters
        ----------
        phi : ndarray, shape (n, d)
        design : Design
        output : int, optional
            0-based output to look at everywhere, whatever the design says.
        program : Program, optional
            Instead of the model's own.

        Returns
        -------
        Rows
        """
        program = program or self.model.program
        covariates = {
            name: np.broadcast_to(v, (1, design.n_records)) for name, v in self.covariates_of(design).items()
        }
        inputs = prepare_inputs(program, DesignBatch.from_designs([design], covariates))
        psi = np.ascontiguousarray(program.parameters.to_psi(phi)[:, program.structural])
        rows = inputs.rows(psi, np.zeros(phi.shape[0], dtype=np.int64))
        if output is None:
            return rows
        return replace(rows, output=np.full_like(rows.output, output))

    def batch_rows(self, phi: np.ndarray, picked: np.ndarray | None = None) -> Rows:
        """Join parameter vectors with the 64 designs, one each.

        Parameters
        ----------
        phi : ndarray, shape (64, d)
        picked : ndarray of int, optional
            Which of the 64 pairs, in which order; all of them if not given.

        Returns
        -------
        Rows
        """
        program = self.model.program
        picked = np.arange(phi.shape[0]) if picked is None else picked
        psi = np.ascontiguousarray(program.parameters.to_psi(phi[picked])[:, program.structural])
        return prepare_inputs(program, self.batch).rows(psi, picked)

    def covariates_of(self, design: Design) -> dict[str, np.ndarray]:
        """Return covariates for any design: those of the first record where its length differs.

        Parameters
        ----------
        design : Design

        Returns
        -------
        dict of str to ndarray, shape (k,)
        """
        if design.n_records == self.design.n_records:
            return self.covariates
        return {name: np.full(design.n_records, v[0]) for name, v in self.covariates.items()}


def design_of(batch: DesignBatch, row: int) -> Design:
    """Return one design of a batch.

    Parameters
    ----------
    batch : DesignBatch
    row : int

    Returns
    -------
    Design
    """
    last = int(batch.n_records[row])
    fields = ("time", "kind", "compartment", "amount", "duration", "ii", "ss", "output")
    return Design(**{name: getattr(batch, name)[row, :last] for name in fields})


def with_amounts(design: Design, amount: np.ndarray) -> Design:
    """Return a design with other dose amounts.

    Parameters
    ----------
    design : Design
    amount : ndarray, shape (k,)

    Returns
    -------
    Design
    """
    return replace(design, amount=amount)


def without_doses(design: Design) -> Design:
    """Return a design whose dose records do nothing.

    Parameters
    ----------
    design : Design

    Returns
    -------
    Design
    """
    zero = np.zeros(design.n_records)
    kind = np.where(design.is_dose, int(EventKind.OTHER), design.kind)
    return Design(design.time, kind, zero, zero, zero, zero, zero, design.output)


def largest_error(found: np.ndarray, exact: np.ndarray, output: np.ndarray) -> float:
    """Return the largest deviation within an output, relative to the output's largest value.

    Parameters
    ----------
    found, exact : ndarray, shape (m,) or (n, m)
    output : ndarray of int, shape (m,)

    Returns
    -------
    float
    """
    worst = 0.0
    for which in np.unique(output):
        here = output == which
        scale = np.abs(exact[..., here]).max(axis=-1, keepdims=True) + 1e-300
        gap = np.abs(found[..., here] - exact[..., here]) / scale
        worst = max(worst, float(gap.max()) if np.isfinite(gap).all() else np.inf)
    return worst
