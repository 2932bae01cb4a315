"""Random event tables: every engine against the slow reference, values and derivatives."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from contract import fuzzed_models
from contract.random_designs import Case, Menu, cases, spread
from hypothesis import given, settings

from amortnlme.data.design import Design, DesignBatch, Dose
from amortnlme.model.program import prepare_inputs
from amortnlme.model.reference_ode import reference_prediction, reference_sensitivity

# The engines work at 1e-10 per step, the reference at 1e-12.
TOLERANCE = 1e-6
# An output that never leaves this neighborhood of zero has no size; doses are 10 and more.
SMALLEST = 1e-6
# On the grid of the records, irregular, and longer than a dosing interval.
LAGS = (0.0, 0.25, 0.5, 0.8, 3.1, 7.0)
STARTS = (1.3, 0.0, 0.25, 2.0, 5.7, -1.0)


@cache
def model(name, *arguments):
    return getattr(fuzzed_models, name)(*arguments)


def menu(name, n_compartments, n_outputs, ss, lags=LAGS, starts=STARTS, apart=False):
    """Free columns vary by a factor of 1.6; lag and start take their lists."""
    special = {"lag": lags, "t0": starts}
    space = fuzzed_models.PARAMETERS[name]
    choices = tuple(
        special.get(p.name) or spread(center, 0.5)
        for p, center in zip(space.parameters, space.typical_phi, strict=True)
    )
    return Menu(choices, n_compartments, n_outputs, ss, apart)


def relative_error(found, exact, case, smallest=SMALLEST):
    """Largest deviation within an output in units of the output's largest prediction."""
    worst = 0.0
    outputs = case.design.observation_outputs
    for output in np.unique(outputs):
        here = outputs == output
        scale = max(float(np.abs(exact[here]).max()), smallest)
        worst = max(worst, float(np.abs(found[here] - exact[here]).max()) / scale)
    return worst


def check_values(case: Case, *engines):
    exact = reference_prediction(engines[0], case.phi, case.design, case.covariates)
    for engine in engines:
        found = engine.predict(case.phi[None], case.design, case.covariates)
        assert found.status.tolist() == [0]
        assert relative_error(found.f[0], exact, case) <= TOLERANCE


LINEAR = menu("linear", 3, 2, ss=(0, 0, 1, 2))
SATURABLE = menu("saturable", 3, 2, ss=(0, 0, 1))
RELEASED = menu("released", 2, 2, ss=(0,))
MATURING = menu("maturing", 1, 1, ss=(0, 0, 1))


@settings(max_examples=80)
@given(cases(LINEAR))
def test_linear_model_follows_any_event_table_in_closed_form_and_by_rodas5p(case):
    check_values(case, model("linear", "closed_form"), model("linear", "rodas5p"))


@settings(max_examples=40)
@given(cases(SATURABLE))
def test_nonlinear_model_follows_any_event_table(case):
    check_values(case, model("saturable"))


@settings(max_examples=40)
@given(cases(RELEASED))
def test_model_with_a_start_and_initial_states_follows_any_event_table(case):
    check_values(case, model("released", "closed_form"), model("released", "rodas5p"))


@settings(max_examples=25)
@given(cases(MATURING))
def test_time_dependent_model_follows_any_event_table(case):
    check_values(case, model("maturing"))


# Away from the grid: where an event meets an observation, predictions have a kink in lag and start.
SMOOTH_LAGS = (0.313, 0.8171, 3.171, 7.057)
SMOOTH_STARTS = (1.317, 2.719, 5.713, -0.731)


def smooth(menu):
    """Leave out what has no derivative."""
    choices = [{LAGS: SMOOTH_LAGS, STARTS: SMOOTH_STARTS}.get(values, values) for values in menu.choices]
    return replace(menu, choices=tuple(choices), apart=True)


def check_sensitivities(case: Case, *engines):
    exact = reference_sensitivity(engines[0], case.phi, case.design, case.covariates, rtol=1e-10)
    for engine in engines:
        found = engine.predict_with_sensitivity(case.phi[None], case.design, case.covariates)
        assert found.status.tolist() == [0]
        smallest = max(SMALLEST, 1e-3 * float(np.abs(found.f[0]).max()))
        for column in range(engine.d):
            error = relative_error(found.df_dphi[0, :, column], exact[:, column], case, smallest)
            assert error <= TOLERANCE, (engine.parameters.names[column], error)


@settings(max_examples=15)
@given(cases(smooth(LINEAR)))
def test_linear_sensitivities_pass_any_event_in_closed_form_and_by_rodas5p(case):
    check_sensitivities(case, model("linear", "closed_form"), model("linear", "rodas5p"))


@settings(max_examples=5)
@given(cases(smooth(SATURABLE)))
def test_nonlinear_sensitivities_pass_any_event(case):
    check_sensitivities(case, model("saturable"))


@settings(max_examples=6)
@given(cases(smooth(RELEASED)))
def test_sensitivities_with_a_start_and_initial_states_pass_any_event(case):
    check_sensitivities(case, model("released", "closed_form"), model("released", "rodas5p"))


@settings(max_examples=4)
@given(cases(smooth(MATURING)))
def test_time_dependent_sensitivities_pass_any_event(case):
    check_sensitivities(case, model("maturing"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("menu", "engines", "share"),
    [
        (LINEAR, (("linear", "closed_form"), ("linear", "rodas5p")), 2500),
        (SATURABLE, (("saturable",),), 1000),
        (RELEASED, (("released", "closed_form"), ("released", "rodas5p")), 1000),
        (MATURING, (("maturing",),), 500),
    ],
    ids=["linear", "saturable", "released", "maturing"],
)
def test_thousands_of_event_tables_are_followed(menu, engines, share):
    @settings(max_examples=share)
    @given(cases(menu))
    def follow(case):
        check_values(case, *(model(*engine) for engine in engines))

    follow()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("menu", "engines", "share"),
    [
        (LINEAR, (("linear", "closed_form"), ("linear", "rodas5p")), 30),
        (SATURABLE, (("saturable",),), 24),
        (RELEASED, (("released", "closed_form"), ("released", "rodas5p")), 30),
        (MATURING, (("maturing",),), 20),
    ],
    ids=["linear", "saturable", "released", "maturing"],
)
def test_sensitivities_pass_dozens_of_event_tables(menu, engines, share):
    @settings(max_examples=share)
    @given(cases(smooth(menu)))
    def follow(case):
        check_sensitivities(case, *(model(*engine) for engine in engines))

    follow()


def test_tables_in_one_batch_give_the_bytes_they_give_alone():
    """Ragged batches: every design next to others of another length, with other events."""
    tables = sampled(cases(SATURABLE), 60)
    engine = model("saturable")
    width = max(case.design.n_records for case in tables)
    weight = np.array([np.pad(case.weight, (0, width - case.weight.size), mode="edge") for case in tables])
    batch = DesignBatch.from_designs([case.design for case in tables], {"weight": weight})
    inputs = prepare_inputs(engine.program, batch)
    phi = np.array([case.phi for case in tables])
    together, _, _ = engine.program.run(phi, inputs, np.arange(len(tables)), sensitivities=False)
    for row, case in enumerate(tables):
        alone = engine.predict(case.phi[None], case.design, case.covariates).f[0]
        assert np.array_equal(together[row, : alone.size], alone), case


def sampled(strategy, n):
    """Draw cases once, as hypothesis draws them."""
    found = []

    @settings(max_examples=n, database=None)
    @given(strategy)
    def collect(case):
        found.append(case)

    collect()
    return found[:n]


@pytest.mark.parametrize("time", [0.0, 100.0, 5000.0])
def test_infusion_into_an_empty_system_is_solved_however_late(time):
    """The first step was once chosen below the rounding of time."""
    engine = model("linear", "rodas5p")
    phi = engine.parameters.typical_phi
    design = Design.from_doses([Dose(time, 1000.0, compartment=2, duration=0.5)], [0.0, time + 3.0])
    case = Case(design, np.full(design.n_records, 70.0), phi)
    check_values(case, engine)
