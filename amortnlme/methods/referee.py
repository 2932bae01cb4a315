"""The referee: -2 log-likelihood of any fit, by an evaluation independent of how the fit was obtained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.ebe import EmpiricalBayes, IndividualTarget
from amortnlme.methods.importance import effective_sample_size, pareto_smooth
from amortnlme.methods.local_mixture import (
    LocalMixture,
    choose,
    fit_mixture,
    freeze_mixture,
    mixture_at_modes,
)
from amortnlme.methods.other_modes import other_modes
from amortnlme.methods.proposals import BaseNumbers, FrozenNodes, Proposal, base_numbers, freeze

LOW_ESS_SHARE = 0.3
#: Searches per subject for a second mode.
N_SEARCHES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """Marginal likelihood of a population model at given parameters, with its Monte-Carlo error.

    Attributes
    ----------
    ofv : float
        -2 log-likelihood, constants included.
    ofv_se : float
        Monte-Carlo standard error of `ofv`.
    ofv_individual : ndarray, shape (n_subjects,)
    ess : ndarray, shape (n_subjects,)
        Effective number of nodes, out of `n_points`.
    pareto_k : ndarray, shape (n_subjects,)
    n_points : int
        Nodes per subject, all replicates together.
    conditional_mean_u : ndarray, shape (n_subjects, r)
    conditional_cov_u : ndarray, shape (n_subjects, r, r)
    """

    ofv: float
    ofv_se: float
    ofv_individual: np.ndarray
    ess: np.ndarray
    pareto_k: np.ndarray
    n_points: int
    conditional_mean_u: np.ndarray
    conditional_cov_u: np.ndarray


def referee(
    target: IndividualTarget,
    mu: np.ndarray,
    factor: np.ndarray,
    modes: EmpiricalBayes,
    rng: np.random.Generator,
    n_points: int = 512,
    n_replicates: int = 8,
) -> Verdict:
    """Evaluate -2 log-likelihood by importance sampling with fresh random numbers.

    Parameters
    ----------
    target : IndividualTarget
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)
        L, with omega = L L'.
    modes : EmpiricalBayes
        Conditional modes at (mu, L).
    rng : numpy.random.Generator
        Must not be the stream that produced the fit.
    n_points : int
        Fitted nodes per subject and replicate.
    n_replicates : int
        Independent randomizations; their spread gives the Monte-Carlo error, which single quasi-random sets
        lack.

    Returns
    -------
    Verdict
    """
    n_subjects, r = modes.u.shape
    proposal = fitted_proposal(target, mu, factor, modes, rng, n_points)
    log_weights, nodes = [], []
    for _ in range(n_replicates):
        frozen = proposal.nodes(base_numbers(n_subjects, n_points, r, rng))
        log_weights.append(_log_weights(target, mu, factor, frozen.u) + frozen.log_weight)
        nodes.append(frozen.u)
    stacked = np.stack(log_weights, axis=1)
    top = stacked.max(axis=(1, 2), keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    replicate_mean = np.exp(stacked - top).mean(axis=2)
    mean = replicate_mean.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        individual = -2.0 * (top[:, 0, 0] + np.log(mean))
        # Delta method over replicates: d(-2 sum_i log Z_i) = -2 sum_i dZ_i / Z_i.
        relative = (replicate_mean / mean[:, None]).sum(axis=0)
    flat = stacked.reshape(n_subjects, -1)
    weights = np.exp(flat - top[:, :, 0])
    weights /= np.where(mean > 0, weights.sum(axis=1), 1.0)[:, None]
    u = np.concatenate(nodes, axis=1)
    mean_u = (weights[..., None] * u).sum(axis=1)
    centered = u - mean_u[:, None]
    return Verdict(
        ofv=float(individual.sum()),
        ofv_se=float(2.0 * relative.std(ddof=1) / np.sqrt(n_replicates)),
        ofv_individual=individual,
        ess=effective_sample_size(flat),
        pareto_k=pareto_smooth(flat)[1],
        n_points=flat.shape[1],
        conditional_mean_u=mean_u,
        conditional_cov_u=np.swapaxes(centered, 1, 2) @ (weights[..., None] * centered),
    )


@dataclass(frozen=True, slots=True, eq=False)
class FittedProposal:
    """Where to sample every subject's random effects: at the mode, or from a mixture where one is not enough.

    Attributes
    ----------
    at_mode : Proposal
    mixture : LocalMixture or None
        Of all subjects; where the mode suffices its components are the same.
    """

    at_mode: Proposal
    mixture: LocalMixture | None

    def nodes(self, base: BaseNumbers) -> FrozenNodes:
        """Place nodes.

        Parameters
        ----------
        base : BaseNumbers

        Returns
        -------
        FrozenNodes
        """
        return freeze(self.at_mode, base) if self.mixture is None else freeze_mixture(self.mixture, base)


def fitted_proposal(
    target: IndividualTarget,
    mu: np.ndarray,
    factor: np.ndarray,
    modes: EmpiricalBayes,
    rng: np.random.Generator,
    n_points: int,
) -> FittedProposal:
    """Proposal at the conditional modes, a mixture where the curvature there misleads or there are two modes.

    Parameters
    ----------
    target : IndividualTarget
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)
    modes : EmpiricalBayes
        Conditional modes at (mu, L).
    rng : numpy.random.Generator
    n_points : int
        Pilot nodes per subject; they are thrown away.

    Returns
    -------
    FittedProposal
    """
    n_subjects, r = modes.u.shape
    proposal = Proposal(modes.u, np.linalg.inv(modes.precision))
    pilot = freeze(proposal, base_numbers(n_subjects, n_points, r, rng))
    pilot_weights = _log_weights(target, mu, factor, pilot.u) + pilot.log_weight
    poor = effective_sample_size(pilot_weights) < LOW_ESS_SHARE * pilot_weights.shape[1]
    # The effective number of nodes cannot tell that a mode was missed.
    second, has_two = other_modes(target, mu, factor, modes, N_SEARCHES, rng)
    if not (poor | has_two).any():
        return FittedProposal(proposal, None)
    at_modes = mixture_at_modes(modes, second)
    fitted = fit_mixture(target, mu, factor, at_modes, rng, n_points)
    return FittedProposal(proposal, choose(poor | has_two, fitted, at_modes))


def _log_weights(target: IndividualTarget, mu: np.ndarray, factor: np.ndarray, u: np.ndarray) -> np.ndarray:
    log_likelihood = target.log_likelihood(mu[:, None] + u @ factor.T)
    return np.where(np.isfinite(log_likelihood), log_likelihood, -np.inf)
