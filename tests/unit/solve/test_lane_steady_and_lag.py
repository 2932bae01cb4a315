"""Steady states without a closed form, and lagged doses, in the lanes of the ODE engine."""

from __future__ import annotations

import math

import numpy as np
import pytest
from unit.solve.ode_problems import (
    ORAL,
    ORAL_OUTPUTS,
    SATURABLE,
    engine,
    observations,
    oral,
    record,
    rows,
    saturable,
)

from amortnlme.core.errors import DesignError
from amortnlme.core.status import SolveStatus

W1 = (1.0,)


@pytest.fixture(scope="module")
def oral_engine():
    return engine(oral, ORAL, ORAL_OUTPUTS)


@pytest.fixture(scope="module")
def saturable_engine():
    return engine(
        saturable,
        SATURABLE,
        (lambda t, y, p: y.central, lambda t, y, p: y.effect),
        initial=lambda p: (0.0, p.kin / p.kout),
    )


@pytest.mark.parametrize("kind", ["bolus", "infusion"])
def test_steady_state_agrees_with_a_long_simulation_when_elimination_saturates(saturable_engine, kind):
    psi = [[11.0, 4.0, 2.0, 0.3], [30.0, 4.0, 2.0, 0.1]]
    dose = dict(amount=100.0, duration=10.0 if kind == "infusion" else 0.0)
    t = [2400.0, 2401.0, 2405.0, 2411.5]
    long = [record(kind, 12.0 * i, **dose) for i in range(200)]
    long += [record(kind, 2400.0, **dose), *observations(t), *observations(t[-1:], output=1)]
    short = [record(kind, 2400.0, ii=12.0, ss=1, **dose), *observations(t)]
    short += observations(t[-1:], output=1)
    f, status = saturable_engine.predict(rows(psi, short))
    g, long_status = saturable_engine.predict(rows(psi, long))
    assert not status.any() and not long_status.any()
    # 91 % of the capacity is used: a period reduces a deviation by 25 % only, the tolerance grows fourfold.
    # Empty, nothing is left but what the solver's absolute tolerance of 1e-10 allows.
    np.testing.assert_allclose(f, g, rtol=2e-6, atol=1e-9)


def test_steady_state_has_a_status_of_its_own_when_more_enters_than_can_leave(saturable_engine):
    """Also where the dose vanishes in the rounding of a huge state, which nothing would change."""
    for amount in (61.0, 66.0, 100.0, 1e4):
        design = [record("bolus", 0.0, amount=amount, ii=12.0, ss=1), *observations([1.0])]
        f, status = saturable_engine.predict(rows([[5.0, 4.0, 2.0, 0.3]], design))
        assert status[0] in (SolveStatus.NO_STEADY_STATE, SolveStatus.MAX_STEPS)
        assert np.isnan(f).all()


def test_ss2_is_refused_when_the_system_is_not_linear(saturable_engine):
    design = [record("bolus", 0.0, amount=1.0, ii=12.0, ss=2), *observations([1.0])]
    with pytest.raises(DesignError) as caught:
        saturable_engine.predict(rows([[5.0, 4.0, 2.0, 0.3]], design))
    assert caught.value.code == "E_DESIGN_SS_SUPERPOSITION"


@pytest.fixture(scope="module")
def lagged_engine():
    return engine(
        oral,
        ORAL,
        ORAL_OUTPUTS,
        lag={"depot": lambda p: 0.3 * p.w * p.ka, "central": lambda p: 0.1 * p.V},
        bioavailability={"depot": lambda p: 0.1 * p.CL},
    )


def test_doses_arrive_late_and_reduced_when_the_model_says_so(oral_engine, lagged_engine):
    t = np.array([0.0, 1.0, 2.0, 3.5, 4.0, 9.0])
    ka, CL, V = 2.0, 4.0, 10.0

    def design(depot, central, fraction):
        given = [
            record("bolus", 0.0 + depot, amount=100.0 * fraction, x=W1),
            record("infusion", 1.0 + depot, amount=40.0 * fraction, duration=2.0, x=W1),
            record("bolus", 1.5 + central, amount=5.0, into=1, x=W1),
            *observations(t, x=W1),
        ]
        first = [] if depot == 0.0 else [record("other", 0.0, x=W1)]
        return first + sorted(given, key=lambda r: r["time"])

    f, status = lagged_engine.predict(rows([[ka, CL, V]], design(0.0, 0.0, 1.0)))
    g, _ = oral_engine.predict(rows([[ka, CL, V]], design(0.6, 1.0, 0.4)))
    assert status[0] == SolveStatus.OK
    np.testing.assert_allclose(f, g, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["bolus", "infusion"])
def test_steady_state_agrees_with_a_long_simulation_when_doses_arrive_late(lagged_engine, kind):
    ka, CL, V = 30.0, 4.0, 10.0  # a lag of 9, and an interval of 4: two doses are on their way
    dose = dict(amount=100.0, duration=5.0 if kind == "infusion" else 0.0)
    t = [200.0, 200.5, 203.0, 207.0, 209.5, 215.0]
    long = [record(kind, 4.0 * i, x=W1, **dose) for i in range(51)]
    short = [record(kind, 200.0, ii=4.0, ss=1, x=W1, **dose)]
    f, status = lagged_engine.predict(rows([[ka, CL, V]], short + observations(t, x=W1)))
    g, _ = lagged_engine.predict(rows([[ka, CL, V]], long + observations(t, x=W1)))
    assert status[0] == SolveStatus.OK
    np.testing.assert_allclose(f, g, rtol=1e-6)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_engine_calls_an_entry_invalid_when_a_lag_is_negative_or_not_finite(lagged_engine, value):
    design = [record("bolus", 0.0, amount=1.0, x=W1), *observations([1.0], x=W1)]
    f, status = lagged_engine.predict(rows([[value, 1.0, 10.0], [1.0, 1.0, 10.0]], design))
    assert status.tolist() == [SolveStatus.INVALID_ENTRY, SolveStatus.OK]
    assert np.isnan(f[0]).all() and np.isfinite(f[1]).all()
