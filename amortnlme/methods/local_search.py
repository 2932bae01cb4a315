"""Local minimization in units of standard errors, and the search for variances at zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from amortnlme.methods.ebe import EmpiricalBayes
from amortnlme.methods.information import invert_information, observed_information, whitening
from amortnlme.population.bound_population import BoundPopulation

# : A diagonal entry of L is taken to be zero when setting it to zero costs less than this in -2 log-
# likelihood.
BOUNDARY_COST = 5e-3
#: ... which is not asked where the curvature at the optimum promises more than this: in the SD of a random
#: effect the likelihood is even, and one whose minimum costs so much has no second minimum at zero.
BOUNDARY_CLEAR = 9.0
#: Share to which an error parameter is cut, on the log scale, to see whether the data notice it at all.
CUT = -10.0
#: ... which is not asked where the curvature in its logarithm exceeds this: on its way to zero an error SD s
#: costs c s^2 in -2 log-likelihood, and 2 c s^2 is that curvature.
ERROR_CLEAR = 1.0
#: Half width of the differences, in standard errors.
DIFFERENCE_STEP = 0.02
#: Furthest move per parameter direction and round, in standard errors, of an objective that holds locally.
REACH = 3.0
#: Height, in log-likelihood, of the wall around points without support.
WALL = 1e6


class PopulationObjective(Protocol):
    """A population log-likelihood with its gradient, as sums over subjects."""

    def value_and_scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Per-subject log-likelihood (n_subjects,) and gradient (n_subjects, n_x) at x."""
        ...


class ModalObjective(PopulationObjective, Protocol):
    """A population log-likelihood that knows the conditional modes."""

    def modes(self, x: np.ndarray) -> EmpiricalBayes:
        """Conditional modes at x."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LocalMinimum:
    """Outcome of a local search.

    Attributes
    ----------
    x : ndarray, shape (n_x,)
    value : float
        -sum_i log L_i.
    n_evaluations : int
    message : str
    """

    x: np.ndarray
    value: float
    n_evaluations: int
    message: str


def negative_value_and_gradient(objective: PopulationObjective, x: np.ndarray) -> tuple[float, np.ndarray]:
    """Minus the log-likelihood and its gradient; (inf, 0) where a subject has no support.

    Parameters
    ----------
    objective : PopulationObjective
    x : ndarray, shape (n_x,)

    Returns
    -------
    value : float   [nats]
    gradient : ndarray, shape (n_x,)
    """
    value, scores = objective.value_and_scores(x)
    total = -float(value.sum())
    if not np.isfinite(total):
        return np.inf, np.zeros(len(x))
    return total, -scores.sum(axis=0)


def minimize_whitened(
    objective: PopulationObjective,
    x: np.ndarray,
    transform: np.ndarray,
    free: np.ndarray,
    max_iterations: int = 60,
    reach: float | np.ndarray = REACH,
) -> LocalMinimum:
    """Minimize from x along directions in which the objective is nearly a unit bowl.

    Parameters
    ----------
    objective : PopulationObjective
    x : ndarray, shape (n_x,)
        Start; entries that are not free stay as they are.
    transform : ndarray, shape (n_free, n_free)
        As `whitening` gives for the free entries.
    free : ndarray of int, shape (n_free,)
    max_iterations : int
    reach : float or ndarray of shape (n_free,)
        Furthest move along each direction, in standard errors.

    Returns
    -------
    LocalMinimum
    """
    from amortnlme.methods._pypesto import minimize_multistart

    def function(z: np.ndarray) -> tuple[float, np.ndarray]:
        moved = x.copy()
        moved[free] += transform @ z
        value, gradient = negative_value_and_gradient(objective, moved)
        if not np.isfinite(value):
            # A finite wall: line searches interpolate back from it, while infinity ends them.
            return wall, np.zeros(len(z))
        return value, transform.T @ gradient[free]

    n = len(free)
    limit = np.broadcast_to(np.asarray(reach, dtype=np.float64), (n,))
    wall = negative_value_and_gradient(objective, x)[0] + WALL
    best = minimize_multistart(
        function,
        np.zeros((1, n)),
        -limit,
        limit,
        [f"z{k}" for k in range(n)],
        max_iterations=max_iterations,
        value_tolerance=1e-10,
        gradient_tolerance=2e-3,
    )
    moved = x.copy()
    moved[free] += transform @ best.x
    return LocalMinimum(moved, best.value, best.n_evaluations, best.message)


def information_at(
    objective: PopulationObjective, x: np.ndarray, scale: np.ndarray, free: np.ndarray
) -> np.ndarray:
    """Observed information of the free entries of x.

    Parameters
    ----------
    objective : PopulationObjective
    x : ndarray, shape (n_x,)
    scale : ndarray, shape (n_x,)
        Rough standard errors, which set the width of the differences.
    free : ndarray of int, shape (n_free,)

    Returns
    -------
    ndarray, shape (n_free, n_free)
    """

    def gradient(part: np.ndarray) -> np.ndarray:
        moved = x.copy()
        moved[free] = part
        return negative_value_and_gradient(objective, moved)[1][free]

    return observed_information(gradient, x[free].copy(), DIFFERENCE_STEP * scale[free])


def rough_scale(information: np.ndarray) -> np.ndarray:
    """Rough standard errors from an information matrix that need not be positive definite.

    Parameters
    ----------
    information : ndarray, shape (n, n)

    Returns
    -------
    ndarray, shape (n,)
    """
    root = whitening(information)
    return np.sqrt((root**2).sum(axis=1))


def vanishing_effects(
    objective: PopulationObjective, population: BoundPopulation, x: np.ndarray, curvature: np.ndarray
) -> list[int]:
    """Random effects whose own variance component (diagonal entry of L) may as well be zero.

    Parameters
    ----------
    objective : PopulationObjective
    population : BoundPopulation
    x : ndarray, shape (n_x,)
        A minimum over all free entries.
    curvature : ndarray, shape (n_x,)
        Second derivatives of -log L by the entries of x; 0 where they are not known.

    Returns
    -------
    list of int
        Positions in x.
    """
    diagonal = np.unique(population.chol_diagonal)
    near = diagonal[x[diagonal] ** 2 * curvature[diagonal] <= BOUNDARY_CLEAR]
    if not len(near):
        return []
    base = negative_value_and_gradient(objective, x)[0]
    found = []
    for position in near:
        pinned = x.copy()
        pinned[position] = 0.0
        cost = 2.0 * (negative_value_and_gradient(objective, pinned)[0] - base)
        if cost < BOUNDARY_COST:
            found.append(int(position))
    return found


def vanishing_errors(
    objective: PopulationObjective, population: BoundPopulation, x: np.ndarray, curvature: np.ndarray
) -> list[int]:
    """Residual error parameters on the log scale that are as good as zero.

    Parameters
    ----------
    objective : PopulationObjective
    population : BoundPopulation
    x : ndarray, shape (n_x,)
        A minimum over all free entries.
    curvature : ndarray, shape (n_x,)
        Second derivatives of -log L by the entries of x; 0 where they are not known.

    Returns
    -------
    list of int
        Positions in x.
    """
    candidates = []
    for position, column in enumerate(population.theta_index):
        parameter = population.parameters.parameters[column]
        is_error = parameter.role == "error" and parameter.transform == "log"
        if is_error and column not in population.random_index and curvature[position] <= ERROR_CLEAR:
            candidates.append(position)
    if not candidates:
        return []
    base = negative_value_and_gradient(objective, x)[0]
    found = []
    for position in candidates:
        cut = x.copy()
        cut[position] += CUT
        if 2.0 * (negative_value_and_gradient(objective, cut)[0] - base) < BOUNDARY_COST:
            found.append(position)
    return found


def boundary_warning(population: BoundPopulation, effects: list[int], errors: list[int]) -> list[str]:
    """Texts about what vanishes at the optimum.

    Parameters
    ----------
    population : BoundPopulation
    effects, errors : list of int
        Positions in x, from `vanishing_effects` and `vanishing_errors`.

    Returns
    -------
    list of str
        With code W_FIT_BOUNDARY; empty where nothing vanishes.
    """
    texts = []
    no_wald = "Wald standard errors do not exist there and are not given"
    if effects:
        names = ", ".join(population.names[k].removeprefix("chol_") for k in effects)
        texts.append(
            f"[W_FIT_BOUNDARY] omega has no full rank: the variance component of {names} is zero at the "
            f"optimum. {no_wald}; simplify the random effects."
        )
    if errors:
        names = ", ".join(population.names[k].removeprefix("theta_") for k in errors)
        texts.append(
            f"[W_FIT_BOUNDARY] the residual error parameter {names} is zero at the optimum: the other part "
            f"of the error model explains the scatter alone. {no_wald}; leave it out of the error model."
        )
    return texts


def wald_covariance(information: np.ndarray, free: np.ndarray, n_x: int) -> np.ndarray | None:
    """Covariance of x where Wald theory applies, else None.

    Parameters
    ----------
    information : ndarray, shape (n_free, n_free)
    free : ndarray of int, shape (n_free,)
    n_x : int

    Returns
    -------
    ndarray, shape (n_x, n_x), or None
        None when a variance sits at zero (entries are missing) or the information is not positive definite.
    """
    return invert_information(information) if len(free) == n_x else None
