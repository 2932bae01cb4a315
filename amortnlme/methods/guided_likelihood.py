"""The population likelihood by importance sampling with the true individual likelihood, on guided nodes.

Symbols. phi = mu + L u, u ~ N(0, I). Around a reference point every subject has a quadratic guide
log p(y_i | phi) ~ const + eta_i'phi - phi'J_i phi / 2, so that u given the data is about normal with
precision Q = I + L'J L = C C' and mean ub = inv(Q) L'(eta - J mu). Nodes are u_j = ub + inv(C') z_j with z_j
fixed: log w_j = log p(y | mu + L u_j) + log N(u_j; 0, I) - log g(z_j) - log|C|,  log L_i = log mean_j w_j.

The nodes thus follow the conditional law when the population parameters move, and log w_j hardly depends on
j. Nodes frozen in u would be exact as well, but their score has the variance of the complete-data score: for
informative data it swamps the score of the marginal likelihood, and the frozen objective has false optima
within one SE. Singular L and pooled parameters need no special treatment.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from amortnlme.methods.ebe import IndividualTarget, find_ebe
from amortnlme.methods.importance import effective_sample_size
from amortnlme.methods.proposals import LOG_2PI, BaseNumbers
from amortnlme.population.bound_population import BoundPopulation

#: Entries of a temporary array of scores, node by node.
NOISE_ENTRIES = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Guide:
    """Quadratic approximation of every subject's log-likelihood.

    Attributes
    ----------
    eta : ndarray, shape (n_subjects, d)
    curvature : ndarray, shape (n_subjects, d, d)
        Symmetric, positive semi-definite: the Gauss-Newton information at the mode.
    """

    eta: np.ndarray
    curvature: np.ndarray


def place_guide(
    target: IndividualTarget,
    mu: np.ndarray,
    factor: np.ndarray,
    start_u: np.ndarray | None,
    tolerance: float = 1e-6,
) -> tuple[Guide, np.ndarray]:
    """Expand every subject's log-likelihood around its conditional mode.

    Parameters
    ----------
    target : IndividualTarget
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)
    start_u : ndarray or None, shape (n_subjects, r)
        Where to start the search for the modes.
    tolerance : float
        Of the modes, in conditional SDs: any point nearby makes a guide.

    Returns
    -------
    guide : Guide
    u : ndarray, shape (n_subjects, r)
        The modes, to start the next search from.
    """
    modes = find_ebe(target, mu, factor, start=start_u, tolerance=tolerance)
    _, gradient, curvature = target.gauss_newton(modes.phi)
    curvature, gradient = np.nan_to_num(curvature), np.nan_to_num(gradient)
    return Guide(gradient + (curvature @ modes.phi[..., None])[..., 0], curvature), modes.u


@dataclass(frozen=True, slots=True, eq=False)
class _Placement:
    """Where the nodes are for one value of (mu, L)."""

    factor: np.ndarray  # (d, r)
    residual: np.ndarray  # eta - J mu, (n, d)
    curved_factor: np.ndarray  # J L, (n, d, r)
    inverse_chol: np.ndarray  # inv(C), (n, r, r)
    center: np.ndarray  # ub, (n, r)
    u: np.ndarray  # (n, m, r)
    phi: np.ndarray  # (n, m, d)
    log_det_chol: np.ndarray  # log|C|, (n,)


@dataclass(frozen=True, slots=True, eq=False)
class GuidedLikelihood:
    """Smooth, accurate approximation of the population log-likelihood around the point of its guide.

    Attributes
    ----------
    target : IndividualTarget
    population : BoundPopulation
    guide : Guide
    base : BaseNumbers
        t-distributed z_j, without defensive nodes; or a quadrature rule.
    """

    target: IndividualTarget
    population: BoundPopulation
    guide: Guide
    base: BaseNumbers
    _last: dict[bytes, tuple[_Placement, np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

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
        place, log_likelihood, gradient = self._evaluate(x)
        log_weights = self._log_weights(place, log_likelihood)
        top = log_weights.max(axis=1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
        raw = np.exp(log_weights - top)
        if self.base.sign is not None:
            raw = raw * self.base.sign
        total = raw.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = top[:, 0] + np.where(total > 0, np.log(total / raw.shape[1]), -np.inf)
        weights = raw / np.where(total > 0, total, 1.0)[:, None]
        joint = gradient @ place.factor - place.u
        weighted = weights[..., None]
        white_joint = joint @ np.swapaxes(place.inverse_chol, 1, 2)
        dmu, dfactor = self._chain(
            place,
            slope=(weighted * gradient).sum(axis=1),
            slope_u=np.swapaxes(weighted * gradient, 1, 2) @ place.u,
            joint=(weighted * joint).sum(axis=1),
            spread=np.swapaxes(weighted * self.base.scaled, 1, 2) @ white_joint,
        )
        return value, self.population.pullback(dmu, dfactor, x)

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
        Delta method, sum_ij w_ij^2 (s_ij - s_i)(s_ij - s_i)' and -sum_ij w_ij^2 (s_ij - s_i), as for
        independent nodes; quasi-Monte Carlo nodes do better, so these are upper bounds in practice.
        """
        place, log_likelihood, gradient = self._evaluate(x)
        log_weights = self._log_weights(place, log_likelihood)
        raw = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
        weights = raw / raw.sum(axis=1, keepdims=True)
        joint = gradient @ place.factor - place.u
        white_joint = joint @ np.swapaxes(place.inverse_chol, 1, 2)
        population = self.population
        noise, bias = np.zeros((population.n_x, population.n_x)), np.zeros(population.n_x)
        # Some subjects at a time: the scores of all nodes of all subjects would not fit for large studies.
        size = max(1, NOISE_ENTRIES // (self.base.n_points * (population.n_x + population.d * population.r)))
        for first in range(0, population.n_subjects, size):
            part = slice(first, first + size)
            dmu, dfactor = self._chain(
                place,
                slope=gradient[part],
                slope_u=gradient[part, :, :, None] * place.u[part, :, None, :],
                joint=joint[part],
                spread=self.base.scaled[part, :, :, None] * white_joint[part, :, None, :],
                part=part,
            )
            node = population.pullback_rows(dmu, dfactor, population.regressors[part, None])
            weight = weights[part, :, None]
            centered = node - (weight * node).sum(axis=1, keepdims=True)
            scaled = (weight * centered).reshape(-1, population.n_x)
            noise += scaled.T @ scaled
            bias -= (weight * scaled.reshape(centered.shape)).sum(axis=(0, 1))
        return noise, bias

    def ess(self, x: np.ndarray) -> np.ndarray:
        """Effective number of nodes of every subject at x, shape (n_subjects,)."""
        place = self._place(x)
        return effective_sample_size(self._log_weights(place, self.target.log_likelihood(place.phi)))

    def _place(self, x: np.ndarray) -> _Placement:
        mu, factor = self.population.unpack(x)
        residual = self.guide.eta - (self.guide.curvature @ mu[..., None])[..., 0]
        curved_factor = self.guide.curvature @ factor
        precision = np.eye(factor.shape[1]) + factor.T @ curved_factor
        chol = np.linalg.cholesky(precision)
        inverse_chol = np.linalg.inv(chol)
        center = (np.swapaxes(inverse_chol, 1, 2) @ (inverse_chol @ (residual @ factor)[..., None]))[..., 0]
        u = center[:, None] + self.base.scaled @ inverse_chol
        log_det = np.log(np.diagonal(chol, axis1=1, axis2=2)).sum(axis=1)
        return _Placement(
            factor, residual, curved_factor, inverse_chol, center, u, mu[:, None] + u @ factor.T, log_det
        )

    def _evaluate(self, x: np.ndarray) -> tuple[_Placement, np.ndarray, np.ndarray]:
        """Nodes at x with their log-likelihood and its gradient; the last ones are kept."""
        key = x.tobytes()
        if key not in self._last:
            place = self._place(x)
            log_likelihood, gradient = self.target.log_likelihood_and_gradient(place.phi)
            # A failed solve gets weight zero, but zero times NaN would still poison the sums.
            gradient = np.where(np.isfinite(log_likelihood)[..., None], gradient, 0.0)
            self._last.clear()
            self._last[key] = (place, log_likelihood, gradient)
        return self._last[key]

    def _log_weights(self, place: _Placement, log_likelihood: np.ndarray) -> np.ndarray:
        usable = np.where(np.isfinite(log_likelihood), log_likelihood, -np.inf)
        log_normal = -0.5 * (place.u**2).sum(axis=2) - 0.5 * place.u.shape[2] * LOG_2PI
        return usable + log_normal - self.base.log_density - place.log_det_chol[:, None]

    def _chain(
        self,
        place: _Placement,
        *,
        slope: np.ndarray,
        slope_u: np.ndarray,
        joint: np.ndarray,
        spread: np.ndarray,
        part: slice | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Differentiate weighted log w by mu and L, the motion of the nodes included.

        `slope` E[dl/dphi], `slope_u` E[dl/dphi u'], `joint` E[h] with h = L'dl/dphi - u, `spread` E[z (inv(C)
        h)']; leading axis: subjects; with a `part` of them a second one, their nodes.

        With M = inv(C) dQ inv(C)': d inv(C') = -inv(C') low(M)' and d log|C| = tr(M) / 2, where low takes the
        lower triangle with half the diagonal. Hence the derivative by Q is the symmetric part of
        -inv(Q) E[h] ub' - inv(C') low(spread) inv(C) - inv(Q) / 2.
        """
        pick = slice(None) if part is None else (part, None)
        inverse_chol, center = place.inverse_chol[pick], place.center[pick]
        curved_factor, residual = place.curved_factor[pick], place.residual[pick]
        back = np.swapaxes(inverse_chol, -1, -2)
        shift = (back @ (inverse_chol @ joint[..., None]))[..., 0]
        low = np.tril(spread)
        diagonal = np.arange(low.shape[-1])
        low[..., diagonal, diagonal] *= 0.5
        by_precision = -shift[..., :, None] * center[..., None, :] - back @ low @ inverse_chol
        by_precision = by_precision + np.swapaxes(by_precision, -1, -2) - back @ inverse_chol
        dmu = slope - (curved_factor @ shift[..., None])[..., 0]
        dfactor = slope_u + residual[..., :, None] * shift[..., None, :] + curved_factor @ by_precision
        return dmu, dfactor
