"""The same model, solved on a CUDA device."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.errors import SolveError
from amortnlme.model.dynamics import LinearCompartments, Ode
from amortnlme.solve.ode import OdeOptions
from amortnlme.solve.trace import Names, trace_output

if TYPE_CHECKING:
    from amortnlme.model.individual import IndividualModel


def on_gpu(model: IndividualModel, *, single_precision: bool = False) -> IndividualModel:
    """Return the model with its predictions and simulations computed on a CUDA device.

    Everything else about it, its fingerprint included, stays the same. Sensitivities and steady-state doses
    are refused there; see docs/how-to/gpu.md.

    Parameters
    ----------
    model : IndividualModel
        With `Ode` or `LinearCompartments` dynamics.
    single_precision : bool
        Whether predictions leave the device as 4-byte numbers; they are computed in 8 bytes either way.

    Returns
    -------
    IndividualModel

    Raises
    ------
    SolveError
        E_GPU_DYNAMICS for other dynamics, E_GPU_METHOD for another method than Rodas5P, E_GPU_DEVICE
        without a device.
    """
    # Imported here: nobody else pays for loading numba.cuda.
    from amortnlme.solve.cuda import CudaOdeEngine

    dynamics = model.dynamics
    if not isinstance(dynamics, Ode | LinearCompartments):
        raise SolveError(
            "E_GPU_DYNAMICS",
            f"model {model.name!r} has {type(dynamics).__name__} dynamics. The GPU solves traced ordinary "
            "differential equations: Ode and LinearCompartments. Use the model without `on_gpu`.",
        )
    options = OdeOptions()
    if isinstance(dynamics, Ode):
        method = "rodas5p" if dynamics.method == "auto" else dynamics.method
        options = OdeOptions(method, dynamics.rtol, dynamics.atol, dynamics.max_steps)
    structural = tuple(model.parameters.names[i] for i in model.program.structural)
    names = Names(model.states, structural, model.covariates)
    equations = dynamics.trace(names)
    symbols = equations.system.symbols
    outputs = [trace_output(o.fn, names, symbols, o.name) for o in model.outputs]
    dtype = np.float32 if single_precision else np.float64
    engine = CudaOdeEngine.build(equations.system, equations.entry, outputs, options, dtype)
    moved = copy.copy(model)
    object.__setattr__(moved, "_program", replace(model.program, engine=engine))
    return moved
