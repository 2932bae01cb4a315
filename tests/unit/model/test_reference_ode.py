"""The slow reference against formulas on paper: it judges the engines, so nothing of theirs judges it."""

from math import exp, log
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from amortnlme.core.errors import DesignError
from amortnlme.data.design import Design, Dose, EventKind
from amortnlme.model.dynamics import Ode
from amortnlme.model.error_model import Proportional
from amortnlme.model.functions import exp as model_exp
from amortnlme.model.functions import where
from amortnlme.model.individual import Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.reference_ode import reference_prediction, reference_sensitivity

K, LAG, F, START, BASE = 0.3, 0.7, 0.8, 1.3, 5.0
PHI = np.log([K, LAG, F, START, BASE, 0.1])
# The integrator's local tolerance is 1e-12; a few dozen intervals and a steady state amplify it.
RTOL = 1e-9


def model(**changes):
    """y' = -k y: everything that enters it can be written down. No engine is built."""
    dynamics = {
        "rhs": lambda t, y, p: (-p.k * y.amount,),
        "dose_state": "amount",
        "initial": lambda p: (p.base,),
        "start": lambda p: p.start,
        "lag": {"amount": lambda p: p.lag},
        "bioavailability": {"amount": lambda p: p.F},
    }
    names = ("k", "lag", "F", "start", "base")
    return SimpleNamespace(
        parameters=ParameterSpace(
            (
                *(Parameter(name, "1", "log", 1.0, name) for name in names),
                Parameter("b", "1", "log", 0.2, "relative SD", role="error"),
            )
        ),
        states=("amount",),
        covariates=(),
        dynamics=Ode(**(dynamics | changes)),
        outputs=(Output("amount", "mg", lambda t, y, p: y.amount, Proportional("b")),),
    )


def plain(**changes):
    nothing = {"initial": None, "start": None, "lag": None, "bioavailability": None}
    return model(**(nothing | changes))


def predict(model, design):
    return reference_prediction(model, PHI, design)


def test_bolus_infusion_and_additional_doses_superpose():
    doses = [Dose(1.0, 10.0, addl=2, ii=1.5), Dose(2.0, 8.0, duration=4.0)]
    times = np.array([0.5, 1.0, 3.0, 9.0])

    def infusion(t):
        end = min(t, 6.0)
        return 2.0 / K * (exp(-K * (t - end)) - exp(-K * (t - 2.0))) if t > 2.0 else 0.0

    exact = [sum(10.0 * exp(-K * (t - s)) for s in (1.0, 2.5, 4.0) if s <= t) + infusion(t) for t in times]
    assert_allclose(predict(plain(), Design.from_doses(doses, times)), exact, rtol=RTOL)


def test_states_wait_for_the_start_boluses_with_them_and_infusions_act_from_there_on():
    late = model(lag=None, bioavailability=None)
    design = Design.from_doses([Dose(0.0, 10.0), Dose(0.5, 6.0, duration=2.0)], [0.0, 0.25, 1.0, 4.0])
    infused = 3.0 / K * (1 - exp(-K * (2.5 - START))) * exp(-K * 1.5)
    after = (BASE + 10.0) * exp(-K * (4.0 - START)) + infused
    assert_allclose(predict(late, design), [15.0, 15.0, 15.0, after], rtol=RTOL)


def test_states_move_from_a_start_before_the_first_record():
    late = model(lag=None, bioavailability=None)
    found = predict(late, Design.from_doses([Dose(4.0, 1.0)], [2.0]))
    assert_allclose(found, [BASE * exp(-K * (2.0 - START))], rtol=RTOL)


def test_lag_moves_doses_and_infusion_ends_and_bioavailability_scales_them():
    late = model(initial=None, start=None)
    design = Design.from_doses([Dose(0.0, 10.0), Dose(1.0, 6.0, duration=2.0)], [0.5, 5.0])
    infused = F * 3.0 / K * (1 - exp(-2 * K)) * exp(-K * (5.0 - 3.0 - LAG))
    assert_allclose(predict(late, design), [0.0, F * 10.0 * exp(-K * (5.0 - LAG)) + infused], rtol=RTOL)


def test_reset_returns_to_the_initial_state_and_cancels_what_runs_or_is_on_its_way():
    design = Design(
        time=[0.0, 0.0, 1.5, 0.0, 2.0],
        kind=[EventKind.BOLUS, EventKind.INFUSION, EventKind.BOLUS, EventKind.RESET, EventKind.OBSERVATION],
        compartment=np.zeros(5),
        amount=[10.0, 60.0, 20.0, 0.0, 0.0],
        duration=[0.0, 6.0, 0.0, 0.0, 0.0],
        ii=np.zeros(5),
        ss=np.zeros(5),
        output=[0, 0, 0, 0, 1],
    )
    assert_allclose(predict(model(start=None), design), [BASE * exp(-K * 2.0)], rtol=RTOL)
    # With a start the states wait for it again after the reset.
    assert_allclose(predict(model(), design), [BASE * exp(-K * (2.0 - START))], rtol=RTOL)


@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
def test_steady_state_is_the_limit_of_the_series_when_elimination_is(slow):
    phi = PHI.copy()
    k = 0.003 if slow else K
    phi[0] = log(k)
    design = Design.from_doses([Dose(0.0, 10.0, ii=12.0, ss=1)], [0.0, 5.0])
    peak = 10.0 / (1 - exp(-12.0 * k))
    found = reference_prediction(plain(), phi, design)
    assert_allclose(found, [peak, peak * exp(-5.0 * k)], rtol=RTOL)


def test_steady_state_of_overlapping_infusions_keeps_the_earlier_ones_running():
    ii, duration, rate = 2.0, 5.0, 3.0
    design = Design.from_doses([Dose(10.0, rate * duration, duration=duration, ii=ii, ss=1)], [10.0, 20.0])

    def response(age):
        running = min(age, duration)
        return rate / K * (1 - exp(-K * running)) * exp(-K * (age - running))

    exact = [sum(response(t - 10.0 + j * ii) for j in range(200)) for t in (10.0, 20.0)]
    assert_allclose(predict(plain(), design), exact, rtol=RTOL)


@pytest.mark.parametrize("lag", [0.7, 5.3])
def test_lagged_steady_state_is_the_lagged_series_when_the_lag_is_shorter_or_longer_than_the_interval(lag):
    ii, phi = 2.0, PHI.copy()
    phi[1] = log(lag)
    late = model(initial=None, start=None)
    times = [10.0, 10.5, 14.0, 20.0]
    design = Design.from_doses([Dose(10.0, 10.0, ii=ii, ss=1)], times)
    # Doses recorded at 10, 8, 6, ... arrive a lag later.
    exact = [
        sum(F * 10.0 * exp(-K * (t - s)) for s in 10.0 + lag - ii * np.arange(300) if s <= t) for t in times
    ]
    assert_allclose(reference_prediction(late, phi, design), exact, rtol=RTOL)


def test_second_steady_state_adds_to_the_first_without_doubling_production():
    fed = plain(rhs=lambda t, y, p: (2.0 - p.k * y.amount,))
    design = Design.from_doses([Dose(0.0, 10.0, ii=12.0, ss=1), Dose(6.0, 5.0, ii=12.0, ss=2)], [0.0, 6.0])
    first = 10.0 / (1 - exp(-12.0 * K))
    second = 5.0 / (1 - exp(-12.0 * K))
    exact = [first + 2.0 / K, first * exp(-6.0 * K) + 2.0 / K + second]
    assert_allclose(predict(fed, design), exact, rtol=RTOL)


def test_steady_state_of_a_periodic_forcing_is_that_of_the_last_period():
    """y' = exp(-t/2) - k y with t in [t_event - ii, t_event] and y periodic there."""
    forced = plain(rhs=lambda t, y, p: (model_exp(-0.5 * t) - p.k * y.amount,))
    design = Design.from_doses([Dose(10.0, 1.0, ii=4.0, ss=1)], [10.0])
    gained = (exp(-0.5 * 10.0) - exp(-0.5 * 6.0 - K * 4.0)) / (K - 0.5)
    exact = (gained + 1.0 * exp(-4.0 * K)) / (1 - exp(-4.0 * K)) + 1.0
    assert_allclose(predict(forced, design), [exact], rtol=RTOL)


def test_stiff_right_hand_side_is_integrated_by_an_implicit_method():
    stiff = plain(rhs=lambda t, y, p: (-1e6 * (y.amount - model_exp(-p.k * t)),))
    # Beyond the initial layer y = exp(-k t) / (1 - k / 1e6).
    found = predict(stiff, Design.from_doses([Dose(0.0, 1.0)], [20.0]))
    assert_allclose(found, [exp(-K * 20.0) / (1 - K / 1e6)], rtol=1e-8)


def test_regimen_without_elimination_is_refused():
    trapped = plain(rhs=lambda t, y, p: (0.0 * p.k * y.amount,))
    with pytest.raises(DesignError) as caught:
        predict(trapped, Design.from_doses([Dose(0.0, 1.0, ii=12.0, ss=1)], [1.0]))
    assert caught.value.code == "E_DESIGN_STEADY_STATE"


def test_complex_step_gives_the_derivatives_of_event_times_to_rounding():
    """d/dpsi of base exp(-k (t - start)) + F d exp(-k (t - lag)) for t beyond both."""
    t, dose = 6.0, 10.0
    late = model()
    design = Design.from_doses([Dose(2.0, dose)], [t])
    rest, drug = BASE * exp(-K * (t - START)), F * dose * exp(-K * (t - 2.0 - LAG))
    exact = [
        -K * ((t - START) * rest + (t - 2.0 - LAG) * drug), K * LAG * drug, drug, K * START * rest, rest, 0.0,
    ]  # fmt: skip
    assert_allclose(reference_sensitivity(late, PHI, design)[0], exact, rtol=RTOL, atol=1e-15)


def test_complex_step_passes_through_a_steady_state_with_lag():
    late, ii = model(initial=None, start=None), 2.0
    design = Design.from_doses([Dose(10.0, 10.0, ii=ii, ss=1)], [11.9])
    age = 1.9 - LAG + ii * np.arange(300)
    age, amount = age[age >= 0], F * 10.0
    value = (amount * np.exp(-K * age)).sum()
    exact = [-K * (age * amount * np.exp(-K * age)).sum(), K * LAG * value, value, 0.0, 0.0, 0.0]
    assert_allclose(reference_sensitivity(late, PHI, design)[0], exact, rtol=RTOL, atol=1e-12)


def test_complex_step_follows_branches_of_the_model_by_real_parts():
    branching = plain(rhs=lambda t, y, p: (where(y.amount > 1.0, -p.k * y.amount, -2.0 * p.k * y.amount),))
    design = Design.from_doses([Dose(0.0, 0.9)], [2.0])
    exact = -4.0 * K * 0.9 * exp(-4.0 * K)
    assert_allclose(reference_sensitivity(branching, PHI, design)[0, 0], exact, rtol=RTOL)
