"""The published population objective: log mean of p(phi | theta) / p(phi) over fixed draws of every subject.

Arruda et al. (2024), ICML, equation 5. It is a simulated likelihood whose proposal is the individual
posterior: even with exact posteriors E log Zhat - log Z = -cv^2 / (2 M) per subject, which favors broad
populations and does not average out over subjects. A pooled parameter has no density at a point; the
reference implementation gives it a small variance, which this one does only where it is told how small.

Symbols. phi = mu + S z with S = [L | s e_p for every pooled p], z ~ N(0, I). With the weighted moments of z
(`amortnlme.solve.draw_weights`), by Fisher's identity,
d log Zhat / d mu = inv(S)' E[z] and d log Zhat / d S = inv(S)' (E[z z'] - I).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from amortnlme.methods.importance import effective_sample_size, normalized_weights, pareto_smooth
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.posterior_draws import PosteriorDraws
from amortnlme.solve.draw_weights import diagonal_moments, full_moments

LOG_2PI = float(np.log(2.0 * np.pi))
#: Entries of a temporary array of scores, draw by draw.
CHUNK_ENTRIES = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class DrawTable:
    """Individual draws laid out for the kernels.

    Attributes
    ----------
    phi : ndarray, shape (n_subjects, d, n_draws)
        Less `center`, so that single precision resolves the spread rather than the level.
    constant : ndarray, shape (n_subjects, n_draws)   [nats]
        -log p(phi), the prior divided out.
    center : ndarray, shape (d,)
    """

    phi: np.ndarray
    constant: np.ndarray
    center: np.ndarray

    @property
    def n_draws(self) -> int:
        """Draws per subject."""
        return self.phi.shape[2]


def tabulate_draws(draws: PosteriorDraws, precision: str = "single") -> DrawTable:
    """Lay out posterior draws for the kernels.

    Parameters
    ----------
    draws : PosteriorDraws
    precision : {"single", "double"}
        Of the draws and the sums over them; sums over subjects are always in double precision.

    Returns
    -------
    DrawTable
    """
    kind = np.float32 if precision == "single" else np.float64
    center = draws.phi.mean(axis=(0, 1))
    phi = np.empty((draws.n_subjects, draws.d, draws.n_draws), kind)
    np.subtract(np.swapaxes(draws.phi, 1, 2), center[:, None], out=phi, casting="same_kind")
    return DrawTable(phi, np.ascontiguousarray(-draws.log_prior, kind), center)


@dataclass(frozen=True, slots=True, eq=False)
class MonteCarloLikelihood:
    """The published objective as a function of packed population parameters.

    Attributes
    ----------
    table : DrawTable
    population : BoundPopulation
        Without occasions.
    pooled_sd : float
        The small SD that pooled parameters get, on the phi scale; not used where there are none.
    """

    table: DrawTable
    population: BoundPopulation
    pooled_sd: float

    def value_and_scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log mean weight of every subject and its gradient.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        value : ndarray, shape (n_subjects,)   [nats]
            -inf for all where the covariance is singular.
        scores : ndarray, shape (n_subjects, n_x)
        """
        population = self.population
        moments = self._moments(x)
        if moments is None:
            n = population.n_subjects
            return np.full(n, -np.inf), np.zeros((n, population.n_x))
        value, first, second, inverse = moments
        index, r = population.random_index, population.r
        if second.ndim == 2:
            # Only diagonal entries of E[z z'] are known, and L has no others.
            scale = np.diagonal(inverse)
            dfactor = np.zeros((*first.shape, r))
            dfactor[:, index, np.arange(r)] = (second[:, index] - 1.0) * scale[index]
            return value, population.pullback(first * scale, dfactor, x)
        dfactor = inverse.T @ (second - np.eye(len(inverse)))[:, :, index]
        return value, population.pullback(first @ inverse, dfactor, x)

    def value_gradient_information(self, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """-sum_i log Zhat_i with gradient and BHHH information sum_i s_i s_i', for minimizers.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        value : float   [nats]
        gradient : ndarray, shape (n_x,)
        information : ndarray, shape (n_x, n_x)
        """
        value, scores = self.value_and_scores(x)
        return -float(value.sum()), -scores.sum(axis=0), scores.T @ scores

    def value_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """-sum_i log Zhat_i and its gradient, without scores of single subjects.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        value : float   [nats]
        gradient : ndarray, shape (n_x,)
        """
        moments = self._moments(x, summed=True)
        if moments is None:
            return np.inf, np.zeros(self.population.n_x)
        value, first, second, inverse = moments
        index, r = self.population.random_index, self.population.r
        if second.shape == first.shape:
            total = second.sum(axis=0)
            scale = np.diagonal(inverse)
            dfactor = np.zeros((len(inverse), r))
            dfactor[index, np.arange(r)] = (total[index] - len(value)) * scale[index]
            dmu = first * scale
        else:
            dfactor = inverse.T @ (second - len(value) * np.eye(len(inverse)))[:, index]
            dmu = first @ inverse
        return -float(value.sum()), -self.population.pullback(dmu, dfactor, x)

    def log_weights(self, x: np.ndarray, part: slice = slice(None)) -> np.ndarray:
        """Log weight of every draw of some subjects.

        Parameters
        ----------
        x : ndarray, shape (n_x,)
        part : slice
            Of the subjects.

        Returns
        -------
        ndarray, shape (n, n_draws)   [nats]
        """
        mean, inverse = self._whitening(x)
        z = inverse @ (self.table.phi[part] - mean[part, :, None])
        return self.table.constant[part] - 0.5 * (z**2).sum(axis=1) + _log_scale(inverse)

    def subject_quality(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Effective number of draws and tail index k-hat of the weights of every subject.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        ess : ndarray, shape (n_subjects,)
        pareto_k : ndarray, shape (n_subjects,)
        """
        log_weights = np.concatenate([self.log_weights(x, part) for part in self._parts(self.population.d)])
        return effective_sample_size(log_weights), pareto_smooth(log_weights)[1]

    def noise_moments(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Monte-Carlo covariance of the total score, and the leading term of its bias.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        covariance : ndarray, shape (n_x, n_x)
        bias : ndarray, shape (n_x,)

        Notes
        -----
        Delta method for ratios: sum_ij w_ij^2 (g_ij - s_i)(g_ij - s_i)' and -sum_ij w_ij^2 (g_ij - s_i), with
        normalized weights w and g_ij = d log p(phi_ij | theta). The bias so estimated is 1/9 to 2/3 of the
        true one: good for an alarm, not for a correction.
        """
        population = self.population
        mean, inverse = self._whitening(x)
        index, n_x = population.random_index, population.n_x
        covariance, bias = np.zeros((n_x, n_x)), np.zeros(n_x)
        for part in self._parts(n_x + 2 * population.d * population.r):
            weight = normalized_weights(self.log_weights(x, part))
            z = np.swapaxes(inverse @ (self.table.phi[part] - mean[part, :, None]), 1, 2)
            dfactor = inverse.T @ (z[..., :, None] * z[..., None, index] - np.eye(len(inverse))[:, index])
            g = population.pullback_rows(z @ inverse, dfactor, population.regressors[part, None])
            centered = g - (weight[..., None] * g).sum(axis=1, keepdims=True)
            scaled = (weight[..., None] * centered).reshape(-1, n_x)
            covariance += scaled.T @ scaled
            bias -= (weight[..., None] * scaled.reshape(centered.shape)).sum(axis=(0, 1))
        return covariance, bias

    def _moments(
        self, x: np.ndarray, *, summed: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Log mean weights, E[z], E[z z'] (its diagonal where S is diagonal), inv(S); None where singular."""
        mean, inverse = self._whitening(x)
        if not np.isfinite(inverse).all():
            return None
        phi, constant = self.table.phi, self.table.constant
        if np.count_nonzero(inverse) == np.count_nonzero(np.diagonal(inverse)) == len(inverse):
            result, first, second = diagonal_moments(phi, constant, mean, np.diagonal(inverse))
        else:
            result, first, second = full_moments(phi, constant, mean, inverse, summed=summed)
        return result[:, 0] + _log_scale(inverse), first, second, inverse

    def _whitening(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means less the center, (n_subjects, d), and inv(S), (d, d), of NaN where S is singular."""
        population = self.population
        mu, factor = population.unpack(x)
        square = np.zeros((population.d, population.d))
        # Columns in the order of phi, so that a diagonal omega gives a diagonal S.
        square[:, population.random_index] = factor
        square[population.pooled_index, population.pooled_index] = self.pooled_sd
        try:
            inverse = np.linalg.inv(square)
        except np.linalg.LinAlgError:
            inverse = np.full_like(square, np.nan)
        return mu - self.table.center, inverse

    def _parts(self, entries_per_draw: int) -> Iterator[slice]:
        size = max(1, CHUNK_ENTRIES // (entries_per_draw * self.table.n_draws))
        for first in range(0, self.population.n_subjects, size):
            yield slice(first, first + size)


def _log_scale(inverse: np.ndarray) -> float:
    """Log of the normalizing constant of N(mu, S S')."""
    return float(np.linalg.slogdet(inverse)[1]) - 0.5 * len(inverse) * LOG_2PI
