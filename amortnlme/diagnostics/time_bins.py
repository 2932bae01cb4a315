"""Grouping observation times into bins for visual predictive checks."""

from __future__ import annotations

import numpy as np

from amortnlme.core.errors import UsageError

Array = np.ndarray
_MAX_CANDIDATES = 300


def automatic_edges(time: Array, n_bins: int) -> Array:
    """Bin edges that follow the clusters of a sampling schedule.

    Parameters
    ----------
    time : ndarray, shape (n_observations,)   [time unit]
    n_bins : int
        Upper limit; fewer are returned when there are fewer distinct times.

    Returns
    -------
    edges : ndarray, shape (n_bins + 1,)   [time unit]
        The outer edges are the extreme times; inner edges lie midway between neighboring bins.

    Raises
    ------
    UsageError
        E_VPC_BINS for no times, non-finite times, or n_bins < 1.

    Notes
    -----
    Exact one-dimensional least-squares segmentation (Fisher 1958, JASA 53, 789-798) by dynamic
    programming. It acts on asinh(t / s), s a fifth of the median elapsed time, because schedules are denser
    early on. A bin holds at least a third of the average number of observations where that is possible.
    """
    if len(time) == 0 or not np.isfinite(time).all() or n_bins < 1:
        raise UsageError(
            "E_VPC_BINS",
            f"times cannot be binned - {len(time)} times, n_bins = {n_bins} - at least one finite time and"
            " one bin are needed - check the observation times",
        )
    value, weight = np.unique(time, return_counts=True)
    value, weight = _thin(value, weight)
    elapsed = value - value[0]
    scale = 0.2 * float(np.median(time) - value[0]) or 1.0
    position = np.arcsinh(elapsed / scale)
    start = _segment(position, weight.astype(float), min(n_bins, len(value)))
    inner = 0.5 * (value[start[1:] - 1] + value[start[1:]])
    return np.concatenate([[time.min()], inner, [time.max()]])


def default_bin_count(used: Array) -> int:
    """Choose the number of bins: usual observations per subject, at least 8 values per bin, at most 15.

    Parameters
    ----------
    used : ndarray of bool, shape (n_subjects, n_records)

    Returns
    -------
    n_bins : int
    """
    total = int(used.sum())
    typical = round(float(np.median(used.sum(axis=1))))
    by_size = total // 8
    # Sparse studies (2-3 samples per subject at scattered times) still fill several bins when pooled.
    return int(np.clip(max(typical, min(by_size, 6)), 1, max(1, min(15, by_size))))


def assign(time: Array, edges: Array) -> Array:
    """Index of the bin of every time; times outside the edges go to the nearest bin.

    Parameters
    ----------
    time : ndarray, shape (n,)   [time unit]
    edges : ndarray, shape (n_bins + 1,)   [time unit]

    Returns
    -------
    index : ndarray of int, shape (n,)
    """
    return np.clip(np.searchsorted(edges, time, side="right") - 1, 0, len(edges) - 2)


def _thin(value: Array, weight: Array) -> tuple[Array, Array]:
    """Merge neighboring distinct times when there are too many for the quadratic search."""
    if len(value) <= _MAX_CANDIDATES:
        return value, weight
    group = (np.cumsum(weight) * _MAX_CANDIDATES) // (int(weight.sum()) + 1)
    first = np.flatnonzero(np.diff(group, prepend=-1))
    total = np.add.reduceat(weight, first)
    return np.add.reduceat(value * weight, first) / total, total


def _segment(position: Array, weight: Array, n_bins: int) -> Array:
    """First index of each segment that minimizes the weighted within-segment sum of squares."""
    n = len(position)
    w = np.concatenate([[0.0], np.cumsum(weight)])
    s = np.concatenate([[0.0], np.cumsum(weight * position)])
    q = np.concatenate([[0.0], np.cumsum(weight * position**2)])
    begin, end = np.meshgrid(np.arange(n), np.arange(1, n + 1), indexing="ij")
    mass = w[end] - w[begin]
    with np.errstate(divide="ignore", invalid="ignore"):
        within = q[end] - q[begin] - (s[end] - s[begin]) ** 2 / mass
    # A finite fine, not a ban: schedules with fewer distinct times than bins would otherwise have no
    # solution.
    fine = np.where(mass * n_bins * 3.0 < w[-1], q[-1], 0.0)
    within = np.where(end > begin, np.maximum(within, 0.0) + fine, np.inf)  # within[begin, end - 1]
    best = within[0].copy()
    choices = []
    for _ in range(1, n_bins):
        # candidate[b, e]: the last segment starts at b >= 1, the earlier ones end at b - 1
        candidate = best[:-1, None] + within[1:, :]
        pick = np.argmin(candidate, axis=0)
        best = candidate[pick, np.arange(n)]
        choices.append(pick + 1)
    start = np.zeros(n_bins, dtype=np.int64)
    last = n - 1
    for position_index in range(n_bins - 1, 0, -1):
        start[position_index] = choices[position_index - 1][last]
        last = start[position_index] - 1
    return start
