"""Damped ascent of the Laplace-approximated likelihood, to carry SAEM over ridges.

Where the data determine only combinations of parameters, EM creeps: each step goes a small share of the way
along the ridge. A step with the information of the observed data does not. Here that information comes from
the scores, sum_i s_i s_i' (Berndt, Hall, Hall & Hausman 1974), and is damped as by Marquardt (1963); the
likelihood is FOCEI's with its total gradient (`laplace_likelihood.py`). Modes are found loosely: what is
wanted is the neighborhood of the optimum, not the optimum of an approximation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.ebe import EmpiricalBayes, better_modes, find_ebe
from amortnlme.methods.laplace_likelihood import ExpandableTarget, determinant, local_shape, total_gradient
from amortnlme.methods.other_modes import other_modes
from amortnlme.population.bound_population import BoundPopulation

#: Accuracy of the modes in conditional SDs, and iterations of one search.
MODE_TOLERANCE, MODE_ITERATIONS = 1e-4, 12
#: Steps between two searches for better modes, and searches per subject.
SEARCH_EVERY, N_SEARCHES = 12, 2
#: Damping: at first, its factors after a step that was taken and one that was refused, and where it ends.
DAMPING, EASED, RAISED, MOST_DAMPED = 0.3, 0.4, 6.0, 1e4
#: An SD changes by at most this factor in a step, and stays above this share of its first value.
SD_FACTOR, LEAST_SHARE = 1.5, 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Height:
    """A place of the ascent.

    Attributes
    ----------
    x : ndarray, shape (n_x,)
    modes : EmpiricalBayes
        Conditional modes there.
    log_likelihood : float   [nats]
        FOCEI's approximation; -inf where a subject has no support.
    """

    x: np.ndarray
    modes: EmpiricalBayes
    log_likelihood: float


def climb(
    target: ExpandableTarget,
    population: BoundPopulation,
    x: np.ndarray,
    phi: np.ndarray,
    n_steps: int,
    rng: np.random.Generator,
) -> Height:
    """Take some steps uphill.

    Parameters
    ----------
    target : ExpandableTarget
    population : BoundPopulation
    x : ndarray, shape (n_x,)
        No random effect of zero variance.
    phi : ndarray, shape (n_subjects, d)
        Near the conditional modes.
    n_steps : int
        Evaluations of the likelihood.
    rng : numpy.random.Generator
        For the searches for better modes.

    Returns
    -------
    Height
        Not below the one at x.
    """
    diagonal = population.chol_diagonal
    x = population.fold_signs(x)
    least = LEAST_SHARE * x[diagonal]
    here, scores = _evaluate(target, population, x, phi)
    damping = DAMPING
    for number in range(n_steps):
        if number and number % SEARCH_EVERY == 0:
            again = _evaluate(target, population, here.x, here.modes.phi, rng)
            if again[0].log_likelihood > here.log_likelihood:
                here, scores = again
        information = scores.T @ scores
        damped = information + np.diag(damping * np.diagonal(information) + 1e-8)
        new = here.x + np.linalg.solve(damped, scores.sum(axis=0))
        sd = here.x[diagonal]
        new[diagonal] = np.maximum(np.clip(new[diagonal], sd / SD_FACTOR, sd * SD_FACTOR), least)
        there = _evaluate(target, population, new, here.modes.phi)
        if there[0].log_likelihood > here.log_likelihood:
            here, scores = there
            damping *= EASED
        elif damping > MOST_DAMPED:
            break
        else:
            damping *= RAISED
    return here


def _evaluate(
    target: ExpandableTarget,
    population: BoundPopulation,
    x: np.ndarray,
    phi: np.ndarray,
    rng: np.random.Generator | None = None,
) -> tuple[Height, np.ndarray]:
    """Height at x and every subject's scores; with an `rng` better modes are searched far around."""
    mu, factor = population.unpack(x)
    start = np.linalg.lstsq(factor, (phi - mu).T, rcond=None)[0].T
    modes = find_ebe(
        target, mu, factor, start=start, max_iterations=MODE_ITERATIONS, tolerance=MODE_TOLERANCE
    )
    if rng is not None:
        modes = better_modes(modes, other_modes(target, mu, factor, modes, N_SEARCHES, rng)[0])
    shape = local_shape(target, modes.phi)
    term = determinant(shape.around, factor)
    total = float((modes.log_joint - 0.5 * term.log_det).sum())
    if not np.isfinite(total):
        return Height(x, modes, -np.inf), np.zeros((population.n_subjects, population.n_x))
    dmu, dfactor, _ = total_gradient(shape, term, factor, modes.u)
    return Height(x, modes, total), -0.5 * population.pullback(dmu, dfactor, x)
