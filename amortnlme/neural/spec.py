"""Frozen option objects of the networks and their training; an unknown key is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

from amortnlme.core.errors import TrainingError

TOKEN_KINDS = ("events", "observations")
SUMMARY_KINDS = ("set", "gru", "conv-gru", "lstm")
COUPLING_KINDS = ("affine", "spline")
RISE_SEARCHES = ("step", "level")
_MOST = {
    "summary_width": 4096,
    "summary_rounds": 64,
    "summary_size": 4096,
    "flow_depth": 256,
    "flow_width": 4096,
}
_LATER = {
    "log_outputs": False,
    "difference_features": False,
    "rise": (),
    "rise_search": "step",
    "exchangeable": (),
    "coupling": "affine",
}
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "int": (lambda value: isinstance(value, int) and not isinstance(value, bool), "an integer"),
    "float": (
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value),
        "a finite number",
    ),
    "str": (lambda value: isinstance(value, str), "a text"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """Everything that fixes the shape of an estimator's network and of its input.

    Attributes
    ----------
    tokens : str
        "events": doses and measurements merged in time order; "observations": measurements only (needs
        history rates if anybody is dosed).
    history_rates : tuple of float
        Rates l, 1/time, of the dose-history features sum_d D_d exp(-l (t - t_d)); exact inputs for linear
        dynamics, empty for other models.
    dose_scaled : tuple of str
        Log-transformed parameters that scale with the outputs at a fixed design (additive error SDs); they
        are divided by the first dose, as the measurements are.
    output_scaled, inverse_output_scaled : tuple of str
        Log-transformed parameters that are multiplied (error SDs) or divided (volumes) by c when all outputs
        are multiplied by c. If any is named, measurements are also divided by their own root mean square.
    log_outputs : bool
        The outputs are natural logarithms of what scales with the doses: a subject's first dose is taken off
        its measurements as a logarithm, and dose histories enter as logarithms. Excludes the options that
        scale outputs or parameters.
    difference_features : bool
        Give the differences of consecutive measurements in units of their own median size, and this size as
        a condition: what tells small residual errors apart in long series.
    rise : tuple of str
        Log-transformed parameters that show where an output on a logarithmic scale leaves its baseline: time
        of the onset, amplitude before it and, where one parameter has it, rate at which the amplitude then
        grows. The network learns what they are beside the anchors of `rise.find_rise`. The mean of its
        measurements is taken off every subject. Needs difference_features, and excludes output_scaled and
        inverse_output_scaled.
    rise_search : str
        What marks the rise: "step", the largest one, or "level", the split into the two most different levels
        (for signals that rise far above the noise in several steps).
    exchangeable : tuple of str
        Two parameters that can swap their values without any effect on likelihood and prior. The density is
        then the mean of a flow and of its mirror image: both modes have half of the mass, exactly.
    summary : str
        "set" (masked deep set) or, for tokens in time order, "gru" (masked GRU), "conv-gru" (two convolutions
        of stride 3 before the GRU, for long series) or "lstm" (two convolutions and a bidirectional LSTM).
    summary_width, summary_rounds, summary_size : int
        Hidden width, message rounds ("set" only) and output size of the summary network.
    coupling : str
        Transform of the coupling layers: "affine", or "spline" (rational quadratic, three times as dear).
    flow_depth, flow_width : int
        Number of coupling layers and the width of their two hidden layers.
    affine_head : bool
        Place a full conditional affine map (a Gaussian posterior) before the coupling layers.
    buckets : tuple of int
        Token counts to which sequences are padded; each costs one compilation.
    """

    tokens: str = "events"
    history_rates: tuple[float, ...] = ()
    dose_scaled: tuple[str, ...] = ()
    output_scaled: tuple[str, ...] = ()
    inverse_output_scaled: tuple[str, ...] = ()
    log_outputs: bool = False
    difference_features: bool = False
    rise: tuple[str, ...] = ()
    rise_search: str = "step"
    exchangeable: tuple[str, ...] = ()
    summary: str = "set"
    summary_width: int = 64
    summary_rounds: int = 3
    summary_size: int = 32
    coupling: str = "affine"
    flow_depth: int = 4
    flow_width: int = 64
    affine_head: bool = True
    buckets: tuple[int, ...] = (8, 16, 32)

    def __post_init__(self) -> None:
        _require_types(self)
        _require(self.tokens in TOKEN_KINDS, "tokens", self.tokens, f"one of {TOKEN_KINDS}")
        _require(self.summary in SUMMARY_KINDS, "summary", self.summary, f"one of {SUMMARY_KINDS}")
        _require(self.coupling in COUPLING_KINDS, "coupling", self.coupling, f"one of {COUPLING_KINDS}")
        _require(
            not self.exchangeable or (len(set(self.exchangeable)) == 2 == len(self.exchangeable)),
            "exchangeable",
            self.exchangeable,
            "two different parameters, or none",
        )
        # The head is where the flow starts off its mirror image; from a symmetric start it would not part.
        _require(
            not self.exchangeable or self.affine_head,
            "exchangeable",
            self.exchangeable,
            "parameters only together with affine_head",
        )
        _require(
            not self.rise
            or (self.difference_features and len(set(self.rise)) == len(self.rise) in (2, 3)),
            "rise",
            self.rise,
            "onset, baseline and (optional) rate of the rise together with difference_features, or nothing",
        )
        searches = RISE_SEARCHES if self.rise else RISE_SEARCHES[:1]
        _require(self.rise_search in searches, "rise_search", self.rise_search, f"one of {searches}")
        _require(
            not self.rise or not (self.output_scaled or self.inverse_output_scaled),
            "rise",
            self.rise,
            "only without output_scaled and inverse_output_scaled: outputs are on one scale",
        )
        scaled = (*self.dose_scaled, *self.output_scaled, *self.inverse_output_scaled, *self.rise)
        _require(
            not (self.log_outputs and scaled),
            "log_outputs",
            self.log_outputs,
            "true only without dose_scaled, output_scaled, inverse_output_scaled and rise",
        )
        _require(
            all(rate > 0 for rate in self.history_rates),
            "history_rates",
            self.history_rates,
            "positive rates",
        )
        # The bounds keep a configuration of unknown origin from asking for all the memory there is.
        for name, most in _MOST.items():
            value = getattr(self, name)
            _require(1 <= value <= most, name, value, f"an integer from 1 to {most}")
        increasing = (
            list(self.buckets) == sorted(set(self.buckets)) and len(self.buckets) > 0 and self.buckets[0] > 0
        )
        _require(increasing, "buckets", self.buckets, "increasing positive token counts")

    def to_config(self) -> dict[str, Any]:
        """Plain dictionary that `from_config` reads back.

        Options that came after the first shipped estimator are left out at their defaults, so that its
        configuration and fingerprint stay what they were.
        """
        config = asdict(self)
        return {key: value for key, value in config.items() if key not in _LATER or value != _LATER[key]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NetworkSpec:
        """Rebuild from a dictionary; raises TrainingError E_SPEC_UNKNOWN_KEY or E_SPEC_VALUE."""
        return cls(**_checked(cls, config))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """How a network is trained.

    Attributes
    ----------
    epochs : int
        Passes over the training rows; the learning rate follows one cosine to zero over all of them.
    batch_size : int
        Rows per gradient step.
    learning_rate : float
        Peak rate of Adam, reached after `warmup_steps` linear steps.
    clipnorm : float
        Each gradient tensor is clipped to this norm.
    validation_rows : int
        Rows at the end of the training set that are held out.
    patience : int
        Stop after this many epochs without a better validation loss and keep the best weights; 0 never stops
        early.
    pilot_rows : int
        Training rows from which the input standardization is measured.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    clipnorm: float = 1.5
    validation_rows: int = 4000
    patience: int = 0
    pilot_rows: int = 5000

    def __post_init__(self) -> None:
        _require_types(self)
        for name in ("epochs", "batch_size", "validation_rows", "pilot_rows"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "an integer of at least 1")
        for name in ("warmup_steps", "patience"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "an integer of at least 0")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "a positive number")
        _require(self.clipnorm > 0, "clipnorm", self.clipnorm, "a positive number")

    def to_config(self) -> dict[str, Any]:
        """Plain dictionary that `from_config` reads back."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrainingSpec:
        """Rebuild from a dictionary; raises TrainingError E_SPEC_UNKNOWN_KEY or E_SPEC_VALUE."""
        return cls(**_checked(cls, config))


def _require(condition: bool, name: str, given: object, allowed: str) -> None:
    if not condition:
        raise TrainingError(
            "E_SPEC_VALUE", f"option {name} is not valid. Given: {given!r}. Allowed: {allowed}."
        )


def _require_types(spec: Any) -> None:
    """Hold every value against its annotation: in a file, "3" and 3 are easily confused."""
    for field in fields(spec):
        value, kind = getattr(spec, field.name), str(field.type)
        if kind.startswith("tuple["):
            holds, words = _KINDS[kind.removeprefix("tuple[").removesuffix(", ...]")]
            valid, words = isinstance(value, tuple) and all(map(holds, value)), f"a list, each {words}"
        else:
            holds, words = _KINDS[kind]
            valid = holds(value)
        _require(valid, field.name, value, words)


def _checked(cls: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse unknown keys and turn JSON lists back into tuples."""
    known = {field.name for field in fields(cls)}
    unknown = sorted(set(config) - known)
    if unknown:
        raise TrainingError(
            "E_SPEC_UNKNOWN_KEY",
            f"unknown option(s) {', '.join(unknown)} for {cls.__name__}. Allowed: "
            f"{', '.join(sorted(known))}.",
        )
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
