"""Draws and densities of an estimator."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from unit.neural import tiny

from amortnlme.core.errors import DrawsError, ModelError
from amortnlme.core.rng import generator
from amortnlme.data.dataset import Dataset
from amortnlme.neural.backend import backend_name
from amortnlme.neural.estimator import Estimator


@pytest.fixture(scope="module")
def dataset():
    return tiny.patients(7)


def test_draws_are_a_function_of_the_generator(tiny_estimator, dataset):
    first = tiny_estimator.sample(dataset, 50, generator(3))
    again = tiny_estimator.sample(dataset, 50, generator(3))
    other = tiny_estimator.sample(dataset, 50, generator(4))
    np.testing.assert_array_equal(first.phi, again.phi)
    assert not np.array_equal(first.phi, other.phi)
    assert first.phi.shape == (7, 50, 4) and first.phi.dtype == np.float64
    assert first.subject_ids == dataset.ids
    assert first.estimator_fingerprint == tiny_estimator.fingerprint


def test_draws_of_a_subject_do_not_depend_on_who_comes_after(tiny_estimator, dataset):
    whole = tiny_estimator.sample(dataset, 50, generator(3))
    part = tiny_estimator.sample(dataset.select(dataset.ids[:3]), 50, generator(3))
    np.testing.assert_allclose(whole.phi[:3], part.phi, rtol=1e-5, atol=1e-5)


def test_log_q_is_the_density_of_log_prob(tiny_estimator, dataset):
    draws = tiny_estimator.sample(dataset, 20, generator(5))
    np.testing.assert_allclose(tiny_estimator.log_prob(dataset, draws.phi), draws.log_q, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(draws.log_prior, tiny.MODEL.prior.log_prob(draws.phi))


def test_density_integrates_to_one_over_phi(tiny_estimator, dataset):
    """Mean of q(phi)/p(phi) over prior draws is 1: all Jacobians are in."""
    n = 40_000
    phi = tiny.MODEL.prior.sample(n, generator(6))
    log_q = tiny_estimator.log_prob(dataset.select(dataset.ids[:2]), np.stack([phi, phi]))
    ratio = np.exp(log_q - tiny.MODEL.prior.log_prob(phi))
    error = ratio.std(axis=1) / np.sqrt(n)
    assert (np.abs(ratio.mean(axis=1) - 1.0) < 6 * error + 0.02).all()


def test_subjects_outside_the_designs_are_flagged_with_reasons(tiny_estimator, dataset):
    subject = dataset.subjects[0]
    censored = replace(subject, id="censored", censoring=np.ones_like(subject.censoring))
    design = replace(subject.design, amount=subject.design.amount * 100)
    odd = replace(subject, id="huge", design=design)
    reasons = tiny_estimator.in_domain(Dataset(subjects=(subject, censored, odd)))
    assert reasons[0] == () and reasons[1] and reasons[2]
    draws = tiny_estimator.sample(Dataset(subjects=(subject, censored, odd)), 5, generator(1))
    assert draws.out_of_domain == reasons


def test_doses_into_another_compartment_are_flagged_and_into_a_missing_one_refused(tiny_estimator, dataset):
    subject = dataset.subjects[0]

    def dosed_into(compartment):
        given = np.where(subject.design.is_dose, compartment, subject.design.compartment)
        return Dataset(subjects=(replace(subject, design=replace(subject.design, compartment=given)),))

    assert tiny_estimator.in_domain(dosed_into(1)) == ((),)
    assert "compartment 2" in tiny_estimator.in_domain(dosed_into(2))[0][0]
    with pytest.raises(ModelError) as caught:
        tiny_estimator.sample(dosed_into(99), 5, generator(1))
    assert caught.value.code == "E_MODEL_COMPARTMENT"


def test_an_observation_of_an_outcome_the_model_lacks_is_refused(tiny_estimator, dataset):
    subject = dataset.subjects[0]
    output = np.where(subject.design.is_observation, 7, 0)
    other = Dataset(subjects=(replace(subject, design=replace(subject.design, output=output)),))
    with pytest.raises(ModelError) as caught:
        tiny_estimator.sample(other, 5, generator(1))
    assert caught.value.code == "E_MODEL_OUTPUT"


def test_a_subject_with_more_measurements_than_any_bucket_is_still_sampled(tiny_estimator):
    subject = tiny.patients(1).subjects[0]
    from amortnlme.data.design import Design, Dose

    design = Design.from_doses([Dose(0.0, 300.0)], np.linspace(0.5, 30, 33))
    many = replace(
        subject, design=design, y=np.ones(33), observed=np.ones(33, bool), censoring=np.zeros(33, np.int8),
        limit=np.full(33, np.nan), occasion=np.ones(34, np.int32),
    )  # fmt: skip
    draws = tiny_estimator.sample(Dataset(subjects=(many,)), 5, generator(1))
    assert np.isfinite(draws.phi).all() and draws.out_of_domain[0]


@pytest.mark.parametrize("n_draws", [0, -1])
def test_sampling_refuses_too_few_draws(tiny_estimator, dataset, n_draws):
    with pytest.raises(DrawsError) as caught:
        tiny_estimator.sample(dataset, n_draws, generator(1))
    assert caught.value.code == "E_DRAWS_COUNT"


@pytest.mark.parametrize("shape", [(7, 4), (6, 5, 4), (7, 5, 3)])
def test_log_prob_refuses_other_shapes(tiny_estimator, dataset, shape):
    with pytest.raises(DrawsError) as caught:
        tiny_estimator.log_prob(dataset, np.zeros(shape))
    assert caught.value.code == "E_DRAWS_SHAPE"


class _Wild:
    """A compiled network that goes wild on a fixed share of the noise."""

    def __init__(self, compiled, share):
        self._compiled, self._share = compiled, share

    def context(self, encoded):
        return self._compiled.context(encoded)

    def log_density(self, coordinates, context):
        return self._compiled.log_density(coordinates, context)

    def draw(self, noise, context):
        out = np.array(self._compiled.draw(noise, context))
        wild = noise[:, 0] < norm.ppf(self._share)
        out[wild, 0] = np.where(np.arange(wild.sum()) % 2, np.nan, 1e9)
        return out


def with_wild_draws(estimator: Estimator, share: float) -> Estimator:
    copy = estimator.with_history(estimator.history)
    copy.__dict__["_compiled"] = _Wild(estimator._compiled, share)
    return copy


def test_wild_draws_are_replaced_and_counted(tiny_estimator, dataset):
    draws = with_wild_draws(tiny_estimator, 0.02).sample(dataset, 200, generator(1))
    assert np.isfinite(draws.phi).all() and np.isfinite(draws.log_q).all()
    assert np.abs(draws.phi).max() < 100
    assert draws.n_rejected.sum() >= 7 * 200 * 0.01


def test_a_subject_with_mostly_wild_draws_is_refused(tiny_estimator, dataset):
    with pytest.raises(DrawsError, match="far outside") as caught:
        with_wild_draws(tiny_estimator, 0.9).sample(dataset, 200, generator(1))
    assert caught.value.code == "E_DRAWS_WILD"


def test_the_other_backend_gives_the_same_draws(tiny_estimator, tiny_artefact, dataset):
    pytest.importorskip("jax")
    other = {"tensorflow": "jax", "jax": "tensorflow"}[backend_name()]
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[2])\n"
        "from unit.neural import tiny\n"
        "from amortnlme.core.rng import generator\n"
        "from amortnlme.neural.estimator import Estimator\n"
        "from amortnlme.neural.backend import backend_name\n"
        "draws = Estimator.load(sys.argv[1]).sample(tiny.patients(7), 50, generator(3))\n"
        "print(json.dumps([backend_name(), draws.phi.tolist(), draws.log_q.tolist()]))\n"
    )
    tests = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
    run = subprocess.run(
        [sys.executable, "-c", code, str(tiny_artefact), tests],
        env=dict(os.environ) | {"KERAS_BACKEND": other}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    name, phi, log_q = json.loads(run.stdout.strip().splitlines()[-1])
    here = tiny_estimator.sample(dataset, 50, generator(3))
    assert name == other
    np.testing.assert_allclose(phi, here.phi, atol=1e-4)
    np.testing.assert_allclose(log_q, here.log_q, atol=1e-3)
