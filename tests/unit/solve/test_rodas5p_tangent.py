"""Order of the solver's tangent, of the generated step run as plain Python."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from amortnlme.solve.functions import exp
from amortnlme.solve.rodas5p_tangent import VariationalSystem, emit_tangent_step
from amortnlme.solve.tangent_interface import count_lanes, work_size
from amortnlme.solve.trace import Names, trace
from amortnlme.solve.vector_math import vexp

PSI = np.array([1.2, 0.8, 0.9, 0.3])
END = 2.0


def hunt(t, y, p):
    """Predator and prey in a season that fades: not linear, and time enters the right-hand side."""
    return (
        p.a * y.prey * (1.0 + p.d * exp(-t)) - p.b * y.prey * y.hunter,
        p.b * y.prey * y.hunter - p.c * y.hunter,
    )


@pytest.fixture(scope="module")
def variational():
    return VariationalSystem.from_trace(
        trace(hunt, Names(("prey", "hunter"), ("a", "b", "c", "d"))), range(4)
    )


def stepper(variational):
    """The generated function, which is ordinary Python too."""
    arguments = "t, h, y, p, x, rate, direct, rtol, atol, y_new, dense, w"
    names = {"math": math, "vexp": vexp}
    exec("\n".join([f"def step({arguments}):", *emit_tangent_step(variational)]), names)
    return names["step"]


def solve(variational, n_steps):
    """States (2,) and sensitivities (2, 4) at END, with steps of one length."""
    n, lanes = 2, count_lanes(4)
    step, h = stepper(variational), END / n_steps
    y, y_new, w = np.array([1.0, 0.7]), np.zeros(n), np.zeros(work_size(n, lanes))
    for i in range(n_steps):
        step(i * h, h, y, PSI, np.zeros(0), np.zeros(n), 1.0, 1e-6, 1e-9, y_new, np.zeros(3 * n), w)
        y[:] = y_new
        w[: n * lanes] = w[n * lanes : 2 * n * lanes]
    return y, w[: n * lanes].reshape(n, lanes)[:, :4].copy()


def measured_order(variational, exact):
    """Slope of the largest error of S between 16 and 32 steps."""
    errors = [np.abs(solve(variational, steps)[1] - exact).max() for steps in (16, 32)]
    return math.log2(errors[0] / errors[1])


def test_tangent_step_has_the_order_of_the_solver(variational):
    y, exact = solve(variational, 512)
    errors = [np.abs(solve(variational, steps)[0] - y).max() for steps in (16, 32)]
    # The method has order 5; what the next order adds at these steps shifts a measurement by less than 0.6.
    assert 4.4 < math.log2(errors[0] / errors[1]) < 6.6
    assert 4.4 < measured_order(variational, exact) < 6.6


@pytest.mark.parametrize("dropped", [{"curvature": {}}, {"mixed": {}}])
def test_tangent_step_loses_order_when_a_derivative_of_the_jacobian_is_dropped(variational, dropped):
    _, exact = solve(variational, 512)
    assert measured_order(replace(variational, **dropped), exact) < 3.5


def test_tangent_step_is_the_derivative_of_the_step_when_its_length_is_given(variational):
    step = stepper(variational)
    n, lanes = 2, count_lanes(4)
    y, rate, seed = np.array([1.0, 0.7]), np.array([0.2, -0.1]), np.random.default_rng(3)
    w = np.zeros(work_size(n, lanes))
    S = seed.standard_normal((n, lanes))
    w[: n * lanes] = S.ravel()
    y_new = np.zeros(n)
    step(0.3, 0.4, y, PSI, np.zeros(0), rate, 1.0, 1e-6, 1e-9, y_new, np.zeros(3 * n), w)
    found = w[n * lanes : 2 * n * lanes].reshape(n, lanes).copy()
    # Central differences of the step itself: truncation 1e-10, rounding 1e-16 / 1e-5.
    width = 1e-5
    for lane in range(4):
        ends = []
        for sign in (1.0, -1.0):
            p, new = PSI.copy(), np.zeros(n)
            p[lane] += sign * width
            start = y + sign * width * S[:, lane]
            step(0.3, 0.4, start, p, np.zeros(0), rate, 1.0, 1e-6, 1e-9, new, np.zeros(3 * n), w)
            ends.append(new)
        np.testing.assert_allclose(found[:, lane], (ends[0] - ends[1]) / (2 * width), rtol=0.0, atol=1e-8)
