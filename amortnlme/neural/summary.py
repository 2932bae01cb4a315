"""Masked summary networks: any number of tokens in, one vector out, and right padding changes nothing.

BayesFlow 2.0.12 ships no summary network that is invariant to padding, so these are our own. Layers are built
explicitly: weights exist before the first call, which keeps loading independent of any dummy batch.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

# Below any activation, so that masked entries never win a maximum; finite, so that 0 * value stays 0.
_NEVER_MAXIMAL = -1e4
# Brings the sum over a typical number of tokens to order one.
_SUM_SCALE = 0.1


def masked_pool(hidden: Any, mask: Any) -> Any:
    """Mean, maximum and scaled sum over the valid tokens.

    Parameters
    ----------
    hidden : tensor (B, T, H)
        Token states.
    mask : tensor (B, T, 1)
        1 for valid tokens, 0 for padding; at least one valid token per row.

    Returns
    -------
    tensor (B, 3 H)
        The three pools side by side.
    """
    total: Any = ops.sum(hidden * mask, axis=1)
    count = ops.maximum(ops.sum(mask, axis=1), 1.0)
    largest = ops.max(ops.where(mask > 0, hidden, _NEVER_MAXIMAL), axis=1)
    return ops.concatenate([total / count, largest, total * _SUM_SCALE], axis=-1)


class SetSummary(keras.layers.Layer):
    """Masked deep set with message rounds: each round lets every token see the pooled set and the conditions.

    A first round can form an estimate of the curve, a second one residuals against it: that is what the
    residual error needs.
    """

    def __init__(self, width: int, rounds: int, size: int) -> None:
        super().__init__(name="set_summary")
        self.width, self.rounds, self.size = width, rounds, size
        self.embed = [layers.Dense(width, activation="silu"), layers.Dense(width)]
        self.of_token = [layers.Dense(width) for _ in range(rounds)]
        self.of_set = [layers.Dense(width, use_bias=False) for _ in range(rounds)]
        self.update = [layers.Dense(width) for _ in range(rounds)]
        self.head = [layers.Dense(2 * width, activation="silu"), layers.Dense(size)]

    def build_for(self, n_features: int, n_conditions: int) -> None:
        """Create the weights for tokens of n_features and n_conditions conditions."""
        pooled = 3 * self.width + n_conditions
        _build_chain(self.embed, n_features)
        for of_token, of_set, update in zip(self.of_token, self.of_set, self.update, strict=True):
            of_token.build((None, None, self.width))
            of_set.build((None, pooled))
            update.build((None, None, self.width))
        _build_chain(self.head, pooled)
        self.built = True

    def call(self, tokens: Any, mask: Any, conditions: Any) -> Any:
        """Summaries (B, size) of tokens (B, T, F) with mask (B, T, 1) and conditions (B, C)."""
        hidden = _apply_chain(self.embed, tokens * mask)
        for of_token, of_set, update in zip(self.of_token, self.of_set, self.update, strict=True):
            context = of_set(ops.concatenate([masked_pool(hidden, mask), conditions], axis=-1))
            hidden = hidden + update(ops.silu(of_token(hidden) + context[:, None, :]))
        return _apply_chain(self.head, ops.concatenate([masked_pool(hidden, mask), conditions], axis=-1))


class GruSummary(keras.layers.Layer):
    """Masked GRU over tokens in time order, read out by its last valid state and the pools of all states."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__(name="gru_summary")
        self.width, self.size = width, size
        self.embed = [layers.Dense(width, activation="silu"), layers.Dense(width, activation="silu")]
        self.cell = layers.GRUCell(width)
        self.head = [layers.Dense(2 * width, activation="silu"), layers.Dense(size)]

    def build_for(self, n_features: int, n_conditions: int) -> None:
        """Create the weights for tokens of n_features and n_conditions conditions."""
        _build_chain(self.embed, n_features)
        self.cell.build((None, self.width))
        _build_chain(self.head, 4 * self.width + n_conditions)
        self.built = True

    def call(self, tokens: Any, mask: Any, conditions: Any) -> Any:
        """Summaries (B, size) of tokens (B, T, F) with mask (B, T, 1) and conditions (B, C)."""
        inputs: Any = ops.transpose(_apply_chain(self.embed, tokens) * mask, (1, 0, 2))
        keep = ops.transpose(mask, (1, 0, 2))

        # A scan of our own keeps the state through padding; `keras.layers.GRU` warns about masks it does
        # honor.
        def step(state: Any, now: Any) -> tuple[Any, Any]:
            token, valid = now
            proposed, _ = self.cell(token, [state])
            state = valid * proposed + (1.0 - valid) * state
            return state, state

        start = ops.zeros_like(inputs[0])
        scanned: Any = ops.scan(step, start, (inputs, keep))
        last, states = scanned
        pooled = masked_pool(ops.transpose(states, (1, 0, 2)), mask)
        return _apply_chain(self.head, ops.concatenate([last, pooled, conditions], axis=-1))


def _build_chain(chain: list[Any], n_inputs: int) -> None:
    for layer in chain:
        layer.build((None, n_inputs))
        n_inputs = layer.units


def _apply_chain(chain: list[Any], value: Any) -> Any:
    for layer in chain:
        value = layer(value)
    return value
