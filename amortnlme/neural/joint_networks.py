"""Keras versions of the laws in `amortnlme.population.flow_law`, for training only.

Both networks map whitened effects z (B, S, d) to the log ratio of their density to the standard normal one,
(B, S): zero at the start for the flow, so that training begins exactly at the normal law it whitens with.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as keras_layers
from keras import ops as keras_ops

from amortnlme.population.flow_law import LOG_SCALE, component_size, coupling_masks

# Keras types its functions as if any could return None.
layers: Any = keras_layers
ops: Any = keras_ops


def _bounded(log_scale: Any) -> Any:
    return LOG_SCALE * ops.tanh(log_scale / LOG_SCALE)


def _hidden(width: int, depth: int, seed: int) -> list[Any]:
    return [
        layers.Dense(
            width,
            activation="tanh",
            kernel_initializer=keras.initializers.LecunNormal(seed + k),
            bias_initializer=keras.initializers.RandomNormal(stddev=0.3, seed=seed + 100 + k),
        )
        for k in range(depth)
    ]


class CouplingNetwork(keras.Model):
    """Affine couplings, from effects to a standard normal."""

    def __init__(self, d: int, couplings: int, hidden: int, width: int, seed: int) -> None:
        super().__init__(name="joint_flow")
        masks = coupling_masks(d, couplings)
        self._moved = [np.flatnonzero(mask).tolist() for mask in masks]
        self._kept = [np.flatnonzero(~mask).tolist() for mask in masks]
        self.networks: list[Any] = []
        for c, (moved, kept) in enumerate(zip(self._moved, self._kept, strict=True)):
            last = layers.Dense(2 * len(moved), kernel_initializer="zeros")
            network = keras.Sequential([*_hidden(width, hidden, 1000 * seed + 200 * c), last])
            network.build((None, None, len(kept)))
            self.networks.append(network)
        self.built = True

    def call(self, z: Any) -> Any:
        """Log ratio (B, S) at z (B, S, d)."""
        x, ratio = z, 0.5 * ops.sum(ops.square(z), axis=-1)
        for network, moved, kept in zip(self.networks, self._moved, self._kept, strict=True):
            out = network(ops.stack([x[..., k] for k in kept], axis=-1))
            log_scale, shift = _bounded(out[..., : len(moved)]), out[..., len(moved) :]
            columns = [x[..., k] for k in range(x.shape[-1])]
            for j, k in enumerate(moved):
                columns[k] = (columns[k] - shift[..., j]) * ops.exp(-log_scale[..., j])
            x = ops.stack(columns, axis=-1)
            ratio = ratio - ops.sum(log_scale, axis=-1)
        return ratio - 0.5 * ops.sum(ops.square(x), axis=-1)


class ConditionalMixtureNetwork(keras.Model):
    """Mixture of the last q whitened effects given the first ones."""

    def __init__(self, n_block: int, q: int, components: int, hidden: int, width: int, seed: int) -> None:
        super().__init__(name="joint_conditional_mixture")
        self.n_block, self.q, self.components = n_block, q, components
        bias = np.zeros((components, component_size(q)))
        # Components that start at the same place stay there.
        bias[:, 1 : 1 + q] = 0.5 * np.random.default_rng(seed).standard_normal((components, q))
        bias[:, 1 + q : 1 + 2 * q] = -0.1
        last = layers.Dense(
            bias.size,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01, seed=1000 * seed + 99),
        )
        self.network = keras.Sequential([*_hidden(width, hidden, 1000 * seed), last])
        self.network.build((None, None, n_block))
        start: Any = last.bias
        start.assign(bias.ravel())
        self._lower = list(zip(*(i.tolist() for i in np.tril_indices(q, -1)), strict=True))
        self.built = True

    def call(self, z: Any) -> Any:
        """Log ratio (B, S) at z (B, S, d)."""
        q, x = self.q, z[..., self.n_block :]
        out: Any = self.network(z[..., : self.n_block])
        size = component_size(q)
        parts, logits = [], []
        for k in range(self.components):
            own = out[..., k * size : (k + 1) * size]
            log_scale = _bounded(own[..., 1 + q : 1 + 2 * q])
            e = (x - own[..., 1 : 1 + q]) * ops.exp(-log_scale)
            standard = [e[..., j] for j in range(q)]
            for entry, (row, column) in enumerate(self._lower):
                standard[row] = standard[row] + own[..., 1 + 2 * q + entry] * e[..., column]
            square: Any = sum(ops.square(s) for s in standard)
            parts.append(own[..., 0] - 0.5 * square - ops.sum(log_scale, axis=-1))
            logits.append(own[..., 0])
        total: Any = ops.logsumexp(ops.stack(parts, axis=-1), axis=-1)
        total = total - ops.logsumexp(ops.stack(logits, axis=-1), axis=-1)
        return total + 0.5 * ops.sum(ops.square(x), axis=-1)
