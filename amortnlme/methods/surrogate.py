"""Closed-form population likelihood from Gaussian mixtures fitted to individual posterior draws.

Symbols. Each subject's draws are refitted by G(phi) = sum_c a_c N(m_c, S_c) and divided by the Gaussian prior
N(m0, S0). Per component: Lam = inv(S_c) - inv(S0), eta = inv(S_c) m_c - inv(S0) m0 and log kappa. With
phi = mu + L u, u ~ N(0, I): Q = I + L' Lam L = C C', g = L'(eta - Lam mu), E[u] = inv(Q) g, and
log I = log kappa + eta'mu - mu'Lam mu / 2 - log|Q| / 2 + g' inv(Q) g / 2. Nothing inverts omega, so pooled
parameters (zero rows of L) and singular omega are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.core.errors import CapabilityError
from amortnlme.methods.log_sum import log_sum_exp
from amortnlme.methods.mixture import SubjectMixtures, fit_mixtures
from amortnlme.model.prior import AbstractPrior
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.posterior_draws import PosteriorDraws

LOG_2PI = float(np.log(2.0 * np.pi))
# A component as broad as the prior says nothing; its precision over the prior must stay non-negative.
MAX_WHITENED_VARIANCE = 0.999


@dataclass(frozen=True, slots=True, eq=False)
class Surrogate:
    """Mixture approximation of p(y_i | phi) for every subject, up to a constant per subject.

    Attributes
    ----------
    log_kappa : ndarray, shape (n_subjects, n_components)
    eta : ndarray, shape (n_subjects, n_components, d)
    lam : ndarray, shape (n_subjects, n_components, d, d)
    n_clipped : int
        Number of directions in which a component was broader than the prior and was clipped.
    """

    log_kappa: np.ndarray
    eta: np.ndarray
    lam: np.ndarray
    n_clipped: int

    @property
    def n_subjects(self) -> int:
        """Number of subjects."""
        return self.log_kappa.shape[0]

    def value_and_scores(
        self, mu: np.ndarray, factor: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log marginal likelihood of each subject with its derivatives.

        Parameters
        ----------
        mu : ndarray, shape (n_subjects, d)
        factor : ndarray, shape (d, r)
            L, with omega = L L'.

        Returns
        -------
        value : ndarray, shape (n_subjects,)   [nats]
        dmu : ndarray, shape (n_subjects, d)
        dfactor : ndarray, shape (n_subjects, d, r)

        Notes
        -----
        d log I_c / d mu = r_c - Lam L E[u];  d log I_c / d L = r_c E[u]' - Lam L E[uu'],  r_c = eta - Lam mu.
        """
        value, mean_u, cov_u, residual, lam_factor = self._components(mu, factor)
        total = log_sum_exp(value, axis=1)
        share = np.exp(value - total[:, None])
        second = cov_u + mean_u[..., :, None] * mean_u[..., None, :]
        dmu = residual - (lam_factor @ mean_u[..., None])[..., 0]
        dfactor = residual[..., :, None] * mean_u[..., None, :] - lam_factor @ second
        return total, (share[..., None] * dmu).sum(axis=1), (share[..., None, None] * dfactor).sum(axis=1)

    def conditional(self, mu: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Law of u given the data of each subject: a mixture of normals.

        Parameters
        ----------
        mu : ndarray, shape (n_subjects, d)
        factor : ndarray, shape (d, r)

        Returns
        -------
        share : ndarray, shape (n_subjects, n_components)
        mean : ndarray, shape (n_subjects, n_components, r)
        covariance : ndarray, shape (n_subjects, n_components, r, r)
        """
        value, mean_u, cov_u, _, _ = self._components(mu, factor)
        return np.exp(value - log_sum_exp(value, axis=1)[:, None]), mean_u, cov_u

    def information(self, mu: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient of the log marginal likelihood by mu, and a positive semi-definite curvature.

        Parameters
        ----------
        mu : ndarray, shape (n_subjects, d)
        factor : ndarray, shape (d, r)

        Returns
        -------
        gradient : ndarray, shape (n_subjects, d)
        curvature : ndarray, shape (n_subjects, d, d)
            Mean over the components of minus their second derivatives, Lam - Lam L inv(Q) L' Lam.
        """
        value, mean_u, cov_u, residual, lam_factor = self._components(mu, factor)
        share = np.exp(value - log_sum_exp(value, axis=1)[:, None])
        gradient = residual - (lam_factor @ mean_u[..., None])[..., 0]
        curvature = self.lam - lam_factor @ cov_u @ np.swapaxes(lam_factor, -1, -2)
        return (share[..., None] * gradient).sum(axis=1), (share[..., None, None] * curvature).sum(axis=1)

    def likely_effects(self, mu: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """Most likely random effects, to start a search for the conditional modes from.

        Parameters
        ----------
        mu : ndarray, shape (n_subjects, d)
        factor : ndarray, shape (d, r)

        Returns
        -------
        ndarray, shape (n_subjects, r)
            Of the component with the largest share: a mean over components may lie between two modes.
        """
        share, mean, _ = self.conditional(mu, factor)
        return np.take_along_axis(mean, share.argmax(axis=1)[:, None, None], axis=1)[:, 0]

    def _components(self, mu: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, ...]:
        lam_mu = (self.lam @ mu[:, None, :, None])[..., 0]
        residual = self.eta - lam_mu
        lam_factor = self.lam @ factor
        precision = np.eye(factor.shape[1]) + factor.T @ lam_factor
        cov_u = np.linalg.inv(precision)
        g = residual @ factor
        mean_u = (cov_u @ g[..., None])[..., 0]
        log_det = np.linalg.slogdet(precision)[1]
        value = self.log_kappa + 0.5 * ((self.eta + residual) * mu[:, None]).sum(axis=-1)
        value += 0.5 * (g * mean_u).sum(axis=-1) - 0.5 * log_det
        return value, mean_u, cov_u, residual, lam_factor


def gaussian_prior_moments(prior: AbstractPrior) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of a normal prior on phi.

    Parameters
    ----------
    prior : AbstractPrior

    Returns
    -------
    mean : ndarray, shape (d,)
    covariance : ndarray, shape (d, d)

    Raises
    ------
    CapabilityError
        E_POP_PRIOR_NOT_NORMAL.
    """
    mean = getattr(prior, "mean", None)
    sd = getattr(prior, "sd", None)
    covariance = getattr(prior, "covariance", None)
    if mean is None or (sd is None and covariance is None):
        raise CapabilityError(
            "E_POP_PRIOR_NOT_NORMAL",
            f"the draws were made under a {type(prior).__name__}; the amortized population fit divides by a "
            f"normal "
            f"prior on phi. Train the estimator under a NormalPrior.",
        )
    full = np.diag(np.asarray(sd, dtype=np.float64) ** 2) if covariance is None else np.asarray(covariance)
    return np.asarray(mean, dtype=np.float64), full


def build_surrogate(draws: PosteriorDraws, n_components: int, rng: np.random.Generator) -> Surrogate:
    """Refit the draws of every subject by a Gaussian mixture and divide by the prior.

    Parameters
    ----------
    draws : PosteriorDraws
    n_components : int
        1 (debiased moments) or more (expectation-maximization).
    rng : numpy.random.Generator

    Returns
    -------
    Surrogate

    Raises
    ------
    CapabilityError
        E_POP_PRIOR_NOT_NORMAL.
    """
    mixtures = fit_mixtures(draws.phi, n_components, rng)
    mean, covariance = gaussian_prior_moments(draws.prior)
    return divide_by_prior(mixtures, mean, covariance)


def divide_by_prior(
    mixtures: SubjectMixtures, prior_mean: np.ndarray, prior_covariance: np.ndarray
) -> Surrogate:
    """Turn fitted mixtures into G / prior in natural form.

    Parameters
    ----------
    mixtures : SubjectMixtures
    prior_mean : ndarray, shape (d,)
    prior_covariance : ndarray, shape (d, d)

    Returns
    -------
    Surrogate
    """
    root = np.linalg.cholesky(prior_covariance)
    # Whiten by the prior: there its covariance is I, and "broader than the prior" is an eigenvalue above one.
    mean = np.linalg.solve(root, (mixtures.mean - prior_mean)[..., None])[..., 0]
    inverse_root = np.linalg.inv(root)
    white = inverse_root @ mixtures.covariance @ inverse_root.T
    eigenvalues, vectors = np.linalg.eigh(0.5 * (white + np.swapaxes(white, -1, -2)))
    n_clipped = int((eigenvalues > MAX_WHITENED_VARIANCE).sum())
    eigenvalues = np.clip(eigenvalues, 1e-14, MAX_WHITENED_VARIANCE)
    precision = (vectors / eigenvalues[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    linear = (precision @ mean[..., None])[..., 0]
    d = len(prior_mean)
    log_kappa = (
        np.log(mixtures.weight) - 0.5 * np.log(eigenvalues).sum(axis=-1) - 0.5 * (linear * mean).sum(axis=-1)
    )
    # Back to phi = m0 + root z:  z'eta_z - z'(P - I)z/2  with z = inverse_root (phi - m0).
    lam_white = precision - np.eye(d)
    lam = inverse_root.T @ lam_white @ inverse_root
    lam = 0.5 * (lam + np.swapaxes(lam, -1, -2))
    eta_centered = linear @ inverse_root
    lam_m0 = lam @ prior_mean
    eta = eta_centered + lam_m0
    log_kappa = log_kappa - eta_centered @ prior_mean - 0.5 * lam_m0 @ prior_mean
    return Surrogate(log_kappa, eta, lam, n_clipped)


@dataclass(frozen=True, slots=True, eq=False)
class SurrogateLikelihood:
    """The surrogate as a function of packed population parameters.

    Attributes
    ----------
    surrogate : Surrogate
    population : BoundPopulation
    """

    surrogate: Surrogate
    population: BoundPopulation

    def value_and_scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log marginal likelihood of every subject, up to a constant, and its gradient.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        value : ndarray, shape (n_subjects,)   [nats]
        scores : ndarray, shape (n_subjects, n_x)
        """
        mu, factor = self.population.unpack(x)
        value, dmu, dfactor = self.surrogate.value_and_scores(mu, factor)
        return value, self.population.pullback(dmu, dfactor, x)
