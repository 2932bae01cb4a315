"""Declaring, predicting, simulating; and the errors a wrong declaration gets."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from unit.model.example_models import one_state, two_output_model

from amortnlme.core.errors import ModelError
from amortnlme.core.rng import stream
from amortnlme.data.design import Design, DesignBatch, Dose
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Additive, Proportional
from amortnlme.model.individual import Output
from amortnlme.model.parameters import Parameter
from amortnlme.model.prior import NormalPrior
from amortnlme.model.reference_ode import reference_prediction

TIMES = np.array([0.5, 1.0, 4.0, 9.0, 20.0])


def some_phi(model, n, seed=1):
    return model.prior.sample(n, np.random.default_rng(seed))


def test_prediction_agrees_with_the_untraced_functions_integrated_numerically():
    model = two_output_model()
    design = Design.from_doses(
        [Dose(0, 100.0), Dose(3.0, 60.0, compartment=2, duration=2.0), Dose(10.0, 80.0, ii=12.0, ss=1)],
        np.repeat(TIMES, 2),
        outputs=[1, 2] * 5,
    )
    weight = np.linspace(50, 90, design.n_records)
    phi = some_phi(model, 3)
    found = model.predict(phi, design, {"weight": weight})
    for row in range(3):
        exact = reference_prediction(model, phi[row], design, {"weight": weight})
        assert_allclose(found.f[row], exact, rtol=1e-7)


def test_sensitivities_agree_with_extrapolated_differences_through_all_transforms():
    model = two_output_model()
    design = Design.from_doses([Dose(0, 100.0, addl=1, ii=6.0)], np.repeat(TIMES, 2), outputs=[1, 2] * 5)
    phi = some_phi(model, 4)
    found = model.predict_with_sensitivity(phi, design, {"weight": 80.0})
    assert found.df_dphi is not None
    for j in range(model.d):

        def difference(h, j=j):
            e = np.eye(model.d)[j] * h
            up = model.predict(phi + e, design, {"weight": 80.0}).f
            return (up - model.predict(phi - e, design, {"weight": 80.0}).f) / (2 * h)

        numeric = (4 * difference(5e-4) - difference(1e-3)) / 3
        assert_allclose(found.df_dphi[:, :, j], numeric, rtol=1e-8, atol=1e-9)


def test_simulate_batch_pads_ragged_designs_with_nan_and_is_a_function_of_the_generator():
    model = two_output_model()
    designs = [Design.from_doses([Dose(0, 100.0)], TIMES[:m]) for m in (1, 5, 3)]
    batch = DesignBatch.from_designs(designs, {"weight": np.array([60.0, 70.0, 80.0])})
    phi = some_phi(model, 3)
    y = model.simulate_batch(phi, batch, stream(1)).y
    assert_array_equal(np.isfinite(y), batch.observation_mask)
    assert model.simulate_batch(phi, batch, stream(1)).y.tobytes() == y.tobytes()


def test_simulation_of_a_design_without_observations_has_no_columns():
    model = two_output_model()
    design = Design.from_doses([Dose(0.0, 100.0)], [])
    phi = model.parameters.typical_phi[None]
    y = model.simulate(phi, design, {"weight": 70.0}, stream(1)).y
    assert y.shape == model.predict(phi, design, {"weight": 70.0}).f.shape == (1, 0)


def test_simulated_noise_has_the_declared_moments():
    """Null: y ~ N(f, a^2 + (b f)^2); n = 40 000; mean and log SD within 4.9 SE (false alarm 1e-6 each)."""
    model, n = two_output_model(), 40_000
    design = Design.from_doses([Dose(0, 300.0)], [2.0])
    phi = np.repeat(model.parameters.typical_phi[None], n, axis=0)
    f = model.predict(phi[:1], design, {"weight": 70.0}).f[0, 0]
    y = model.simulate(phi, design, {"weight": 70.0}, stream(7)).y[:, 0]
    sd = np.hypot(0.3, 0.2 * f)
    assert abs(y.mean() - f) < 4.9 * sd / np.sqrt(n)
    assert abs(np.log(y.std() / sd)) < 4.9 / np.sqrt(2 * n)


def test_infinite_observable_of_a_finite_state_gets_a_status():
    model = one_state(outputs=(Output("x", "mg", lambda t, y, p: y.amount / (p.k - 0.2), Proportional("b")),))
    design = Design.from_doses([Dose(0, 1.0)], [1.0])
    phi = np.log([[0.2, 0.1], [0.3, 0.1]])
    phi[0, 0] = np.log(0.2)
    status = model.predict(phi, design).status
    assert status[1] == 0
    assert (status[0] == 2) == (not np.isfinite(model.predict(phi, design).f[0, 0]))


def test_fingerprint_changes_with_the_numbers_and_not_with_the_prior_or_the_text():
    model = one_state()
    assert model.fingerprint == one_state(text="another", prior=NormalPrior([0, 0], [1, 1])).fingerprint
    double = LinearCompartments(lambda t, y, p: (-2 * p.k * y.amount,), dose_state="amount")
    assert model.fingerprint != one_state(dynamics=double).fingerprint
    other = (Output("amount", "mg", lambda t, y, p: y.amount, Additive("b")),)
    assert model.fingerprint != one_state(outputs=other).fingerprint


K, B = Parameter("k", "1/h", "log", 0.2, "x"), Parameter("b", "1", "log", 0.2, "x", role="error")


def linear(rhs, dose_state="amount"):
    return LinearCompartments(rhs, dose_state=dose_state)


FAULTS = {
    "E_MODEL_UNITS": lambda: one_state(units={"amount": "mg"}),
    "E_MODEL_UNDOCUMENTED": lambda: one_state(source=" "),
    "E_MODEL_EMPTY": lambda: one_state(outputs=()),
    "E_MODEL_NAMES": lambda: one_state(covariates="weight"),
    "E_MODEL_PRIOR_SHAPE": lambda: one_state(prior=NormalPrior([0.0], [1.0])),
    "E_MODEL_DOSE_STATE": lambda: one_state(dynamics=linear(lambda t, y, p: (-p.k * y.amount,), "gut")),
    "E_MODEL_NOT_LINEAR": lambda: one_state(dynamics=linear(lambda t, y, p: (-p.k * y.amount**2,))),
    "E_MODEL_DUPLICATE_PARAMETER": lambda: one_state(parameters=(K, B, K)),
    "E_MODEL_DUPLICATE_NAME": lambda: one_state(covariates=("k",)),
    "E_MODEL_UNUSED_PARAMETER": lambda: one_state(
        parameters=(K, B, Parameter("z", "1", "log", 1.0, "x")), prior=NormalPrior(np.zeros(3), np.ones(3))
    ),
    "E_MODEL_ERROR_PARAMETER": lambda: one_state(
        outputs=(Output("x", "mg", lambda t, y, p: y.amount, Proportional("k")),)
    ),
    "E_MODEL_UNKNOWN_NAME": lambda: one_state(dynamics=linear(lambda t, y, p: (-p.b * y.amount,))),
    "E_MODEL_OUTPUT_UNIT": lambda: Output("x", "", lambda t, y, p: y.amount, Proportional("b")),
    "E_MODEL_PARAMETER_UNIT": lambda: Parameter("k", "", "log", 1.0),
    "E_MODEL_PARAMETER_NAME": lambda: Parameter("lambda", "1", "log", 1.0),
    "E_MODEL_PARAMETER_ROLE": lambda: Parameter("k", "1", "log", 1.0, role="fixed"),
    "E_MODEL_PARAMETER_TYPICAL": lambda: Parameter("k", "1", "log", -1.0),
    "E_TRANSFORM": lambda: Parameter("k", "1", "ln", 1.0),
    "E_MODEL_PHI_SHAPE": lambda: one_state().predict(np.zeros((2, 3)), Design.from_doses([Dose(0, 1)], [1])),
    "E_MODEL_BATCH_SHAPE": lambda: one_state().simulate_batch(
        np.zeros((2, 2)), one_state().design_sampler.sample(3, stream(1)), stream(1)
    ),
    "E_MODEL_COMPARTMENT": lambda: one_state().predict(
        np.zeros((1, 2)), Design.from_doses([Dose(0, 1.0, compartment=2)], [1.0])
    ),
    "E_MODEL_OUTPUT": lambda: one_state().predict(
        np.zeros((1, 2)), Design.from_doses([Dose(0, 1.0)], [1.0], outputs=2)
    ),
    "E_MODEL_COVARIATE_MISSING": lambda: two_output_model().predict(
        np.zeros((1, 7)), Design.from_doses([Dose(0, 1.0)], [1.0])
    ),
    "E_MODEL_COVARIATE_MISSING ": lambda: two_output_model().predict(
        np.zeros((1, 7)), Design.from_doses([Dose(0, 1.0)], [1.0]), {"weight": np.nan}
    ),
}


@pytest.mark.parametrize("code", FAULTS)
def test_model_names_the_fault_of_a_wrong_declaration_or_use(code):
    with pytest.raises(ModelError) as caught:
        FAULTS[code]()
    assert caught.value.code == code.strip()
