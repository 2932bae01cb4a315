"""Residual diagnostics on plain arrays: RES, IWRES, CWRES (first-order conditional) and NPDE.

Symbols: y observation, f prediction, eta_hat empirical Bayes estimate of the random effects eta ~ N(0,
Omega), G = df/deta at eta_hat, R = diag(sd^2).  All arrays are padded to the longest subject; `used`
marks real, uncensored observations and every result is nan elsewhere.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from amortnlme.core.errors import UsageError
from amortnlme.diagnostics.decorrelation import Root, decorrelate, isolate_padding

Array = np.ndarray


def individual_weighted_residuals(y: Array, ipred: Array, sd: Array, used: Array) -> Array:
    """IWRES: residual at the empirical Bayes estimate, in units of the residual SD there.

    Parameters
    ----------
    y, ipred, sd : ndarray, shape (n_subjects, n_records)   [output unit]
    used : ndarray of bool, shape (n_subjects, n_records)

    Returns
    -------
    iwres : ndarray, shape (n_subjects, n_records)   [no unit]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(used, (y - ipred) / sd, np.nan)


def conditional_moments(
    ipred: Array, gradient: Array, eta: Array, omega: Array, sd: Array
) -> tuple[Array, Array]:
    """Mean and covariance of y under the first-order expansion about the empirical Bayes estimate.

    Parameters
    ----------
    ipred : ndarray, shape (n_subjects, n_records)   [output unit]
    gradient : ndarray, shape (n_subjects, n_records, n_effects)
        df/deta at the estimate.
    eta : ndarray, shape (n_subjects, n_effects)
        Empirical Bayes estimates of the random effects.
    omega : ndarray, shape (n_effects, n_effects)
        Covariance of eta; it may be singular.
    sd : ndarray, shape (n_subjects, n_records)   [output unit]
        Residual SD at `ipred` (interaction).

    Returns
    -------
    mean : ndarray, shape (n_subjects, n_records)   [output unit]
    covariance : ndarray, shape (n_subjects, n_records, n_records)   [output unit squared]

    Notes
    -----
    E[y] = f(eta_hat) - G eta_hat and Cov[y] = G Omega G' + R: Hooker, Staatz & Karlsson (2007), Pharm Res 24,
    2187-2197.
    """
    mean = ipred - np.einsum("smr,sr->sm", gradient, eta)
    covariance = gradient @ omega @ np.swapaxes(gradient, 1, 2)
    diagonal = np.arange(ipred.shape[1])
    covariance[:, diagonal, diagonal] += sd**2
    return mean, covariance


def conditional_weighted_residuals(
    y: Array,
    ipred: Array,
    gradient: Array,
    eta: Array,
    omega: Array,
    sd: Array,
    used: Array,
    root: Root = "symmetric",
) -> Array:
    """CWRES: residuals from the FOCE-linearized population mean, decorrelated within each subject.

    Parameters
    ----------
    y, ipred, sd : ndarray, shape (n_subjects, n_records)   [output unit]
    gradient : ndarray, shape (n_subjects, n_records, n_effects)   [output unit per unit of eta]
    eta : ndarray, shape (n_subjects, n_effects)
    omega : ndarray, shape (n_effects, n_effects)
    used : ndarray of bool, shape (n_subjects, n_records)
    root : {"symmetric", "cholesky"}

    Returns
    -------
    cwres : ndarray, shape (n_subjects, n_records)   [no unit]
        Independent N(0, 1) when the model is linear in the random effects and correct.

    Raises
    ------
    FitError
        E_DIAGNOSTICS_COVARIANCE if a linearized covariance is singular.

    Notes
    -----
    Hooker, Staatz & Karlsson (2007), Pharm Res 24, 2187-2197.
    """
    mean, covariance = conditional_moments(ipred, gradient, eta, omega, sd)
    return decorrelate((y - mean)[:, :, None], covariance, used, root)[:, :, 0]


def prediction_distribution_errors(
    y: Array,
    replicates: Array,
    used: Array,
    root: Root = "cholesky",
    max_block_bytes: int = 64_000_000,
) -> tuple[Array, Array]:
    """NPDE: normalized rank of each decorrelated observation among decorrelated simulations.

    Parameters
    ----------
    y : ndarray, shape (n_subjects, n_records)   [output unit]
    replicates : ndarray, shape (n_replicates, n_subjects, n_records)   [output unit]
        Simulations of the whole study from the fitted population model. A failed solve is nan.
    used : ndarray of bool, shape (n_subjects, n_records)
    root : {"cholesky", "symmetric"}
    max_block_bytes : int
        Subjects are processed in blocks whose working copy stays below this size.

    Returns
    -------
    pde : ndarray, shape (n_subjects, n_records)
        (rank + 1/2) / (n + 1), uniform on (0, 1) under the model.
    npde : ndarray, shape (n_subjects, n_records)
        Standard normal quantile of `pde`.

    Raises
    ------
    UsageError
        E_DIAGNOSTICS_REPLICATES if a subject has no more usable replicates than observations.

    Notes
    -----
    Brendel, Comets, Laffont, Laveille & Mentre (2006), Pharm Res 23, 2036-2049; the half-rank keeps pde
    symmetric and away from 0 and 1.
    """
    n_replicates, n_subjects, n_records = replicates.shape
    pde = np.full((n_subjects, n_records), np.nan)
    block = max(1, int(max_block_bytes // (8 * n_replicates * max(n_records, 1))))
    for start in range(0, n_subjects, block):
        rows = slice(start, start + block)
        pde[rows] = _pde_block(y[rows], replicates[:, rows], used[rows], root)
    return pde, ndtri(pde)


def _pde_block(y: Array, replicates: Array, used: Array, root: Root) -> Array:
    simulated = np.moveaxis(replicates, 0, 2)
    finite = np.isfinite(np.where(used[:, :, None], simulated, 0.0))
    valid = np.asarray(np.all(finite, axis=1))
    n_valid: Array = np.sum(valid, axis=1)
    n_used: Array = np.sum(used, axis=1)
    short = n_valid <= n_used + 1
    if short.any():
        where = int(np.flatnonzero(short)[0])
        raise UsageError(
            "E_DIAGNOSTICS_REPLICATES",
            f"NPDE needs more replicates than observations - {n_valid[where]} usable replicates for"
            f" {n_used[where]} observations - at least 10 per observation are sensible - simulate more",
        )
    keep = used[:, :, None] & valid[:, None, :]
    simulated = np.where(keep, simulated, 0.0)
    mean = simulated.sum(axis=2) / n_valid[:, None]
    centered = np.where(keep, simulated - mean[:, :, None], 0.0)
    covariance = centered @ np.swapaxes(centered, 1, 2) / (n_valid - 1)[:, None, None]
    both = np.concatenate([(y - mean)[:, :, None], centered], axis=2)
    whitened = decorrelate(both, isolate_padding(covariance, used), used, root)
    below = (whitened[:, :, 1:] < whitened[:, :, :1]) & valid[:, None, :]
    rank = below.sum(axis=2)
    return np.where(used, (rank + 0.5) / (n_valid[:, None] + 1.0), np.nan)
