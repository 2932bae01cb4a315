"""Right-hand sides that cannot be traced: same events, same answers, honest about their sensitivities."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import solve_ivp
from unit.solve import untraced_models as examples

from amortnlme.core.errors import DesignError, ModelError
from amortnlme.core.status import SolveStatus
from amortnlme.data.design import Design, Dose, EventKind
from amortnlme.model import functions
from amortnlme.model.contract import check_model
from amortnlme.model.dynamics import CompiledOde
from amortnlme.solve import threads
from amortnlme.solve.trace import Names, trace
from amortnlme.solve.untraced_source import NUMERIC, compile_rhs, module_source, opaque_system

TIMES = np.array([0.0, 0.3, 1.0, 2.5, 7.0, 11.9, 24.0, 30.0])
PHI = np.log([[0.9, 0.2, 0.3], [2.5, 0.07, 0.3], [0.3, 0.31, 0.3]])
# Local errors of 1e-8 relative to each state add up over some dozens of steps.
TOLERANCE = 1e-6

REGIMENS = {
    "boluses": [Dose(0.0, 100.0, addl=3, ii=6.0), Dose(1.0, 50.0, compartment=2)],
    "overlapping infusions": [Dose(0.0, 100.0, duration=5.0), Dose(2.0, 30.0, duration=8.0, compartment=2)],
    "steady-state bolus": [Dose(0.0, 33.0), Dose(2.0, 100.0, ii=8.0, ss=1)],
    "steady-state infusion": [Dose(2.0, 100.0, duration=3.0, ii=8.0, ss=1)],
    "overlapping steady-state infusion": [Dose(2.0, 100.0, duration=19.0, ii=8.0, ss=1)],
}


@pytest.fixture(scope="module")
def compiled():
    return examples.compiled_model()


@pytest.fixture(scope="module")
def closed_form():
    return examples.closed_form_model()


def weights_of(design):
    """A covariate that changes twice, also at an observation."""
    return {"weight": np.linspace(60.0, 80.0, design.n_records).round(-1)}


@pytest.mark.parametrize("regimen", REGIMENS)
def test_untraced_model_agrees_with_the_closed_form_on(regimen, compiled, closed_form):
    design = Design.from_doses(REGIMENS[regimen], TIMES)
    found = compiled.predict(PHI, design, weights_of(design))
    exact = closed_form.predict(PHI, design, weights_of(design))
    assert_array_equal(found.status, 0)
    assert_allclose(found.f, exact.f, rtol=TOLERANCE, atol=1e-8)


def test_untraced_model_agrees_with_the_closed_form_when_a_reset_restarts_the_clock(compiled, closed_form):
    K = EventKind
    rows = [
        (0.0, K.INFUSION, 100.0, 10.0),
        (2.0, K.OBSERVATION, 0.0, 0.0),
        (0.0, K.RESET, 0.0, 0.0),
        (0.0, K.OBSERVATION, 0.0, 0.0),
        (1.0, K.BOLUS, 20.0, 0.0),
        (3.0, K.OBSERVATION, 0.0, 0.0),
    ]
    time, kind, amount, duration = (np.array(column) for column in zip(*rows, strict=True))
    zero = np.zeros(len(rows))
    design = Design(time, kind, zero, amount, duration, zero, zero, (kind == K.OBSERVATION).astype(int))
    found = compiled.predict(PHI, design, {"weight": 70.0})
    assert_array_equal(found.status, 0)
    assert_allclose(found.f, closed_form.predict(PHI, design, {"weight": 70.0}).f, rtol=TOLERANCE)


def test_sensitivities_by_differences_agree_with_exact_ones(compiled, closed_form):
    design = Design.from_doses(
        [*REGIMENS["overlapping infusions"], Dose(8.0, 50.0, ii=6.0, ss=1)], np.append(TIMES, 40.0)
    )
    found = compiled.predict_with_sensitivity(PHI, design, weights_of(design))
    exact = closed_form.predict_with_sensitivity(PHI, design, weights_of(design))
    # Truncation of order step**4 is negligible; errors of 1e-11 per solution, some of which add up, are
    # divided by a step of 2.5e-4.
    scale = np.abs(exact.df_dphi).max(axis=1, keepdims=True)
    assert_allclose(found.df_dphi / (scale + 1e-300), exact.df_dphi / (scale + 1e-300), rtol=0, atol=3e-7)
    assert_array_equal(found.df_dphi[:, :, 2], 0.0)


def test_untraced_model_does_not_claim_exact_sensitivities(compiled, closed_form):
    assert "sensitivity" in closed_form.capabilities
    assert compiled.capabilities == {"simulate", "predict", "likelihood"}


def test_table_and_time_act_as_an_independent_solver_sees_them():
    model = examples.compiled_model(examples.clocked, ())
    found = model.predict(PHI, Design.from_doses([Dose(0.0, 100.0)], TIMES))
    for phi, f in zip(PHI, found.f, strict=True):
        ka, ke = np.exp(phi[:2])

        def rhs(t, y, ka=ka, ke=ke):
            return (-ka * y[0], ka * y[0] - ke * examples.activity(t) * y[1])

        exact, y = [0.0], np.array([100.0, 0.0])
        for start, stop in pairwise(TIMES):
            for left, right in _pieces(start, stop):
                y = solve_ivp(rhs, (left, right), y, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
            exact.append(y[1])
        # Kinks of the table fall inside a step, where the error estimate notices them late.
        assert_allclose(f, exact, rtol=0, atol=1e-6 * max(exact))


def _pieces(start, stop):
    """Split an interval at the kinks of the table."""
    cuts = [start, *(c for c in examples.CLOCK if start < c < stop), stop]
    return list(pairwise(cuts))


def test_steady_state_of_saturable_elimination_is_where_a_long_regimen_leads():
    model = examples.compiled_model(examples.saturating, ())
    steady = Design.from_doses([Dose(0.0, 30.0, ii=8.0, ss=1)], TIMES[1:7])
    n = 150
    long = Design.from_doses([Dose(0.0, 30.0, ii=8.0, addl=n)], n * 8.0 + TIMES[1:5])
    found, exact = model.predict(PHI, steady), model.predict(PHI, long)
    # Row 2 takes in 3.75 and eliminates at most 2.8 per hour: it accumulates for ever.
    assert_array_equal(found.status, [0, SolveStatus.NO_STEADY_STATE, 0])
    assert np.isnan(found.f[1]).all()
    assert_allclose(found.f[[0, 2], :4], exact.f[[0, 2]], rtol=TOLERANCE)


def test_steady_state_is_found_where_a_state_settles_at_zero(closed_form):
    """The regimen never reaches the gut, which starts full."""
    model = examples.compiled_model(initial=lambda p: (p.ka, 0.0), rtol=1e-10, atol=1e-12)
    design = Design.from_doses([Dose(0.0, 30.0, compartment=2, duration=2.0, ii=8.0, ss=1)], TIMES[1:])
    found = model.predict(PHI, design, {"weight": 70.0})
    assert_array_equal(found.status, 0)
    assert_allclose(found.f, closed_form.predict(PHI, design, {"weight": 70.0}).f, rtol=1e-8)


def test_lagged_doses_act_as_doses_given_later():
    lagged = examples.compiled_model(
        lag={"gut": lambda p: 1.3 + 0.0 * p.ka}, bioavailability={"gut": lambda p: 0.5}
    )
    design = Design.from_doses([Dose(0.0, 100.0, addl=2, ii=6.0), Dose(3.0, 60.0, duration=2.0)], TIMES)
    later = Design.from_doses([Dose(1.3, 50.0, addl=2, ii=6.0), Dose(4.3, 30.0, duration=2.0)], TIMES)
    plain = examples.compiled_model()
    weight = {"weight": 70.0}
    assert_allclose(
        lagged.predict(PHI, design, weight).f, plain.predict(PHI, later, weight).f, rtol=TOLERANCE, atol=1e-9
    )


@pytest.mark.parametrize("duration", [0.0, 3.0, 19.0])
def test_steady_state_with_lag_is_where_a_long_lagged_regimen_leads(duration):
    lagged = examples.compiled_model(lag={"gut": lambda p: 0.5 + p.ka})
    n = 60
    steady = Design.from_doses([Dose(n * 8.0, 100.0, duration=duration, ii=8.0, ss=1)], n * 8.0 + TIMES[1:])
    long = Design.from_doses([Dose(0.0, 100.0, duration=duration, ii=8.0, addl=n)], n * 8.0 + TIMES[1:])
    phi = PHI[[0, 2]]
    found = lagged.predict(phi, steady, {"weight": 70.0})
    assert_array_equal(found.status, 0)
    assert_allclose(found.f, lagged.predict(phi, long, {"weight": 70.0}).f, rtol=TOLERANCE)


def test_states_wait_for_a_start_that_depends_on_a_parameter():
    model = examples.compiled_model(initial=lambda p: (0.0, 10.0 * p.ka), start=lambda p: 5.0 * p.ka)
    design = Design.from_doses([Dose(1.0, 20.0, compartment=2)], TIMES)
    phi = PHI[[0, 2]]
    found = model.predict(phi, design, {"weight": 70.0})
    for f, (ka, ke) in zip(found.f, np.exp(phi[:, :2]), strict=True):
        start = 5.0 * ka
        # A dose given before the start waits; one after it meets what is left.
        late = max(start, 1.0)
        left = 10.0 * ka * np.exp(-ke * np.maximum(TIMES - start, 0.0))
        dose = np.where(TIMES >= 1.0, 20.0 * np.exp(-ke * np.maximum(TIMES - late, 0.0)), 0.0)
        assert_allclose(f, left + dose, rtol=TOLERANCE)


def test_states_move_before_the_first_record_when_they_start_earlier():
    model = examples.compiled_model(initial=lambda p: (0.0, 10.0 * p.ka), start=lambda p: -5.0 * p.ka)
    design = Design.from_doses([], np.array([2.0, 7.0]))
    found = model.predict(PHI[:1], design, {"weight": 70.0})
    ka, ke = np.exp(PHI[0, :2])
    assert_allclose(found.f[0], 10.0 * ka * np.exp(-ke * (np.array([2.0, 7.0]) + 5.0 * ka)), rtol=TOLERANCE)


def test_superposed_steady_state_is_refused(compiled):
    design = Design.from_doses([Dose(0.0, 70.0), Dose(2.0, 100.0, ii=8.0, ss=2)], TIMES)
    with pytest.raises(DesignError, match="linear") as caught:
        compiled.predict(PHI, design, {"weight": 70.0})
    assert caught.value.code == "E_DESIGN_SS_SUPERPOSITION"


def test_absurd_parameters_give_a_status_and_leave_other_rows_alone(compiled):
    phi = np.array([[np.nan, 0.0, 0.0], [700.0, 700.0, 0.0], [0.0, 709.0, 0.0], PHI[0], [0.0, np.inf, 0.0]])
    design = Design.from_doses([Dose(0.0, 100.0)], TIMES)
    found = compiled.predict(phi, design, {"weight": 70.0})
    assert found.status[3] == SolveStatus.OK
    assert_array_equal(found.f[3], compiled.predict(PHI[:1], design, {"weight": 70.0}).f[0])
    assert found.status[0] == found.status[4] == SolveStatus.NON_FINITE


def test_too_few_steps_give_a_status():
    model = examples.compiled_model(max_steps=3)
    found = model.predict(PHI, Design.from_doses([Dose(0.0, 100.0)], TIMES), {"weight": 70.0})
    assert_array_equal(found.status, SolveStatus.MAX_STEPS)
    assert np.isfinite(found.f[:, 0]).all() and np.isnan(found.f[:, -1]).all()


def test_results_have_the_same_bytes_whatever_threads_order_and_company(monkeypatch, compiled):
    rng = np.random.default_rng(5)
    phi = PHI[0] + rng.normal(0.0, 0.5, (60, 3))
    design = Design.from_doses(REGIMENS["boluses"], TIMES)
    runs = []
    for rows, n_threads in ((7, 1), (16, 3)):
        monkeypatch.setattr(threads, "CHUNK_ROWS", rows)
        monkeypatch.setattr(threads.config, "NUMBA_NUM_THREADS", n_threads)
        runs.append(compiled.predict(phi, design, {"weight": 70.0}).f)
    order = rng.permutation(60)
    shuffled = compiled.predict(phi[order], design, {"weight": 70.0}).f
    assert runs[0].tobytes() == runs[1].tobytes()
    assert shuffled.tobytes() == runs[0][order].tobytes()


def test_contract_holds_for_an_untraced_model(compiled):
    report = check_model(compiled)
    assert not [row for row in report.rows if not row.passed]


NAMES = Names(("gut", "blood"), ("ka", "ke"), ("weight",))


def test_every_function_for_model_files_works_in_untraced_code():
    assert set(NUMERIC) == set(functions.__all__)


def test_module_holds_constants_and_functions_of_the_model_file():
    source = module_source(examples.clocked, NAMES)
    assert "CLOCK = np.array((0.0, 8.0, 16.0, 24.0, ), dtype=np.float64)" in source
    assert "def activity(t):" in source
    assert '"""Linear interpolation' not in source


def test_compiled_function_is_found_again_by_another_process():
    """The second process must load machine code: Numba counts what it took from disk."""
    code = (
        "from unit.solve import untraced_models as m;"
        "from amortnlme.solve import untraced, untraced_source as s;"
        "from amortnlme.solve.trace import Names;"
        "names = Names(('gut', 'blood'), ('ka', 'ke'), ('weight',));"
        "found = [s.compile_rhs(m.looped, names), untraced._driver()];"
        "print([sum(f.stats.cache_hits.values()) for f in found])"
    )
    compile_rhs(examples.looped, NAMES)
    run = subprocess.run(
        [sys.executable, "-c", code], cwd="tests", capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[1, 1]"


def _texts(rhs):
    return [str(f) for f in opaque_system(rhs, NAMES).derivatives]


def test_fingerprint_follows_the_code_and_its_constants_but_not_its_comments(monkeypatch):
    def first(t, y, p):
        """Some words."""
        return (-p.ka * y.gut, examples.SATURATION * examples.activity(t))

    def make(constant):
        def right(t, y, p):
            # A remark.
            return (-p.ka * y.gut, constant * y.blood)

        return right

    assert _texts(make(1.0)) == _texts(make(1.0)) != _texts(make(2.0))
    before = _texts(examples.clocked)
    monkeypatch.setattr(examples, "ACTIVITY", np.array([0.5, 1.5, 1.0, 0.6]))
    assert _texts(examples.clocked) != before


def test_parameter_that_only_a_called_function_reads_counts_as_used():
    def eliminated(p, y):
        return p.ke * y.blood

    def rhs(t, y, p):
        return (-y.gut, y.gut - eliminated(p, y))

    used = {s.name for s in opaque_system(rhs, NAMES).derivatives[0].free_symbols}
    assert "p_ke" in used and "p_ka" not in used


def test_parameter_that_nothing_uses_is_refused():
    def rhs(t, y, p):
        return (-p.ka * y.gut, p.ka * y.gut)

    with pytest.raises(ModelError, match="'ke'") as caught:
        examples.compiled_model(rhs)
    assert caught.value.code == "E_MODEL_UNUSED_PARAMETER"


SOMETHING = object()


def _misspelt(t, y, p):
    return (-p.kaa * y.gut, 0.0)


def _too_short(t, y, p):
    return (-p.ka * y.gut,)


def _object(t, y, p):
    return (SOMETHING, p.ka)


def _raising(t, y, p):
    if y.gut < 0.0:
        raise ValueError("negative")
    return (0.0, 0.0)


def _mixing(t, y, p):
    return ("a" + p.ka, 0.0)


@pytest.mark.parametrize(
    ("rhs", "code"),
    [
        (_misspelt, "E_MODEL_UNKNOWN_NAME"),
        (_too_short, "E_MODEL_RHS_LENGTH"),
        (_object, "E_MODEL_UNTRACED_GLOBAL"),
        (_raising, "E_MODEL_UNTRACED_SOURCE"),
        (lambda t, y: (0.0, 0.0), "E_MODEL_SIGNATURE"),
        (eval("lambda t, y, p: (0.0, 0.0)"), "E_MODEL_UNTRACED_SOURCE"),
        (_mixing, "E_MODEL_UNTRACED_COMPILE"),
    ],
)
def test_code_that_cannot_be_compiled_is_refused_by_name(rhs, code):
    with pytest.raises(ModelError) as caught:
        compile_rhs(rhs, NAMES)
    assert caught.value.code == code


def _branching(t, y, p):
    return (-p.ka * y.gut if y.gut > 1.0 else 0.0, 0.0)


def test_refused_trace_points_to_the_way_out():
    for rhs in (_branching, examples.clocked):
        with pytest.raises(ModelError, match="CompiledOde"):
            trace(rhs, NAMES)


def test_compiled_ode_names_an_unknown_dose_state():
    with pytest.raises(ModelError) as caught:
        examples.model_of(CompiledOde(examples.looped, dose_state="skin"))
    assert caught.value.code == "E_MODEL_DOSE_STATE"
