"""Forward sensitivities of ODE models against complex steps through an integrator of their own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from unit.solve import tangent_cases as cases
from unit.solve.complex_step import Event, real, sensitivities
from unit.solve.tangent_cases import bolus, infusion, observation, reset, switch

from amortnlme.core.errors import DesignError
from amortnlme.core.status import SolveStatus
from amortnlme.solve import ode_tangent, threads
from amortnlme.solve.entry import EntryFunctions
from amortnlme.solve.linear import LinearSolver, LinearSystem
from amortnlme.solve.ode import OdeEngine, OdeOptions

RTOL, ATOL, STEPS = 1e-10, 1e-13, 100_000
# Halving the oracle's steps divides the difference by ten, so the oracle's error decides: at most 1e-7 of a
# column's largest value. The engine adds its tolerance per step, times a few hundred steps.
CLOSE = 1e-7


@pytest.fixture(scope="module")
def absorption():
    return cases.build(cases.absorption, cases.ABSORPTION, cases.ABSORPTION_ENTRY, cases.ABSORPTION_OUTPUTS)[
        0
    ]


@pytest.fixture(scope="module")
def translation():
    return cases.build(
        cases.translation, cases.TRANSLATION, cases.TRANSLATION_ENTRY, cases.TRANSLATION_OUTPUTS
    )[0]


def assert_agrees(tangent, rows, course, psi, idle=()):
    f, df, status = tangent.predict(rows, RTOL, ATOL, STEPS)
    assert_array_equal(status, 0)
    expected, slopes = sensitivities(course, psi)
    assert_allclose(f[0], expected, rtol=CLOSE, atol=CLOSE * np.abs(expected).max())
    by_log, found = slopes * psi, df[0] * psi
    scale = np.abs(by_log).max(axis=0)
    scale[list(idle)] = 1.0
    assert (scale > 1e-3).all(), "every parameter must matter, or agreement shows nothing"
    assert_allclose(found / scale, by_log / scale, rtol=0.0, atol=CLOSE)


def seen(time, output=0):
    return cases.seen(time, cases.ABSORPTION_OUTPUTS[output], cases.ABSORPTION)


def entering(kind, *arguments):
    return kind(*arguments, cases.ABSORPTION, cases.ABSORPTION_ENTRY)


def absorption_course(events, wt=(70.0,), max_step=0.1):
    return cases.course_of(cases.absorption, cases.ABSORPTION, cases.ABSORPTION_ENTRY, events, wt, max_step)


def mixed_design():
    """Lagged boluses and infusions, a change of weight, a reset at which time falls."""
    light, heavy, other = (70.0,), (85.0,), (60.0,)
    return [
        bolus(0.0, 0, 100.0, wt=light),
        observation(0.2, wt=light),
        observation(0.9, wt=light),
        observation(1.7, 1, wt=light),
        infusion(3.0, 1, 60.0, 4.0, wt=light),
        observation(4.0, wt=light),
        switch(6.0, heavy),
        observation(6.5, wt=heavy),
        bolus(8.0, 0, 50.0, wt=heavy),
        observation(9.0, 1, wt=heavy),
        observation(12.0, wt=heavy),
        reset(2.0, other),
        bolus(2.0, 0, 80.0, wt=other),
        observation(3.3, wt=other),
        observation(7.0, 1, wt=other),
    ]


def mixed_course():
    begin, end = entering(cases.infused, 3.0, 1, 60.0, 4.0, (70.0,))
    return absorption_course(
        [
            Event(lambda p: 0.0),
            seen(0.2),
            entering(cases.given, 0.0, 0, 100.0, (70.0,)),
            seen(0.9),
            seen(1.7, 1),
            begin,
            seen(4.0),
            Event(lambda p: 6.0, covariates=(85.0,)),
            seen(6.5),
            end,
            entering(cases.given, 8.0, 0, 50.0, (85.0,)),
            seen(9.0, 1),
            seen(12.0),
            Event(lambda p: 2.0, reset=True, covariates=(60.0,)),
            entering(cases.given, 2.0, 0, 80.0, (60.0,)),
            seen(3.3),
            seen(7.0, 1),
        ]
    )


def test_tangent_agrees_with_complex_steps_when_doses_lag_and_covariates_change(absorption):
    rows = cases.rows_of(mixed_design(), cases.ABSORPTION_PSI)
    assert_agrees(absorption, rows, mixed_course(), cases.ABSORPTION_PSI)


def test_tangent_agrees_with_central_differences_of_its_own_predictions(absorption):
    psi = cases.ABSORPTION_PSI
    # Truncation 1e-8 and rounding of the solver 1e-10 / 1e-4, both relative.
    relative = 1e-4
    moved = np.repeat(psi[None], 2 * len(psi), axis=0)
    for j in range(len(psi)):
        moved[2 * j, j] *= 1.0 + relative
        moved[2 * j + 1, j] *= 1.0 - relative
    f, _, _ = absorption.predict(cases.rows_of(mixed_design(), moved), RTOL, ATOL, STEPS)
    differences = ((f[0::2] - f[1::2]) / (2.0 * relative)).T
    _, df, _ = absorption.predict(cases.rows_of(mixed_design(), psi), RTOL, ATOL, STEPS)
    scale = np.abs(differences).max(axis=0)
    assert_allclose(df[0] * psi / scale, differences / scale, rtol=0.0, atol=2e-6)


# Perturbations die out at 0.2 / h or faster: the oracle simulates 120 h.
QUICK_PSI = cases.ABSORPTION_PSI * [1.0, 1.5, 1.0, 0.6, 3.0, 0.25, 1.0, 1.0, 1.0]


def entering_steady(course, periods, *arguments):
    return cases.settled(course, periods, *arguments, cases.ABSORPTION, cases.ABSORPTION_ENTRY)


@pytest.mark.parametrize("lag", [0.35, 13.0])
def test_tangent_agrees_with_complex_steps_when_a_bolus_regimen_is_steady(absorption, lag):
    psi = QUICK_PSI.copy()
    psi[6] = lag
    wt, times = (70.0,), (0.1, 2.0, 5.0, 11.0)
    records = [bolus(0.0, 0, 60.0, ii=12.0, ss=1, wt=wt), *(observation(t, wt=wt) for t in times)]
    course = absorption_course([], max_step=0.05)
    arrivals = [entering(cases.given, -12.0 * j, 0, 60.0, wt) for j in range(2) if lag - 12.0 * j > 0]
    events = [
        *(seen(t) for t in times),
        *arrivals,
        entering_steady(course, 10, 0.0, 0, 60.0, 0.0, 12.0, wt),
    ]
    course.events.extend(sorted(events, key=lambda event: real(event.time(psi))))
    steady = next(i for i, e in enumerate(course.events) if e.time(psi) == 0.0)
    course.events.insert(0, course.events.pop(steady))
    assert_agrees(absorption, cases.rows_of(records, psi), course, psi)


def test_tangent_agrees_with_complex_steps_when_steady_infusions_overlap(absorption):
    psi, wt, times = QUICK_PSI, (70.0,), (1.0, 1.9, 4.0, 7.0)
    records = [
        infusion(0.0, 1, 20.0, 8.0, ii=6.0, ss=1, wt=wt),
        *(observation(t, wt=wt) for t in times),
    ]
    course = absorption_course([])
    rate, lag, fraction = 20.0 / 8.0, *cases.entry_of(1, wt, cases.ABSORPTION, cases.ABSORPTION_ENTRY)

    def ended(y, running, p):
        running = running.copy()
        running[1] -= rate * fraction(p)
        return y, running

    begin, _ = entering(cases.infused, 0.0, 1, 20.0, 8.0, wt)
    course.events.extend(
        [
            entering_steady(course, 20, 0.0, 1, 20.0, 8.0, 6.0, wt),
            begin,
            seen(1.0),
            seen(1.9),
            Event(lambda p: lag(p) + 2.0, ended),
            seen(4.0),
            seen(7.0),
        ]
    )
    assert_agrees(absorption, cases.rows_of(records, psi), course, psi, idle=[0])  # nothing is absorbed


@pytest.mark.parametrize("start", [-0.4, 0.7])
def test_tangent_agrees_with_complex_steps_when_the_start_depends_on_parameters(translation, start):
    psi = cases.TRANSLATION_PSI.copy()
    psi[7] = start
    times = (0.2, 0.6, 1.0, 3.0, 8.0)
    records = [bolus(0.1, 0, 0.5), *(observation(t) for t in times)]
    late = [cases.seen(t, cases.TRANSLATION_OUTPUTS[0], cases.TRANSLATION) for t in times]
    given = cases.given(0.1, 0, 0.5, (), cases.TRANSLATION, cases.TRANSLATION_ENTRY)
    course = cases.course_of(
        cases.translation, cases.TRANSLATION, cases.TRANSLATION_ENTRY, [given, *late], max_step=0.05
    )
    assert_agrees(translation, cases.rows_of(records, psi), course, psi)


def test_tangent_agrees_with_complex_steps_when_the_system_is_stiff(absorption):
    psi = cases.ABSORPTION_PSI.copy()
    psi[0], psi[4], psi[5] = 3e3, 4e3, 5.0
    wt, times = (70.0,), (0.15, 0.5, 2.0, 6.0)
    records = [bolus(0.0, 0, 100.0, wt=wt), *(observation(t, i % 2, wt=wt) for i, t in enumerate(times))]
    events = [
        Event(lambda p: 0.0),
        seen(0.15),
        entering(cases.given, 0.0, 0, 100.0, wt),
        *(seen(t, i % 2) for i, t in enumerate(times) if i),
    ]
    f, df, status = absorption.predict(cases.rows_of(records, psi), RTOL, ATOL, STEPS)
    expected, slopes = sensitivities(absorption_course(events, max_step=0.05), psi)
    assert_array_equal(status, 0)
    assert_allclose(f[0], expected, rtol=CLOSE, atol=CLOSE)
    # What is in equilibrium hardly depends on its rates: compare within each observation.
    scale = np.abs(slopes * psi).max(axis=1, keepdims=True) + 1e-300
    assert_allclose(df[0] * psi / scale, slopes * psi / scale, rtol=0.0, atol=CLOSE)


@pytest.mark.parametrize("ss", [1, 2])
@pytest.mark.parametrize("duration", [0.0, 3.0, 10.0])
def test_tangent_equals_closed_form_when_the_system_is_linear(ss, duration):
    outputs = (lambda t, y, p: y.central,)
    tangent, system, entry, _ = cases.build(cases.chain, cases.CHAIN, EntryFunctions(), outputs)
    dose = infusion(4.0, 0, 50.0, duration, ii=8.0, ss=ss) if duration else bolus(4.0, 0, 50.0, ii=8.0, ss=ss)
    records = [infusion(0.0, 1, 30.0, 6.0), observation(3.0), dose, *map(observation, (4.5, 7.0, 20.0))]
    rows = cases.rows_of(records, np.array([[1.3, 0.2], [0.4, 0.5]]))
    f, df, status = tangent.predict(rows, RTOL, ATOL, STEPS)
    exact = LinearSolver(LinearSystem.from_trace(system, entry)).solve(
        rows.psi, rows.schedule, rows.design_index, sensitivities=True
    )
    assert_array_equal(status, 0)
    assert exact.dx_dpsi is not None
    # Error per step 1e-10, amplified by 1 / (1 - exp(-k ii)) at the steady state, a few dozen steps.
    assert_allclose(f, exact.x[..., 1], rtol=1e-8)
    assert_allclose(df, exact.dx_dpsi[..., 1], rtol=1e-7, atol=1e-7 * np.abs(exact.dx_dpsi[..., 1]).max())


def test_tangent_gives_a_row_the_same_bytes_alone_and_in_a_batch(absorption):
    psi = cases.ABSORPTION_PSI * np.exp(0.3 * np.random.default_rng(1).standard_normal((7, 9)))
    f, df, status = absorption.predict(cases.rows_of(mixed_design(), psi), 1e-6, 1e-9, STEPS)
    assert_array_equal(status, 0)
    for i in (6, 0, 3):
        alone = absorption.predict(cases.rows_of(mixed_design(), psi[i]), 1e-6, 1e-9, STEPS)
        assert alone[0].tobytes() == f[i].tobytes()
        assert alone[1].tobytes() == df[i].tobytes()


def test_tangent_reaches_its_tolerance_when_it_is_loose(translation):
    records = [observation(t) for t in np.linspace(0.5, 20.0, 14)]
    rows = cases.rows_of(records, cases.TRANSLATION_PSI)
    exact = translation.predict(rows, RTOL, ATOL, STEPS)
    loose = translation.predict(rows, 1e-6, 1e-9, STEPS)
    # Errors of single steps, at most the tolerance, add up over some dozens of them.
    assert_allclose(loose[0], exact[0], rtol=1e-5)
    psi = cases.TRANSLATION_PSI
    assert_allclose(loose[1] * psi, exact[1] * psi, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({6: -0.1}, {SolveStatus.INVALID_ENTRY}),
        ({6: np.nan}, {SolveStatus.INVALID_ENTRY}),
        ({6: np.inf}, {SolveStatus.INVALID_ENTRY}),
        ({0: np.nan}, {SolveStatus.NON_FINITE}),
        ({1: np.inf}, {SolveStatus.NON_FINITE}),
        ({3: 0.0}, {SolveStatus.NON_FINITE}),
        ({0: -200.0}, {SolveStatus.NON_FINITE, SolveStatus.STEP_UNDERFLOW, SolveStatus.MAX_STEPS}),
    ],
)
def test_tangent_gives_a_status_and_nan_when_parameters_are_absurd(absorption, change, expected):
    psi = np.array([cases.ABSORPTION_PSI, cases.ABSORPTION_PSI])
    for column, value in change.items():
        psi[1, column] = value
    f, df, status = absorption.predict(cases.rows_of(mixed_design(), psi), 1e-6, 1e-9, STEPS)
    assert status[0] == SolveStatus.OK and np.isfinite(f[0]).all() and np.isfinite(df[0]).all()
    assert status[1] in expected
    assert np.isnan(f[1]).all() and np.isnan(df[1]).all()


def test_tangent_reports_the_step_limit(absorption):
    _, _, status = absorption.predict(cases.rows_of(mixed_design(), cases.ABSORPTION_PSI), 1e-6, 1e-9, 3)
    assert_array_equal(status, [SolveStatus.MAX_STEPS])


def test_tangent_reports_that_no_steady_state_exists_when_input_exceeds_elimination(absorption):
    psi, wt = cases.ABSORPTION_PSI, (70.0,)
    # 8 x 1.4 = 11 mg/h at most leave; 0.76 x 200 mg every 6 h enter.
    records = [infusion(0.0, 1, 200.0, 1.0, ii=6.0, ss=1, wt=wt), observation(3.0, wt=wt)]
    _, _, status = absorption.predict(cases.rows_of(records, psi), 1e-6, 1e-9, STEPS)
    assert_array_equal(status, [SolveStatus.NO_STEADY_STATE])


def test_engine_predicts_the_same_with_and_without_sensitivities():
    outputs = (lambda t, y, p: y.central,)
    _, system, entry, traced = cases.build(cases.chain, cases.CHAIN, EntryFunctions(), outputs)
    engine = OdeEngine.build(system, entry, traced, OdeOptions(rtol=1e-8, atol=1e-10))
    records = [
        infusion(0.0, 1, 30.0, 6.0),
        observation(3.0),
        bolus(8.0, 0, 50.0, ii=8.0, ss=2),
        *map(observation, (8.5, 20.0)),
    ]
    rows = cases.rows_of(records, np.array([[1.3, 0.2], [0.4, 0.5]]))
    f, status = engine.predict(rows)
    found, df, also = engine.predict_with_sensitivity(rows)
    assert_array_equal(status, also)
    # The steps differ, as the sensitivities have a say in their lengths: both are within some tolerances.
    assert_allclose(found, f, rtol=1e-6)
    assert df.shape == (2, 3, 2)


def test_engine_refuses_to_add_steady_states_when_the_system_is_not_linear():
    _, system, entry, traced = cases.build(
        cases.absorption, cases.ABSORPTION, cases.ABSORPTION_ENTRY, cases.ABSORPTION_OUTPUTS
    )
    engine = OdeEngine.build(system, entry, traced, OdeOptions())
    wt = (70.0,)
    records = [bolus(0.0, 0, 60.0, ii=12.0, ss=2, wt=wt), observation(1.0, wt=wt)]
    with pytest.raises(DesignError, match="SS=2"):
        engine.predict_with_sensitivity(cases.rows_of(records, cases.ABSORPTION_PSI))


def test_tangent_gives_the_same_bytes_when_rows_are_spread_over_threads(absorption, monkeypatch):
    psi = cases.ABSORPTION_PSI * np.exp(0.3 * np.random.default_rng(2).standard_normal((7, 9)))
    rows = cases.rows_of(mixed_design(), psi)
    together = absorption.predict(rows, 1e-6, 1e-9, STEPS)
    monkeypatch.setattr(ode_tangent, "CHUNK_ROWS", 2)
    monkeypatch.setattr(threads.config, "NUMBA_NUM_THREADS", 2)
    spread = absorption.predict(rows, 1e-6, 1e-9, STEPS)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(together, spread, strict=True))
