"""Source emitted for expressions computes what SymPy says, and is refused where it cannot be compiled."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy
from numba import njit

from amortnlme.core.errors import ModelError
from amortnlme.solve.emit import PREAMBLE, emit_assignments, scalar

A, K, T = sympy.symbols("y_a p_k t", real=True)
SAMPLES = [(0.7, 1.3, 2.0), (2.5, 0.4, 0.0), (1.0, 1.0, -3.0), (0.01, 30.0, 5.5)]

EXPRESSIONS = [
    A**2 / 3 - K,
    A**7 + A**-3 + 1 / K,
    A**9 * sympy.sqrt(K) / sympy.sqrt(A),
    A**K / (K**K + A**K),
    A**2.0 + A**0.5,
    sympy.exp(-K * T) * sympy.log(A + 1) + sympy.pi,
    sympy.Piecewise((sympy.exp(A) * K, A > K), (K - 1, True)),
    sympy.Piecewise((1, (A > 1) & (K < 2) | (T >= 5)), (A, sympy.Ne(T, 0)), (K * T - 2, True)),
    sympy.Max(A, 2 * K, 0) ** 3 - sympy.Min(A, K),
    abs(A - K) + sympy.sign(A - 1),
    sympy.diff(abs(A - K), A) + sympy.diff(sympy.Max(A, 2), A),
    sympy.tanh(A) + sympy.sin(T),
    sympy.Rational(1, 3) + 0 * A,
]


def compiled(lines):
    """Turn lines that assign `result` into a compiled function of the three symbols."""
    body = "\n".join(["def f(y_a, p_k, t):", *lines, "    return result"])
    namespace: dict = {}
    exec(PREAMBLE + body, namespace)
    return njit(error_model="numpy")(namespace["f"])


def test_emitted_lines_compute_what_the_expressions_say():
    targets = [f"r{i}" for i in range(len(EXPRESSIONS))]
    lines = emit_assignments(targets, EXPRESSIONS, 4, "c")
    function = compiled([*lines, f"    result = ({', '.join(targets)})"])
    for a, k, t in SAMPLES:
        exact = [float(e.subs({A: a, K: k, T: t})) for e in EXPRESSIONS]
        # A few operations of rounding each.
        np.testing.assert_allclose(function(a, k, t), exact, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
def test_scalar_text_computes_what_the_expression_says(expression):
    namespace: dict = {}
    exec(PREAMBLE, namespace)
    for a, k, t in SAMPLES:
        found = eval(scalar(expression), namespace, {"y_a": a, "p_k": k, "t": t})
        assert found == pytest.approx(float(expression.subs({A: a, K: k, T: t})), rel=1e-14, abs=1e-14)


def test_common_subexpressions_are_written_once_and_substitutions_come_first():
    z = sympy.Symbol("z", real=True)
    lines = emit_assignments(["u", "w"], [sympy.exp(A * K), sympy.exp(A * K) + 1], 2, "q", {A: z})
    assert sum(line.count("vexp") for line in lines) == 1
    assert all(line.startswith("  ") for line in lines)
    assert "y_a" not in "".join(lines) and lines[0].startswith("  q0 = ")


def test_arms_of_a_branch_are_computed_beforehand_so_that_it_becomes_a_select():
    (expression,) = [sympy.Piecewise((sympy.exp(A), A > 0), (sympy.log(K), True))]
    *before, last = emit_assignments(["r"], [expression], 0, "c")
    assert "vexp" not in last and "vlog" not in last and len(before) == 2


def test_whole_powers_become_products():
    assert scalar(A**3) == "(y_a * y_a * y_a)"
    assert "vpow" not in scalar(A**-8) and "vpow" in scalar(A**9)


def test_functions_that_cannot_be_compiled_are_refused_by_name():
    with pytest.raises(ModelError, match="foo") as caught:
        emit_assignments(["r"], [sympy.Function("foo")(A)], 0, "c")
    assert caught.value.code == "E_MODEL_FUNCTION"
    assert math.isfinite(eval(scalar(sympy.Float(0.1)), {}))
