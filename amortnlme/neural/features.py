"""Per-record features of designs and measurements, before standardization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amortnlme.data.design import DesignBatch, EventKind
from amortnlme.neural.differences import difference_features
from amortnlme.neural.history import dose_history
from amortnlme.neural.rise import find_rise

if TYPE_CHECKING:
    from amortnlme.neural.encoder import EventEncoder

# Widths of the two asinh squashings relative to the pilot RMS of the outputs: one resolves troughs, one
# peaks.
_SQUASH = (0.1, 0.7)
# Floor of a subject's own output scale relative to the pilot RMS; keeps all-zero measurements finite.
_SMALLEST_SIZE = 0.01
# Floor of a dose history, in first doses, before its logarithm is taken.
_SMALLEST_HISTORY = 1e-4


def raw_features(
    encoder: EventEncoder, batch: DesignBatch, y: np.ndarray, observed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute everything about the records that does not depend on standardization.

    Parameters
    ----------
    encoder : EventEncoder
        Options and scales; its standardization constants are not used.
    batch : DesignBatch
        n designs with k records.
    y : ndarray (n, m), unit of the outputs
        Measurements.
    observed : ndarray (n, m) bool
        Which measurements exist.

    Returns
    -------
    features : ndarray (n, k, F)
        Features of every record.
    valid : ndarray (n, k) bool
        Records that become tokens.
    conditions : ndarray (n, C)
        Log first dose, log output scale, log counts, then what the options add, covariates.
    shift : ndarray (n, d)
        What the parameters lose when doses and measurements are divided by the subject's scales, and the
        anchors of a rise.
    """
    spec = encoder.spec
    first = first_dose(batch)
    factor = encoder.dose_reference / np.where(first > 0, first, encoder.dose_reference)
    slot = np.maximum(batch.obs_slot, 0)
    is_measurement = (batch.obs_slot >= 0) & np.take_along_axis(observed, slot, axis=1)
    level = own_level(y, observed) if spec.rise else np.zeros(len(y))
    value = np.where(observed, y - level[:, None], 0.0)
    value = np.where(is_measurement, np.take_along_axis(value, slot, axis=1), 0.0)
    if spec.log_outputs:
        value = np.where(is_measurement, value + np.log(factor)[:, None], 0.0) / encoder.output_scale
    else:
        value = value * factor[:, None] / encoder.output_scale
    log_size = _log_size(encoder, value, is_measurement)
    value = value * np.exp(-log_size)[:, None]
    is_event = np.isin(batch.kind, (EventKind.BOLUS, EventKind.INFUSION, EventKind.RESET))
    is_dose = np.isin(batch.kind, (EventKind.BOLUS, EventKind.INFUSION))
    # A record is compared with its predecessor in the same sequence, so measurements nobody took leave no
    # trace.
    valid = is_measurement | is_event if spec.tokens == "events" else is_measurement
    columns = [value, *(np.arcsinh(value / width) for width in _SQUASH)]
    clock = _clock_features(batch, is_dose, valid, encoder.time_scale)
    # Where nobody is dosed, the time since a dose would repeat the time.
    columns += clock if spec.tokens == "events" or spec.history_rates else [clock[0], clock[3]]
    more, added, anchors = _series_features(encoder, batch, value, is_measurement, level)
    columns += more
    if spec.tokens == "events":
        relative_dose = np.where(is_dose, batch.amount, 0.0) * factor[:, None] / encoder.dose_reference
        columns += [
            is_measurement,
            batch.kind == EventKind.INFUSION,
            batch.kind == EventKind.RESET,
            relative_dose,
        ]
        columns += [np.log1p(batch.duration / encoder.time_scale), np.where(is_dose, batch.compartment, 0)]
    if encoder.n_outputs > 1:
        columns += [is_measurement & (batch.output == i + 1) for i in range(encoder.n_outputs)]
    columns += [batch.covariates[name] for name in encoder.covariates]
    raw = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=-1)
    if spec.history_rates:
        held = dose_history(batch, np.asarray(spec.history_rates))
        held = held * (factor / encoder.dose_reference)[:, None, None]
        if spec.log_outputs:
            held = np.log(held + _SMALLEST_HISTORY)
        raw = np.concatenate([raw, held], axis=-1)
    counts = [np.log(np.maximum(flag.sum(axis=1), 1)) for flag in (is_measurement, is_dose)]
    static = [batch.covariates[name][:, 0] for name in encoder.covariates]
    conditions = np.stack([-np.log(factor), log_size, *counts, *added, *static], axis=-1)
    shift = -np.log(factor)[:, None] * encoder.dose_exponent + log_size[:, None] * encoder.output_exponent
    if anchors is not None:
        shift[:, encoder.rise_columns] += anchors[:, : len(encoder.rise_columns)]
    return raw, valid, conditions, shift


def _series_features(
    encoder: EventEncoder,
    batch: DesignBatch,
    value: np.ndarray,
    is_measurement: np.ndarray,
    level: np.ndarray,
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray | None]:
    """Columns, conditions and anchors (n, 3) that the options for long series add."""
    spec = encoder.spec
    columns: list[np.ndarray] = []
    conditions: list[np.ndarray] = []
    anchors = None
    if spec.difference_features:
        columns, conditions = difference_features(batch, value, is_measurement, encoder.n_outputs)
    if spec.rise:
        # Back to the unit of the outputs, in which rate and baseline are what the parameters mean.
        noise = np.exp(conditions[0]) * encoder.output_scale
        measured = value * encoder.output_scale + level[:, None]
        rise = find_rise(
            batch, measured, is_measurement, noise, encoder.time_scale, search=spec.rise_search
        )
        columns, conditions, anchors = columns + rise.columns, conditions + rise.conditions, rise.anchors
        spread = (value**2).sum(axis=1) / np.maximum(is_measurement.sum(axis=1), 1)
        conditions = [*conditions, level, 0.5 * np.log(spread + _SMALLEST_SIZE**2)]
    return columns, conditions, anchors


def own_level(y: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Find the mean measurement of each subject.

    Parameters
    ----------
    y : ndarray (n, m), unit of the outputs
        Measurements.
    observed : ndarray (n, m) bool
        Which measurements exist.

    Returns
    -------
    ndarray (n,), unit of the outputs
        Means; 0 where there is no measurement.
    """
    return np.where(observed, y, 0.0).sum(axis=1) / np.maximum(observed.sum(axis=1), 1)


def _log_size(encoder: EventEncoder, value: np.ndarray, is_measurement: np.ndarray) -> np.ndarray:
    """Log root mean square of the valid measurements (n,), floored; 0 when the option is off."""
    if encoder.spec.rise or not np.any(encoder.output_exponent):
        return np.zeros(len(value))
    count = np.maximum(is_measurement.sum(axis=1), 1)
    return 0.5 * np.log((value**2).sum(axis=1) / count + _SMALLEST_SIZE**2)


def _clock_features(
    batch: DesignBatch, is_dose: np.ndarray, valid: np.ndarray, scale: float
) -> list[np.ndarray]:
    """Time, time since the last dose (two squashings) and time since the previous token, each (n, k)."""
    n, k = batch.time.shape
    since_dose, since_token = np.empty((n, k)), np.empty((n, k))
    # A measurement nobody took must not start the clock.
    first = np.argmax(valid | is_dose, axis=1)
    last_dose = batch.time[np.arange(n), first]
    last_token = last_dose.copy()
    for j in range(k):
        now = batch.time[:, j]
        # A reset may move the clock back; both stopwatches then restart with it.
        restart = batch.kind[:, j] == EventKind.RESET
        last_dose = np.where(restart | is_dose[:, j], now, last_dose)
        last_token = np.where(restart, now, last_token)
        # Not negative: records before the first one that counts become no tokens.
        since_dose[:, j] = np.maximum(now - last_dose, 0.0)
        since_token[:, j] = np.maximum(now - last_token, 0.0)
        last_token = np.where(valid[:, j], now, last_token)
    first_minutes = 0.002
    log_dose, log_token = (np.log(since / scale + first_minutes) for since in (since_dose, since_token))
    return [batch.time / scale, since_dose / scale, log_dose, log_token]


def first_dose(batch: DesignBatch) -> np.ndarray:
    """Find the first positive dose of each design.

    Parameters
    ----------
    batch : DesignBatch
        n designs.

    Returns
    -------
    ndarray (n,)
        Amounts; 0 where there is no dose.
    """
    given = np.isin(batch.kind, (EventKind.BOLUS, EventKind.INFUSION)) & (batch.amount > 0)
    first = np.argmax(given, axis=1)
    return np.where(given.any(axis=1), batch.amount[np.arange(len(first)), first], 0.0)
