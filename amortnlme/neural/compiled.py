"""Compiled passes through a trained network in fixed batch shapes, so that nothing is traced twice.

BayesFlow compiles neither sampling nor densities; doing it here gains a factor of two to five.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from amortnlme.neural.backend import backend_name
from amortnlme.neural.encoder import Encoded, pad_tokens

_SUBJECT_ROWS = 32
_DRAW_ROWS = 4096


class CompiledNetwork:
    """The three passes of a posterior network on NumPy arrays; weights are frozen at construction."""

    def __init__(self, network: Any, width: int) -> None:
        self._width = width
        self._context = _compile(network.context)
        self._log_density = _compile(network.log_density)
        self._draw = _compile(network.draw)

    def context(self, encoded: Encoded) -> np.ndarray:
        """Contexts (n, C) float32 of n encoded subjects."""
        # One width for all: at inference a compilation costs more than padding. Longer sequences than any
        # trained on still count in full; whether they may be used is not decided here.
        width = self._width
        while width < encoded.tokens.shape[1]:
            width *= 2
        tokens = pad_tokens(encoded.tokens, width)
        mask = np.arange(width) < encoded.length[:, None]
        return _in_chunks(self._context, _SUBJECT_ROWS, tokens, mask, encoded.conditions)

    def log_density(self, coordinates: np.ndarray, context: np.ndarray) -> np.ndarray:
        """Evaluate the density.

        Parameters
        ----------
        coordinates : ndarray (n, d)
            Points in network coordinates.
        context : ndarray (n, C) float32
            The context of each point.

        Returns
        -------
        ndarray (n,) float64, nats
            Log q in network coordinates.
        """
        values = _in_chunks(self._log_density, _DRAW_ROWS, coordinates.astype(np.float32), context)
        return values.astype(np.float64)

    def draw(self, noise: np.ndarray, context: np.ndarray) -> np.ndarray:
        """Map noise to draws.

        Parameters
        ----------
        noise : ndarray (n, d)
            Standard-normal numbers.
        context : ndarray (n, C) float32
            The context of each draw.

        Returns
        -------
        ndarray (n, d) float32
            Network coordinates.
        """
        return _in_chunks(self._draw, _DRAW_ROWS, noise.astype(np.float32), context)


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    if backend_name() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    # Nothing in the network needs Python control flow rewritten, and rewriting it costs seconds.
    return tf.function(function, autograph=False)


def _in_chunks(function: Callable[..., Any], size: int, *arrays: np.ndarray) -> np.ndarray:
    """Apply a compiled function to blocks of exactly `size` rows; the last block is filled by repetition."""
    n = len(arrays[0])
    parts = []
    for start in range(0, n, size):
        index = np.resize(np.arange(start, min(start + size, n)), size)
        parts.append(np.asarray(function(*(array[index] for array in arrays)))[: min(size, n - start)])
    return np.concatenate(parts)
