"""The ODE engine in lanes: accuracy, events, steady states; results depend on nothing but the row."""

from __future__ import annotations

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numba import config
from scipy.integrate import solve_ivp
from unit.solve.ode_problems import (
    ORAL,
    ORAL_OUTPUTS,
    SATURABLE,
    bateman,
    engine,
    observations,
    oral,
    record,
    rows,
    saturable,
    with_options,
)

from amortnlme.core.status import SolveStatus
from amortnlme.solve import lanes as at
from amortnlme.solve.closed_form import ClosedFormEngine
from amortnlme.solve.functions import exp
from amortnlme.solve.linear import LinearSystem
from amortnlme.solve.trace import Names

PSI = np.array([[1.3, 2.0, 10.0], [0.4, 5.0, 20.0], [2.0, 0.5, 30.0]])
W1 = (1.0,)


@pytest.fixture(scope="module")
def oral_engine():
    return engine(oral, ORAL, ORAL_OUTPUTS)


@pytest.fixture(scope="module")
def oral_tsit5():
    return engine(oral, ORAL, ORAL_OUTPUTS, method="tsit5")


@pytest.fixture(scope="module")
def closed_form(oral_engine):
    system = LinearSystem.from_trace(oral_engine.system, oral_engine.entry)
    return ClosedFormEngine.build(system, oral_engine.outputs)


def forced(t, y, p):
    """Explicit time and a product with the state: y' = -k y t + cos-like forcing written with exp."""
    return (p.k * (1.0 - 2.0 * t) * y.a, exp(-t) - p.k * y.b)


FORCED = Names(("a", "b"), ("k",))


@pytest.fixture(scope="module")
def forced_engines():
    outputs = (lambda t, y, p: y.a, lambda t, y, p: y.b)
    return {
        method: engine(forced, FORCED, outputs, method=method, initial=lambda p: (1.0, 0.0))
        for method in ("rodas5p", "tsit5")
    }


def forced_exact(t, k):
    return np.exp(k * (t - t * t)), (np.exp(-t) - np.exp(-k * t)) / (k - 1.0)


@pytest.mark.parametrize("method", ["rodas5p", "tsit5"])
def test_engine_follows_a_right_hand_side_that_depends_on_time(forced_engines, method):
    t = np.linspace(0.0, 2.0, 9)
    built = forced_engines[method]
    f, status = built.predict(rows([[2.5]], observations(t), observations(t, output=1), index=[0]))
    g, _ = built.predict(rows([[2.5]], observations(t), observations(t, output=1), index=[1]))
    a, b = forced_exact(t, 2.5)
    assert status[0] == SolveStatus.OK
    # Fifteen steps or so, each within rtol = 1e-8 of states below 2; the errors decay or grow by e at most.
    np.testing.assert_allclose(f[0], a, atol=2e-7)
    np.testing.assert_allclose(g[0], b, atol=2e-7)


@pytest.mark.parametrize("method", ["rodas5p", "tsit5"])
def test_step_converges_with_order_five_when_the_tolerance_falls(forced_engines, method):
    t = np.linspace(0.0, 1.7, 18)
    a, _ = forced_exact(t, 2.5)
    errors, works = [], []
    for rtol in (1e-6, 1e-8, 1e-10):
        built = with_options(forced_engines[method], rtol=rtol, atol=rtol)
        f, _ = built.predict(rows([[2.5]], observations(t)))
        errors.append(np.abs(f[0] - a).max())
        works.append(count_steps(built, [[2.5]], observations(t)))
    order = math.log(errors[0] / errors[2]) / math.log(works[2] / works[0])
    # Global error ~ steps**-5 if all steps shrink alike; where they do not, the local order 6 shows through.
    assert 4.5 < order < 6.5, (errors, works)


def count_steps(built, psi, design):
    """The smallest max_steps with which the simulation succeeds."""
    low, high = 1, 4096
    while low < high:
        middle = (low + high) // 2
        _, status = with_options(built, max_steps=middle).predict(rows(psi, design))
        low, high = (low, middle) if status[0] == SolveStatus.OK else (middle + 1, high)
    return low


@pytest.mark.parametrize("method", ["rodas5p", "tsit5"])
def test_one_step_has_a_local_error_of_order_six(forced_engines, method):
    """The generated step itself, without the driver: halving it divides its error by 2**6."""
    built = forced_engines[method]
    module = built._kernels.module()
    model = built._kernels.formulas.model
    sizes = model.layout.sizes(1, model.observed)
    errors = []
    for h in (0.1, 0.05, 0.025):
        W = at.lane_memory(sizes, 1)[0]
        for v in range(at.LANES):
            W[at.TIME * at.LANES + v] = 0.1
            W[at.STOP * at.LANES + v] = 0.1 + h
            W[at.PROPOSED * at.LANES + v] = 1.0
            W[at.RTOL * at.LANES + v] = W[at.ATOL * at.LANES + v] = 1.0
            W[(sizes[at.STATE]) * at.LANES + v] = forced_exact(0.1, 2.5)[0]
            W[(sizes[at.STATE] + 1) * at.LANES + v] = forced_exact(0.1, 2.5)[1]
            W[(sizes[at.RATE]) * at.LANES + v] = W[(sizes[at.RATE] + 1) * at.LANES + v] = 0.0
            W[sizes[at.INPUT] * at.LANES + v] = 2.5
            module.derivative(W, v)
        module.step(W, 100.0)
        exact = forced_exact(0.1 + h, 2.5)
        found = [W[(sizes[at.STATE] + i) * at.LANES : (sizes[at.STATE] + i + 1) * at.LANES] for i in (0, 1)]
        assert all(np.ptp(values) == 0.0 for values in found)
        errors.append(max(abs(found[i][0] - exact[i]) for i in (0, 1)))
        dense = W[sizes[at.DENSE] * at.LANES :: at.LANES][:5]
        middle = np.polynomial.polynomial.polyval(0.5, dense)
        # The interpolation has order 4: a local error of order 5, with a constant of the size of y'''''/5!.
        assert abs(middle - forced_exact(0.1 + h / 2, 2.5)[0]) < 2.0 * h**5
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all((orders > 5.4) & (orders < 7.0)), (errors, orders)


def test_engine_solves_robertson_when_rates_span_eleven_orders_of_magnitude():
    def robertson(t, y, p):
        fast = p.k2 * y.b * y.b
        back = p.k3 * y.b * y.c
        return (-p.k1 * y.a + back, p.k1 * y.a - back - fast, fast)

    names = Names(("a", "b", "c"), ("k1", "k2", "k3"))
    outputs = (lambda t, y, p: y.a, lambda t, y, p: y.c)
    built = engine(robertson, names, outputs, atol=1e-14, initial=lambda p: (1.0, 0.0, 0.0))
    design = [record("obs", 0.0), record("obs", 40.0), record("obs", 4e5, output=1)]
    f, status = built.predict(rows([[0.04, 3e7, 1e4]], design))
    assert status[0] == SolveStatus.OK

    def slopes(t, y):
        return [
            -0.04 * y[0] + 1e4 * y[1] * y[2],
            0.04 * y[0] - 1e4 * y[1] * y[2] - 3e7 * y[1] ** 2,
            3e7 * y[1] ** 2,
        ]

    found = solve_ivp(slopes, (0.0, 4e5), [1.0, 0.0, 0.0], "Radau", [0.0, 40.0, 4e5], rtol=1e-11, atol=1e-15)
    # rtol = 1e-8 over some hundred steps.
    np.testing.assert_allclose(f[0], [1.0, found.y[0, 1], found.y[2, 2]], rtol=3e-7)


def test_factorization_without_pivoting_holds_when_the_jacobian_has_positive_cycles():
    """dy/dt = K y: entries beside the diagonal feed each other around, the diagonal is zero or positive."""
    K = np.array([[0.0, 3.0, 0.0], [0.0, 0.5, 4.0], [5.0, 0.0, 0.0]])

    def cycle(t, y, p):
        return (p.a * y.u1, 0.5 * y.u1 + p.b * y.u2, p.c * y.u0)

    names = Names(("u0", "u1", "u2"), ("a", "b", "c"))
    built = engine(cycle, names, (lambda t, y, p: y.u0,), initial=lambda p: (1.0, 0.0, -1.0))
    f, status = built.predict(rows([[3.0, 4.0, 5.0]], observations([0.0, 1.0, 2.0])))
    values, vectors = np.linalg.eig(K)
    weights = np.linalg.solve(vectors, np.array([1.0, 0.0, -1.0]))
    exact = [(vectors @ (weights * np.exp(values * t))).real[0] for t in (0.0, 1.0, 2.0)]
    assert status[0] == SolveStatus.OK
    np.testing.assert_allclose(f[0], exact, rtol=2e-6)


@pytest.mark.parametrize("method", ["rodas5p", "tsit5"])
def test_engine_adds_doses_by_superposition_when_they_repeat(oral_engine, oral_tsit5, method):
    built = {"rodas5p": oral_engine, "tsit5": oral_tsit5}[method]
    dose_times = [0.0, 12.0, 24.0, 36.0]
    t = np.array([0.5, 3.0, 12.0, 13.0, 30.0, 47.0])
    design = sorted(
        [record("bolus", s, amount=100.0, x=W1) for s in dose_times] + observations(t, x=W1),
        key=lambda r: r["time"],
    )
    f, status = built.predict(rows(PSI, design))
    exact = sum(bateman(t[None] - s, 100.0, *PSI.T[:, :, None]) for s in dose_times)
    assert not status.any()
    np.testing.assert_allclose(f, exact, rtol=1e-6, atol=1e-8)


def course():
    """Everything an event list can hold but steady states, with a covariate that changes."""
    return [
        record("obs", 0.0, x=(1.0,)),
        record("bolus", 1.0, amount=100.0, x=(1.0,)),
        record("obs", 1.0, output=1, x=(1.0,)),
        record("infusion", 2.0, amount=60.0, duration=3.0, into=1, x=(1.0,)),
        record("infusion", 2.5, amount=20.0, duration=8.0, into=1, x=(1.0,)),
        record("obs", 3.0, x=(1.4,)),
        record("obs", 5.0, x=(1.4,)),
        record("other", 6.0, x=(0.7,)),
        record("obs", 7.0, x=(0.7,)),
        record("obs", 9.0, output=1, x=(0.7,)),
        record("reset", 9.5, x=(0.7,)),
        record("obs", 9.5, x=(0.7,)),
        record("bolus", 10.0, amount=50.0, into=1, x=(0.7,)),
        record("obs", 10.0, x=(0.7,)),
        record("obs", 12.0, x=(0.7,)),
        record("reset", 2.0, x=(1.1,)),
        record("bolus", 2.0, amount=30.0, x=(1.1,)),
        record("obs", 6.0, x=(1.1,)),
        record("obs", 6.0, output=1, x=(1.1,)),
    ]


@pytest.mark.parametrize("method", ["rodas5p", "tsit5"])
def test_engine_agrees_with_the_closed_form_when_everything_happens(
    oral_engine, oral_tsit5, closed_form, method
):
    built = {"rodas5p": oral_engine, "tsit5": oral_tsit5}[method]
    given = rows(PSI, course())
    f, status = built.predict(given)
    exact, _ = closed_form.predict(given)
    assert not status.any()
    np.testing.assert_allclose(f, exact, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "dose",
    [
        dict(kind="bolus", amount=100.0, ii=12.0, ss=1),
        dict(kind="infusion", amount=100.0, duration=2.0, ii=12.0, ss=1, into=1),
        dict(kind="infusion", amount=100.0, duration=30.0, ii=12.0, ss=1, into=1),
        dict(kind="bolus", amount=100.0, ii=12.0, ss=2),
        dict(kind="infusion", amount=100.0, duration=15.0, ii=12.0, ss=2),
    ],
    ids=lambda d: f"{d['kind']}-ss{d['ss']}-{d.get('duration', 0):g}",
)
def test_steady_state_agrees_with_the_closed_form_when_the_system_is_linear(oral_engine, closed_form, dose):
    kind = dose.pop("kind")
    design = [
        record("infusion", 0.0, amount=10.0, duration=9.0, x=W1),
        record("obs", 4.0, x=W1),
        record(kind, 5.0, x=W1, **dose),
        *observations([5.0, 6.0, 16.0, 40.0], x=W1),
    ]
    given = rows(PSI, design)
    f, status = oral_engine.predict(given)
    exact, _ = closed_form.predict(given)
    assert not status.any()
    # The slowest mode forgets a share of 1 - exp(-0.2) per period, which multiplies the tolerance by 5.
    np.testing.assert_allclose(f, exact, rtol=1e-6, atol=1e-8)


@pytest.fixture(scope="module")
def late_engine():
    return engine(oral, ORAL, ORAL_OUTPUTS, initial=lambda p: (20.0, 5.0 * p.V), start=lambda p: p.CL - 3.0)


@pytest.mark.parametrize("start", [-2.0, 1.0, 2.5, 50.0])
def test_states_wait_for_their_start_when_it_lies_before_between_or_behind_the_records(late_engine, start):
    ka, V, CL = 1.3, 10.0, start + 3.0
    t = np.array([0.0, 1.0, 2.0, 3.0, 5.0])
    design = sorted(
        [record("bolus", 1.0, amount=7.0, x=(0.1,)), *observations(t, x=(0.1,))], key=lambda r: r["time"]
    )
    f, status = late_engine.predict(rows([[ka, CL, V]], design))
    depot = 20.0 + (7.0 if start >= 1.0 else 0.0)  # a dose given earlier waits
    moved = np.maximum(t - start, 0.0)
    k = CL * 0.1 / V
    exact = 5.0 * np.exp(-k * moved) + bateman(moved, depot, ka, CL, V, 0.1)
    if start < 1.0:
        exact = exact + np.where(t > 1.0, bateman(t - 1.0, 7.0, ka, CL, V, 0.1), 0.0)
    assert status[0] == SolveStatus.OK
    np.testing.assert_allclose(f[0], exact, rtol=1e-6)


def test_states_wait_again_when_a_reset_comes_before_their_start(late_engine):
    design = [
        record("obs", 4.0, x=W1),
        record("obs", 6.0, x=W1),
        record("reset", 0.0, x=W1),
        *observations([1.0, 2.0, 3.0], x=W1),
    ]
    f, _ = late_engine.predict(rows([[1.3, 5.0, 10.0]], design))  # start = 2
    k = 0.5

    def after(t):
        return 5.0 * math.exp(-k * t) + bateman(np.array(t), 20.0, 1.3, 5.0, 10.0)

    np.testing.assert_allclose(f[0], [after(2.0), after(4.0), 5.0, 5.0, after(1.0)], rtol=1e-6)


def many(n):
    rng = np.random.default_rng(5)
    psi = np.exp(rng.normal([0.0, 0.5, 2.5], [1.0, 1.0, 0.5], size=(n, 3)))
    other = [record("bolus", 0.0, amount=10.0, x=W1), *observations([2.0, 9.0, 30.0], x=W1)]
    return psi, other, rng.integers(0, 2, n)


def test_rows_have_the_same_bytes_alone_permuted_and_on_two_threads(oral_engine, monkeypatch):
    psi, other, index = many(150)
    f, status = oral_engine.predict(rows(psi, course(), other, index=index))
    assert not status.any()
    assert np.isnan(f[index == 1][:, 3:]).all() and not np.isnan(f[index == 0]).any()
    for i in (0, 77, 149):
        alone, _ = oral_engine.predict(rows(psi[i], course(), other, index=index[i : i + 1]))
        assert alone.tobytes() == f[i : i + 1].tobytes()
    order = np.random.default_rng(6).permutation(150)
    permuted, _ = oral_engine.predict(rows(psi[order], course(), other, index=index[order]))
    assert permuted.tobytes() == f[order].tobytes()
    monkeypatch.setattr(config, "NUMBA_NUM_THREADS", 2)
    small = replace(oral_engine, chunk_rows=16)
    threaded, _ = small.predict(rows(psi, course(), other, index=index))
    assert threaded.tobytes() == f.tobytes()


def test_engine_may_be_used_by_several_threads_at_once(oral_engine):
    psi, other, index = many(60)
    given = rows(psi, course(), other, index=index)
    expected, _ = oral_engine.predict(given)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: oral_engine.predict(given)[0].tobytes(), range(8)))
    assert set(found) == {expected.tobytes()}


@pytest.mark.parametrize("value", [1e300, -1e300, 0.0, math.nan, math.inf, -math.inf, -1.0, 1e-300])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_engine_answers_with_a_status_when_a_parameter_is_absurd(oral_engine, column, value):
    psi = np.repeat(PSI[:1], 2, axis=0)
    psi[0, column] = value
    design = course()
    f, status = with_options(oral_engine, max_steps=2000).predict(rows(psi, design))
    plain, _ = with_options(oral_engine, max_steps=2000).predict(rows(psi[1:], design))
    assert status[1] == SolveStatus.OK and f[1].tobytes() == plain[0].tobytes()
    if status[0] != SolveStatus.OK:
        assert np.isnan(f[0, -1])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_engine_calls_a_start_invalid_when_it_is_not_finite(late_engine, value):
    f, status = late_engine.predict(rows([[1.0, value, 10.0]], observations([0.0, 1.0], x=W1)))
    assert status[0] == SolveStatus.INVALID_ENTRY and np.isnan(f).all()


def test_engine_returns_max_steps_and_keeps_what_it_had_when_steps_run_out(oral_engine):
    design = [record("bolus", 0.0, amount=1.0, x=W1), *observations(np.linspace(0.0, 50.0, 40), x=W1)]
    f, status = with_options(oral_engine, max_steps=20).predict(rows(PSI[:1], design))
    full, _ = oral_engine.predict(rows(PSI[:1], design))
    assert status[0] == SolveStatus.MAX_STEPS
    n = int(np.isfinite(f[0]).sum())
    assert 0 < n < 40 and np.isnan(f[0, n:]).all()
    np.testing.assert_array_equal(f[0, :n], full[0, :n])


def test_engine_returns_non_finite_when_the_solution_explodes():
    names = Names(("y",), ("k",))
    built = engine(
        lambda t, y, p: (p.k * y.y * y.y,), names, (lambda t, y, p: y.y,), initial=lambda p: (1.0,)
    )
    f, status = built.predict(rows([[1.0]], observations([0.0, 0.5, 2.0])))  # 1 / (1 - t)
    assert status[0] in (SolveStatus.NON_FINITE, SolveStatus.STEP_UNDERFLOW, SolveStatus.MAX_STEPS)
    np.testing.assert_allclose(f[0, :2], [1.0, 2.0], rtol=1e-6)
    assert np.isnan(f[0, 2])


def test_design_without_observations_gives_no_columns(oral_engine):
    given = rows(PSI, [record("bolus", 0.0, amount=1.0, x=W1)])
    f, status = oral_engine.predict(given)
    assert f.shape == (3, 0) and not status.any()


def test_source_is_readable_when_shown(oral_engine):
    text = oral_engine.source
    for word in ("States: depot, central.", "Parameters: ka, CL, V.", "y_depot", "p_CL", "def step("):
        assert word in text
    compile(text, "generated", "exec")


@pytest.mark.parametrize("method", ["rodas5p", "tsit5"])
def test_generated_step_is_simd_code(method):
    """Multiplications of single doubles would mean that LLVM gave up vectorizing: a silent loss of 3x."""
    built = engine(saturable, SATURABLE, (lambda t, y, p: y.central,), method=method)
    # Numba can only inspect what it has compiled itself in this process.
    text = built.source.replace("cache=True", "cache=False")
    namespace: dict = {}
    exec(compile(text, "generated", "exec"), namespace)
    (assembly,) = namespace["step"].inspect_asm().values()
    packed = sum(assembly.count(name) for name in ("mulpd", "213pd", "231pd", "132pd"))
    single = sum(assembly.count(name) for name in ("mulsd", "213sd", "231sd", "132sd"))
    assert packed > 100 and single < packed / 20


SECOND_PROCESS = """
import sys, time
sys.path.insert(0, sys.argv[1])
from unit.solve.ode_problems import *
built = engine(oral, ORAL, ORAL_OUTPUTS)
f, status = built.predict(rows([[1.3, 2.0, 10.0]], [record("bolus", 0.0, amount=1.0, x=(1.0,)), *observations(
    [1.0], x=(1.0,))]))
from amortnlme.solve.ode import lane_driver
run_lanes = lane_driver().run_lanes
module = built._kernels.module()
for function in (module.step, module.derivative, module.outputs, run_lanes):
    print(sum(function.stats.cache_hits.values()), sum(function.stats.cache_misses.values()))
"""


def test_second_process_compiles_nothing_when_the_model_is_known(oral_engine):
    oral_engine.predict(rows(PSI, course()))
    tests = Path(__file__).parents[2]
    command = [sys.executable, "-c", SECOND_PROCESS, str(tests)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert answer.split() == ["1", "0"] * 4
