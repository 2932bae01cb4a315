"""Where a series on a logarithmic scale leaves its baseline: anchors for the parameters that say so.

The onset of a sharp series is known to a thousandth of what the prior allows; a network is poor at numbers
of that precision. Its neighborhood is plain from two or three measurements, and the network then only learns
the remainder: an anchor is a function of the measurements alone, so taking it off a parameter changes no
density.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.data.design import DesignBatch

# The largest of two hundred steps of pure noise is some 3 SDs; anchors count from about 5 on, quite sharply.
_CLEAR_STEP, _SHARPNESS = 5.0, 6.0
# Steps before the largest one belong to the rise if they are this many SDs up.
_CERTAIN_STEP, _MOST_STEPS_BACK = 3.0, 10
# Onset where no rise is clear, and resolution of the time since the onset; fractions of the time scale.
_USUAL_ONSET, _FINE_TIME = 0.03, 0.01
_EARLIEST = 1e-4
_SMALLEST_RISE = 1e-6


@dataclass(frozen=True, slots=True)
class Rise:
    """Anchors and features of n series.

    Attributes
    ----------
    anchors : ndarray (n, 3)
        Log onset [time], baseline [unit of the outputs] and log rate of the rise there [exp(output)/time].
    columns : list of ndarray (n, k)
        Squashed time since the onset; log of the signal above the baseline, per rate of the rise.
    conditions : list of ndarray (n,)
        The anchors and how clear the rise is.
    """

    anchors: np.ndarray
    columns: list[np.ndarray]
    conditions: list[np.ndarray]


def find_rise(
    batch: DesignBatch,
    value: np.ndarray,
    is_measurement: np.ndarray,
    noise: np.ndarray,
    time_scale: float,
    search: str = "step",
) -> Rise:
    """Find where every series rises and what that says about onset, baseline and rate.

    Parameters
    ----------
    batch : DesignBatch
        n designs with k records.
    value : ndarray (n, k), natural logarithm of a quantity
        Measurements of one output.
    is_measurement : ndarray (n, k) bool
        Records that hold a measurement.
    noise : ndarray (n,), unit of value
        Residual spread, from `difference_features`.
    time_scale : float, unit of time
        Length of a typical series.
    search : str
        "step": at the largest step between two measurements. "level": where the mean level before differs
        most from the one after, which finds a rise whose single steps drown in the noise.

    Returns
    -------
    Rise
        Where no rise is clear, the anchors are a usual onset and the mean of the series.
    """
    n = len(value)
    rows = np.arange(n)
    order = np.argsort(~is_measurement, axis=1, kind="stable")
    count = is_measurement.sum(axis=1)
    k = value.shape[1]
    # Two records more, so that every step has a successor; they repeat the last one.
    index = np.minimum(np.arange(k + 2), np.maximum(count - 1, 0)[:, None])
    y, t = (np.take_along_axis(np.take_along_axis(a, order, 1), index, 1) for a in (value, batch.time))
    step = np.where(np.arange(k + 1) < (count - 1)[:, None], np.diff(y, axis=1), -np.inf)
    if search == "level":
        at, strength = _level_split(y[:, :k], count, noise)
    else:
        at = np.argmax(step, axis=1)
        size = np.maximum(np.where(count > 1, step[rows, at], 0.0), 0.0)
        strength = size / (np.sqrt(2.0) * noise)
    # The steepest step need not be the first one, which may see the end of its interval only.
    certain = _CERTAIN_STEP * np.sqrt(2.0) * noise
    for _ in range(_MOST_STEPS_BACK):
        at = np.where((at > 0) & (step[rows, np.maximum(at - 1, 0)] > certain), at - 1, at)
    clear = 1.0 / (1.0 + (_CLEAR_STEP / np.maximum(strength, 1e-3)) ** _SHARPNESS)
    baseline = np.cumsum(y, axis=1)[rows, at] / (at + 1.0)
    # Signal above the baseline, in units of the baseline, at the two measurements after the onset.
    first, second = (np.expm1(np.clip(y[rows, at + i] - baseline, -50.0, 50.0)) for i in (1, 2))
    before, start, then = (t[rows, at + i] for i in (0, 1, 2))
    width = np.maximum(start - before, _EARLIEST * time_scale)
    first = np.maximum(first, _SMALLEST_RISE)
    # The line through both points cuts the baseline at the onset, which lies inside the step.
    steep = (second - first) / np.maximum(then - start, _EARLIEST * time_scale)
    rate = np.maximum(steep, first / width)
    onset = np.maximum(start - first / rate, _EARLIEST * time_scale)
    mean = np.where(is_measurement, value, 0.0).sum(axis=1) / np.maximum(count, 1)
    usual = np.full(n, np.log(_USUAL_ONSET * time_scale))
    found = (np.log(onset), baseline, baseline + np.log(rate))
    anchors = np.stack(
        [clear * a + (1.0 - clear) * b for a, b in zip(found, (usual, mean, mean), strict=True)], axis=1
    )
    since = (batch.time - np.exp(anchors[:, :1])) / (_FINE_TIME * time_scale)
    above = np.expm1(np.clip(value - anchors[:, 1:2], -50.0, 50.0))
    shape = 0.5 * np.log(above**2 + noise[:, None] ** 2) - (anchors[:, 2:] - anchors[:, 1:2])
    columns = [np.where(is_measurement, a, 0.0) for a in (np.arcsinh(since), shape)]
    return Rise(anchors, columns, [*anchors.T, np.log(strength + 0.1)])


def _level_split(y: np.ndarray, count: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Last measurement (n,) before the level rises most, and that rise in standard errors (n,).

    A signal on top of a baseline never falls below it, so splits into a higher and a lower level are out.
    """
    n, k = y.shape
    before = np.arange(1, k + 1)
    after = np.maximum(count[:, None] - before, 0)
    exists = np.arange(k) < count[:, None]
    total = np.cumsum(np.where(exists, y, 0.0), axis=1)
    rise = (total[:, -1:] - total) / np.maximum(after, 1) - total / before
    weight = np.sqrt(before * after / np.maximum(count, 1)[:, None])
    strength = np.where(after > 0, np.maximum(rise, 0.0) * weight, 0.0) / noise[:, None]
    at = np.argmax(strength, axis=1)
    return at, strength[np.arange(n), at]
