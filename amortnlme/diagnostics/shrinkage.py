"""Shrinkage of empirical Bayes estimates and residuals, on the SD scale."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def eta_shrinkage(eta: Array, omega_sd: Array) -> Array:
    """How much narrower the empirical Bayes estimates are than the fitted population.

    Parameters
    ----------
    eta : ndarray, shape (n_subjects, n_effects)
        Empirical Bayes estimates of the random effects.
    omega_sd : ndarray, shape (n_effects,)
        Fitted SDs of the random effects.

    Returns
    -------
    shrinkage : ndarray, shape (n_effects,)
        1 - SD(eta) / omega_sd as a fraction; nan where omega_sd is zero. Slightly negative values occur.

    Notes
    -----
    Savic & Karlsson (2009), AAPS J 11, 558-569, eq. (7), with the sample SD (divisor n - 1).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(omega_sd > 0.0, 1.0 - eta.std(axis=0, ddof=1) / omega_sd, np.nan)


def epsilon_shrinkage(iwres: Array) -> float:
    """How much narrower the individual weighted residuals are than their model says.

    Parameters
    ----------
    iwres : ndarray, any shape
        Individual weighted residuals; nan entries are skipped.

    Returns
    -------
    shrinkage : float
        1 - SD(IWRES), a fraction; nan for fewer than two residuals.

    Notes
    -----
    Savic & Karlsson (2009), AAPS J 11, 558-569, eq. (8).
    """
    value = iwres[np.isfinite(iwres)]
    return float(1.0 - value.std(ddof=1)) if len(value) > 1 else float("nan")
