"""Networks of joint laws: what Keras trains is what NumPy evaluates, and training finds a dependence."""

from __future__ import annotations

import numpy as np
import pytest

from amortnlme.neural.backend import use_backend
from amortnlme.neural.joint_training import train_conditional_mixture, train_flow
from amortnlme.population.flow_law import white
from amortnlme.population.joint_network_spec import JointNetworkSpec
from amortnlme.population.laws import GaussianLaw

NAMES = ("p.a", "p.b", "q.a", "q.b")
BASE = GaussianLaw(NAMES, np.zeros(4), np.eye(4) + 0.3 * (np.eye(4)[::-1]))
SHORT = JointNetworkSpec(steps=40, learning_rate=5e-3)

pytestmark = pytest.mark.backend


def bent(n, n_draws, seed):
    """Effects with p.a = q.a^2 - 1 up to noise, known almost exactly."""
    rng = np.random.default_rng(seed)
    eta = rng.standard_normal((n, 4))
    eta[:, 0] = (eta[:, 2] ** 2 - 1.0) / np.sqrt(2.0) + 0.2 * rng.standard_normal(n)
    return eta[:, None] + 0.1 * rng.standard_normal((n, n_draws, 4))


def test_flow_law_evaluates_the_network_that_was_trained():
    law, _ = train_flow(bent(200, 32, 1), bent(50, 64, 2), BASE, SHORT, 3)
    use_backend()
    from amortnlme.neural.joint_networks import CouplingNetwork

    network = CouplingNetwork(4, SHORT.couplings, SHORT.hidden, SHORT.width, 0)
    for part, layers in zip(network.networks, law.couplings, strict=True):
        for variable, array in zip(part.weights, [a for layer in layers for a in layer], strict=True):
            variable.assign(array)
    eta = bent(20, 5, 4)
    ratio = np.asarray(network.predict_on_batch(white(BASE, eta).astype(np.float32)))
    # float32 sums of some ten terms of order ten
    np.testing.assert_allclose(law.log_density(eta) - BASE.log_density(eta), ratio, atol=2e-4, rtol=1e-4)


def test_flow_starts_at_its_normal_law():
    law, trained = train_flow(bent(60, 16, 1), bent(20, 16, 2), BASE, JointNetworkSpec(steps=9), 3)
    assert trained.steps == 0
    eta = bent(20, 5, 4)
    np.testing.assert_allclose(law.log_density(eta), BASE.log_density(eta), atol=1e-9)


def test_conditional_mixture_evaluates_the_network_that_was_trained():
    block = ("q.a", "q.b")
    law, trained = train_conditional_mixture(bent(200, 32, 1), bent(50, 64, 2), BASE, block, SHORT, 3)
    assert trained.held_out_gain > 0
    use_backend()
    from amortnlme.neural.joint_networks import ConditionalMixtureNetwork

    network = ConditionalMixtureNetwork(2, 2, SHORT.components, SHORT.hidden, SHORT.width, 0)
    for variable, array in zip(
        network.network.weights, [a for layer in law.layers for a in layer], strict=True
    ):
        variable.assign(array)
    eta = bent(20, 5, 4)
    z = white(law.base, eta[..., [NAMES.index(name) for name in law.base.names]]).astype(np.float32)
    ratio = np.asarray(network.predict_on_batch(z))
    np.testing.assert_allclose(law.log_density(eta) - BASE.log_density(eta), ratio, atol=2e-4, rtol=1e-4)


@pytest.mark.slow
def test_training_finds_a_bent_dependence():
    spec = JointNetworkSpec(steps=400, learning_rate=5e-3, width=16, hidden=2)
    law, trained = train_conditional_mixture(
        bent(300, 32, 1),
        bent(100, 64, 2),
        GaussianLaw(NAMES, np.zeros(4), np.eye(4)),
        ("q.a", "q.b"),
        spec,
        3,
    )
    assert trained.steps > 0
    other = bent(200, 64, 5)[:, 0]
    normal = GaussianLaw(NAMES, np.zeros(4), np.eye(4))
    # No normal law gains anything: q.a and its square are uncorrelated. 4.5 SE above nothing.
    gain = law.log_density(other) - normal.log_density(other)
    assert gain.mean() > 4.5 * gain.std() / np.sqrt(len(gain))
