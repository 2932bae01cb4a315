"""What computes a model: the engine's name, and its generated code or its closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amortnlme.model.individual import IndividualModel
    from amortnlme.solve.closed_form import ClosedFormEngine


def engine_of(model: IndividualModel) -> str:
    """Name the method that solves or simulates a model.

    Parameters
    ----------
    model : IndividualModel

    Returns
    -------
    str
    """
    from amortnlme.model.dynamics import Jump, Sde
    from amortnlme.solve.closed_form import ClosedFormEngine
    from amortnlme.solve.ode import OdeEngine
    from amortnlme.solve.untraced import UntracedEngine

    engine, dynamics = model.program.engine, model.dynamics
    if isinstance(engine, ClosedFormEngine):
        return "closed form"
    if isinstance(engine, OdeEngine):
        options = engine.options
        return f"{options.method}, rtol {options.rtol:g}, atol {options.atol:g}"
    if isinstance(engine, UntracedEngine):
        options = engine.options
        return f"rodas5p, numerical Jacobians, rtol {options.rtol:g}, atol {options.atol:g}"
    if isinstance(dynamics, Sde):
        return f"{dynamics.method}, steps of at most {dynamics.dt:g}"
    if isinstance(dynamics, Jump):
        return dynamics.method if dynamics.tau is None else f"{dynamics.method}, steps of {dynamics.tau:g}"
    return type(engine).__name__


def code_of(model: IndividualModel) -> str:
    """Text of what computes a model.

    Parameters
    ----------
    model : IndividualModel

    Returns
    -------
    str
        Python source of the generated kernels; for a closed form, which needs none, its matrices.
    """
    from amortnlme.solve.closed_form import ClosedFormEngine
    from amortnlme.solve.jump import JumpEngine
    from amortnlme.solve.ode import OdeEngine
    from amortnlme.solve.sde import SdeEngine
    from amortnlme.solve.untraced import UntracedEngine

    engine = model.program.engine
    if isinstance(engine, ClosedFormEngine):
        return _closed_form(engine)
    if isinstance(engine, OdeEngine | SdeEngine | JumpEngine | UntracedEngine):
        return engine.source
    raise TypeError(f"no code is known of {type(engine).__name__}")


def _closed_form(engine: ClosedFormEngine) -> str:
    from amortnlme.solve.trace import canonical_text

    traced = engine.solver.system.traced
    states = traced.names.states
    entries = [
        f"K[{to}, {of}] = {canonical_text(rate)}"
        for to, row in zip(states, traced.jacobian, strict=True)
        for of, rate in zip(states, row, strict=True)
        if rate != 0
    ]
    inputs = [
        f"b[{state}] = {canonical_text(value)}"
        for state, value in zip(states, traced.inputs, strict=True)
        if value != 0
    ]
    outputs = [f"output = {canonical_text(e)}" for e in engine.observables.expressions]
    return "\n".join(
        [
            "# Solved in closed form, without generated code: dy/dt = K y + b + infusions,",
            "# in the eigenbasis of K, or by the matrix exponential where that basis is badly conditioned.",
            "# y_: states, p_: parameters, x_: covariates; what is not listed is 0.",
            *entries,
            *inputs,
            *outputs,
        ]
    )
