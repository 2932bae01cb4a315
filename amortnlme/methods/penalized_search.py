"""Search for populations whose weights are penalized: networks of covariates have more of them than subjects.

-2 log-likelihood gains ridge times the square of every weight. Observed information would cost two gradients
per weight, and scores of so few subjects do not span the weights, so that the coordinates of the search come
from the expected information: with A_i that about phi at the conditional mode, phi_i ~ N(mu_i, L L') leaves

    M_i = A_i - A_i L inv(I + L'A_i L) L'A_i   about mu_i, and   sum_i J_i' M_i J_i + ridge,  J_i = dmu_i/dx

about x. L-BFGS in them, renewed between rounds, ends when a round gains next to nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize

from amortnlme.core.status import FitStatus
from amortnlme.methods.ebe import IndividualTarget
from amortnlme.methods.information import whitening
from amortnlme.methods.local_search import REACH as LOCAL_REACH
from amortnlme.methods.local_search import WALL, ModalObjective
from amortnlme.methods.maximize import REACH, Recentering
from amortnlme.methods.refine import Optimum, failed
from amortnlme.population.bound_population import BoundPopulation

MAX_ROUNDS = 25
#: A round that gains less than this share of the objective is the last one ...
SETTLED = 1e-8
#: ... and the search has converged where the last one gained less than this share.
CONVERGED = 1e-6
ITERATIONS_PER_ROUND = 60
#: Smallest SD of a random effect that sets a scale for the search.
SMALLEST_SD = 0.03
#: Of offsets, for the coordinates only: they belong to inputs of order one.
OFFSET_INFORMATION = 1.0

NO_ERRORS = (
    "[W_FIT_PENALIZED] the estimates are penalized or leave out the random effects, so that standard errors "
    "do not exist; AIC, BIC and BICc count every weight."
)


def maximize_penalized(
    objective: ModalObjective, target: IndividualTarget, population: BoundPopulation, start: np.ndarray
) -> Optimum:
    """Maximize log-likelihood minus the ridge from one starting point.

    Parameters
    ----------
    objective : ModalObjective
    target : IndividualTarget
        Whose expected information sets the coordinates.
    population : BoundPopulation
        Carries the ridge of every entry of x.
    start : ndarray, shape (n_x,)

    Returns
    -------
    Optimum
        `value` is without the penalty; no covariance.
    """
    x, penalty = population.fold_signs(start), population.penalty
    value, gradient = _penalized(objective, penalty, x)
    trace: list[dict[str, Any]] = []
    if not np.isfinite(value):
        return failed(x, [{"stage": "start", "x": x.tolist(), "objective": None}], [])
    gain, transform = np.inf, np.eye(len(x))
    for number in range(MAX_ROUNDS):
        if isinstance(objective, Recentering):
            objective.recenter(x)
            value, gradient = _penalized(objective, penalty, x)
        transform = whitening(expected_information(objective, target, population, x))
        reach = LOCAL_REACH if isinstance(objective, Recentering) else REACH
        new, n_evaluations = _round(objective, penalty, x, transform, reach)
        new_value, gradient = _penalized(objective, penalty, new)
        gain, x, value = max(value - new_value, 0.0), population.fold_signs(new), new_value
        trace.append(
            {
                "stage": f"round {number + 1}",
                "x": x.tolist(),
                "objective": 2.0 * value,
                "n_evaluations": n_evaluations,
            }
        )
        if gain < SETTLED * abs(value):
            break
    status, warnings = FitStatus.CONVERGED, [NO_ERRORS]
    if gain > CONVERGED * abs(value):
        status = FitStatus.NOT_CONVERGED
        warnings.append(
            f"[W_FIT_NOT_CONVERGED] after {MAX_ROUNDS} rounds the objective still fell by {2.0 * gain:.3g} "
            "per round. Raise the ridge, or simplify the networks."
        )
    return Optimum(
        x=x,
        value=value - 0.5 * float(penalty @ x**2),
        is_interior=False,
        covariance=None,
        scale=np.sqrt((transform**2).sum(axis=1)),
        status=status,
        gradient_norm=float(np.abs(transform.T @ gradient).max()),
        last_move=float(np.sqrt(2.0 * gain)),
        mc_se=None,
        mc_bias=None,
        warnings=warnings,
        trace=tuple(trace),
    )


def expected_information(
    objective: ModalObjective, target: IndividualTarget, population: BoundPopulation, x: np.ndarray
) -> np.ndarray:
    """Compute the expected information about x in the linearized model, roughly that about L, and the ridge.

    Parameters
    ----------
    objective : ModalObjective
    target : IndividualTarget
    population : BoundPopulation
    x : ndarray, shape (n_x,)

    Returns
    -------
    ndarray, shape (n_x, n_x)
    """
    n, d, n_x = population.n_subjects, population.d, population.n_x
    factor = population.unpack(x)[1]
    information = np.nan_to_num(target.gauss_newton(objective.modes(x).phi)[2])
    spread = information @ factor
    inner = np.eye(factor.shape[1]) + factor.T @ spread
    marginal = information - spread @ np.linalg.solve(inner, np.swapaxes(spread, 1, 2))
    jacobian = np.zeros((n, d, n_x))
    jacobian[:, population.theta_index, np.arange(len(population.theta_index))] = 1.0
    beta = np.arange(population.beta_slice.start, population.beta_slice.stop)
    jacobian[:, population.covariate_index, beta] = population.regressors
    jacobian[:, :, population.weight_slice] = population.weight_jacobian(x)
    total = jacobian.reshape(-1, n_x).T @ (marginal @ jacobian).reshape(-1, n_x)
    places = population.layout
    diagonal = x[population.chol_slice][places.chol_entry]
    by_column = np.zeros(population.r)
    is_diagonal = places.row_effect == places.chol_column
    by_column[places.chol_column[is_diagonal]] = np.abs(diagonal[is_diagonal])
    scale = np.maximum(by_column[places.row_effect[places.first_place]], SMALLEST_SD)
    entry = np.arange(population.chol_slice.start, n_x)
    total[entry, entry] += n / scale**2
    everywhere = np.arange(n_x)
    total[everywhere, everywhere] += population.penalty + 1e-8
    # An offset that the data do not see for now must not run away: its unit would never become active again.
    weights = everywhere[population.weight_slice]
    total[weights, weights] += OFFSET_INFORMATION * (population.penalty[weights] == 0.0)
    return total


def _round(
    objective: ModalObjective, penalty: np.ndarray, x: np.ndarray, transform: np.ndarray, reach: float
) -> tuple[np.ndarray, int]:
    base = _penalized(objective, penalty, x)[0]

    def function(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _penalized(objective, penalty, x + transform @ z)
        if not np.isfinite(value):
            # A finite wall: line searches interpolate back from it.
            return base + WALL, np.zeros(len(z))
        return value, transform.T @ gradient

    options = {"maxiter": ITERATIONS_PER_ROUND, "maxcor": 20, "ftol": 0.1 * SETTLED, "gtol": 1e-4}
    bounds = [(-reach, reach)] * len(x)
    found = minimize(function, np.zeros(len(x)), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    if not found.fun <= base:
        return x, int(found.nfev)
    return x + transform @ found.x, int(found.nfev)


def _penalized(objective: ModalObjective, penalty: np.ndarray, x: np.ndarray) -> tuple[float, np.ndarray]:
    value, scores = objective.value_and_scores(x)
    total = -float(value.sum()) + 0.5 * float(penalty @ x**2)
    if not np.isfinite(total):
        return np.inf, np.zeros(len(x))
    return total, penalty * x - scores.sum(axis=0)
