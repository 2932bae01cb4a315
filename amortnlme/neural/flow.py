"""The posterior network: summary, conditional affine head and BayesFlow coupling flow, as one density."""

from __future__ import annotations

from typing import Any

import bayesflow
import keras
from keras import layers, ops

from amortnlme.neural.series import ConvGruSummary, LstmSummary
from amortnlme.neural.spec import NetworkSpec
from amortnlme.neural.summary import GruSummary, SetSummary

# Posterior SDs between exp(-8) and exp(8) training SDs; without a bound a stray input overflows float32.
_LOG_SCALE_BOUND = 8.0
# Splines act between these training SDs and are affine outside. Their gradients are NaN where an input leaves
# the domain (BayesFlow issue 721), which by default ends at 3 SDs; nearly all inputs lie inside this one.
_SPLINE_DOMAIN = (-6.0, 6.0, -6.0, 6.0)
_SPLINE_BINS = 12
# Where the exchangeable parameters start: far enough from the mirror image that the flow leaves it alone.
_MIRROR_START = 0.5
_LOG_2 = 0.6931471805599453


class AffineHead(keras.layers.Layer):
    """u = A(c) (x - m(c)) with lower-triangular A of positive diagonal: the Gaussian part of the posterior.

    Coupling layers clamp their scales; an exponential reaches the 1 % of a prior SD that rich data
    need.
    """

    def __init__(self, d: int, start: tuple[float, ...]) -> None:
        super().__init__(name="affine_head")
        self.d, self.start = d, start
        # Zero start: the first loss is that of a standard normal, whatever the summaries are.
        self.read = layers.Dense(2 * d + d * (d - 1) // 2, kernel_initializer="zeros")
        self._rows = [[row * (row - 1) // 2 + column for column in range(row)] for row in range(d)]

    def build_for(self, n_context: int) -> None:
        """Create the weights for n_context context numbers."""
        self.read.build((None, n_context))
        if any(self.start):
            bias: Any = self.read.bias
            bias.assign(list(self.start) + [0.0] * (bias.shape[0] - self.d))
        self.built = True

    def call(self, x: Any, context: Any) -> tuple[Any, Any]:
        """Map x (B, d) to u (B, d); also log |du/dx| (B,)."""
        mean, log_scale, lower = self._split(context)
        centered = x - mean
        columns = []
        for row, entries in enumerate(self._rows):
            value = ops.exp(log_scale[:, row]) * centered[:, row]
            for column, entry in enumerate(entries):
                value = value + lower[:, entry] * centered[:, column]
            columns.append(value)
        return ops.stack(columns, axis=-1), ops.sum(log_scale, axis=-1)

    def solve(self, u: Any, context: Any) -> Any:
        """Inverse map of u (B, d) to x (B, d), by forward substitution."""
        mean, log_scale, lower = self._split(context)
        centered: list[Any] = []
        for row, entries in enumerate(self._rows):
            value = u[:, row]
            for column, entry in enumerate(entries):
                value = value - lower[:, entry] * centered[column]
            centered.append(value * ops.exp(-log_scale[:, row]))
        return mean + ops.stack(centered, axis=-1)

    def _split(self, context: Any) -> tuple[Any, Any, Any]:
        numbers: Any = self.read(context)
        bounded: Any = ops.tanh(numbers[:, self.d : 2 * self.d] / _LOG_SCALE_BOUND)
        return numbers[:, : self.d], _LOG_SCALE_BOUND * bounded, numbers[:, 2 * self.d :]


class PosteriorNetwork(keras.Model):
    """log q(coordinates | tokens, conditions) and its sampling direction.

    Inputs are dictionaries with tokens (B, T, F), mask (B, T) and conditions (B, C); coordinates (B, d) are
    the standardized, dose-normalized parameters of `EventEncoder`.
    """

    def __init__(
        self, spec: NetworkSpec, n_features: int, n_conditions: int, d: int, pair: tuple[int, int] | None
    ) -> None:
        super().__init__(name="posterior_network")
        self.summary_network = _summary_network(spec)
        # Exchangeable coordinates, or none.
        self.pair = pair
        start = [0.0] * d
        if pair is not None:
            start[pair[0]], start[pair[1]] = _MIRROR_START, -_MIRROR_START
        self.affine_head = AffineHead(d, tuple(start)) if spec.affine_head else None
        # A mirrored network needs one number more: which image a draw belongs to.
        self.n_noise = d + (pair is not None)
        domain: dict[str, Any] = {"bins": _SPLINE_BINS, "default_domain": _SPLINE_DOMAIN}
        self.coupling = bayesflow.networks.CouplingFlow(
            depth=spec.flow_depth,
            transform=spec.coupling,
            subnet_kwargs={"dropout": 0.0, "widths": (spec.flow_width, spec.flow_width)},
            transform_kwargs=domain if spec.coupling == "spline" else {},
        )
        n_context = spec.summary_size + n_conditions
        self.summary_network.build_for(n_features, n_conditions)
        if self.affine_head is not None:
            self.affine_head.build_for(n_context)
        self.coupling.build((None, d), (None, n_context))
        self.built = True

    def context(self, tokens: Any, mask: Any, conditions: Any) -> Any:
        """Return what the density is conditioned on: summaries and conditions, (B, size + C)."""
        valid: Any = ops.cast(mask, tokens.dtype)
        valid = valid[..., None]
        summary = self.summary_network(tokens, valid, conditions)
        return ops.concatenate([summary, conditions], axis=-1)

    def log_density(self, x: Any, context: Any) -> Any:
        """Log q (B,) of coordinates x (B, d) given the context (B, C')."""
        if self.pair is None:
            return self._flow_density(x, context)
        both = ops.concatenate([x, self._mirror(x)], axis=0)
        twice = ops.concatenate([context, context], axis=0)
        images: Any = ops.split(self._flow_density(both, twice), 2)
        total: Any = ops.logaddexp(*images)
        return total - _LOG_2

    def draw(self, noise: Any, context: Any) -> Any:
        """Coordinates (B, d) that standard-normal noise (B, n_noise) maps to."""
        if self.pair is None:
            return self._flow_draw(noise, context)
        x = self._flow_draw(noise[:, :-1], context)
        return ops.where(noise[:, -1:] > 0, self._mirror(x), x)

    def _flow_density(self, x: Any, context: Any) -> Any:
        log_det = 0.0
        if self.affine_head is not None:
            x, log_det = self.affine_head(x, context)
        return self.coupling.log_prob(x, conditions=context) + log_det

    def _flow_draw(self, noise: Any, context: Any) -> Any:
        x = self.coupling(noise, conditions=context, inverse=True)
        return x if self.affine_head is None else self.affine_head.solve(x, context)

    def _mirror(self, x: Any) -> Any:
        order = list(range(x.shape[-1]))
        first, second = self.pair or (0, 0)
        order[first], order[second] = second, first
        return ops.stack([x[:, column] for column in order], axis=-1)

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Log q (B,) of inputs["coordinates"]; what Keras trains."""
        context = self.context(inputs["tokens"], inputs["mask"], inputs["conditions"])
        return self.log_density(inputs["coordinates"], context)


def _summary_network(spec: NetworkSpec) -> Any:
    if spec.summary == "set":
        return SetSummary(spec.summary_width, spec.summary_rounds, spec.summary_size)
    kinds = {"gru": GruSummary, "conv-gru": ConvGruSummary, "lstm": LstmSummary}
    return kinds[spec.summary](spec.summary_width, spec.summary_size)
