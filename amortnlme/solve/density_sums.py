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
def _density_sums(design, active, y, f, sd, is_log, total):
    columns = f.shape[1]
    for row in range(f.shape[0]):
        subject = design[row]
        value = 0.0
        last_sd, log_sd, inverse = -1.0, 0.0, 0.0
        for j in range(columns):
            if not active[subject, j]:
                continue
            s = sd[row, j]
            # The SD of additive errors is the same for a whole row.
            if s != last_sd:
                log_sd, inverse, last_sd = math.log(s), 1.0 / s, s
            if is_log:
                log_y = math.log(y[subject, j])
                z = (log_y - math.log(f[row, j])) * inverse
                term = -0.5 * z * z - log_sd - HALF_LOG_2PI - log_y
            else:
                z = (y[subject, j] - f[row, j]) * inverse
                term = -0.5 * z * z - log_sd - HALF_LOG_2PI
            if not (s > 0.0 and math.isfinite(term) and math.isfinite(z * inverse)):
                value = -math.inf
                break
            value += term
        total[row] += value


@kernel
def _slope_sums(
    design, active, y, f, df, sd, ds_df, ds_dsigma, is_log, structural, error, with_information, total,
    gradient, information, ds,
):  # fmt: skip
    d, p, e = gradient.shape[1], structural.shape[0], error.shape[0]
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
            by_f = 1.0
            if is_log:
                log_y = math.log(y[subject, j])
                z = (log_y - math.log(f[row, j])) * inverse
                term = -0.5 * z * z - log_sd - HALF_LOG_2PI - log_y
                by_f = 1.0 / f[row, j]
            else:
                z = (y[subject, j] - f[row, j]) * inverse
                term = -0.5 * z * z - log_sd - HALF_LOG_2PI
            by_mean, by_sd = z * inverse, (z * z - 1.0) * inverse
            if not (s > 0.0 and math.isfinite(term) and math.isfinite(by_mean)):
                value = -math.inf
                break
            value += term
            slope_sd = ds_df[row, j]
            push = by_mean * by_f + by_sd * slope_sd
            for a in range(p):
                gradient[row, structural[a]] += push * df[row, j, a]
            for a in range(e):
                gradient[row, error[a]] += by_sd * ds_dsigma[row, j, a]
            if not with_information:
                continue
            weight = inverse * inverse
            mean_weight = weight * by_f * by_f
            if slope_sd == 0.0:
                for a in range(p):
                    left = mean_weight * df[row, j, a]
                    for b in range(a + 1):
                        information[row, structural[a], structural[b]] += left * df[row, j, b]
                for a in range(e):
                    left = 2.0 * weight * ds_dsigma[row, j, a]
                    for b in range(a + 1):
                        information[row, error[a], error[b]] += left * ds_dsigma[row, j, b]
                continue
            for a in range(d):
                ds[a] = 0.0
            for a in range(p):
                ds[structural[a]] = slope_sd * df[row, j, a]
            for a in range(e):
                ds[error[a]] += ds_dsigma[row, j, a]
            for a in range(p):
                left = mean_weight * df[row, j, a]
                for b in range(a + 1):
                    information[row, structural[a], structural[b]] += left * df[row, j, b]
            for a in range(d):
                left = 2.0 * weight * ds[a]
                for b in range(a + 1):
                    information[row, a, b] += left * ds[b]
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
    wanted = information is not None
    _slope_sums(
        design, active, y, f, df, np.array(sd), np.array(ds_df), np.array(ds_dsigma), np.bool_(is_log),
        *columns, np.bool_(wanted), total, gradient, np.empty((0, d, d)) if information is None else information,
        np.empty(d),
    )  # fmt: skip
