"""Individual weighted residuals at the conditional modes, for the shrinkage of the residual error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from amortnlme.model.bound import BoundModel


def individual_weighted_residuals(bound_model: BoundModel, phi: np.ndarray) -> np.ndarray:
    """(y - f) / sd of every measured, uncensored record; of the logarithms for a log-normal error model.

    Parameters
    ----------
    bound_model : BoundModel
    phi : ndarray, shape (n_subjects, d)

    Returns
    -------
    ndarray, shape (n_subjects, m)
        NaN for records that were not measured, are censored, or could not be predicted.
    """
    program = bound_model.model.program
    prediction = bound_model.predict(phi[:, None])[0][:, 0]
    psi = bound_model.model.parameters.to_psi(phi)
    usable = bound_model.observed
    if bound_model.censoring is not None:
        usable = usable & (bound_model.censoring == 0)
    residuals = np.full(prediction.shape, np.nan)
    for k, (error_model, columns) in enumerate(zip(program.error_models, program.sigma_columns, strict=True)):
        mask = usable & np.isfinite(prediction)
        if len(program.error_models) > 1:
            mask &= bound_model.inputs.output == k
        f, y = np.where(mask, prediction, 1.0), np.where(mask, bound_model.y, 1.0)
        sd = error_model.sd(f, psi[:, list(columns)])
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = np.log(y) - np.log(f) if error_model.is_log_scale else y - f
            residuals = np.where(mask, difference / sd, residuals)
    return np.where(np.isfinite(residuals), residuals, np.nan)


def eps_shrinkage(bound_model: BoundModel, phi: np.ndarray) -> float:
    """1 - SD(IWRES), SD scale.

    Parameters
    ----------
    bound_model : BoundModel
    phi : ndarray, shape (n_subjects, d)
        Conditional modes.

    Returns
    -------
    float
        NaN where fewer than two residuals are finite.
    """
    residuals = individual_weighted_residuals(bound_model, phi)
    finite = residuals[np.isfinite(residuals)]
    return float(1.0 - finite.std(ddof=1)) if len(finite) > 1 else float("nan")
