"""Starting values of population parameters from the data alone, for methods that have no posterior draws."""

from __future__ import annotations

import numpy as np

from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.laplace_likelihood import ExpandableTarget, LaplaceLikelihood
from amortnlme.methods.surrogate import gaussian_prior_moments
from amortnlme.model.prior import AbstractPrior
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.starts import moments_to_start, with_weights

#: The typical values of the model are taken as start where they fit better by this much in log-likelihood:
#: individual fits then lie in another basin (flip-flop kinetics, say), which a wide prior lets them.
OTHER_BASIN = 50.0
#: Largest starting SD around them, for parameters on a logarithmic or logistic scale.
LARGEST_SD = 0.5


def individual_moments(
    target: ExpandableTarget, prior: AbstractPrior, n_subjects: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian approximation of every subject's posterior under the model's own prior.

    Parameters
    ----------
    target : ExpandableTarget
    prior : AbstractPrior
        Of the individual model, on phi; replaced by the normal with its moments.
    n_subjects : int

    Returns
    -------
    mean : ndarray, shape (n_subjects, d)
        Posterior modes.
    covariance : ndarray, shape (n_subjects, d, d)
        Inverse Gauss-Newton curvature at the modes.
    """
    mean, covariance = gaussian_prior_moments(prior)
    root = np.linalg.cholesky(covariance)
    modes = find_ebe(target, np.tile(mean, (n_subjects, 1)), root, max_iterations=30, tolerance=1e-2)
    return modes.phi, root @ np.linalg.inv(modes.precision) @ root.T


def data_starts(
    target: ExpandableTarget,
    prior: AbstractPrior,
    population: BoundPopulation,
    n_starts: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Several starting points around the moments of individual fits.

    Parameters
    ----------
    target : ExpandableTarget
    prior : AbstractPrior
    population : BoundPopulation
    n_starts : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n_starts, n_x)
        The first row comes from the moments themselves, or from the typical values of the model file where
        these fit far better; the others are spread around it.
    """
    mean, covariance = individual_moments(target, prior, population.n_subjects)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    moments = with_weights(population, moments_to_start(population, mean, variance), mean, rng)
    center = _better(target, population, moments)
    starts = np.tile(center, (n_starts, 1))
    if population.networks:
        # Networks from other weights are starts enough: typical values and their weights belong together.
        for k in range(1, n_starts):
            starts[k] = with_weights(population, center, mean, rng)
        return starts
    spread = mean.std(axis=0) + np.sqrt(np.median(variance, axis=0))
    noise = rng.standard_normal((n_starts - 1, population.n_x))
    theta, beta, diagonal = population.theta_slice, population.beta_slice, population.chol_diagonal
    starts[1:, theta] += spread[population.theta_index] * noise[:, theta]
    starts[1:, beta] += 0.5 * noise[:, beta]
    starts[1:, diagonal] *= np.exp(0.6 * noise[:, diagonal])
    return starts


def _better(target: ExpandableTarget, population: BoundPopulation, moments: np.ndarray) -> np.ndarray:
    """Choose between the moments of individual fits and the typical values of the model file."""
    space, diagonal = population.parameters, population.chol_diagonal
    is_bounded = np.array([space.parameters[p].transform != "identity" for p in population.random_index])
    typical = np.zeros(population.n_x)
    typical[population.weight_slice] = moments[population.weight_slice]
    typical[population.theta_slice] = space.typical_phi[population.theta_index]
    typical[diagonal] = np.where(is_bounded, np.minimum(moments[diagonal], LARGEST_SD), moments[diagonal])
    values = [LaplaceLikelihood(target, population).value_and_scores(x)[0].sum() for x in (moments, typical)]
    at_moments, at_typical = (value if np.isfinite(value) else -np.inf for value in values)
    return typical if at_typical > at_moments + OTHER_BASIN else moments
