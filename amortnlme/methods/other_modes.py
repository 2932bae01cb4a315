"""Second modes of individual laws, found by searching again from far away.

Two kinds of starts: points far out in the population distribution, and the known mode with two parameters
exchanged. Rates often play the same role in a model (absorption and elimination, decay of mRNA and protein),
and the basin of the exchanged mode is then far too small to be met by chance.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from amortnlme.methods.ebe import EmpiricalBayes, IndividualTarget, find_ebe

#: Starts lie this many population SDs out.
SPREAD = 2.0
#: Two modes are different when their distance, in conditional SDs of either, exceeds this.
DIFFERENT = 4.0
#: A mode whose mass is below exp(-this) of the known one's does not count.
NEGLIGIBLE = 8.0
#: An exchange of two parameters is worth a search where the joint log density falls by less than this. The
#: exchanged point is no mode yet: its prior may pull it far.
PLAUSIBLE = 50.0
#: Accuracy of modes that only start another search, in conditional SDs.
ROUGH = 1e-2


def other_modes(
    target: IndividualTarget,
    mu: np.ndarray,
    factor: np.ndarray,
    found: EmpiricalBayes,
    n_starts: int,
    rng: np.random.Generator,
) -> tuple[EmpiricalBayes, np.ndarray]:
    """Find each subject's most likely mode besides a known one.

    Parameters
    ----------
    target : IndividualTarget
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)
    found : EmpiricalBayes
        The known modes.
    n_starts : int
        Searches per subject, the same starts for all.
    rng : numpy.random.Generator

    Returns
    -------
    modes : EmpiricalBayes
        The known mode where there is no other worth the name.
    exists : ndarray of bool, shape (n_subjects,)
    """
    n, r = found.u.shape
    exists = np.zeros(n, dtype=bool)
    best, best_mass = found, _log_mass(found) - NEGLIGIBLE
    exponent = int(np.ceil(np.log2(max(n_starts, 1))))
    uniform = qmc.Sobol(r, scramble=True, rng=rng).random_base2(exponent)[:n_starts]
    starts = [np.tile(start, (n, 1)) for start in SPREAD * ndtri(np.clip(uniform, 1e-6, 1.0 - 1e-6))]
    for start in (*starts, *_exchanged(target, mu, factor, found)):
        new = find_ebe(target, mu, factor, start=start, max_iterations=15, tolerance=ROUGH)
        away = new.u - found.u
        far = np.minimum(_square(away, found.precision), _square(away, new.precision))
        mass = _log_mass(new)
        better = (far > DIFFERENT**2) & np.isfinite(new.log_joint) & (mass > best_mass)
        exists |= better
        best_mass = np.where(better, mass, best_mass)
        best = EmpiricalBayes(
            np.where(better[:, None], new.u, best.u),
            np.where(better[:, None], new.phi, best.phi),
            np.where(better[:, None, None], new.precision, best.precision),
            np.where(better, new.log_joint, best.log_joint),
            np.where(better, new.converged, best.converged),
        )
    return best, exists


def starts_at_modes(
    target: IndividualTarget,
    mu: np.ndarray,
    factor: np.ndarray,
    start_u: np.ndarray | None,
    n_starts: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Find where the guides of importance sampling belong: one mode each, two if any subject has two.

    Parameters
    ----------
    target : IndividualTarget
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)
    start_u : ndarray or None, shape (n_subjects, r)
        Where to search for the first mode; None: from the typical subject.
    n_starts : int
        Searches per subject for the second one, besides that from exchanged parameters.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n_subjects, K, r)
        K is 1 or 2; the same mode twice for a subject with one mode among others with two.
    """
    first = find_ebe(target, mu, factor, start=start_u, tolerance=ROUGH)
    second, exists = other_modes(target, mu, factor, first, n_starts, rng)
    return np.stack([first.u, second.u], axis=1) if exists.any() else first.u[:, None]


def _exchanged(
    target: IndividualTarget, mu: np.ndarray, factor: np.ndarray, found: EmpiricalBayes
) -> list[np.ndarray]:
    """At most one start (n, r): each subject's mode with the two parameters exchanged that lose least by it.

    Subjects for whom no exchange is plausible start at their mode, where the search ends at once.
    """
    random = np.flatnonzero((factor != 0.0).any(axis=1))
    first, second = np.triu_indices(len(random), 1)
    if not len(first):
        return []
    first, second = random[first], random[second]
    pair = np.arange(len(first))
    phi = np.repeat(found.phi[:, None], len(pair), axis=1)
    phi[:, pair, first], phi[:, pair, second] = found.phi[:, second], found.phi[:, first]
    u = (phi - mu[:, None]) @ np.linalg.pinv(factor).T
    joint = target.log_likelihood(phi) - 0.5 * (u**2).sum(axis=2)
    joint = np.where(np.isfinite(joint), joint, -np.inf)
    best = joint.argmax(axis=1)
    subject = np.arange(len(best))
    plausible = joint[subject, best] > found.log_joint - PLAUSIBLE
    if not plausible.any():
        return []
    return [np.where(plausible[:, None], u[subject, best], found.u)]


def _log_mass(modes: EmpiricalBayes) -> np.ndarray:
    """Laplace's approximation of the mass around every mode, up to a constant."""
    return modes.log_joint - 0.5 * np.linalg.slogdet(modes.precision)[1]


def _square(away: np.ndarray, precision: np.ndarray) -> np.ndarray:
    return (away[:, None] @ precision @ away[..., None])[:, 0, 0]
