"""Compiled sums of densities against the NumPy terms of the error models."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from unit.model.example_models import one_state, two_output_model
from unit.model.test_bound import draws, ragged_dataset

from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.subject import Subject
from amortnlme.model import bound as bound_module
from amortnlme.model.error_model import Additive, Combined, LogNormal, Proportional
from amortnlme.model.individual import Output
from amortnlme.model.parameters import Parameter
from amortnlme.model.prior import NormalPrior
from amortnlme.solve.threads import using_threads

ERROR_MODELS = {
    "additive": Additive("a"),
    "proportional": Proportional("b"),
    "combined in variance": Combined("a", "b"),
    "combined in sd": Combined("a", "b", "sd"),
    "lognormal": LogNormal("a"),
}


def one_compartment(error):
    """One state observed with a given error model."""
    sigma = [Parameter(name, "1", "log", 0.2, "residual SD", role="error") for name in error.names]
    parameters = (Parameter("k", "1/h", "log", 0.2, "elimination"), *sigma)
    return one_state(
        parameters=parameters,
        outputs=(Output("amount", "mg", lambda t, y, p: y.amount, error),),
        prior=NormalPrior(np.log([p.typical for p in parameters]), np.full(len(parameters), 0.5)),
    )


def study(model, n=3, seed=5):
    rng = np.random.default_rng(seed)
    subjects = []
    for i in range(n):
        design = Design.from_doses([Dose(0.0, 100.0)], np.sort(rng.uniform(0.3, 9.0, 4 + i)))
        y = model.simulate(model.parameters.typical_phi[None], design, {}, rng).y[0]
        subjects.append(Subject.from_observations(f"S{i}", design, np.maximum(y, 1e-3)))
    return Dataset(tuple(subjects))


def assert_as_numpy(bound, phi):
    S, M, d = phi.shape
    flat, subject = phi.reshape(-1, d), np.arange(S * M) // M
    ll, gradient, information = bound._differentiate(flat, subject, information=True)
    found = bound.expansions(phi)
    # The same terms in another order: m of them lose at most m units in the last place of the largest.
    scale = np.abs(information).max(axis=(1, 2))
    assert_allclose(found[0].ravel(), ll, rtol=1e-12)
    assert_allclose(found[1].reshape(-1, d), gradient, rtol=1e-10, atol=1e-10 * np.abs(gradient).max())
    relative = found[2].reshape(-1, d, d) / scale[:, None, None]
    assert_allclose(relative, information / scale[:, None, None], atol=1e-12)
    assert_allclose(bound.log_likelihood(phi), found[0], rtol=1e-12)
    assert_array_equal(bound.log_likelihood_and_gradient(phi)[1], found[1])


@pytest.mark.parametrize("kind", ERROR_MODELS)
def test_density_sums_agree_with_numpy_for_every_error_model(kind):
    model = one_compartment(ERROR_MODELS[kind])
    assert_as_numpy(model.bind(study(model)), draws(model, 3, 4))


def test_density_sums_agree_with_numpy_when_outputs_and_lengths_differ():
    model = two_output_model()
    assert_as_numpy(model.bind(ragged_dataset(model)), draws(model, 3, 4))


def test_log_likelihood_is_the_same_to_the_last_bit_whatever_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(bound_module, "CHUNK_ROWS", 3)
    model = two_output_model()
    bound = model.bind(ragged_dataset(model))
    phi = draws(model, 3, 8)
    results = []
    for threads in (1, 2, 3):
        with using_threads(threads):
            results.append((bound.log_likelihood(phi), *bound.expansions(phi)))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert_array_equal(one, two)


def test_expansions_leave_rows_of_nan_out_and_the_others_as_they_are():
    model = two_output_model()
    bound = model.bind(ragged_dataset(model))
    phi = draws(model, 3, 2)
    full = bound.expansions(phi)
    phi[1] = np.nan
    part = bound.expansions(phi)
    assert np.all(part[0][1] == -np.inf) and np.all(part[1][1] == 0.0) and np.all(part[2][1] == 0.0)
    for one, two in zip(full, part, strict=True):
        assert_array_equal(one[[0, 2]], two[[0, 2]])


def test_log_likelihood_is_minus_infinity_when_a_lognormal_prediction_is_zero():
    model = one_compartment(LogNormal("a"))
    design = Design.from_doses([Dose(5.0, 100.0)], [1.0, 6.0])  # before the dose nothing is there
    bound = model.bind(Dataset((Subject.from_observations("A", design, [1.0, 1.0]),)))
    phi = model.parameters.typical_phi[None, None]
    ll, gradient, information = bound.expansions(phi)
    assert ll[0, 0] == -np.inf and bound.log_likelihood(phi)[0, 0] == -np.inf
    assert not gradient.any() and not information.any()
