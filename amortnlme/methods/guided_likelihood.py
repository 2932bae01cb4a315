"""The population likelihood by importance sampling with the true individual likelihood, on guided nodes.

Symbols. phi = mu + L u, u ~ N(0, I). Around a reference point every subject has a quadratic guide
log p(y_i | phi) ~ const + eta_i'phi - phi'J_i phi / 2, so that u given the data is about normal with
precision Q = I + L'J L = C C' and mean ub = inv(Q) L'(eta - J mu). Nodes are u_j = ub + inv(C') z_j with z_j
fixed: log w_j = log p(y | mu + L u_j) + log N(u_j; 0, I) - log g(z_j) - log|C|,  log L_i = log mean_j w_j.

The nodes thus follow the conditional law when the population parameters move, and log w_j hardly depends on
j. Nodes frozen in u would be exact as well, but their score has the variance of the complete-data score: for
informative data it swamps the score of the marginal likelihood, and the frozen objective has false optima
within one SE. Singular L and pooled parameters need no special treatment.

Several modes. One guide at one mode would leave the mass of another one to nodes far out, which few samples
ever hold: the estimate is then too low nearly always. With K guides the integrand is cut into K pieces
p(y | phi) rho_k(phi), sum_k rho_k = 1, each integrated as above around its own guide with its share of the
nodes. rho_k is the share of component k in the mixture of the K proposals at the reference point, as a
function of phi (`Partition`): at that point the weights are the deterministic-mixture weights of Owen & Zhou
(2000), and elsewhere the sum of the pieces is still exactly the likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from amortnlme.methods.ebe import IndividualTarget
from amortnlme.methods.guides import Guide, Location, locate, place_guide, poorly_guided, refine_guide
from amortnlme.methods.importance import effective_sample_size
from amortnlme.methods.proposals import LOG_2PI, BaseNumbers
from amortnlme.population.bound_population import BoundPopulation

#: Entries of a temporary array of scores, node by node.
NOISE_ENTRIES = 2_000_000



@dataclass(frozen=True, slots=True, eq=False)
class _Nodes:
    """The nodes at one value of (mu, L), with m of them around each guide."""

    at: Location
    u: np.ndarray  # (n, K, m, r)
    log_weight: np.ndarray  # (n, K, m)
    gradient: np.ndarray  # of log p(y | phi) + log rho(phi) by phi, (n, K, m, d)


@dataclass(frozen=True, slots=True, eq=False)
class GuidedLikelihood:
    """Smooth, accurate approximation of the population log-likelihood around the point of its guide.

    Attributes
    ----------
    target : IndividualTarget
    population : BoundPopulation
    guide : Guide
    base : BaseNumbers
        t-distributed z_j, without defensive nodes; or a quadrature rule, for one guide per subject. K guides
        share the nodes equally.
    """

    target: IndividualTarget
    population: BoundPopulation
    guide: Guide
    base: BaseNumbers
    _last: dict[bytes, _Nodes] = field(default_factory=dict, repr=False)

    def value_and_scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood of every subject and its gradient.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        value : ndarray, shape (n_subjects,)   [nats]
            -inf for a subject none of whose nodes has a finite likelihood.
        scores : ndarray, shape (n_subjects, n_x)
            Derivatives of `value`, the motion of the nodes included.
        """
        nodes = self._evaluate(x)
        top = nodes.log_weight.max(axis=(1, 2), keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
        raw = np.exp(nodes.log_weight - top)
        if self.base.sign is not None:
            raw = raw * self._blocks(self.base.sign)
        total = raw.sum(axis=(1, 2))
        n_nodes = raw.shape[1] * raw.shape[2]
        with np.errstate(divide="ignore", invalid="ignore"):
            value = top[:, 0, 0] + np.where(total > 0, np.log(total / n_nodes), -np.inf)
        weights = raw / np.where(total > 0, total, 1.0)[:, None, None]
        at, gradient = nodes.at, nodes.gradient
        joint = gradient @ at.factor - nodes.u
        weighted = weights[..., None]
        white_joint = joint @ np.swapaxes(at.inverse_chol, -1, -2)
        dmu, dfactor = _chain(
            at,
            share=weights.sum(axis=2),
            slope=(weighted * gradient).sum(axis=2),
            slope_u=np.swapaxes(weighted * gradient, -1, -2) @ nodes.u,
            joint=(weighted * joint).sum(axis=2),
            spread=np.swapaxes(weighted * self._blocks(self.base.scaled), -1, -2) @ white_joint,
        )
        return value, self.population.pullback(dmu.sum(axis=1), dfactor.sum(axis=1), x)

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
        Delta method, sum_ij a_ij a_ij' and -sum_ij w_ij a_ij with a_ij = w_ij (s_ij - s_i) less its mean
        over the nodes of the same guide, as for independent nodes; quasi-Monte Carlo nodes do better, so
        these are upper bounds in practice.
        """
        nodes = self._evaluate(x)
        at, gradient = nodes.at, nodes.gradient
        raw = np.exp(nodes.log_weight - nodes.log_weight.max(axis=(1, 2), keepdims=True))
        weights = raw / raw.sum(axis=(1, 2), keepdims=True)
        joint = gradient @ at.factor - nodes.u
        white_joint = joint @ np.swapaxes(at.inverse_chol, -1, -2)
        scaled_z = self._blocks(self.base.scaled)
        population = self.population
        noise, bias = np.zeros((population.n_x, population.n_x)), np.zeros(population.n_x)
        # Some subjects at a time: the scores of all nodes of all subjects would not fit for large studies.
        size = max(1, NOISE_ENTRIES // (self.base.n_points * (population.n_x + population.d * population.r)))
        for first in range(0, population.n_subjects, size):
            part = slice(first, first + size)
            dmu, dfactor = _chain(
                at,
                share=np.ones((1, 1, 1)),
                slope=gradient[part],
                slope_u=gradient[part][..., None] * nodes.u[part][..., None, :],
                joint=joint[part],
                spread=scaled_z[part][..., None] * white_joint[part][..., None, :],
                part=part,
            )
            node = population.pullback_rows(dmu, dfactor, population.regressors[part, None, None])
            weight = weights[part, ..., None]
            centered = node - (weight * node).sum(axis=(1, 2), keepdims=True)
            # The number of nodes around each guide is no chance: only what varies within a block is noise.
            within = weight * centered
            within -= within.mean(axis=2, keepdims=True)
            bias -= (weight * within).sum(axis=(0, 1, 2))
            flat = within.reshape(-1, population.n_x)
            noise += flat.T @ flat
        return noise, bias

    def ess(self, x: np.ndarray) -> np.ndarray:
        """Effective number of nodes of every subject at x, shape (n_subjects,)."""
        log_weight = self._evaluate(x).log_weight
        return effective_sample_size(log_weight.reshape(len(log_weight), -1))

    def _evaluate(self, x: np.ndarray) -> _Nodes:
        """Nodes at x; the last ones are kept."""
        key = x.tobytes()
        if key not in self._last:
            nodes = self._place(x)
            self._last.clear()
            self._last[key] = nodes
        return self._last[key]

    def _place(self, x: np.ndarray) -> _Nodes:
        mu, factor = self.population.unpack(x)
        at = locate(self.guide, mu, factor)
        u = at.center[:, :, None] + self._blocks(self.base.scaled) @ at.inverse_chol
        phi = mu[:, None, None] + u @ factor.T
        n, K, m, d = phi.shape
        log_likelihood, gradient = self.target.log_likelihood_and_gradient(phi.reshape(n, K * m, d))
        log_likelihood, gradient = log_likelihood.reshape(n, K, m), gradient.reshape(phi.shape)
        # A failed solve gets weight zero, but zero times NaN would still poison the sums.
        gradient = np.where(np.isfinite(log_likelihood)[..., None], gradient, 0.0)
        log_weight = np.where(np.isfinite(log_likelihood), log_likelihood, -np.inf)
        log_weight = log_weight - 0.5 * (u**2).sum(axis=-1) - 0.5 * u.shape[-1] * LOG_2PI
        log_weight = log_weight - self._blocks(self.base.log_density) - at.log_det_chol[..., None]
        if self.guide.partition is not None:
            log_share, slope = self.guide.partition.log_share(phi)
            log_weight, gradient = log_weight + np.log(K) + log_share, gradient + slope
        return _Nodes(at, u, log_weight, gradient)

    def _blocks(self, numbers: np.ndarray) -> np.ndarray:
        """Split the nodes (n, n_points, ...) into as many blocks as there are guides, (n, K, m, ...)."""
        K = self.guide.n_components
        m = self.base.n_points // K
        return numbers[:, : K * m].reshape(len(numbers), K, m, *numbers.shape[2:])


def _chain(
    at: Location,
    *,
    share: np.ndarray,
    slope: np.ndarray,
    slope_u: np.ndarray,
    joint: np.ndarray,
    spread: np.ndarray,
    part: slice | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Differentiate sums of w log w around each guide by mu and L, the motion of the nodes included.

    `share` sum of w, `slope` E[dl/dphi], `slope_u` E[dl/dphi u'], `joint` E[h] with h = L'dl/dphi - u,
    `spread` E[z (inv(C) h)'], where E sums over the nodes of a guide with their weights in the subject and
    l includes log rho. Leading axes: subjects, guides; with a `part` of the subjects a third one, nodes.

    With M = inv(C) dQ inv(C)': d inv(C') = -inv(C') low(M)' and d log|C| = tr(M) / 2, where low takes the
    lower triangle with half the diagonal. Hence the derivative by Q is the symmetric part of
    -inv(Q) E[h] ub' - inv(C') low(spread) inv(C) - share inv(Q) / 2.
    """
    pick = slice(None) if part is None else (part, slice(None), None)
    inverse_chol, center = at.inverse_chol[pick], at.center[pick]
    curved_factor, residual = at.curved_factor[pick], at.residual[pick]
    back = np.swapaxes(inverse_chol, -1, -2)
    shift = (back @ (inverse_chol @ joint[..., None]))[..., 0]
    low = np.tril(spread)
    diagonal = np.arange(low.shape[-1])
    low[..., diagonal, diagonal] *= 0.5
    by_precision = -shift[..., :, None] * center[..., None, :] - back @ low @ inverse_chol
    by_precision = by_precision + np.swapaxes(by_precision, -1, -2)
    by_precision = by_precision - share[..., None, None] * (back @ inverse_chol)
    dmu = slope - (curved_factor @ shift[..., None])[..., 0]
    dfactor = slope_u + residual[..., :, None] * shift[..., None, :] + curved_factor @ by_precision
    return dmu, dfactor


def guide_closely(
    target: IndividualTarget,
    population: BoundPopulation,
    x: np.ndarray,
    start_u: np.ndarray,
    base: BaseNumbers,
    rng: np.random.Generator,
    tolerance: float = 1e-6,
) -> tuple[GuidedLikelihood, np.ndarray]:
    """Place nodes at the modes, and by mixtures for the subjects whose modes do not tell their laws.

    Parameters
    ----------
    target : IndividualTarget
    population : BoundPopulation
    x : ndarray, shape (n_x,)
    start_u : ndarray, shape (n_subjects, K, r)
        As in `place_guide`, like `tolerance`.
    base : BaseNumbers
    rng : numpy.random.Generator
        For the mixtures.
    tolerance : float

    Returns
    -------
    objective : GuidedLikelihood
    u : ndarray, shape (n_subjects, K, r)
        The modes.
    """
    mu, factor = population.unpack(x)
    guide, u = place_guide(target, mu, factor, start_u, tolerance)
    poor = poorly_guided(target, mu, factor, guide, rng)
    if len(poor):
        guide = refine_guide(target, mu, factor, guide, poor, rng)
    return GuidedLikelihood(target, population, guide, base), u
