"""Metropolis-Hastings kernels that move the random effects of all subjects and chains at once.

Target for subject i: p(eta | y_i) proportional to p(y_i | mu_i + eta) N(eta; 0, omega). Kernels: (1) eta from
N(0, omega), which can jump between modes; (2) eta from a mixture of t-distributions with the local curvature:
at the subject's mode (the proposal of f-SAEM, Karimi, Lavielle & Moulines 2020) and at points its chains
passed, so that bent and many-peaked laws are covered too; (3) random walks shaped by the curvature whose step
adapts to an acceptance of 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.ebe import IndividualTarget
from amortnlme.solve.mixture_density import log_t_mixture

LOG_2PI = float(np.log(2.0 * np.pi))
#: Share of the population distribution in the proposal of `mode_kernel`.
PRIOR_SHARE = 0.2
TARGET_ACCEPTANCE = 0.3
ADAPTATION = 0.4
DEGREES_OF_FREEDOM = 5


@dataclass(frozen=True, slots=True, eq=False)
class Chains:
    """State of the chains.

    Attributes
    ----------
    eta : ndarray, shape (n, C, r)
    log_likelihood : ndarray, shape (n, C)   [nats]
        log p(y_i | mu_i + eta).
    log_step : ndarray, shape (n,)
        Logarithm of the step of the random walk, relative to the conditional SD.
    """

    eta: np.ndarray
    log_likelihood: np.ndarray
    log_step: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """Where each subject's random effects are believed to be: K equally likely places.

    Attributes
    ----------
    mode : ndarray, shape (n, K, r)
    root : ndarray, shape (n, K, r, r)
        Lower triangular; root root' is the covariance around the place.
    """

    mode: np.ndarray
    root: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class ConditionalLaw:
    """The law the chains follow, for the current population parameters.

    Attributes
    ----------
    target : IndividualTarget
    mu : ndarray, shape (n, d)
    index : ndarray of int, shape (r,)
        Columns of phi that carry random effects.
    omega_root : ndarray, shape (r, r)
        Lower triangular factor of omega.
    whitening : ndarray, shape (r, r)
        Its inverse.
    """

    target: IndividualTarget
    mu: np.ndarray
    index: np.ndarray
    omega_root: np.ndarray
    whitening: np.ndarray

    def phi(self, eta: np.ndarray) -> np.ndarray:
        """Individual parameters mu + eta.

        Parameters
        ----------
        eta : ndarray, shape (n, C, r)

        Returns
        -------
        ndarray, shape (n, C, d)
        """
        phi = np.repeat(self.mu[:, None], eta.shape[1], axis=1)
        phi[:, :, self.index] += eta
        return phi

    def log_likelihood(self, eta: np.ndarray) -> np.ndarray:
        """Log-likelihood given the random effects, -inf where the model cannot be solved.

        Parameters
        ----------
        eta : ndarray, shape (n, C, r)

        Returns
        -------
        ndarray, shape (n, C)   [nats]
        """
        value = self.target.log_likelihood(self.phi(eta))
        return np.where(np.isfinite(value), value, -np.inf)

    def log_prior(self, eta: np.ndarray) -> np.ndarray:
        """-eta' omega^-1 eta / 2.

        Parameters
        ----------
        eta : ndarray, shape (n, C, r)

        Returns
        -------
        ndarray, shape (n, C)
        """
        return -0.5 * ((eta @ self.whitening.T) ** 2).sum(axis=2)


def prior_kernel(law: ConditionalLaw, chains: Chains, rng: np.random.Generator) -> Chains:
    """Propose from the population distribution.

    Parameters
    ----------
    law : ConditionalLaw
    chains : Chains
    rng : numpy.random.Generator

    Returns
    -------
    Chains
    """
    proposed = rng.standard_normal(chains.eta.shape) @ law.omega_root.T
    value = law.log_likelihood(proposed)
    with np.errstate(invalid="ignore"):  # NaN where the model fails at both ends: no step to take
        log_ratio = value - chains.log_likelihood
    return _accept(chains, proposed, value, log_ratio, rng)[0]


def mode_kernel(law: ConditionalLaw, chains: Chains, proposal: Proposal, rng: np.random.Generator) -> Chains:
    """Propose from t-distributions around several places, mixed with the population distribution.

    Without its last part a chain far from the mode would never be let go: the density of the proposal
    vanishes there faster than that of the target.

    Parameters
    ----------
    law : ConditionalLaw
    chains : Chains
    proposal : Proposal
    rng : numpy.random.Generator

    Returns
    -------
    Chains
    """
    n, C, r = chains.eta.shape
    stretch = np.sqrt(DEGREES_OF_FREEDOM / rng.chisquare(DEGREES_OF_FREEDOM, size=(n, C, 1)))
    white = rng.standard_normal((n, C, r))
    place = rng.integers(proposal.mode.shape[1], size=(n, C))
    subject = np.arange(n)[:, None]
    roots = proposal.root[subject, place]
    near = proposal.mode[subject, place] + (roots @ (white * stretch)[..., None])[..., 0]
    is_far = rng.random((n, C, 1)) < PRIOR_SHARE
    proposed = np.where(is_far, white @ law.omega_root.T, near)
    value = law.log_likelihood(proposed)
    with np.errstate(invalid="ignore"):  # NaN where the model fails at both ends: no step to take
        log_ratio = value + law.log_prior(proposed) - chains.log_likelihood - law.log_prior(chains.eta)
    density = _log_mixture(law, proposal, np.concatenate([chains.eta, proposed], axis=1))
    log_ratio += density[:, :C] - density[:, C:]
    return _accept(chains, proposed, value, log_ratio, rng)[0]


def _log_mixture(law: ConditionalLaw, proposal: Proposal, eta: np.ndarray) -> np.ndarray:
    """Log density of the proposal of `mode_kernel`."""
    log_near = log_t_mixture(eta, proposal.mode, proposal.root, DEGREES_OF_FREEDOM)
    log_far = law.log_prior(eta) - 0.5 * eta.shape[2] * LOG_2PI - np.log(np.diagonal(law.omega_root)).sum()
    return np.logaddexp(np.log1p(-PRIOR_SHARE) + log_near, np.log(PRIOR_SHARE) + log_far)


def walk_kernel(law: ConditionalLaw, chains: Chains, proposal: Proposal, rng: np.random.Generator) -> Chains:
    """Take a random-walk step shaped by the conditional covariance, and adapt its length.

    Parameters
    ----------
    law : ConditionalLaw
    chains : Chains
    proposal : Proposal
    rng : numpy.random.Generator

    Returns
    -------
    Chains
    """
    n, C, _ = chains.eta.shape
    white = rng.standard_normal(chains.eta.shape) * np.exp(chains.log_step)[:, None, None]
    roots = proposal.root[np.arange(n)[:, None], rng.integers(proposal.mode.shape[1], size=(n, C))]
    proposed = chains.eta + (roots @ white[..., None])[..., 0]
    value = law.log_likelihood(proposed)
    with np.errstate(invalid="ignore"):  # NaN where the model fails at both ends: no step to take
        log_ratio = value + law.log_prior(proposed) - chains.log_likelihood - law.log_prior(chains.eta)
    moved, rate = _accept(chains, proposed, value, log_ratio, rng)
    log_step = chains.log_step + ADAPTATION * (rate - TARGET_ACCEPTANCE)
    return Chains(moved.eta, moved.log_likelihood, np.clip(log_step, -6.0, 3.0))


def _accept(
    chains: Chains,
    proposed: np.ndarray,
    value: np.ndarray,
    log_ratio: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Chains, np.ndarray]:
    """Accept with probability min(1, exp(log_ratio)); the second value is the rate per subject."""
    with np.errstate(invalid="ignore"):
        yes = np.log(rng.random(value.shape)) < log_ratio
    # A chain that starts where the model fails takes the first point at which it does not.
    yes |= ~np.isfinite(chains.log_likelihood) & np.isfinite(value)
    yes &= np.isfinite(value)
    eta = np.where(yes[..., None], proposed, chains.eta)
    moved = Chains(eta, np.where(yes, value, chains.log_likelihood), chains.log_step)
    return moved, yes.mean(axis=1)
