"""The layer around a simulator: gradients through it are those of the simulator's own likelihood."""

from __future__ import annotations

import numpy as np
import pytest

from amortnlme.data.bundled import load_bundled
from amortnlme.model.registry import load_shipped_model
from amortnlme.neural.backend import backend_name, use_backend

keras = use_backend()

from amortnlme.neural.linearized_simulator import LinearizedSimulator, linearize  # noqa: E402

pytestmark = pytest.mark.backend


def _gradient(function, at: np.ndarray) -> np.ndarray:
    if backend_name() == "jax":
        import jax

        return np.asarray(jax.grad(function)(np.asarray(at, dtype=np.float32)))
    import tensorflow as tf

    x = tf.constant(at, dtype=tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x).numpy()


def _study():
    model, data = load_shipped_model("one_compartment_oral"), load_bundled("theophylline")
    return data, model.bind(data)


def test_gradient_by_network_weights_is_that_of_the_likelihood():
    """Weights B of phi = Z B for the covariates Z = (1, log weight), against the engine's own chain rule."""
    data, bound = _study()
    weight = np.log(data.covariate_table()["weight"].to_numpy() / 70.0)
    Z = np.stack([np.ones_like(weight), weight], axis=1)
    B = np.stack([np.log([1.5, 0.09, 32.0, 0.7]), np.array([0.1, -0.2, 0.6, 0.0])])
    phi = Z @ B
    f, jacobian, usable = linearize(bound, phi)
    layer, sigma = LinearizedSimulator(), 0.7

    def loss(weights):
        inside = keras.ops.matmul(keras.ops.convert_to_tensor(Z, dtype="float32"), weights)
        arrays = (keras.ops.convert_to_tensor(a, dtype="float32") for a in (phi, f, jacobian))
        gap = keras.ops.convert_to_tensor(np.where(usable, bound.y, 0.0), dtype="float32") - layer(
            inside, *arrays
        )
        return 0.5 * keras.ops.sum(gap**2) / sigma**2

    _, exact = bound.log_likelihood_and_gradient(phi[:, None])
    structural = [0, 1, 2]
    expected = -Z.T @ exact[:, 0][:, structural]
    found = _gradient(loss, B)[:, structural]
    # Single precision, of sums over 120 terms of both signs.
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(Z.T @ np.abs(exact[:, 0])).max())


def test_layer_is_linear_with_the_simulator_as_tangent():
    _, bound = _study()
    phi = np.tile(np.log([1.5, 0.09, 32.0, 0.7]), (12, 1))
    f, jacobian, usable = linearize(bound, phi)
    step = np.array([0.02, -0.01, 0.01, 0.3])
    moved = np.asarray(LinearizedSimulator()(*(np.float32(a) for a in (phi + step, phi, f, jacobian))))
    np.testing.assert_allclose(moved, f + jacobian @ step, rtol=1e-5, atol=1e-5)
    exact = bound.predict((phi + step)[:, None])[0][:, 0]
    # What is left is of second order in steps of 0.02, in units of concentrations near 10.
    assert np.abs(np.where(usable, moved - exact, 0.0)).max() < 0.02


def test_rows_that_cannot_be_solved_carry_no_gradient():
    _, bound = _study()
    phi = np.tile(np.log([1.5, 0.09, 32.0, 0.7]), (12, 1))
    phi[3] = np.nan
    f, jacobian, usable = linearize(bound, phi)
    assert not usable[3].any() and (f[3] == 0).all() and (jacobian[3] == 0).all()
    assert usable[[0, 1, 2]].all()
