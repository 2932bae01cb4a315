"""A simulator inside a network: linear around parameters that the engine has solved for, exact there.

The engine solves the model and its sensitivities in float64, outside the graph of the backend; the layer

    f(phi) = f0 + J (phi - phi0)

takes them into it. At phi = phi0 value and derivative are those of the simulator, so that gradients by
whatever gave phi (weights of a covariate network, parameters of an encoder) are exact on TensorFlow and JAX
alike. Renew f0 and J after each step.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from amortnlme.model.bound import BoundModel


def linearize(bound: BoundModel, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve the model and its sensitivities at one parameter vector per subject.

    Parameters
    ----------
    bound : BoundModel
    phi : ndarray, shape (n_subjects, d)

    Returns
    -------
    f : ndarray, shape (n_subjects, m)   [observation units]
        0 where nothing was observed and where the model cannot be solved.
    jacobian : ndarray, shape (n_subjects, m, d)
        df/dphi, 0 there.
    usable : ndarray of bool, shape (n_subjects, m)
        Everywhere else.
    """
    f, slope, status = bound.predict_with_sensitivity(np.asarray(phi, dtype=np.float64)[:, None])
    usable = bound.observed & (status == 0) & np.isfinite(f[:, 0]) & np.isfinite(slope[:, 0]).all(axis=2)
    return np.where(usable, f[:, 0], 0.0), np.where(usable[..., None], slope[:, 0], 0.0), usable


class LinearizedSimulator(keras.layers.Layer):
    """f0 + J (phi - phi0) for every row; it has no weights."""

    def call(self, phi: Any, center: Any, f: Any, jacobian: Any) -> Any:
        """Predict.

        Parameters
        ----------
        phi : tensor, shape (n, d)
        center : tensor, shape (n, d)
            phi0.
        f : tensor, shape (n, m)
        jacobian : tensor, shape (n, m, d)

        Returns
        -------
        tensor, shape (n, m)
        """
        return f + ops.sum(jacobian * ops.expand_dims(phi - center, axis=1), axis=-1)

    def compute_output_shape(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of f."""
        return shapes[2]
