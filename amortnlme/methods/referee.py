"""The referee: -2 log-likelihood of any fit, by an evaluation independent of how the fit was obtained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.ebe import EmpiricalBayes, IndividualTarget
from amortnlme.methods.importance import effective_sample_size, normalized_weights, pareto_smooth
from amortnlme.methods.local_mixture import (
    N_COMPONENTS,
    LocalMixture,
    choose,
    fit_mixture,
    freeze_mixture,
    mixture_at_modes,
)
from amortnlme.methods.log_sum import log_sum_exp
from amortnlme.methods.other_modes import other_modes
from amortnlme.methods.proposals import BaseNumbers, FrozenNodes, Proposal, base_numbers, freeze
from amortnlme.methods.some_subjects import SomeSubjects, modes_of

LOW_ESS_SHARE = 0.3
#: Searches per subject for a second mode.
N_SEARCHES = 4
#: Weights with a heavier tail than this have no reliable spread.
HEAVY_TAIL = 0.7
#: While the standard error exceeds AIM, the subjects that hold the share DOMINANT of its square, and those of
#: heavy tails, are evaluated again with GROWTH times the nodes and a finer mixture, at most MOST_ROUNDS
#: times. A round takes at most 1 / GROWTH of the subjects of the one before: it costs no more than the first.
AIM, DOMINANT, GROWTH, MOST_ROUNDS = 0.1, 0.9, 4, 2


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """Marginal likelihood of a population model at given parameters, with its Monte-Carlo error.

    Attributes
    ----------
    ofv : float
        -2 log-likelihood, constants included.
    ofv_se : float
        Monte-Carlo standard error of `ofv`, from every subject's own replicates. Subjects whose weights kept
        a heavy tail count with the change that their last evaluation brought, where it is larger.
    ofv_individual : ndarray, shape (n_subjects,)
    ess : ndarray, shape (n_subjects,)
        Effective number of nodes.
    pareto_k : ndarray, shape (n_subjects,)
    n_points : int
        Nodes per subject, all replicates together; subjects evaluated again have had more.
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
    estimate = _estimate(target, mu, factor, modes, rng, n_points, n_replicates)
    more = GROWTH
    for _ in range(MOST_ROUNDS):
        again = estimate.worst(max(1, len(mu) // more))
        if not len(again):
            break
        some = SomeSubjects(target, again, len(mu))
        found = _estimate(
            some, mu[again], factor, modes_of(modes, again), rng, more * n_points, n_replicates, GROWTH
        )
        estimate.replace(again, found)
        more *= GROWTH
    return estimate.verdict()


@dataclass(slots=True, eq=False)
class _Estimate:
    """Individual likelihoods, one row per subject; `log_mean` (n, n_replicates) holds the replicates.

    `change` (n,) is the difference the last evaluation made to -2 log L, 0 where there was only one.
    """

    log_mean: np.ndarray
    change: np.ndarray
    ess: np.ndarray
    pareto_k: np.ndarray
    mean_u: np.ndarray
    cov_u: np.ndarray
    n_nodes: int

    def individual(self) -> np.ndarray:
        return -2.0 * (log_sum_exp(self.log_mean, axis=1) - np.log(self.log_mean.shape[1]))

    def square(self) -> np.ndarray:
        """Square of the standard error of each -2 log L; 0 where no node has support."""
        individual, n_replicates = self.individual(), self.log_mean.shape[1]
        alive = np.isfinite(individual)
        # Delta method: -2 dZ_i / Z_i. Errors of different subjects are independent, and the replicates of
        # each tell more than those of the sum, whose variance would rest on a handful of numbers.
        relative = np.exp(self.log_mean + 0.5 * np.where(alive, individual, 0.0)[:, None])
        square = np.where(alive, 4.0 * relative.var(axis=1, ddof=1) / n_replicates, 0.0)
        return np.where(self.pareto_k > HEAVY_TAIL, np.maximum(square, self.change**2), square)

    def worst(self, most: int) -> np.ndarray:
        """Subjects to evaluate again, `most` at most; none where the total error is small enough."""
        square = self.square()
        heavy = (self.pareto_k > HEAVY_TAIL) & np.isfinite(self.individual())
        if square.sum() <= AIM**2 and not heavy.any():
            return np.array([], dtype=np.int64)
        order = np.argsort(-square, kind="stable")
        reached = np.cumsum(square[order]) - square[order]
        dominant = (reached < DOMINANT * square.sum()) & (square.sum() > AIM**2)
        return np.sort(order[dominant | heavy[order]][:most])

    def replace(self, subjects: np.ndarray, new: _Estimate) -> None:
        self.change[subjects] = new.individual() - self.individual()[subjects]
        for name in ("log_mean", "ess", "pareto_k", "mean_u", "cov_u"):
            getattr(self, name)[subjects] = getattr(new, name)

    def verdict(self) -> Verdict:
        individual = self.individual()
        return Verdict(
            ofv=float(individual.sum()),
            ofv_se=float(np.sqrt(self.square().sum())) if np.isfinite(individual).all() else np.nan,
            ofv_individual=individual,
            ess=self.ess,
            pareto_k=self.pareto_k,
            n_points=self.n_nodes,
            conditional_mean_u=self.mean_u,
            conditional_cov_u=self.cov_u,
        )


def _estimate(
    target: IndividualTarget,
    mu: np.ndarray,
    factor: np.ndarray,
    modes: EmpiricalBayes,
    rng: np.random.Generator,
    n_points: int,
    n_replicates: int,
    more: int = 1,
) -> _Estimate:
    """Individual likelihoods from fresh nodes; see `fitted_proposal` for `more`."""
    n_subjects, r = modes.u.shape
    proposal = fitted_proposal(target, mu, factor, modes, rng, n_points, more)
    log_weights, nodes = [], []
    for _ in range(n_replicates):
        frozen = proposal.nodes(base_numbers(n_subjects, n_points, r, rng))
        log_weights.append(_log_weights(target, mu, factor, frozen.u) + frozen.log_weight)
        nodes.append(frozen.u)
    stacked = np.stack(log_weights, axis=1)
    flat, u = stacked.reshape(n_subjects, -1), np.concatenate(nodes, axis=1)
    weights = normalized_weights(flat)
    mean_u = (weights[..., None] * u).sum(axis=1)
    centered = u - mean_u[:, None]
    return _Estimate(
        log_mean=log_sum_exp(stacked, axis=2) - np.log(stacked.shape[2]),
        change=np.zeros(n_subjects),
        ess=effective_sample_size(flat),
        pareto_k=pareto_smooth(flat)[1],
        mean_u=mean_u,
        cov_u=np.swapaxes(centered, 1, 2) @ (weights[..., None] * centered),
        n_nodes=flat.shape[1],
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
    more: int = 1,
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
    more : int
        Multiplies the components of the mixtures; above 1, all subjects are given one.

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
    poor |= more > 1
    if not (poor | has_two).any():
        return FittedProposal(proposal, None)
    at_modes = mixture_at_modes(modes, second, more * N_COMPONENTS)
    fitted = fit_mixture(target, mu, factor, at_modes, rng, n_points)
    return FittedProposal(proposal, choose(poor | has_two, fitted, at_modes))


def _log_weights(target: IndividualTarget, mu: np.ndarray, factor: np.ndarray, u: np.ndarray) -> np.ndarray:
    log_likelihood = target.log_likelihood(mu[:, None] + u @ factor.T)
    return np.where(np.isfinite(log_likelihood), log_likelihood, -np.inf)
