"""Why the likelihood of a subject is zero at given population parameters, in words."""

from __future__ import annotations

import numpy as np

from amortnlme.core.status import SolveStatus
from amortnlme.model.bound import BoundModel


def support_warning(bound: BoundModel, ids: tuple[str, ...], mu: np.ndarray, lost: np.ndarray) -> str:
    """Name the subjects whose likelihood is zero, and say why for the first of them.

    Parameters
    ----------
    bound : BoundModel
    ids : tuple of str
    mu : ndarray, shape (n_subjects, d)
        Typical phi of each subject, at which the reason is looked for.
    lost : ndarray of bool, shape (n_subjects,)
        At least one is true.

    Returns
    -------
    str
        With code W_FIT_NO_SUPPORT.
    """
    index = np.flatnonzero(lost)
    first = int(index[0])
    return (
        f"[W_FIT_NO_SUPPORT] the likelihood of {len(index)} of {len(ids)} subjects is zero, first "
        f"{ids[first]!r}. {_reason(bound, mu, first)} Check its records, or leave it out."
    )


def _reason(bound: BoundModel, mu: np.ndarray, i: int) -> str:
    prediction, status = (a[i, 0] for a in bound.predict(mu[:, None]))
    if status != 0:
        return f"With typical parameters: {SolveStatus(int(status)).sentence}"
    psi, program = bound.model.parameters.to_psi(mu[i]), bound.model.program
    censoring = None if bound.censoring is None else bound.censoring[i]
    for k, (error_model, columns) in enumerate(zip(program.error_models, program.sigma_columns, strict=True)):
        here = bound.observed[i] & (bound.inputs.output[i] == k)
        f = np.where(here, prediction, 1.0)
        density = error_model.log_density(bound.y[i], f, psi[list(columns)], censoring, bound.limit[i])
        impossible = np.flatnonzero(here & ~np.isfinite(density))
        if len(impossible):
            j = int(impossible[0])
            return (
                f"Its observation y = {bound.y[i, j]:.4g} at t = {bound.inputs.time[i, j]:.4g} is impossible "
                f"under the error model, where the prediction is {f[j]:.4g}."
            )
    return "The typical subject can be predicted, the parameters this subject asks for cannot."
