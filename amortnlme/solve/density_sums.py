"""Sums over the observations of every row: log density, gradient and expected information, compiled.

Residuals are normal on the scale h of the error model: h = f, or h = log f with the density that of y itself,

    l = sum_j -(h(y_j) - h(f_j))^2 / (2 s_j^2) - log s_j - log(2 pi) / 2 - [log y_j]
    I = sum_j (dh_j dh_j' + 2 ds_j ds_j') / s_j^2,

with dh_j and ds_j total derivatives by the parameters. NumPy would need a dozen temporary arrays of the size
rows x observations x parameters.
"""

from __future__ import annotations

import math

import numpy as np

from amortnlme.solve.lane_jit import lane_jit as kernel

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


@kernel
def _residual(y, f, inverse, log_sd, is_log):
    """Standardized residual, log density of an observation, and dh/df."""
    if is_log:
        log_y = math.log(y)
        z = (log_y - math.log(f)) * inverse
        return z, -0.5 * z * z - log_sd - HALF_LOG_2PI - log_y, 1.0 / f
    z = (y - f) * inverse
    return z, -0.5 * z * z - log_sd - HALF_LOG_2PI, 1.0


@kernel
def _density_sums(design, active, y, f, sd, is_log, total):
    for row in range(f.shape[0]):
        subject = design[row]
        value = 0.0
        last_sd, log_sd, inverse = -1.0, 0.0, 0.0
        for j in range(f.shape[1]):
            if not active[subject, j]:
                continue
            s = sd[row, j]
            # The SD of additive errors is the same for a whole row.
            if s != last_sd:
                log_sd, inverse, last_sd = math.log(s), 1.0 / s, s
            z, term, _ = _residual(y[subject, j], f[row, j], inverse, log_sd, is_log)
            if not (s > 0.0 and math.isfinite(term) and math.isfinite(z * inverse)):
                value = -math.inf
                break
            value += term
        total[row] += value


@kernel
def _add_information(row, j, weight, by_f, slope_sd, df, ds_dsigma, structural, error, ds, information):
    """Add what one observation says to the lower triangle."""
    p, e = structural.shape[0], error.shape[0]
    for a in range(p):
        left = weight * by_f * by_f * df[row, j, a]
        for b in range(a + 1):
            information[row, structural[a], structural[b]] += left * df[row, j, b]
    if slope_sd == 0.0:
        for a in range(e):
            left = 2.0 * weight * ds_dsigma[row, j, a]
            for b in range(a + 1):
                information[row, error[a], error[b]] += left * ds_dsigma[row, j, b]
        return
    d = ds.shape[0]
    for a in range(d):
        ds[a] = 0.0
    for a in range(p):
        ds[structural[a]] = slope_sd * df[row, j, a]
    for a in range(e):
        ds[error[a]] += ds_dsigma[row, j, a]
    for a in range(d):
        left = 2.0 * weight * ds[a]
        for b in range(a + 1):
            information[row, a, b] += left * ds[b]


@kernel
def _slope_sums(
    design, active, y, f, df, sd, ds_df, ds_dsigma, is_log, structural, error, with_information, total,
    gradient, information, ds,
):  # fmt: skip
    for row in range(f.shape[0]):
        subject = design[row]
        value = 0.0
        last_sd, log_sd, inverse = -1.0, 0.0, 0.0
        for j in range(f.shape[1]):
            if not active[subject, j]:
                continue
            s = sd[row, j]
            if s != last_sd:
                log_sd, inverse, last_sd = math.log(s), 1.0 / s, s
            z, term, by_f = _residual(y[subject, j], f[row, j], inverse, log_sd, is_log)
            by_mean, by_sd = z * inverse, (z * z - 1.0) * inverse
            if not (s > 0.0 and math.isfinite(term) and math.isfinite(by_mean)):
                value = -math.inf
                break
            value += term
            push = by_mean * by_f + by_sd * ds_df[row, j]
            for a in range(structural.shape[0]):
                gradient[row, structural[a]] += push * df[row, j, a]
            for a in range(error.shape[0]):
                gradient[row, error[a]] += by_sd * ds_dsigma[row, j, a]
            if with_information:
                _add_information(
                    row, j, inverse * inverse, by_f, ds_df[row, j], df, ds_dsigma, structural, error, ds,
                    information,
                )  # fmt: skip
        total[row] += value


def add_density(
    design: np.ndarray,
    active: np.ndarray,
    y: np.ndarray,
    f: np.ndarray,
    sd: np.ndarray,
    is_log: bool,
    total: np.ndarray,
) -> None:
    """Add the log density of every row's observations.

    Parameters
    ----------
    design : ndarray of int, shape (N,)
        Row of `active` and `y`.
    active : ndarray of bool, shape (S, m)
        Observations that count.
    y : ndarray, shape (S, m)   [observation units]
    f : ndarray, shape (N, m)   [observation units]
    sd : ndarray, shape (N, m)
        Residual SD on the scale of the error model.
    is_log : bool
        Whether the residual is normal on the log scale.
    total : ndarray, shape (N,)   [nats]
        Receives -inf for a row with an impossible observation.
    """
    _density_sums(design, active, y, f, np.array(sd), np.bool_(is_log), total)


def add_slopes(
    design: np.ndarray,
    active: np.ndarray,
    y: np.ndarray,
    f: np.ndarray,
    df: np.ndarray,
    residual: tuple[np.ndarray, np.ndarray, np.ndarray],
    is_log: bool,
    columns: tuple[np.ndarray, np.ndarray],
    total: np.ndarray,
    gradient: np.ndarray,
    information: np.ndarray | None,
) -> None:
    """Add the log density of every row's observations with its derivatives.

    Parameters
    ----------
    design, active, y, f, is_log, total
        As `add_density`.
    df : ndarray, shape (N, m, p)
        Derivatives of f.
    residual : tuple of ndarray
        SD (N, m) with its derivatives by f (N, m) and by the e residual-error parameters (N, m, e).
    columns : tuple of ndarray of int
        Where the p and the e parameters stand in the gradient; ascending, and none in both.
    gradient : ndarray, shape (N, d)
    information : ndarray, shape (N, d, d), or None
        Its lower triangle receives the expected information.
    """
    sd, ds_df, ds_dsigma = residual
    d = gradient.shape[1]
    wanted = np.bool_(information is not None)
    table = np.empty((0, d, d)) if information is None else information
    _slope_sums(
        design, active, y, f, df, np.array(sd), np.array(ds_df), np.array(ds_dsigma), np.bool_(is_log),
        *columns, wanted, total, gradient, table, np.empty(d),
    )  # fmt: skip
