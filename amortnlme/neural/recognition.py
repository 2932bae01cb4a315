"""The recognition network: from a subject's records to the numbers that describe its Gaussian law.

One pass gives r numbers for the mean and r (r + 1) / 2 for the root of the covariance; what they mean is in
`gaussian_head.py`. "lstm" is the encoder of Rohleff et al. (2025), one layer read out by its last state;
"conv-gru" takes long series.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from amortnlme.neural.backend import backend_name
from amortnlme.neural.series import ConvGruSummary, step_lstm
from amortnlme.neural.summary import scan_masked

# Under TensorFlow a loop of the graph costs more than its steps: short sequences are spelled out.
_SPELLED_OUT = 32
# SD of the first weights of the head: all subjects begin with nearly the same law.
_HEAD_SD = 1e-3


class PlainLstm(keras.layers.Layer):
    """One LSTM in time order, read out by its last state; padding leaves the state as it is."""

    def __init__(self, width: int) -> None:
        super().__init__(name="plain_lstm")
        self.width = width
        self.cell = layers.LSTMCell(width)

    def build_for(self, n_features: int, n_conditions: int) -> None:
        """Create the weights for tokens of n_features; conditions do not enter here."""
        self.cell.build((None, n_features))
        self.built = True

    def call(self, tokens: Any, mask: Any, conditions: Any) -> Any:
        """Summaries (B, width) of tokens (B, T, F) with mask (B, T, 1)."""
        step, T = step_lstm(self.cell), tokens.shape[1]
        if backend_name() != "tensorflow" or T is None or T > _SPELLED_OUT:
            return scan_masked(step, tokens * mask, mask, 2 * self.width)[0][:, : self.width]
        shape: Any = ops.shape(tokens)
        state: Any = ops.zeros((shape[0], 2 * self.width), dtype=tokens.dtype)
        for t in range(T):
            valid = mask[:, t]
            state = valid * step(tokens[:, t] * valid, state) + (1.0 - valid) * state
        return state[:, : self.width]


class RecognitionNetwork(keras.Model):
    """Summary of the records and a linear head on it and the conditions."""

    def __init__(self, kind: str, width: int, n_features: int, n_conditions: int, n_numbers: int) -> None:
        super().__init__(name="recognition_network")
        self.summary_network = PlainLstm(width) if kind == "lstm" else ConvGruSummary(width, width)
        start: Any = keras.initializers.RandomNormal(stddev=_HEAD_SD)
        self.head = layers.Dense(n_numbers, kernel_initializer=start)
        self.summary_network.build_for(n_features, n_conditions)
        self.head.build((None, width + n_conditions))
        self.built = True

    def call(self, tokens: Any, mask: Any, conditions: Any) -> Any:
        """Numbers (B, k) of tokens (B, T, F) with mask (B, T) and conditions (B, C)."""
        valid: Any = ops.cast(mask, tokens.dtype)
        summary = self.summary_network(tokens, valid[..., None], conditions)
        return self.head(ops.concatenate([summary, conditions], axis=-1))
