"""The exact population likelihood near the estimates of a fit, as profiles, bootstraps and chains need it.

Whatever the method of the fit: the likelihood is importance-sampled on guided nodes (`guided_likelihood`),
whose random numbers stay fixed, so that neighboring population parameters are compared without noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.core.errors import CapabilityError, FitError, UsageError
from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.data.dataset import Dataset
from amortnlme.methods.amortized import NODE_BUDGET, nodes_per_subject
from amortnlme.methods.base import FitProblem
from amortnlme.methods.ebe import IndividualTarget
from amortnlme.methods.grouped import GroupedTarget
from amortnlme.methods.guided_likelihood import guide_closely
from amortnlme.methods.information import invert_information, whitening
from amortnlme.methods.local_search import (
    PopulationObjective,
    information_at,
    minimize_whitened,
    negative_value_and_gradient,
    rough_scale,
)
from amortnlme.methods.other_modes import starts_at_modes
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.proposals import base_numbers
from amortnlme.model.individual import IndividualModel
from amortnlme.population.bound_population import BoundPopulation

#: Searches per subject for a second mode.
N_SEARCHES = 4
#: Placements of the nodes, and the distance in standard errors at which the optimum has settled.
ROUNDS, SETTLED = 4, 0.05


@dataclass(frozen=True, slots=True, eq=False)
class NearOptimum:
    """A population log-likelihood around its maximum.

    Attributes
    ----------
    population : BoundPopulation
    objective : PopulationObjective
        The log-likelihood of every subject and its gradient.
    x : ndarray, shape (n_x,)
        Its maximum.
    value : float   [nats]
        -log-likelihood there.
    free : ndarray of int, shape (n_free,)
        Entries of x that are estimated and not on the boundary.
    information : ndarray, shape (n_free, n_free)
        Observed, positive definite.
    last_move : float
        Of the maximum when the nodes were placed anew, in standard errors (largest entry): what the choice of
        the nodes still matters.
    """

    population: BoundPopulation
    objective: PopulationObjective
    x: np.ndarray
    value: float
    free: np.ndarray
    information: np.ndarray
    last_move: float

    @property
    def covariance(self) -> np.ndarray:
        """Wald covariance of the free entries, shape (n_free, n_free)."""
        return np.linalg.inv(self.information)

    @property
    def se(self) -> np.ndarray:
        """Wald standard errors of the free entries, shape (n_free,)."""
        return np.sqrt(np.diagonal(self.covariance))


def near_optimum(
    fit: PopulationFit,
    dataset: Dataset,
    *,
    model: IndividualModel | str | None = None,
    seed: int = 0,
    n_points: int | None = None,
) -> NearOptimum:
    """Maximize the exact likelihood from the estimates of a fit and keep what is needed around them.

    Parameters
    ----------
    fit : PopulationFit
    dataset : Dataset
        The data of the fit.
    model : IndividualModel or str, optional
        Where the registry does not know the model of the fit.
    seed : int
    n_points : int, optional
        Nodes per subject; by default as `Amortized`.

    Returns
    -------
    NearOptimum

    Raises
    ------
    UsageError
        E_FIT_OTHER_DATASET.
    CapabilityError
        E_FIT_CAPABILITY; also for networks of covariates, whose estimates are penalized.
    FitError
        E_FIT_NOT_INFORMED when the fit failed, or the likelihood has no maximum with positive definite
        information nearby.
    """
    from threadpoolctl import threadpool_limits

    from amortnlme.methods.fit import problem_of

    known = fit.provenance.get("dataset_fingerprint", "")
    if fit.individuals.ids != dataset.ids or (known and known != dataset.fingerprint):
        raise UsageError(
            "E_FIT_OTHER_DATASET",
            f"the fit of {fit.population.name!r} was made from other records than dataset {dataset.name!r} "
            "holds. Pass the data of the fit.",
        )
    if fit.population.networks:
        raise CapabilityError(
            "E_FIT_CAPABILITY",
            f"population {fit.population.name!r} has networks of covariates: its estimates are penalized, "
            "and the likelihood alone would leave them. Compare fits to parts of the data instead.",
        )
    if fit.status is FitStatus.FAILED or not np.isfinite(fit.x).all():
        raise FitError(
            "E_FIT_NOT_INFORMED",
            f"the fit of {fit.population.name!r} failed, so that there are no estimates to start from. Its "
            "warnings say why.",
        )
    problem = problem_of(dataset, fit.population, model or fit.model_name, seed)
    with threadpool_limits(limits=1, user_api="blas"):
        return optimum_near(problem, fit.x, n_points)


def optimum_near(problem: FitProblem, x: np.ndarray, n_points: int | None = None) -> NearOptimum:
    """As `near_optimum`, for a problem that is set up already.

    Parameters
    ----------
    problem : FitProblem
        With a bound model.
    x : ndarray, shape (n_x,)
        Near the maximum; random effects of variance zero stay so.
    n_points : int, optional

    Returns
    -------
    NearOptimum

    Raises
    ------
    FitError
        E_FIT_NOT_INFORMED.
    """
    population, rng = problem.bound_population, stream(problem.seed)
    target: IndividualTarget | None = problem.bound_model
    assert target is not None
    if population.grouped is not None:
        target = GroupedTarget(target, population.grouped)
    n = population.n_subjects
    n_points = n_points or nodes_per_subject(n, NODE_BUDGET, 32, 256)
    base = base_numbers(n, n_points, population.r, rng, defensive=False)
    gone = population.chol_diagonal[x[population.chol_diagonal] == 0.0]
    free = np.setdiff1d(np.arange(population.n_x), gone)
    x, scale, start_u = np.array(x), np.ones(population.n_x), None
    rounds_left = ROUNDS
    while True:
        starts = starts_at_modes(target, *population.unpack(x), start_u, N_SEARCHES, rng)
        objective, u = guide_closely(target, population, x, starts, base, rng)
        start_u, rounds_left = u[:, 0], rounds_left - 1
        scores = objective.value_and_scores(x)[1][:, free]
        rough = scores.T @ scores + np.diag(1e-3 + 0.05 * (scores**2).sum(axis=0))
        found = minimize_whitened(objective, x, whitening(rough), free)
        scale[free] = rough_scale(rough)
        new = population.fold_signs(found.x)
        move, x = float(np.max(np.abs(new - x) / scale)), new
        if move < SETTLED or rounds_left == 0:
            break
    information = information_at(objective, x, scale, free)
    value = negative_value_and_gradient(objective, x)[0]
    if invert_information(information) is None or not np.isfinite(value):
        raise FitError(
            "E_FIT_NOT_INFORMED",
            f"the likelihood of {problem.population.name!r} has no maximum with positive definite "
            "information near these estimates, so that nothing can be said of their uncertainty. Simplify "
            "the population model, or look at the warnings of its fit.",
        )
    return NearOptimum(population, objective, x, value, free, information, move)
