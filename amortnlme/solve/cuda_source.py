"""A traced model as Python source for the device: one Rodas5P step, one simulation in a thread.

The text is compiled by numba.cuda and, for tests, runs as plain Python in its simulator.
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from amortnlme.solve.emit import emit_assignments
from amortnlme.solve.lane_source import LaneModel, combination
from amortnlme.solve.rodas5p import N_STAGES, H, stage_lines
from amortnlme.solve.trace import TracedSystem
from amortnlme.solve.untraced_step import BETWEEN

# What the walk from event to event needs without a numerical Jacobian and without a steady state.
SCRATCH_ROWS = BETWEEN + 1

_HEADER = '''"""Rodas5P of states {states} for the device. Generated: change the model instead."""

import math
from math import exp as vexp
from math import log as vlog
from math import pow as vpow

from numba import cuda, float64

from amortnlme.solve.untraced_step import DENSE_0, DENSE_1, DENSE_2, NEXT, RATE, STATE
'''
_KERNEL = """

# `walk` is bound when the kernel is compiled.
def kernel(queue, batch, out, status):
    w = cuda.local.array(({rows}, {n}), float64)
    p = cuda.local.array({n_inputs}, float64)
    row = cuda.atomic.add(queue, 0, 1)
    while row < status.shape[0]:
        if status[row] == 0:
            status[row] = walk(0, row, p, w, batch, out)
        row = cuda.atomic.add(queue, 0, 1)
"""


def module_source(system: TracedSystem, outputs: Sequence[sympy.Expr]) -> str:
    """Write the functions `slope`, `step`, `record` and `kernel` of a model.

    Parameters
    ----------
    system : TracedSystem
    outputs : sequence of sympy.Expr
        Observables, one per output.

    Returns
    -------
    str
    """
    names = system.names
    n_inputs = len(names.parameters) + len(names.covariates)
    lines = [
        *_HEADER.format(states=", ".join(names.states)).splitlines(),
        *_slope_lines(system),
        *_step_lines(system),
        *_record_lines(system, outputs),
        *_KERNEL.format(rows=SCRATCH_ROWS, n=len(names.states), n_inputs=max(1, n_inputs)).splitlines(),
    ]
    return "\n".join(lines) + "\n"


def _load_lines(system: TracedSystem, used: set[sympy.Basic], state: str) -> list[str]:
    """Unpack the states and inputs that occur."""
    symbols = system.symbols
    inputs = (*symbols.parameters, *symbols.covariates)
    return [
        *(f"    {s} = {state}[{i}]" for i, s in enumerate(symbols.states) if s in used),
        *(f"    {s} = p[{i}]" for i, s in enumerate(inputs) if s in used),
    ]


def _used(expressions: Sequence[sympy.Expr]) -> set[sympy.Basic]:
    return set().union(*(e.free_symbols for e in expressions))


def _slope_lines(system: TracedSystem) -> list[str]:
    n = len(system.names.states)
    return [
        "",
        "",
        "def slope(model, t, y, p, rate, out):",
        *_load_lines(system, _used(system.derivatives), "y"),
        *emit_assignments([f"out[{i}]" for i in range(n)], system.derivatives, 4, "c"),
        *(f"    out[{i}] += rate[{i}]" for i in range(n)),
    ]


def _step_lines(system: TracedSystem) -> list[str]:
    states = system.names.states
    used = _used(system.derivatives) | set(system.symbols.states)
    lines = [
        "",
        "",
        "def step(model, t, h, rejected, p, w, batch):",
        *_load_lines(system, used, "w[STATE]"),
        *(f"    rate_{s} = w[RATE, {i}]" for i, s in enumerate(states)),
        *stage_lines(LaneModel(system, ()), 4),
        "    # new state, interpolation, error",
    ]
    last = N_STAGES - 1
    for i, s in enumerate(states):
        stages = [f"k{q}_{s}" for q in range(N_STAGES)]
        lines += [
            f"    new_{s} = z{last}_{s} + k{last}_{s}",
            f"    w[NEXT, {i}] = new_{s}",
            *(f"    w[DENSE_{q}, {i}] = {combination(weights, stages)}" for q, weights in enumerate(H)),
            f"    error_{s} = k{last}_{s} / (batch.atol + batch.rtol * max(abs(y_{s}), abs(new_{s})))",
        ]
    squares = " + ".join(f"error_{s} * error_{s} + 0.0 * new_{s}" for s in states)
    return [*lines, f"    return math.sqrt(({squares}) * {1.0 / len(states)!r})"]


def _record_lines(system: TracedSystem, outputs: Sequence[sympy.Expr]) -> list[str]:
    lines = [
        "",
        "",
        "def record(model, t, y, p, batch, row, slot, out):",
        *_load_lines(system, _used(outputs), "y"),
        "    wanted = batch.output[batch.design_index[row], slot]",
    ]
    for o, expression in enumerate(outputs):
        lines.append(f"    if wanted == {o}:")
        lines += emit_assignments(["out[row, slot]"], [expression], 8, f"o{o}_")
    return lines
