"""Draws, surrogate and likelihood of a model whose parameters are spelled out by groups of subjects.

A subject has one parameter of every group family: the others carry no information, so that their precision in
the surrogate and their gradient in the likelihood are zero, and their random effects keep their prior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from amortnlme.methods.ebe import IndividualTarget
from amortnlme.methods.surrogate import Surrogate, gaussian_prior_moments
from amortnlme.model.prior import NormalPrior
from amortnlme.population.groups import GroupedSpace
from amortnlme.population.posterior_draws import PosteriorDraws


@dataclass(frozen=True, slots=True, eq=False)
class GroupedTarget:
    """The likelihood of a model as a function of parameters spelled out by groups.

    Attributes
    ----------
    target : IndividualTarget
        Of the model as it is, d parameters.
    space : GroupedSpace
    """

    target: IndividualTarget
    space: GroupedSpace

    def log_likelihood(self, phi: np.ndarray) -> np.ndarray:
        """Log-likelihood at phi (n_subjects, n_points, d'), shape (n_subjects, n_points)."""
        return self.target.log_likelihood(gather(phi, self.space))

    def log_likelihood_and_gradient(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood and its gradient of shape (n_subjects, n_points, d')."""
        value, gradient = self.target.log_likelihood_and_gradient(gather(phi, self.space))
        return value, self._scatter(gradient)

    def gauss_newton(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-likelihood, gradient and information at phi (n_subjects, d')."""
        value, gradient, information = self.target.gauss_newton(gather(phi[:, None], self.space)[:, 0])
        return (
            value,
            self._scatter(gradient[:, None])[:, 0],
            scatter_square(information[:, None], self.space)[:, 0],
        )

    def _scatter(self, gradient: np.ndarray) -> np.ndarray:
        wide = np.zeros((*gradient.shape[:2], self.space.parameters.d))
        np.put_along_axis(wide, self.space.columns[:, None], gradient, axis=2)
        return wide


def gather(phi: np.ndarray, space: GroupedSpace) -> np.ndarray:
    """Parameters that each subject uses.

    Parameters
    ----------
    phi : ndarray, shape (n_subjects, n_points, d')
    space : GroupedSpace

    Returns
    -------
    ndarray, shape (n_subjects, n_points, d)
    """
    return np.take_along_axis(phi, space.columns[:, None], axis=2)


def scatter_square(square: np.ndarray, space: GroupedSpace) -> np.ndarray:
    """Put matrices over the parameters each subject uses among zeros for those it does not.

    Parameters
    ----------
    square : ndarray, shape (n_subjects, K, d, d)
    space : GroupedSpace

    Returns
    -------
    ndarray, shape (n_subjects, K, d', d')
    """
    n, K = square.shape[:2]
    wide = np.zeros((n, K, space.parameters.d, space.parameters.d))
    subject = np.arange(n)[:, None, None, None]
    component = np.arange(K)[None, :, None, None]
    columns = space.columns
    wide[subject, component, columns[:, None, :, None], columns[:, None, None, :]] = square
    return wide


def grouped_surrogate(surrogate: Surrogate, space: GroupedSpace) -> Surrogate:
    """Turn a surrogate over the parameters of the model into one over those spelled out by groups.

    Parameters
    ----------
    surrogate : Surrogate
    space : GroupedSpace

    Returns
    -------
    Surrogate
    """
    eta = np.zeros((*surrogate.eta.shape[:2], space.parameters.d))
    np.put_along_axis(eta, space.columns[:, None], surrogate.eta, axis=2)
    return replace(surrogate, eta=eta, lam=scatter_square(surrogate.lam, space))


def grouped_draws(draws: PosteriorDraws, space: GroupedSpace, rng: np.random.Generator) -> PosteriorDraws:
    """Draws over parameters spelled out by groups, for starting values, bounds and scales only.

    Parameters
    ----------
    draws : PosteriorDraws
    space : GroupedSpace
    rng : numpy.random.Generator

    Returns
    -------
    PosteriorDraws
        Parameters a subject does not have are filled with the draws of a random subject of the group.
    """
    present = space.present
    phi = draws.phi[:, :, space.source].copy()
    for p in np.flatnonzero(~present.all(axis=0)):
        donors, needy = np.flatnonzero(present[:, p]), np.flatnonzero(~present[:, p])
        phi[needy, :, p] = draws.phi[rng.choice(donors, len(needy)), :, space.source[p]]
    mean, covariance = gaussian_prior_moments(draws.prior)
    wide = covariance[np.ix_(space.source, space.source)].copy()
    # Copies of one parameter are independent a priori, as are a copy and what its source depends on.
    extra = np.arange(len(mean), len(space.source))
    wide[extra], wide[:, extra] = 0.0, 0.0
    wide[extra, extra] = np.diagonal(covariance)[space.source[extra]]
    prior = NormalPrior(mean[space.source], covariance=wide)
    return replace(
        draws,
        phi=phi,
        log_prior=prior.log_prob(phi.reshape(-1, prior.d)).reshape(phi.shape[:2]),
        parameters=space.parameters,
        prior=prior,
    )
