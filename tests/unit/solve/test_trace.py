"""Tracing plain-Python model functions, and the errors a wrong one gets."""

import math

import numpy as np
import pytest
import sympy

from amortnlme.core.errors import ModelError
from amortnlme.model.functions import exp, log, sqrt, where
from amortnlme.solve.trace import Names, compile_numpy, make_symbols, trace, trace_output

NAMES = Names(("gut", "blood"), ("ka", "ke"), ("weight",))


def oral(t, y, p):
    return (-p.ka * y.gut, p.ka * y.gut - p.ke * (p.weight / 70) ** 0.75 * y.blood)


def test_trace_derives_the_jacobian_and_recognizes_linear_dynamics():
    system = trace(oral, NAMES)
    assert system.is_linear_constant
    assert system.jacobian[0][1] == 0
    assert sympy.simplify(system.jacobian[1][0] - system.symbols.parameters[0]) == 0


@pytest.mark.parametrize(
    "rhs",
    [
        lambda t, y, p: (-p.ka * y.gut**2, y.blood),
        lambda t, y, p: (-p.ka * y.gut + t, y.blood),
        lambda t, y, p: (-p.ka * y.gut * exp(-t), y.blood),
    ],
)
def test_trace_recognizes_other_dynamics(rhs):
    assert not trace(rhs, NAMES).is_linear_constant


def test_trace_recognizes_constant_production():
    system = trace(lambda t, y, p: (-p.ka * y.gut + 1, y.blood), NAMES)
    assert system.is_linear_constant
    assert system.inputs == (1, 0)


def test_compiled_expressions_agree_with_the_plain_function_on_numbers():
    def output(t, y, p):
        return where(y.gut > 1.0, log(y.gut) + sqrt(p.ka), exp(-p.ke * t))

    symbols = make_symbols(NAMES)
    compiled = compile_numpy(symbols, [trace_output(output, NAMES, symbols, "o")])
    t, gut = np.array([0.1, 2.0]), np.array([0.5, 3.0])
    found = compiled(t, gut, 0.0, 0.7, 0.2, 70.0)[0]
    p = type("P", (), {"ka": 0.7, "ke": 0.2})
    exact = [output(ti, type("Y", (), {"gut": gi}), p) for ti, gi in zip(t, gut, strict=True)]
    np.testing.assert_allclose(found, exact, rtol=1e-14)


def branching(t, y, p):
    rate = p.ka
    if y.gut > 1.0:
        rate = 0.0
    return (-rate * y.gut, rate * y.gut)


def silent_branch(t, y, p):
    rate = p.ka if p.weight else p.ke
    return (-rate * y.gut, rate * y.gut)


def hidden_branch(t, y, p):
    rate = min(p.ka, p.ke)
    return (-rate * y.gut, rate * y.gut)


def wrong_function(t, y, p):
    return (-math.exp(p.ka) * y.gut, y.blood)


def wrong_numpy(t, y, p):
    return (-np.exp(p.ka) * y.gut, y.blood)


FAULTS = {
    "E_MODEL_BRANCH": (branching, "if y.gut > 1.0:"),
    "E_MODEL_BRANCH ": (silent_branch, "rate = p.ka if p.weight else p.ke"),
    "E_MODEL_BRANCH  ": (hidden_branch, "rate = min(p.ka, p.ke)"),
    "E_MODEL_FUNCTION": (wrong_function, "math.exp(p.ka)"),
    "E_MODEL_FUNCTION ": (wrong_numpy, "np.exp(p.ka)"),
    "E_MODEL_RHS_LENGTH": (lambda t, y, p: (-p.ka * y.gut,), "returns 1 value(s) for 2 states"),
    "E_MODEL_RHS_LENGTH ": (lambda t, y, p: -p.ka * y.gut, "returns 1 value(s) for 2 states"),
    "E_MODEL_RETURN_TYPE": (lambda t, y, p: (-p.ka * y.gut, None), "'blood' is a NoneType"),
    "E_MODEL_UNKNOWN_NAME": (lambda t, y, p: (-p.k_a * y.gut, y.blood), "Did you mean p.ka?"),
    "E_MODEL_UNKNOWN_NAME ": (lambda t, y, p: (-p.ka * y.liver, y.blood), "Declared: gut, blood"),
    "E_MODEL_SIGNATURE": (lambda y, p: (y.gut, y.blood), "takes (y, p)"),
}


@pytest.mark.parametrize("code", FAULTS)
def test_trace_names_the_fault_of_a_wrong_function(code):
    rhs, text = FAULTS[code]
    with pytest.raises(ModelError) as caught:
        trace(rhs, NAMES)
    assert caught.value.code == code.strip()
    assert text in str(caught.value)


def test_branch_error_names_the_line():
    with pytest.raises(ModelError) as caught:
        trace(branching, NAMES)
    line = branching.__code__.co_firstlineno + 2
    assert f"line {line}" in str(caught.value)


def test_duplicate_names_are_refused():
    with pytest.raises(ModelError) as caught:
        make_symbols(Names(("a",), ("k", "w"), ("w",)))
    assert caught.value.code == "E_MODEL_DUPLICATE_NAME"
