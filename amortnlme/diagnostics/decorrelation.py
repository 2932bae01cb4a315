"""Batched square roots of padded covariance matrices: the one piece of algebra CWRES and NPDE share."""

from __future__ import annotations

from typing import Literal

import numpy as np

from amortnlme.core.errors import FitError

Array = np.ndarray
Root = Literal["symmetric", "cholesky"]


def isolate_padding(covariance: Array, used: Array) -> Array:
    """Replace the rows and columns of unused records by those of an identity matrix.

    The used block keeps its square root and inverse under this change, so ragged subjects can share one
    batched factorization.

    Parameters
    ----------
    covariance : ndarray, shape (n_subjects, n_records, n_records)   [output unit squared]
    used : ndarray of bool, shape (n_subjects, n_records)

    Returns
    -------
    covariance : ndarray, shape (n_subjects, n_records, n_records)
        A new array; the entries of the used block are untouched.
    """
    both = used[:, :, None] & used[:, None, :]
    return np.where(both, covariance, np.eye(covariance.shape[1]))


def decorrelate(
    residual: Array,
    covariance: Array,
    used: Array,
    root: Root = "symmetric",
) -> Array:
    """Multiply residuals by the inverse square root of their covariance, subject by subject.

    Parameters
    ----------
    residual : ndarray, shape (n_subjects, n_records, n_columns)   [output unit]
        Values at unused records are ignored and may be nan.
    covariance : ndarray, shape (n_subjects, n_records, n_records)   [output unit squared]
    used : ndarray of bool, shape (n_subjects, n_records)
    root : {"symmetric", "cholesky"}
        "symmetric" is the eigenvalue square root, which treats all records alike; "cholesky" orders them,
        so that record j is compared with its distribution given records 1..j-1.

    Returns
    -------
    whitened : ndarray, shape (n_subjects, n_records, n_columns)   [no unit]
        nan at unused records.

    Raises
    ------
    FitError
        E_DIAGNOSTICS_COVARIANCE if a covariance is not positive definite.
    """
    clean = np.where(used[:, :, None], residual, 0.0)
    padded = isolate_padding(covariance, used)
    if root == "symmetric":
        value, vector = np.linalg.eigh(padded)
        _refuse_singular(value.min(axis=1), value.max(axis=1))
        rotated = np.swapaxes(vector, 1, 2) @ clean
        whitened = vector @ (rotated / np.sqrt(value)[:, :, None])
    else:
        try:
            lower = np.linalg.cholesky(padded)
        except np.linalg.LinAlgError:
            smallest = np.linalg.eigvalsh(padded)
            _refuse_singular(smallest[:, 0], smallest[:, -1])
            raise
        whitened = np.linalg.solve(lower, clean)
    return np.where(used[:, :, None], whitened, np.nan)


def _refuse_singular(smallest: Array, largest: Array) -> None:
    bad = ~(smallest > 1e-14 * largest)
    if bad.any():
        where = int(np.flatnonzero(bad)[0])
        raise FitError(
            "E_DIAGNOSTICS_COVARIANCE",
            f"the covariance of the observations of subject number {where + 1} is not positive definite"
            f" - its smallest eigenvalue is {smallest[where]:.3g} - residuals need a positive residual error"
            " and, for simulated moments, more replicates than observations - check sigma, or simulate more",
        )
