"""Residuals of a bound model with their derivatives, for methods that linearize the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.model.bound import BoundModel
from amortnlme.model.censoring import interval_ends


@dataclass(frozen=True, slots=True, eq=False)
class ResidualTerms:
    """Residuals on the scale of the error models (logarithms for log-normal errors).

    Where nothing was observed the residual is 0, its SD 1, and the derivatives are 0. The residual of a
    censored record is that of its quantification limit.

    Attributes
    ----------
    residual : ndarray, shape (S, M, m)
        y - f, or log y - log f.
    slope : ndarray, shape (S, M, m, d)
        d(f or log f)/dphi.
    sd : ndarray, shape (S, M, m)
    sd_slope : ndarray, shape (S, M, m, d)
        Total derivative of sd with respect to phi: through the prediction and the residual-error parameters.
    log_jacobian : ndarray, shape (S,)
        Sum of log y over the quantified log-normal observations: density of log y to density of y.
    n_quantified : ndarray of int, shape (S,)
        Observed and not censored.
    status : ndarray of int, shape (S, M)
    """

    residual: np.ndarray
    slope: np.ndarray
    sd: np.ndarray
    sd_slope: np.ndarray
    log_jacobian: np.ndarray
    n_quantified: np.ndarray
    status: np.ndarray


def residual_terms(bound: BoundModel, phi: np.ndarray) -> ResidualTerms:
    """Evaluate residuals and derivatives.

    Parameters
    ----------
    bound : BoundModel
    phi : ndarray, shape (S, M, d)

    Returns
    -------
    ResidualTerms
    """
    f, df, status = bound.predict_with_sensitivity(phi)
    program, space = bound.model.program, bound.model.parameters
    psi, dpsi = space.to_psi(phi), space.dpsi_dphi(phi)
    observed, y = bound.observed[:, None], bound.y[:, None]
    residual, sd = np.zeros_like(f), np.ones_like(f)
    slope, sd_slope = np.zeros_like(df), np.zeros_like(df)
    log_jacobian = np.zeros(bound.n_subjects)
    quantified = bound.observed if bound.censoring is None else bound.observed & (bound.censoring == 0)
    for k, (model, columns) in enumerate(zip(program.error_models, program.sigma_columns, strict=True)):
        mask = observed if len(program.error_models) == 1 else observed & (bound.inputs.output == k)[:, None]
        here = np.broadcast_to(mask, f.shape)
        safe = np.where(here, f, 1.0)
        with np.errstate(all="ignore"):  # a failed row may hold anything; its status says so
            s, ds_df, ds_dsigma = model.sd_with_derivatives(safe, psi[..., list(columns)])
            h, dh = (np.log(safe), df / safe[..., None]) if model.is_log_scale else (safe, df)
            target = np.log(y) if model.is_log_scale else y
            total = ds_df[..., None] * df
            for j, column in enumerate(columns):
                total[..., column] += ds_dsigma[..., j] * dpsi[..., None, column]
            residual = np.where(here, target - h, residual)
        sd = np.where(here, s, sd)
        slope = np.where(here[..., None], dh, slope)
        sd_slope = np.where(here[..., None], total, sd_slope)
        if model.is_log_scale:
            with np.errstate(all="ignore"):  # of a value that no log-normal can take; the residual is NaN too
                log_jacobian += np.where(mask[:, 0] & quantified, np.log(bound.y), 0.0).sum(axis=1)
    return ResidualTerms(residual, slope, sd, sd_slope, log_jacobian, quantified.sum(axis=1), status)


@dataclass(frozen=True, slots=True, eq=False)
class CensoredRecords:
    """Where a study is censored, and the intervals relative to the recorded limits.

    Attributes
    ----------
    subject, column : ndarray of int, shape (k,)
        Place of every censored record among the (S, m).
    lower, upper : ndarray, shape (k, 1)
        Ends of the interval minus the recorded limit, on the scale of the error model; infinite for none.
    """

    subject: np.ndarray
    column: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def censored_records(bound: BoundModel) -> CensoredRecords | None:
    """Collect the censored records of a study.

    Parameters
    ----------
    bound : BoundModel

    Returns
    -------
    CensoredRecords or None
        None where nothing is censored.
    """
    if bound.censoring is None:
        return None
    subject, column = np.nonzero(bound.censoring)
    on_log = np.array([model.is_log_scale for model in bound.model.program.error_models])
    log_scale = on_log[bound.inputs.output[subject, column] if len(on_log) > 1 else np.zeros_like(subject)]
    y, limit = bound.y[subject, column], bound.limit[subject, column]
    with np.errstate(all="ignore"):  # a limit of 0 is -inf on the log scale: no end
        y, limit = np.where(log_scale, np.log(y), y), np.where(log_scale, np.log(limit), limit)
    lower, upper = interval_ends(y, bound.censoring[subject, column], limit)
    return CensoredRecords(subject, column, (lower - y)[:, None], (upper - y)[:, None])
