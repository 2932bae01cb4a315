"""Every shipped model keeps the contract; and the contract notices models that do not."""

from dataclasses import replace

import numpy as np
import pytest
from unit.model.example_models import one_state, two_output_model

from amortnlme.core.rng import stream
from amortnlme.data.design import DesignBatch
from amortnlme.data.design_sampler import AbstractDesignSampler, RandomDesignSampler
from amortnlme.model.contract import CHECKS, check_model
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.prior import NormalPrior
from amortnlme.model.registry import load_model, model_names


@pytest.mark.parametrize("name", model_names())
def test_shipped_model_keeps_the_contract(name):
    report = check_model(load_model(name))
    assert report.passed, [f"{row.name}: {row.detail}" for row in report.rows if not row.passed]
    assert [row.name for row in report.rows] == [name for name, _ in CHECKS]
    assert report.to_dict()["passed"]


def test_model_with_covariates_and_two_outputs_keeps_the_contract():
    report = check_model(two_output_model())
    assert report.passed, [f"{row.name}: {row.detail}" for row in report.rows if not row.passed]


class WrongPrior(NormalPrior):
    """Its density is that of another distribution."""

    __slots__ = ()

    def log_prob(self, phi):
        return NormalPrior.log_prob(self, phi) + 0.5


class LateSampler(AbstractDesignSampler):
    """Calls its own designs outside."""

    max_observations = 20
    max_records = 28

    def sample(self, n, rng) -> DesignBatch:
        return RandomDesignSampler().sample(n, rng)

    def contains(self, subject):
        return ("never inside",)

    def to_config(self):
        return RandomDesignSampler().to_config()


def counting_rhs():
    """A right-hand side that depends on how often it was called: traced once, integrated later."""
    calls = []

    def rhs(t, y, p):
        calls.append(1)
        return (-p.k * y.amount * (1 if len(calls) < 2 else 2),)

    return rhs


BROKEN = {
    "the prior's samples follow its density": lambda: one_state(
        prior=WrongPrior(np.log([0.2, 0.2]), [0.5, 0.5])
    ),
    "sampled designs are valid and inside their own domain": lambda: one_state(design_sampler=LateSampler()),
    "predictions agree with an independent ODE solver": lambda: one_state(
        dynamics=LinearCompartments(counting_rhs(), dose_state="amount")
    ),
    "prior simulations succeed": lambda: one_state(prior=NormalPrior([400.0, 0.0], [400.0, 1.0])),
    "units, text and source are present": lambda: one_state(
        parameters=tuple(replace(p, text="") for p in one_state().parameters.parameters)
    ),
}


@pytest.mark.parametrize("promise", BROKEN)
def test_contract_notices_a_broken_promise(promise):
    report = check_model(BROKEN[promise]())
    failed = {row.name for row in report.rows if not row.passed}
    assert promise in failed
    assert not report.passed


def test_simulations_of_a_long_batch_do_not_depend_on_its_neighbors():
    model = load_model("one_compartment_oral")
    batch = model.design_sampler.sample(100, stream(1))
    phi = model.prior.sample(100, stream(2))
    all_f = model.simulate_batch(phi, batch, _Silent()).y
    some = np.array([3, 50, 99])
    some_f = model.simulate_batch(phi[some], batch.take(some), _Silent()).y
    assert np.array_equal(all_f[some], some_f, equal_nan=True)


class _Silent(np.random.Generator):
    """A generator whose normals are all zero, to look at predictions through `simulate_batch`."""

    def __init__(self):
        np.random.Generator.__init__(self, np.random.Philox(0))

    def standard_normal(self, size=None, dtype=np.float64, out=None):
        return np.zeros(size)
