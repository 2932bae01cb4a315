"""Masked summary networks for long series in time order: strided convolutions before a GRU, and an LSTM.

Padding is on the right and invisible: convolutions see zeros there, as they do beyond the last token, and a
scan keeps its state through it. All strides and pads are constants, so any length runs without a new graph.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from amortnlme.neural.summary import apply_chain, build_chain, masked_pool, scan_masked

_KERNEL, _STRIDE = 5, 3


class ConvGruSummary(keras.layers.Layer):
    """Two convolutions of stride 3, then a masked GRU, read out by its last state and by pools.

    A ninth of the tokens reaches the GRU, whose steps are what a CPU spends its time on.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__(name="conv_gru_summary")
        self.width, self.size = width, size
        self.convolve = [
            layers.Conv1D(width, _KERNEL, strides=_STRIDE, activation="silu"),
            layers.Conv1D(width, _KERNEL, strides=_STRIDE, activation="silu"),
        ]
        self.cell = layers.GRUCell(width)
        self.head = [layers.Dense(2 * width, activation="silu"), layers.Dense(size)]

    def build_for(self, n_features: int, n_conditions: int) -> None:
        """Create the weights for tokens of n_features and n_conditions conditions."""
        self.convolve[0].build((None, None, n_features + 1))
        self.convolve[1].build((None, None, self.width))
        self.cell.build((None, self.width))
        build_chain(self.head, 7 * self.width + n_conditions)
        self.built = True

    def call(self, tokens: Any, mask: Any, conditions: Any) -> Any:
        """Summaries (B, size) of tokens (B, T, F) with mask (B, T, 1) and conditions (B, C)."""
        # Room for the last, incomplete window of both strides, whatever T is.
        room = ((0, 0), (0, _STRIDE**2 - 1), (0, 0))
        mask = ops.pad(mask, room)
        # The mask is a channel: a window with two tokens is not one whose third token is zero.
        hidden: Any = ops.concatenate([ops.pad(tokens, room), mask], axis=-1) * mask
        levels: list[Any] = []
        for convolve in self.convolve:
            hidden = convolve(ops.pad(hidden, ((0, 0), (1, 1), (0, 0))))
            mask = ops.max_pool(mask, _STRIDE, strides=_STRIDE, padding="valid")
            hidden = hidden * mask
            levels.append(masked_pool(hidden, mask))
        last, states = scan_masked(_step_gru(self.cell), hidden, mask, self.width)
        read = [last, masked_pool(states, mask), levels[0], conditions]
        return apply_chain(self.head, ops.concatenate(read, axis=-1))


class LstmSummary(keras.layers.Layer):
    """Two convolutions over neighboring tokens, then a bidirectional LSTM, read out by its two last states.

    The kind of network of Arruda et al. (2024), at its cost: every token is a step.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__(name="lstm_summary")
        self.width, self.size = width, size
        self.convolve = [
            layers.Conv1D(width, 3, activation="silu"),
            layers.Conv1D(width, 3, activation="silu"),
        ]
        self.cells = [layers.LSTMCell(width), layers.LSTMCell(width)]
        self.head = [layers.Dense(2 * width, activation="silu"), layers.Dense(size)]

    def build_for(self, n_features: int, n_conditions: int) -> None:
        """Create the weights for tokens of n_features and n_conditions conditions."""
        self.convolve[0].build((None, None, n_features + 1))
        self.convolve[1].build((None, None, self.width))
        for cell in self.cells:
            cell.build((None, self.width))
        build_chain(self.head, 2 * self.width + n_conditions)
        self.built = True

    def call(self, tokens: Any, mask: Any, conditions: Any) -> Any:
        """Summaries (B, size) of tokens (B, T, F) with mask (B, T, 1) and conditions (B, C)."""
        hidden: Any = ops.concatenate([tokens, mask], axis=-1) * mask
        for convolve in self.convolve:
            hidden = convolve(ops.pad(hidden, ((0, 0), (1, 1), (0, 0)))) * mask
        read = [
            scan_masked(step_lstm(cell), hidden, mask, 2 * self.width, reverse=reverse)[0][:, : self.width]
            for cell, reverse in zip(self.cells, (False, True), strict=True)
        ]
        return apply_chain(self.head, ops.concatenate([*read, conditions], axis=-1))


def _step_gru(cell: Any) -> Any:
    return lambda token, state: cell(token, [state])[0]


def step_lstm(cell: Any) -> Any:
    """Step of an LSTM whose two states lie side by side in one tensor, as a scan of Keras wants them.

    Parameters
    ----------
    cell : keras.layers.LSTMCell

    Returns
    -------
    callable
        New states (B, 2 width) from a token (B, H) and the states.
    """

    def step(token: Any, state: Any) -> Any:
        _, states = cell(token, ops.split(state, 2, axis=-1))
        return ops.concatenate(states, axis=-1)

    return step
