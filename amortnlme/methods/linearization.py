"""Expected information of a fit from the model linearized at the conditional modes.

Symbols. phi^_i the conditional mode, f and F = df/dphi there (log f for log-normal errors), s the residual
SDs there. The model is replaced by

    y_i ~ N(m_i, V_i),   m_i = f(phi^_i) + F (mu_i - phi^_i),   V_i = F L L'F' + diag(s^2),

in which phi^_i, F and f are constants and s depends on the residual-error parameters alone. Its information
is

    I_kl = sum_i dm_k' V^-1 dm_l + tr(V^-1 dV_k V^-1 dV_l) / 2.

This is the convention of Monolix ("standard errors by linearization"). Exact expected information for models
that are linear in phi; elsewhere a quick approximation without Monte-Carlo error.
"""

from __future__ import annotations

import numpy as np

from amortnlme.core.errors import CapabilityError
from amortnlme.methods.information import invert_information
from amortnlme.methods.packed_map import packed_map
from amortnlme.model.bound import BoundModel
from amortnlme.model.residuals import ResidualTerms, residual_terms
from amortnlme.population.bound_population import BoundPopulation


def refuse_linearization(bound: BoundModel, population: BoundPopulation) -> None:
    """Refuse what a linearized model cannot express, before any time is spent on the fit.

    Parameters
    ----------
    bound : BoundModel
    population : BoundPopulation

    Raises
    ------
    CapabilityError
        E_FIT_CENSORED, E_FIT_LINEARIZATION (a random effect on a residual-error parameter).
    """
    if bound.censoring is not None:
        raise CapabilityError(
            "E_FIT_CENSORED",
            "standard errors by linearization need a residual of every observation, but some are censored. "
            "Choose other standard errors, or drop the censored records.",
        )
    space = bound.model.parameters
    rows = packed_map(population).random_rows
    varying = [space.names[p] for p in rows if space.parameters[p].role == "error"]
    if varying:
        raise CapabilityError(
            "E_FIT_LINEARIZATION",
            f"the residual-error parameter {varying[0]!r} has a random effect, about which the linearized "
            "model holds no information. Choose other standard errors, or remove the random effect.",
        )


def linearized_covariance(
    bound: BoundModel, population: BoundPopulation, x: np.ndarray, phi: np.ndarray
) -> tuple[np.ndarray | None, list[str]]:
    """Covariance of the estimates from the linearized model, or why there is none.

    Parameters
    ----------
    bound : BoundModel
    population : BoundPopulation
    x : ndarray, shape (n_x,)
        Estimates.
    phi : ndarray, shape (n_subjects, d)
        Conditional modes.

    Returns
    -------
    covariance : ndarray, shape (n_x, n_x), or None
    warnings : list of str

    Raises
    ------
    CapabilityError
        See `refuse_linearization`.
    """
    refuse_linearization(bound, population)
    terms = residual_terms(bound, phi[:, None])
    lost = (terms.status[:, 0] != 0) | ~np.isfinite(terms.slope[:, 0]).all(axis=(1, 2))
    if lost.any():
        who = population.subject_ids[int(np.flatnonzero(lost)[0])]
        return None, [
            f"[W_FIT_LINEARIZATION] the model cannot be solved at the conditional mode of subject {who!r}: "
            "no standard errors by linearization. Choose other standard errors."
        ]
    covariance = invert_information(linearized_information(terms, population, x))
    if covariance is None:
        return None, [
            "[W_FIT_LINEARIZATION] the information of the linearized model is not positive definite: no "
            "standard errors are given. Simplify the model, or choose other standard errors."
        ]
    return covariance, []


def linearized_information(terms: ResidualTerms, population: BoundPopulation, x: np.ndarray) -> np.ndarray:
    """Sum up the expected information of the linearized model.

    Parameters
    ----------
    terms : ResidualTerms
        At the conditional modes, one point per subject.
    population : BoundPopulation
    x : ndarray, shape (n_x,)

    Returns
    -------
    ndarray, shape (n_x, n_x)
    """
    jacobian, factor = packed_map(population), population.unpack(x)[1]
    is_error = np.array([p.role == "error" for p in population.parameters.parameters])
    total = np.zeros((population.n_x, population.n_x))
    for i in range(population.n_subjects):
        F, s = terms.slope[i, 0], terms.sd[i, 0]
        spread = F @ factor
        root = np.linalg.cholesky(spread @ spread.T + np.diag(s**2))
        mean = np.linalg.solve(root, F @ jacobian.mu[i])
        # Only the residual-error parameters move s: its dependence on f belongs to the expansion point.
        sd = terms.sd_slope[i, 0][:, is_error] @ jacobian.mu[i][is_error]
        half = np.linalg.solve(root, F @ jacobian.factor) @ np.linalg.solve(root, spread).T
        inverse = np.linalg.inv(root)
        by_sd = np.einsum("am,mk,bm->kab", inverse, 2.0 * s[:, None] * sd, inverse)
        variance = (half + np.swapaxes(half, 1, 2) + by_sd).reshape(population.n_x, -1)
        total += mean.T @ mean + 0.5 * variance @ variance.T
    return total
