"""The M-step of the variational autoencoder: population parameters from Gaussian laws of the individuals.

With q_i = N(m_i, C_i C_i') the expected complete-data likelihood has the statistics E[phi] = m_i and
E[phi phi'] = m_i m_i' + C_i C_i': typical values and coefficients are a regression of m_i on the covariates,
omega is the mean of (m_i - mu_i)(m_i - mu_i)' + C_i C_i' over its blocks (`saem_statistics.maximize_random`).
A residual SD a that multiplies all of its residuals has for a^2 the mean of their expected squares: the
average of the squares over draws of q, never the square of an average. At the present a that is

    a^2 (1 + s / N),   s = d E[log p] / d log a,

so that it costs nothing beyond the gradient. What has no closed form (other error models, censored data,
further parameters without random effects) moves by Fisher scoring at the same draws.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from amortnlme.methods.saem_statistics import Layout, Statistics, bounded_step, complete_scores
from amortnlme.model.bound import BoundModel
from amortnlme.model.error_model import Additive, LogNormal, Proportional
from amortnlme.population.bound_population import BoundPopulation

#: Furthest move of a pooled parameter in one iteration, on the phi scale.
LONGEST_STEP = 0.5
SCALE_MODELS = (Additive, Proportional, LogNormal)


@dataclass(frozen=True, slots=True, eq=False)
class VaeStatistics:
    """Averages over the iterations.

    Attributes
    ----------
    random : Statistics
        Of the laws, and of the information about the pooled coefficients.
    variance : ndarray, shape (n_scales,)
        Of the residuals of every error model with a closed form, in units of its own size.
    """

    random: Statistics
    variance: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class PooledPart:
    """Pooled coefficients, sorted by how they are maximized.

    Attributes
    ----------
    layout : Layout
    scale : ndarray of int, shape (n_scales,)
        Positions among the pooled coefficients of logarithms of residual SDs with a closed form.
    column : ndarray of int, shape (n_scales,)
        Their columns of phi.
    count : ndarray, shape (n_scales,)
        Observations each of them describes.
    other : ndarray of int
        Positions of all others.
    """

    layout: Layout
    scale: np.ndarray
    column: np.ndarray
    count: np.ndarray
    other: np.ndarray

    @classmethod
    def of(cls, bound: BoundModel, layout: Layout) -> PooledPart:
        """Sort the pooled coefficients.

        Parameters
        ----------
        bound : BoundModel
        layout : Layout

        Returns
        -------
        PooledPart
        """
        population, program = layout.population, bound.model.program
        owner = population.owner[layout.pooled_columns]
        of_output = [int(c) for columns in program.sigma_columns for c in columns]
        scale, column, count = [], [], []
        for o, (error, owned) in enumerate(zip(program.error_models, program.sigma_columns, strict=True)):
            place = np.flatnonzero(owner == owned[0])
            is_log = population.parameters.parameters[owned[0]].transform == "log"
            # One coefficient, of one output: no covariates move it, and nobody shares it.
            alone = len(place) == 1 and of_output.count(int(owned[0])) == 1
            if isinstance(error, SCALE_MODELS) and is_log and alone and bound.censoring is None:
                several = len(program.error_models) > 1
                seen = bound.observed & (bound.inputs.output == o) if several else bound.observed
                scale.append(int(place[0]))
                column.append(int(owned[0]))
                count.append(float(seen.sum()))
        other = np.setdiff1d(np.arange(len(owner)), scale)
        places, columns = (np.array(v, dtype=np.int64) for v in (scale, column))
        return cls(layout, places, columns, np.array(count), other)


def law_statistics(mean: np.ndarray, root: np.ndarray, n_pooled: int) -> Statistics:
    """Statistics of Gaussian laws.

    Parameters
    ----------
    mean : ndarray, shape (n, r)
        On the phi scale.
    root : ndarray, shape (n, r, r)
        Of the covariances.
    n_pooled : int
        Pooled coefficients, whose information is zero here.

    Returns
    -------
    Statistics
    """
    second = mean[:, :, None] * mean[:, None, :] + root @ np.swapaxes(root, 1, 2)
    return Statistics(mean, second, np.zeros((n_pooled, n_pooled)), np.zeros((0, 0)))


def average_variance(part: PooledPart, phi: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Mean squared residuals over draws, in units of the size of the residual without its SD parameter.

    Parameters
    ----------
    part : PooledPart
    phi : ndarray, shape (d,)
        Typical phi, where the residual SDs are.
    score : ndarray, shape (d,)
        Of the expected log-likelihood of all subjects, by columns of phi.

    Returns
    -------
    ndarray, shape (n_scales,)
    """
    return np.exp(2.0 * phi[part.column]) * np.maximum(1.0 + score[part.column] / part.count, 1e-12)


def other_pooled_step(
    target: BoundModel, part: PooledPart, phi: np.ndarray, statistics: Statistics, gain: float
) -> tuple[Statistics, np.ndarray]:
    """Fisher scoring for pooled coefficients without a closed form.

    Parameters
    ----------
    target : BoundModel
    part : PooledPart
    phi : ndarray, shape (n, S, d)
        Draws.
    statistics : Statistics
        Whose information is replaced.
    gain : float

    Returns
    -------
    statistics : Statistics
    step : ndarray, shape (q,)
        Of all pooled coefficients; zero where there is a closed form.
    """
    step = np.zeros(len(part.layout.pooled_columns))
    if not len(part.other):
        return statistics, step
    # Nobody asks for the derivatives by the factor of omega here.
    no_effects = np.zeros((*phi.shape[:2], part.layout.population.r))
    scores = complete_scores(target, phi, no_effects, part.layout)
    among = scores.pooled_information[np.ix_(part.other, part.other)]
    step[part.other] = bounded_step(scores.pooled[part.other], among, gain, LONGEST_STEP)
    return replace(statistics, information=scores.pooled_information), step


def without_covariates(layout: Layout) -> Layout:
    """Leave the coefficients of covariates out of the regression.

    Parameters
    ----------
    layout : Layout

    Returns
    -------
    Layout
        Of the typical values alone.
    """
    population: BoundPopulation = layout.population
    kept = layout.random_columns < population.theta_slice.stop
    return replace(
        layout,
        random_columns=layout.random_columns[kept],
        random_design=layout.random_design[:, :, kept],
    )
