"""Features of consecutive measurements: what tells a small residual error apart in a long series.

A residual SD of 3 % beside a signal of many logarithmic units is lost in features of the signal's size. How
far a measurement lies from the line between its neighbors carries that SD almost alone, whatever the signal
does.
"""

from __future__ import annotations

import numpy as np

from amortnlme.data.design import DesignBatch

# Median of the absolute value of a standard-normal number: makes the median deviation an SD.
_NORMAL_MEDIAN = 0.6745
# Floor of the residual spread relative to the pilot RMS of the outputs; keeps constant series finite.
_SMALLEST_SPREAD = 1e-4


def difference_features(
    batch: DesignBatch, value: np.ndarray, is_measurement: np.ndarray, n_outputs: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Describe every measurement beside its neighbors of the same output.

    Parameters
    ----------
    batch : DesignBatch
        n designs with k records.
    value : ndarray (n, k), pilot RMS of the outputs
        Measurements, in units in which they are of order one.
    is_measurement : ndarray (n, k) bool
        Records that hold a measurement.
    n_outputs : int
        Kinds of measurement.

    Returns
    -------
    columns : list of ndarray (n, k)
        Deviation from the line between the neighbors, step from the one before, and the value itself, each
        squashed in units of the subject's own spread of deviations; 0 where there is no measurement.
    conditions : list of ndarray (n,)
        For each output the log spread, as median and as root mean square.
    """
    columns = [np.zeros(value.shape) for _ in range(3)]
    conditions = []
    for output in range(1, n_outputs + 1):
        mine = is_measurement & (batch.output == output)
        deviation, step, inner = _beside_neighbors(batch.time, value, mine)
        # A subject without neighbors deviates by nothing.
        size = np.where(inner | ~inner.any(axis=1, keepdims=True), np.abs(deviation), np.nan)
        median = np.nanmedian(size, axis=1)
        median = median / _NORMAL_MEDIAN + _SMALLEST_SPREAD
        count = np.maximum(inner.sum(axis=1), 1)
        conditions += [
            np.log(median),
            0.5 * np.log((deviation**2).sum(axis=1) / count + _SMALLEST_SPREAD**2),
        ]
        for column, quantity in zip(columns, (deviation, step, value), strict=True):
            column[mine] = np.arcsinh(quantity / median[:, None])[mine]
    return columns, conditions


def _beside_neighbors(
    time: np.ndarray, value: np.ndarray, mine: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Deviation from the neighbors' line (in SDs of one measurement), step, and who has neighbors."""
    k = time.shape[1]
    index = np.arange(k)
    # Index of the last measurement before each record and of the first one after it; -1 and k: there is none.
    before = np.maximum.accumulate(np.where(mine, index, -1), axis=1)
    before = np.concatenate([np.full((len(time), 1), -1), before[:, :-1]], axis=1)
    after = np.minimum.accumulate(np.where(mine, index, k)[:, ::-1], axis=1)[:, ::-1]
    after = np.concatenate([after[:, 1:], np.full((len(time), 1), k)], axis=1)
    left, right = np.maximum(before, 0), np.minimum(after, k - 1)
    earlier, later = (np.take_along_axis(value, where, axis=1) for where in (left, right))
    start, end = (np.take_along_axis(time, where, axis=1) for where in (left, right))
    gap = end - start
    # The clock may stand still, or jump back at a reset: neighbors then count alike.
    share = np.where(gap > 0, np.clip((end - time) / np.where(gap > 0, gap, 1.0), 0.0, 1.0), 0.5)
    inner = mine & (before >= 0) & (after < k)
    size = np.sqrt(1.0 + share**2 + (1.0 - share) ** 2)
    deviation = np.where(inner, (value - share * earlier - (1.0 - share) * later) / size, 0.0)
    step = np.where(mine & (before >= 0), value - earlier, 0.0)
    return deviation, step, inner
