"""Measure an encoder's constants once, on a masked pilot set of simulations."""

from __future__ import annotations

import numpy as np

from amortnlme.core.errors import TrainingError
from amortnlme.data.design import DesignBatch, EventKind
from amortnlme.model.individual import IndividualModel
from amortnlme.neural.encoder import MOMENTS, EventEncoder, frozen
from amortnlme.neural.exchange import exchangeable_pair, refuse_false_exchange
from amortnlme.neural.features import first_dose, own_level, raw_features
from amortnlme.neural.spec import NetworkSpec

_SMALLEST_SPREAD = 1e-6


def fit_encoder(
    model: IndividualModel, spec: NetworkSpec, batch: DesignBatch, y: np.ndarray, phi: np.ndarray
) -> EventEncoder:
    """Measure an encoder's constants on a pilot set of simulations.

    Parameters
    ----------
    model : IndividualModel
        The model whose simulations are encoded.
    spec : NetworkSpec
        Token and feature options.
    batch : DesignBatch
        n pilot designs.
    y : ndarray (n, m), unit of the outputs
        Simulated measurements, NaN where there is none.
    phi : ndarray (n, d)
        Parameters that produced them, unconstrained scale.

    Returns
    -------
    EventEncoder
        The encoder with its constants fixed.

    Raises
    ------
    TrainingError
        E_SPEC_SCALED when a scaled parameter is unknown or not log-transformed, E_SPEC_RISE when a rise is
        asked of doses or several outputs, E_SPEC_EXCHANGE when parameters declared exchangeable are not,
        E_ENCODER_COMPARTMENTS when dose histories would merge doses into different compartments,
        E_ENCODER_DOSES when doses would reach the network neither as tokens nor as histories.
    """
    _refuse_unseen_doses(spec, batch)
    observed = batch.observation_mask & np.isfinite(y)
    first = first_dose(batch)
    reference = float(np.exp(np.mean(np.log(first[first > 0])))) if np.any(first > 0) else 1.0
    factor = (reference / np.where(first > 0, first, reference))[:, None]
    relative = y + np.log(factor) if spec.log_outputs else y * factor
    if spec.rise:
        relative = y - own_level(y, observed)[:, None]
    last_time = np.where(observed, batch.observation_times, -np.inf).max(axis=1)
    blank = EventEncoder(
        spec=spec,
        covariates=tuple(model.covariates),
        n_outputs=len(model.outputs),
        dose_reference=reference,
        output_scale=float(np.sqrt(np.mean(relative[observed] ** 2))),
        time_scale=float(max(np.median(last_time[np.isfinite(last_time)]), _SMALLEST_SPREAD)),
        dose_exponent=_exponents(model, spec.dose_scaled, ()),
        output_exponent=_exponents(model, spec.output_scaled, spec.inverse_output_scaled),
        rise_columns=_rise_columns(model, spec, is_dosed=bool(np.any(first > 0))),
        **{name: frozen(0.0 if name.endswith("mean") else 1.0) for name in MOMENTS},
    )
    raw, valid, conditions, shift = raw_features(blank, batch, y, observed)
    coordinates = blank.to_network(phi, shift)
    moments: dict[str, np.ndarray] = {}
    for name, sample in (("feature", raw[valid]), ("condition", conditions), ("phi", coordinates)):
        spread = sample.std(axis=0)
        moments[f"{name}_mean"] = np.asarray(sample.mean(axis=0))
        moments[f"{name}_sd"] = np.where(spread > _SMALLEST_SPREAD, spread, 1.0)
    if spec.exchangeable:
        pair = exchangeable_pair(model, spec)
        refuse_false_exchange(model, pair, batch, y, phi)
        for moment in (moments["phi_mean"], moments["phi_sd"]):
            moment[list(pair)] = moment[list(pair)].mean()
    moments = {name: frozen(values) for name, values in moments.items()}
    return EventEncoder.from_config(blank.to_config() | moments, spec)


def _exponents(model: IndividualModel, direct: tuple[str, ...], inverse: tuple[str, ...]) -> np.ndarray:
    """+1 for the parameters in `direct`, -1 for those in `inverse`, else 0."""
    parameters = model.parameters.parameters
    names = [parameter.name for parameter in parameters]
    out = np.zeros(len(names))
    for sign, group in ((1.0, direct), (-1.0, inverse)):
        for name in group:
            if name not in names or parameters[names.index(name)].transform != "log":
                raise TrainingError(
                    "E_SPEC_SCALED",
                    f"parameter {name!r} cannot be scaled with doses or outputs. Allowed: log-transformed "
                    "parameters of "
                    f"model {model.name!r} ({', '.join(names)}). Change the network options.",
                )
            out[names.index(name)] = sign
    return frozen(out)


def _rise_columns(model: IndividualModel, spec: NetworkSpec, *, is_dosed: bool) -> tuple[int, ...]:
    """Columns of the parameters of a rise: log-transformed, of a model with one output and no doses."""
    _exponents(model, spec.rise, ())
    if spec.rise and (is_dosed or len(model.outputs) != 1):
        raise TrainingError(
            "E_SPEC_RISE",
            f"model {model.name!r} has {len(model.outputs)} outputs and its designs "
            f"{'have' if is_dosed else 'have no'} doses; rise is for one output of undosed subjects. "
            "Leave it empty.",
        )
    return tuple(model.parameters.index(name) for name in spec.rise)


def _refuse_unseen_doses(spec: NetworkSpec, batch: DesignBatch) -> None:
    is_dose = np.isin(batch.kind, (EventKind.BOLUS, EventKind.INFUSION))
    if is_dose.any() and spec.tokens == "observations" and not spec.history_rates:
        raise TrainingError(
            "E_ENCODER_DOSES",
            "the design sampler draws doses, but with tokens='observations' and no history_rates the network "
            "never sees them. Use tokens='events', or give history_rates where the dynamics are linear.",
        )
    compartments = sorted({int(c) for c in batch.compartment[is_dose]})
    if spec.history_rates and len(compartments) > 1:
        raise TrainingError(
            "E_ENCODER_COMPARTMENTS",
            f"the design sampler doses into compartments {compartments}, whose histories would be summed "
            "into one. "
            "Allowed: one dosing compartment with history_rates. Use tokens='events' without history_rates.",
        )
