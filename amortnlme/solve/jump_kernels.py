"""Source of the propensities of a Markov jump process: formulas only."""

from __future__ import annotations

import sympy

from amortnlme.solve.emit import PREAMBLE, emit_assignments
from amortnlme.solve.hoisting import Hoisted
from amortnlme.solve.trace import TracedSystem


def jump_source(system: TracedSystem, hoisted: Hoisted) -> str:
    """Write the module of a model: `propensities(t, y, c, out)`.

    Parameters
    ----------
    system : TracedSystem
    hoisted : Hoisted
        The propensities.

    Returns
    -------
    str
    """
    used: set[sympy.Basic] = set().union(*(e.free_symbols for e in hoisted.expressions))
    states = [(s, f"y[{i}]") for i, s in enumerate(system.symbols.states)]
    constants = [(s, f"c[{i}]") for i, s in enumerate(hoisted.symbols)]
    lines = [
        '"""Propensities of a Markov jump process, written by amortnlme; do not edit.',
        "",
        f"States: {', '.join(system.names.states)}.",
        *(f"{s} = {value}" for s, value in zip(hoisted.symbols, hoisted.values, strict=True)),
        '"""',
        "",
        PREAMBLE,
        "from numba import njit, types",
        "",
        "reals = types.float64[::1]",
        "",
        '@njit(types.void(types.float64, reals, reals, reals), cache=True, nogil=True, error_model="numpy")',
        "def propensities(t, y, c, out):",
        '    """Write the rate of every reaction."""',
        *(f"    {symbol} = {place}" for symbol, place in (*states, *constants) if symbol in used),
        *emit_assignments(
            [f"out[{i}]" for i in range(len(hoisted.expressions))], hoisted.expressions, 4, "e"
        ),
        "",
    ]
    return "\n".join(lines)
