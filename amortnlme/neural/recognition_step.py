"""The gradient step of a recognition network, compiled once: one vector-Jacobian product and Adam.

What the numbers of the network are worth is known outside, where the simulator runs in float64; here comes
only their derivative. All weights lie in one vector, so that a step moves few arrays in and out; the pass
with the new weights is part of the step. Nothing of a study is compiled in: the next fit of a process with
arrays of the same shapes compiles nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from amortnlme.neural.backend import backend_name, use_backend, values_of

keras = use_backend()

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """What a recognition network is built from.

    Attributes
    ----------
    kind : {"lstm", "conv-gru"}
    width, n_features, n_conditions, n_numbers : int
    """

    kind: str
    width: int
    n_features: int
    n_conditions: int
    n_numbers: int

    def build(self) -> Any:
        """Return a network with fresh weights from the global generator of Keras."""
        # Imports Keras, for which the backend must have been chosen.
        from amortnlme.neural.recognition import RecognitionNetwork

        return RecognitionNetwork(
            self.kind, self.width, self.n_features, self.n_conditions, self.n_numbers
        )


class RecognitionTrainer:
    """Weights and Adam's moments of a network on fixed subjects."""

    def __init__(
        self, network: Any, shape: NetworkShape, tokens: np.ndarray, mask: np.ndarray, conditions: np.ndarray
    ) -> None:
        self._variables = list(network.trainable_variables)
        flat = np.concatenate([value.ravel() for value in values_of(self._variables)])
        self._state: tuple[Any, ...] = (flat, np.zeros_like(flat), np.zeros_like(flat))
        self._n_steps = 0
        self._inputs = tuple(
            keras.ops.convert_to_tensor(values.astype(np.float32)) for values in (tokens, mask, conditions)
        )
        self._move = _compiled_step(shape)
        # A step of length zero shows the numbers at the first weights.
        n = len(tokens)
        self.numbers = self.step(np.zeros((n, shape.n_numbers)), 0.0)
        self._n_steps = 0

    def step(self, derivative: np.ndarray, rate: float) -> np.ndarray:
        """Move the weights against a derivative.

        Parameters
        ----------
        derivative : ndarray, shape (n, k)
            Of what is to fall, by `numbers`.
        rate : float
            Of Adam.

        Returns
        -------
        ndarray, shape (n, k)
            The new numbers, which `numbers` holds too.
        """
        self._n_steps += 1
        # The bias corrections of both moments, as factors.
        corrections = rate / (1.0 - BETA1**self._n_steps), 1.0 / (1.0 - BETA2**self._n_steps)
        scale = np.array(corrections, dtype=np.float32)
        *state, numbers = self._move(*self._state, derivative.astype(np.float32), scale, *self._inputs)
        self._state = tuple(state)
        self.numbers = np.asarray(numbers).astype(np.float64)
        return self.numbers

    def store(self) -> None:
        """Put the weights back into the network."""
        flat, start = np.asarray(self._state[0]), 0
        for variable in self._variables:
            size = int(np.prod(variable.shape))
            variable.assign(flat[start : start + size].reshape(variable.shape))
            start += size


@lru_cache(maxsize=32)
def _compiled_step(shape: NetworkShape) -> Callable[..., Any]:
    """Compile (weights, moments, derivative, scale, inputs) -> (weights, moments, numbers)."""
    forward = _pass(shape)
    if backend_name() == "jax":
        import jax

        def step(flat: Any, first: Any, second: Any, derivative: Any, scale: Any, *given: Any) -> Any:
            _, back = jax.vjp(lambda weights: forward(weights, *given), flat)
            moved = _adam(flat, first, second, back(derivative)[0], scale)
            return (*moved, forward(moved[0], *given))

        return jax.jit(step)
    import tensorflow as tf

    def recorded(flat: Any, first: Any, second: Any, derivative: Any, scale: Any, *given: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(flat)
            numbers = forward(flat, *given)
        gradient = tape.gradient(numbers, flat, output_gradients=derivative)
        moved = _adam(flat, first, second, gradient, scale)
        return (*moved, forward(moved[0], *given))

    # Neither is Python control flow to be rewritten, nor does XLA repay its compilation here.
    compiled = tf.function(recorded, autograph=False)
    return lambda *arrays: compiled(*(tf.convert_to_tensor(array) for array in arrays))


def _pass(shape: NetworkShape) -> Callable[..., Any]:
    """Numbers from (weights, tokens, mask, conditions), by a network whose own weights do not matter."""
    network = shape.build()
    variables = list(network.trainable_variables)
    shapes = [tuple(variable.shape) for variable in variables]

    def forward(flat: Any, *given: Any) -> Any:
        parts, start = [], 0
        for one in shapes:
            size = int(np.prod(one))
            parts.append(keras.ops.reshape(flat[start : start + size], one))
            start += size
        # Nothing is looked up in the variables: the function depends on its arguments alone.
        with keras.StatelessScope(state_mapping=list(zip(variables, parts, strict=True))):
            return network(*given)

    return forward


def _adam(flat: Any, first: Any, second: Any, gradient: Any, scale: Any) -> tuple[Any, Any, Any]:
    first = BETA1 * first + (1.0 - BETA1) * gradient
    second = BETA2 * second + (1.0 - BETA2) * gradient * gradient
    return flat - scale[0] * first / (keras.ops.sqrt(scale[1] * second) + EPSILON), first, second
