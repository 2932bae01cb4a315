"""Quadratic guides of conditional laws, which nodes of importance sampling follow (`guided_likelihood`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from amortnlme.methods.ebe import IndividualTarget, find_ebe
from amortnlme.methods.importance import effective_sample_size, normalized_weights
from amortnlme.methods.local_mixture import LocalMixture, fit_mixture, freeze_mixture
from amortnlme.methods.partition import Partition
from amortnlme.methods.proposals import LOG_2PI, base_numbers
from amortnlme.methods.some_subjects import SomeSubjects

#: A subject is guided poorly where a smaller share of nodes is effective, or where this much more of its law
#: lies where the population distribution prevails over the guides than the guides would have there.
LOW_ESS_SHARE, OUTSIDE = 0.3, 0.02
#: Nodes per subject to find that out, and per round of the search for a mixture.
PILOT_NODES = 256
#: Guides per subject where one at each mode does not do, a power of two, as blocks of a Sobol sequence are.
N_GUIDES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Guide:
    """Quadratic approximations of every subject's log-likelihood.

    Attributes
    ----------
    eta : ndarray, shape (n_subjects, K, d)
    curvature : ndarray, shape (n_subjects, K, d, d)
        Symmetric, positive semi-definite: the Gauss-Newton information at the mode.
    partition : Partition or None
        How the K approximations share the space; None where K is one.
    tether : ndarray or None, shape (n_subjects, K, r, r)
        Precision in u added to a guide, where one must not reach far; None: nowhere.
    pull : ndarray or None, shape (n_subjects, K, r)
        What that and bounded steps add to precision times mean.
    """

    eta: np.ndarray
    curvature: np.ndarray
    partition: Partition | None
    tether: np.ndarray | None = None
    pull: np.ndarray | None = None

    @property
    def n_components(self) -> int:
        """K, the approximations per subject."""
        return self.eta.shape[1]

    @property
    def is_refined(self) -> bool:
        """Whether some subjects have a mixture of expansions away from their modes."""
        return self.tether is not None


def place_guide(
    target: IndividualTarget,
    mu: np.ndarray,
    factor: np.ndarray,
    start_u: np.ndarray | None,
    tolerance: float = 1e-6,
) -> tuple[Guide, np.ndarray]:
    """Expand every subject's log-likelihood around its conditional modes.

    Parameters
    ----------
    target : IndividualTarget
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)
    start_u : ndarray or None, shape (n_subjects, K, r)
        Where to start the searches for the modes, one search for each of K; None: one, at the typical
        subject. Searches of a subject may end in the same mode.
    tolerance : float
        Of the modes, in conditional SDs: any point nearby makes a guide.

    Returns
    -------
    guide : Guide
    u : ndarray, shape (n_subjects, K, r)
        The modes, to start the next searches from.
    """
    n, r = len(mu), factor.shape[1]
    starts = np.zeros((n, 1, r)) if start_u is None else start_u
    eta, curvature, u = [], [], []
    for k in range(starts.shape[1]):
        modes = find_ebe(target, mu, factor, start=starts[:, k], tolerance=tolerance)
        _, gradient, information = target.gauss_newton(modes.phi)
        information, gradient = np.nan_to_num(information), np.nan_to_num(gradient)
        eta.append(gradient + (information @ modes.phi[..., None])[..., 0])
        curvature.append(information)
        u.append(modes.u)
    guide = _divided(Guide(np.stack(eta, axis=1), np.stack(curvature, axis=1), None), mu, factor)
    return guide, np.stack(u, axis=1)


def poorly_guided(
    target: IndividualTarget, mu: np.ndarray, factor: np.ndarray, guide: Guide, rng: np.random.Generator
) -> np.ndarray:
    """Find the subjects whose conditional law does not look like their guides.

    Parameters
    ----------
    target : IndividualTarget
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)
        Where `guide` was placed.
    guide : Guide
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int

    Notes
    -----
    The effective number of nodes shows what is too narrow where nodes are. It is blind to a law that has a
    sharp mode and besides hardly falls towards some side; nodes from the population distribution see that.
    """
    mixture = _mixture(guide, mu, factor)
    n, _, r = mixture.mean.shape
    base = base_numbers(n, PILOT_NODES, r, rng)
    nodes = freeze_mixture(mixture, base)
    log_likelihood = target.log_likelihood(mu[:, None] + nodes.u @ factor.T)
    log_weights = np.where(np.isfinite(log_likelihood), log_likelihood, -np.inf) + nodes.log_weight
    few = effective_sample_size(log_weights) < LOW_ESS_SHARE * base.n_points
    log_normal = -0.5 * (nodes.u**2).sum(axis=2) - 0.5 * r * LOG_2PI
    log_odds = np.log(base.n_defensive / PILOT_NODES) + log_normal - mixture.log_density(nodes.u)
    outside = expit(log_odds)
    by_law = (normalized_weights(log_weights) * outside).sum(axis=1)
    by_guides = outside[:, :PILOT_NODES].mean(axis=1)
    return np.flatnonzero(few | (by_law - by_guides > OUTSIDE))


def _mixture(guide: Guide, mu: np.ndarray, factor: np.ndarray) -> LocalMixture:
    """Proposals at (mu, L) as a mixture."""
    place = locate(guide, mu, factor)
    precision = place.chol @ np.swapaxes(place.chol, -1, -2)
    return LocalMixture(place.center, np.linalg.cholesky(np.linalg.inv(precision)))


def refine_guide(
    target: IndividualTarget,
    mu: np.ndarray,
    factor: np.ndarray,
    guide: Guide,
    poor: np.ndarray,
    rng: np.random.Generator,
) -> Guide:
    """Give some subjects a mixture of local expansions instead of those at their modes.

    Parameters
    ----------
    target : IndividualTarget
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)
        Where `guide` was placed.
    guide : Guide
    poor : ndarray of int, shape (n_poor,)
        Subjects for whom the curvature at the modes does not tell the shape of the conditional law.
    rng : numpy.random.Generator

    Returns
    -------
    Guide
        Of `N_GUIDES` components.
    """
    # Not in turn: systematic resampling could step over every second block of nodes.
    spread = np.arange(N_GUIDES) * guide.n_components // N_GUIDES
    at_modes = _mixture(guide, mu, factor)
    start = LocalMixture(at_modes.mean[poor][:, spread], at_modes.root[poor][:, spread])
    some = SomeSubjects(target, poor, len(mu))
    made_of = (fitted := fit_mixture(some, mu[poor], factor, start, rng, PILOT_NODES)).expansions
    assert made_of is not None
    r = factor.shape[1]
    eta, curvature = guide.eta[:, spread], guide.curvature[:, spread]
    eta[poor], curvature[poor] = made_of.eta, made_of.curvature
    tether, pull = np.zeros((len(mu), N_GUIDES, r, r)), np.zeros((len(mu), N_GUIDES, r))
    tether[poor] = made_of.tether
    new = locate(Guide(eta, curvature, None, tether, pull), mu, factor)
    chol = new.chol[poor]
    wanted = chol @ (np.swapaxes(chol, -1, -2) @ fitted.mean[..., None])
    pull[poor] = wanted[..., 0] - (new.residual @ factor)[poor]
    # The last one is the population distribution: it bounds the weights, whatever the others miss.
    for part in (eta, curvature, tether, pull):
        part[poor, -1] = 0.0
    return _divided(Guide(eta, curvature, None, tether, pull), mu, factor)


def _divided(guide: Guide, mu: np.ndarray, factor: np.ndarray) -> Guide:
    """Divide the space between the guides of a subject, by their proposals at (mu, L)."""
    if guide.n_components == 1:
        return guide
    place = locate(guide, mu, factor)
    return replace(guide, partition=Partition(mu, np.linalg.pinv(factor), place.center, place.chol))


@dataclass(frozen=True, slots=True, eq=False)
class Location:
    """Centers and scales of the nodes for one value of (mu, L).

    Attributes
    ----------
    factor : ndarray, shape (d, r)
        L.
    residual : ndarray, shape (n_subjects, K, d)
        eta - J mu.
    curved_factor : ndarray, shape (n_subjects, K, d, r)
        J L.
    chol, inverse_chol : ndarray, shape (n_subjects, K, r, r)
        C with C C' = Q, the precision of u, and its inverse.
    center : ndarray, shape (n_subjects, K, r)
        The mean of u.
    log_det_chol : ndarray, shape (n_subjects, K)
        log|C|.
    """

    factor: np.ndarray
    residual: np.ndarray
    curved_factor: np.ndarray
    chol: np.ndarray
    inverse_chol: np.ndarray
    center: np.ndarray
    log_det_chol: np.ndarray


def locate(guide: Guide, mu: np.ndarray, factor: np.ndarray) -> Location:
    """Compute where the conditional laws lie according to their guides.

    Parameters
    ----------
    guide : Guide
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)

    Returns
    -------
    Location
    """
    residual = guide.eta - (guide.curvature @ mu[:, None, :, None])[..., 0]
    curved_factor = guide.curvature @ factor
    precision, moment = np.eye(factor.shape[1]) + factor.T @ curved_factor, residual @ factor
    if guide.tether is not None and guide.pull is not None:
        precision, moment = precision + guide.tether, moment + guide.pull
    chol = np.linalg.cholesky(precision)
    inverse_chol = np.linalg.inv(chol)
    center = (np.swapaxes(inverse_chol, -1, -2) @ (inverse_chol @ moment[..., None]))[..., 0]
    log_det = np.log(np.diagonal(chol, axis1=-2, axis2=-1)).sum(axis=-1)
    return Location(factor, residual, curved_factor, chol, inverse_chol, center, log_det)
