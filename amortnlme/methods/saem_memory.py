"""What the chains of SAEM remember of the individual likelihoods: expansions at points they passed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.saem_kernels import Proposal


@dataclass(frozen=True, slots=True, eq=False)
class LocalExpansions:
    """Quadratic approximations of log p(y_i | phi) in the parameters with random effects, around K points.

    log p(y_i | phi) ~ const + g'(phi - c) - (phi - c)'J(phi - c) / 2. The M-step evaluates them anyway; kept
    over some iterations they describe each individual law where it is, whatever its shape.

    Attributes
    ----------
    point, gradient : ndarray, shape (n, K, r)
        c on the phi scale, and g.
    curvature : ndarray, shape (n, K, r, r)
        J, positive semi-definite.
    """

    point: np.ndarray
    gradient: np.ndarray
    curvature: np.ndarray

    @classmethod
    def repeated(
        cls, point: np.ndarray, gradient: np.ndarray, curvature: np.ndarray, size: int
    ) -> LocalExpansions:
        """Fill the memory with one expansion per subject.

        Parameters
        ----------
        point, gradient : ndarray, shape (n, r)
        curvature : ndarray, shape (n, r, r)
        size : int
            K.

        Returns
        -------
        LocalExpansions
        """
        return cls(*(np.repeat(part[:, None], size, axis=1) for part in (point, gradient, curvature)))

    def store(self, slot: int, point: np.ndarray, gradient: np.ndarray, curvature: np.ndarray) -> None:
        """Overwrite one of the K expansions of every subject; failed ones (no finite value) are passed over.

        Parameters
        ----------
        slot : int
        point, gradient : ndarray, shape (n, r)
        curvature : ndarray, shape (n, r, r)
        """
        usable = np.isfinite(gradient).all(axis=1) & np.isfinite(curvature).all(axis=(1, 2))
        usable &= (np.diagonal(curvature, axis1=1, axis2=2) > 0.0).any(axis=1)
        self.point[usable, slot] = point[usable]
        self.gradient[usable, slot] = gradient[usable]
        self.curvature[usable, slot] = curvature[usable]

    def proposal(self, mu: np.ndarray, omega: np.ndarray, reach: float) -> Proposal:
        """Combine the expansions with the population distribution.

        Parameters
        ----------
        mu : ndarray, shape (n, r)
        omega : ndarray, shape (r, r)
        reach : float
            Longest step from a point to the center of its component, in population SDs.

        Returns
        -------
        Proposal
            Component k has the precision P = J_k + inv(omega) and the mean c_k + inv(P) (g_k - inv(omega)
            (c_k - mu)), the mode if the expansion held everywhere.
        """
        root = np.linalg.cholesky(omega)
        # In population SDs, where the prior is the identity and nothing is singular.
        precision = np.eye(len(omega)) + root.T @ self.curvature @ root
        covariance = np.linalg.inv(precision)
        u = np.linalg.solve(root, np.swapaxes(self.point - mu[:, None], 1, 2)).swapaxes(1, 2)
        step = (covariance @ (self.gradient @ root - u)[..., None])[..., 0]
        size = np.abs(step).max(axis=2, keepdims=True)
        step *= np.minimum(1.0, reach / np.maximum(size, 1e-300))
        # root @ chol is a square root of the covariance of eta, lower triangular as a product of two such.
        return Proposal((u + step) @ root.T, root @ np.linalg.cholesky(covariance))
