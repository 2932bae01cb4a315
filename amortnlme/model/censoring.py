"""Likelihood of censored observations (method M3), with derivatives that stay finite far in the tails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

LOG_SQRT_2PI = 0.5 * float(np.log(2.0 * np.pi))


@dataclass(frozen=True, slots=True, eq=False)
class CensoredNormal:
    """Log probability that a normal value lies in an interval, with derivatives by its mean h and SD s.

    Attributes
    ----------
    a, b : ndarray
        Ends in SDs from the mean; 0 where the interval has no such end.
    at_a, at_b : ndarray
        Densities phi(a) and phi(b) over the probability; 0 where the interval has no such end.
    sd : ndarray
    log_p : ndarray   [nats]
    """

    a: np.ndarray
    b: np.ndarray
    at_a: np.ndarray
    at_b: np.ndarray
    sd: np.ndarray
    log_p: np.ndarray

    @property
    def dh(self) -> np.ndarray:
        """Derivative by the mean."""
        return (self.at_a - self.at_b) / self.sd

    @property
    def ds(self) -> np.ndarray:
        """Derivative by the SD."""
        return (self.a * self.at_a - self.b * self.at_b) / self.sd

    @property
    def curvature(self) -> np.ndarray:
        """Minus the second derivative by the mean, at least 0: the probability is log-concave in it."""
        bent = (self.at_b - self.at_a) ** 2 + self.b * self.at_b - self.a * self.at_a
        return np.maximum(bent, 0.0) / self.sd**2

    @property
    def dh_ds(self) -> np.ndarray:
        """Mixed second derivative."""
        difference, first, second, _ = self._moments()
        return (difference * (1.0 - first) - second) / self.sd**2

    @property
    def dcurvature_ds(self) -> np.ndarray:
        """Derivative of `curvature` by the SD."""
        difference, first, second, third = self._moments()
        # d phi(x)/P = phi(x)/P (x^2 + first) ds / s at both ends.
        bent = 2.0 * difference * (second + difference * first) + third + first**2 - first
        return (bent / self.sd**2 - 2.0 * self.curvature) / self.sd

    def _moments(self) -> tuple[np.ndarray, ...]:
        """Differences of x^k phi(x)/P between the ends, k = 0 to 3."""
        a, b = self.a, self.b
        return tuple(b**k * self.at_b - a**k * self.at_a for k in range(4))


def censored_normal(lower: np.ndarray, upper: np.ndarray, sd: np.ndarray) -> CensoredNormal:
    """Log probability of an interval, with what its derivatives need.

    Parameters
    ----------
    lower, upper : ndarray
        Ends of the interval minus the mean; infinite for none.
    sd : ndarray

    Returns
    -------
    CensoredNormal

    P = Phi(upper / s) - Phi(lower / s)   (Beal 2001, method M3)
    """
    a, b = lower / sd, upper / sd
    log_p = log_probability(a, b)
    # Ratios phi/P on the log scale: both underflow together in the tails.
    at_a = np.where(np.isfinite(a), np.exp(-0.5 * a * a - LOG_SQRT_2PI - log_p), 0.0)
    at_b = np.where(np.isfinite(b), np.exp(-0.5 * b * b - LOG_SQRT_2PI - log_p), 0.0)
    a, b = np.where(np.isfinite(a), a, 0.0), np.where(np.isfinite(b), b, 0.0)
    return CensoredNormal(a, b, at_a, at_b, sd, log_p)


def interval_ends(y: np.ndarray, censoring: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the intervals in which censored values lie.

    Parameters
    ----------
    y : ndarray
        Quantification limit.
    censoring : ndarray of int
        1 below y, -1 above y.
    limit : ndarray
        Other end; NaN for none.

    Returns
    -------
    lower, upper : ndarray
        Infinite for none.
    """
    below = censoring > 0
    lower = np.where(below, np.where(np.isnan(limit), -np.inf, limit), y)
    return lower, np.where(below, y, np.where(np.isnan(limit), np.inf, limit))


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
    lower, upper = interval_ends(edge, side, other)
    law = censored_normal(lower - h, upper - h, spread)
    dh, ds, curvature = law.dh, law.ds, law.curvature
    single = np.where(law.at_a > 0.0, law.a, law.b) * (np.isinf(lower) | np.isinf(upper))
    # One-sided: z = (edge - h)/s moves by -(dh + z ds)/s. Two-sided: the outer product of the score.
    two_sided = np.isfinite(lower) & np.isfinite(upper)
    ihh = np.where(two_sided, dh * dh, curvature)
    ihs = np.where(two_sided, dh * ds, single * curvature)
    iss = np.where(two_sided, ds * ds, single**2 * curvature)
    for column, values in zip(columns, (law.log_p, dh, ds, ihh, ihs, iss), strict=True):
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
