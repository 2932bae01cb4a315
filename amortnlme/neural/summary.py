"""Masked summary networks: any number of tokens in, one vector out, and right padding changes nothing.

BayesFlow 2.0.12 ships no summary network that is invariant to padding, so these are our own. Layers are built
explicitly: weights exist before the first call, which keeps loading independent of any dummy batch.
"""

from __future__ import annotations

from collections.abc import Callable
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
        build_chain(self.embed, n_features)
        for of_token, of_set, update in zip(self.of_token, self.of_set, self.update, strict=True):
            of_token.build((None, None, self.width))
            of_set.build((None, pooled))
            update.build((None, None, self.width))
        build_chain(self.head, pooled)
        self.built = True

    def call(self, tokens: Any, mask: Any, conditions: Any) -> Any:
        """Summaries (B, size) of tokens (B, T, F) with mask (B, T, 1) and conditions (B, C)."""
        hidden = apply_chain(self.embed, tokens * mask)
        for of_token, of_set, update in zip(self.of_token, self.of_set, self.update, strict=True):
            context = of_set(ops.concatenate([masked_pool(hidden, mask), conditions], axis=-1))
            hidden = hidden + update(ops.silu(of_token(hidden) + context[:, None, :]))
        return apply_chain(self.head, ops.concatenate([masked_pool(hidden, mask), conditions], axis=-1))


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
        build_chain(self.embed, n_features)
        self.cell.build((None, self.width))
        build_chain(self.head, 4 * self.width + n_conditions)
        self.built = True

    def call(self, tokens: Any, mask: Any, conditions: Any) -> Any:
        """Summaries (B, size) of tokens (B, T, F) with mask (B, T, 1) and conditions (B, C)."""
        inputs = apply_chain(self.embed, tokens) * mask
        last, states = scan_masked(
            lambda token, state: self.cell(token, [state])[0], inputs, mask, self.width
        )
        pooled = masked_pool(states, mask)
        return apply_chain(self.head, ops.concatenate([last, pooled, conditions], axis=-1))


def scan_masked(
    step: Callable[[Any, Any], Any], inputs: Any, mask: Any, width: int, *, reverse: bool = False
) -> tuple[Any, Any]:
    """Run a recurrent cell over tokens; its state passes through padding unchanged.

    `keras.layers.GRU` does the same, but warns about masks it honors.

    Parameters
    ----------
    step : callable
        New state (B, width) from a token (B, H) and the state (B, width).
    inputs : tensor (B, T, H)
        Tokens.
    mask : tensor (B, T, 1)
        1 for valid tokens, 0 for padding.
    width : int
        Size of the state.
    reverse : bool
        Start at the last token.

    Returns
    -------
    last : tensor (B, width)
        State after all tokens.
    states : tensor (B, T, width)
        State after each token.
    """

    def masked_step(state: Any, now: Any) -> tuple[Any, Any]:
        token, valid = now
        state = valid * step(token, state) + (1.0 - valid) * state
        return state, state

    by_time: Any = [ops.transpose(values, (1, 0, 2)) for values in (inputs, mask)]
    shape: Any = ops.shape(inputs)
    start = ops.zeros((shape[0], width), dtype=inputs.dtype)
    scanned: Any = ops.scan(masked_step, start, tuple(by_time), reverse=reverse)
    last, states = scanned
    return last, ops.transpose(states, (1, 0, 2))


def build_chain(chain: list[Any], n_inputs: int) -> None:
    """Create the weights of dense layers that follow each other.

    Parameters
    ----------
    chain : list of keras.layers.Dense
        Layers, first to last.
    n_inputs : int
        Numbers that the first one takes.
    """
    for layer in chain:
        layer.build((None, n_inputs))
        n_inputs = layer.units


def apply_chain(chain: list[Any], value: Any) -> Any:
    """Pass a value through layers that follow each other.

    Parameters
    ----------
    chain : list of keras.layers.Dense
        Layers, first to last.
    value : tensor (..., n_inputs)
        Input of the first one.

    Returns
    -------
    tensor (..., n_outputs)
        Output of the last one.
    """
    for layer in chain:
        value = layer(value)
    return value
