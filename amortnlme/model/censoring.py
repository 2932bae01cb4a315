"""Likelihood of censored observations (method M3), with derivatives that stay finite far in the tails."""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr

LOG_SQRT_2PI = 0.5 * float(np.log(2.0 * np.pi))


def censored_log_density(
    is_log_scale: bool,
    y: np.ndarray,
    f: np.ndarray,
    s: np.ndarray,
    censoring: np.ndarray,
    limit: np.ndarray | None,
    columns: tuple[np.ndarray, ...],
) -> None:
    """Overwrite the entries of censored observations.

    Parameters
    ----------
    is_log_scale : bool
        Whether the residual is normal on the log scale.
    y, f, s : ndarray, broadcastable to (..., m)
        Quantification limit, prediction [observation units], residual SD.
    censoring : ndarray of int, broadcastable to (..., m)
        0 observed, 1 below y, -1 above y.
    limit : ndarray, broadcastable to (..., m), optional
        Other end of the interval; NaN for none.
    columns : tuple of ndarray, each (..., m), modified in place
        Log density, d/dh, d/ds, and the information in (h, h), (h, s), (s, s), with h the mean on the error
        scale.

    P = Phi((upper - h)/s) - Phi((lower - h)/s)   (Beal 2001, method M3)
    """
    shape = columns[0].shape
    where = np.broadcast_to(np.asarray(censoring) != 0, shape)
    side = np.broadcast_to(censoring, shape)[where]
    edge = np.broadcast_to(y, shape)[where]
    other = np.full(edge.shape, np.nan) if limit is None else np.broadcast_to(limit, shape)[where]
    h = np.broadcast_to(f, shape)[where]
    spread = np.broadcast_to(s, shape)[where]
    if is_log_scale:
        edge, other, h = np.log(edge), np.log(other), np.log(h)
    below = side > 0
    lower = np.where(below, np.where(np.isnan(other), -np.inf, other), edge)
    upper = np.where(below, edge, np.where(np.isnan(other), np.inf, other))
    a, b = (lower - h) / spread, (upper - h) / spread
    log_p = log_probability(a, b)
    # Ratios phi/P on the log scale: both underflow together in the tails.
    at_a = np.where(np.isfinite(a), np.exp(-0.5 * a * a - LOG_SQRT_2PI - log_p), 0.0)
    at_b = np.where(np.isfinite(b), np.exp(-0.5 * b * b - LOG_SQRT_2PI - log_p), 0.0)
    a, b = np.where(np.isfinite(a), a, 0.0), np.where(np.isfinite(b), b, 0.0)
    dh = (at_a - at_b) / spread
    ds = (a * at_a - b * at_b) / spread
    # Curvature of log P along z = (edge - h)/s is at most 0 (P is log-concave); its negative is the
    # information.
    curvature = np.maximum((at_b - at_a) ** 2 + b * at_b - a * at_a, 0.0)
    single = np.where(at_a > 0.0, a, b) * (np.isinf(lower) | np.isinf(upper))
    # One-sided: z moves by -(dh + z ds)/s. Two-sided: the outer product of the score.
    two_sided = np.isfinite(lower) & np.isfinite(upper)
    ihh = np.where(two_sided, dh * dh, curvature / spread**2)
    ihs = np.where(two_sided, dh * ds, single * curvature / spread**2)
    iss = np.where(two_sided, ds * ds, single**2 * curvature / spread**2)
    for column, values in zip(columns, (log_p, dh, ds, ihh, ihs, iss), strict=True):
        column[where] = values


def log_probability(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Log of Phi(b) - Phi(a) without cancellation in either tail.

    Parameters
    ----------
    a, b : ndarray
        a < b; infinite ends allowed.

    Returns
    -------
    ndarray   [nats]
    """
    # Mirror intervals in the upper tail into the lower one, where log_ndtr is accurate.
    flip = a + b > 0.0
    low, high = np.where(flip, -b, a), np.where(flip, -a, b)
    top = log_ndtr(high)
    return top + np.log1p(-np.exp(log_ndtr(low) - top))
