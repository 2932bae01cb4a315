"""Visual predictive checks from simulated copies of the study."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.diagnostics.time_bins import assign, automatic_edges, default_bin_count

Array = np.ndarray
LEVELS = (0.05, 0.5, 0.95)


@dataclass(frozen=True, slots=True)
class VisualPredictiveCheck:
    """Observed percentiles per time bin beside their distribution over simulated studies.

    Attributes
    ----------
    edges : ndarray, shape (n_bins + 1,)   [time unit]
    center : ndarray, shape (n_bins,)   [time unit]
        Median observation time of each bin.
    count : ndarray of int, shape (n_bins,)
        Observations per bin, censored ones included.
    levels : tuple of float
        Percentile levels, as fractions.
    observed, lower, median, upper : ndarray, shape (n_levels, n_bins)   [output unit]
        -inf where the percentile lies among censored values, nan in empty bins.
    censored : ndarray, shape (4, n_bins) or None
        Observed, lower, median and upper fraction below the quantification limit.
    time, value : ndarray, shape (n_observations,)
        The quantified observations as drawn (prediction-corrected if asked for).
    prediction_corrected : bool
    n_replicates : int
    band : float
        Probability of the band of every simulated percentile.
    """

    edges: Array
    center: Array
    count: Array
    levels: tuple[float, ...]
    observed: Array
    lower: Array
    median: Array
    upper: Array
    censored: Array | None
    time: Array
    value: Array
    prediction_corrected: bool
    n_replicates: int
    band: float

    def share_inside(self) -> float:
        """Share of the observed percentiles that lie within their bands; nan if none is defined."""
        known = ~np.isnan(self.observed)
        inside = (self.observed >= self.lower) & (self.observed <= self.upper)
        return float(inside[known].mean()) if known.any() else float("nan")


@dataclass(frozen=True, slots=True)
class ObservedStudy:
    """What a visual predictive check needs to know about the data.

    Attributes
    ----------
    time, y : ndarray, shape (n_subjects, n_records)   [time unit, output unit]
    used : ndarray of bool, shape (n_subjects, n_records)
        Records that exist, censored ones included.
    pred : ndarray, shape (n_subjects, n_records) or None   [output unit]
        Population predictions; only prediction correction needs them.
    below_limit : ndarray of bool, shape (n_subjects, n_records) or None
        Observations reported as below the limit of quantification.
    limit : ndarray, shape (n_subjects, n_records) or None   [output unit]
        Quantification limit of each record, nan for none; simulations below it are treated like such
        observations.
    """

    time: Array
    y: Array
    used: Array
    pred: Array | None = None
    below_limit: Array | None = None
    limit: Array | None = None


@dataclass(frozen=True, slots=True)
class VpcOptions:
    """How a visual predictive check is drawn.

    Attributes
    ----------
    prediction_corrected : bool
    n_bins : int or None
        None chooses from the number of observations.
    edges : tuple of float or None   [time unit]
        Bins to use instead of automatic ones, for example midway between nominal times.
    levels : tuple of float
        Percentile levels, as fractions.
    band : float
        Probability of the band around every simulated percentile.
    """

    prediction_corrected: bool = False
    n_bins: int | None = None
    edges: tuple[float, ...] | None = None
    levels: tuple[float, ...] = LEVELS
    band: float = 0.95


def visual_predictive_check(
    study: ObservedStudy, replicates: Array, options: VpcOptions | None = None
) -> VisualPredictiveCheck:
    """Summarize observations and simulated studies by percentiles in time bins.

    Parameters
    ----------
    study : ObservedStudy
    replicates : ndarray, shape (n_replicates, n_subjects, n_records)   [output unit]
        The study simulated under each subject's own design; a replicate with a failed (nan) solve is
        left out.
    options : VpcOptions or None

    Returns
    -------
    VisualPredictiveCheck

    Raises
    ------
    UsageError
        E_VPC_REPLICATES for fewer than 20 usable replicates, shapes that do not match, or prediction
        correction without predictions.

    Notes
    -----
    Censored values rank below everything quantified, in data and simulations alike. Prediction correction:
    Bergstrand, Hooker, Wallin & Karlsson (2011), AAPS J 13, 143-151, eq. (1) with lower bound zero.
    """
    options = options or VpcOptions()
    simulated = _usable(study, replicates, options)
    t, y = study.time[study.used], study.y[study.used]
    if options.edges is None:
        edges = automatic_edges(t, options.n_bins or default_bin_count(study.used))
    else:
        edges = np.asarray(options.edges, dtype=np.float64)
    n_bins = len(edges) - 1
    bins = assign(t, edges)
    factor = np.ones(len(t))
    if options.prediction_corrected and study.pred is not None:
        factor = _correction(study.pred[study.used], bins, n_bins)
    low = np.zeros(len(t), bool) if study.below_limit is None else study.below_limit[study.used]
    limit = np.full(len(t), -np.inf) if study.limit is None else study.limit[study.used]
    simulated_low = simulated < np.where(np.isnan(limit), -np.inf, limit)
    value = np.where(low, -np.inf, y * factor)
    simulated = np.where(simulated_low, -np.inf, simulated * factor)
    tail = (1.0 - options.band) / 2.0
    columns = [
        _summarize(value[bins == b], simulated[:, bins == b], options.levels, tail) for b in range(n_bins)
    ]
    observed, lower, median, upper = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    return VisualPredictiveCheck(
        edges=edges,
        center=np.array([np.median(t[bins == b]) if (bins == b).any() else np.nan for b in range(n_bins)]),
        count=np.bincount(bins, minlength=n_bins),
        levels=options.levels,
        observed=observed,
        lower=lower,
        median=median,
        upper=upper,
        censored=_censored(low, simulated_low, bins, n_bins, tail) if low.any() else None,
        time=t[~low],
        value=value[~low],
        prediction_corrected=options.prediction_corrected,
        n_replicates=len(simulated),
        band=options.band,
    )


def _usable(study: ObservedStudy, replicates: Array, options: VpcOptions) -> Array:
    """Replicates of the used records without failed solves, shape (n_replicates, n_used)."""
    fault = ""
    simulated = np.empty((0, 0))
    if options.prediction_corrected and study.pred is None:
        fault = "prediction correction without population predictions"
    elif replicates.ndim != 3 or replicates.shape[1:] != study.y.shape:
        fault = f"shapes {replicates.shape} and {study.y.shape}"
    else:
        simulated = replicates[:, study.used]
        simulated = simulated[np.isfinite(simulated).all(axis=1)]
        if len(simulated) < 20:
            fault = f"{len(simulated)} of {len(replicates)} replicates are finite"
    if fault:
        raise UsageError(
            "E_VPC_REPLICATES",
            f"the simulated studies do not suit this check - {fault} - at least 20 finite replicates of shape"
            " (n_subjects, n_records) are needed - simulate the fitted model on this dataset",
        )
    return simulated


def _correction(pred: Array, bins: Array, n_bins: int) -> Array:
    """Typical prediction of the bin over the prediction of the record."""
    typical = np.array([np.median(pred[bins == b]) if (bins == b).any() else np.nan for b in range(n_bins)])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = typical[bins] / pred
    # A prediction of exactly zero (before the first dose) carries no scale: the value is kept as it is.
    return np.where(np.isfinite(ratio), ratio, 1.0)


def _summarize(value: Array, simulated: Array, levels: tuple[float, ...], tail: float) -> tuple[Array, ...]:
    if len(value) == 0:
        empty = np.full(len(levels), np.nan)
        return empty, empty, empty, empty
    observed = _percentiles(value, levels)
    each = _percentiles(simulated, levels)
    band = np.quantile(each, [tail, 0.5, 1.0 - tail], axis=1, method="inverted_cdf")
    return observed, *band


def _percentiles(value: Array, levels: tuple[float, ...]) -> Array:
    """Percentiles along the last axis; interpolation that touches a censored value gives -inf."""
    with np.errstate(invalid="ignore"):
        result = np.quantile(value, levels, axis=-1)
    # -inf - (-inf) is nan within the interpolation.
    return np.where(np.isfinite(result), result, -np.inf)


def _censored(
    low: Array,
    simulated_low: Array,
    bins: Array,
    n_bins: int,
    tail: float,
) -> Array:
    rows = []
    for b in range(n_bins):
        mine = bins == b
        if not mine.any():
            rows.append(np.full(4, np.nan))
            continue
        share = simulated_low[:, mine].mean(axis=1)
        rows.append(np.concatenate([[low[mine].mean()], np.quantile(share, [tail, 0.5, 1.0 - tail])]))
    return np.stack(rows, axis=1)
