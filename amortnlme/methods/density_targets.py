"""Stand-ins for a likelihood that a model does not have: the surrogate, or the estimator's own density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from amortnlme.methods.log_sum import log_sum_exp
from amortnlme.methods.surrogate import Surrogate
from amortnlme.model.prior import AbstractPrior


@dataclass(frozen=True, slots=True, eq=False)
class SurrogateTarget:
    """The surrogate in the place of an individual likelihood, for models that have none.

    Attributes
    ----------
    surrogate : Surrogate
    """

    surrogate: Surrogate

    def log_likelihood(self, phi: np.ndarray) -> np.ndarray:
        """Log of G / prior at phi (n_subjects, n_points, d), up to a constant per subject."""
        return self._parts(phi)[0]

    def log_likelihood_and_gradient(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log of G / prior and its gradient of shape (n_subjects, n_points, d)."""
        value, share, slopes = self._parts(phi)
        return value, (share[..., None] * slopes).sum(axis=1)

    def gauss_newton(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value, gradient and positive part of the curvature at phi (n_subjects, d)."""
        value, share, slopes = self._parts(phi[:, None])
        gradient = (share[..., None] * slopes).sum(axis=1)[:, 0]
        information = (share[..., 0][..., None, None] * self.surrogate.lam).sum(axis=1)
        return value[:, 0], gradient, information

    def _parts(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        s = self.surrogate
        lam_phi = phi[:, None] @ s.lam
        slopes = s.eta[:, :, None] - lam_phi
        each = s.log_kappa[..., None] + 0.5 * ((s.eta[:, :, None] + slopes) * phi[:, None]).sum(axis=-1)
        value = log_sum_exp(each, axis=1)
        return value, np.exp(each - value[:, None]), slopes


@dataclass(frozen=True, slots=True, eq=False)
class DensityTarget:
    """The density of an estimator, q / prior, in the place of an individual likelihood.

    Attributes
    ----------
    log_density : callable
        Maps phi (n_subjects, n_points, d) to log q(phi | y_i), shape (n_subjects, n_points).
    prior : AbstractPrior
    surrogate : SurrogateTarget
        Places the nodes.
    step : ndarray, shape (d,)
        Half widths of the differences that give the gradient: the densities of neural estimators are single
        precision, so small steps would return rounding noise.
    """

    log_density: Callable[[np.ndarray], np.ndarray]
    prior: AbstractPrior
    surrogate: SurrogateTarget
    step: np.ndarray

    def log_likelihood(self, phi: np.ndarray) -> np.ndarray:
        """Log of q / prior, up to log p(y_i), shape (n_subjects, n_points)."""
        shape = phi.shape[:2]
        log_prior = self.prior.log_prob(phi.reshape(-1, phi.shape[2])).reshape(shape)
        return np.asarray(self.log_density(phi), dtype=np.float64).reshape(shape) - log_prior

    def log_likelihood_and_gradient(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log of q / prior and its gradient by central differences."""
        gradient = np.empty(phi.shape)
        for k, h in enumerate(self.step):
            ahead, behind = phi.copy(), phi.copy()
            ahead[..., k] += h
            behind[..., k] -= h
            gradient[..., k] = (self.log_likelihood(ahead) - self.log_likelihood(behind)) / (2.0 * h)
        return self.log_likelihood(phi), gradient

    def gauss_newton(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value, gradient and curvature of the surrogate at phi (n_subjects, d)."""
        return self.surrogate.gauss_newton(phi)
