"""Likelihood of the simple transfection model from its closed form: nothing here comes from the package."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np


@numba.njit(cache=True, error_model="numpy")
def _log_likelihood(phi, cell, time, y, count, out):
    for row in range(phi.shape[0]):
        c = cell[row]
        for j in range(phi.shape[1]):
            delta, gamma, k, t0, offset, sigma = np.exp(phi[row, j])
            square = 0.0
            for i in range(count[c]):
                tau = time[c, i] - t0
                protein = 0.0
                if tau > 0.0:
                    # k tau exp(-gamma tau) (1 - exp(-x)) / x holds for equal rates too.
                    x = (delta - gamma) * tau
                    share = 1.0 - 0.5 * x if abs(x) < 1e-8 else -np.expm1(-x) / x
                    protein = k * tau * np.exp(-gamma * tau) * share
                square += (y[c, i] - np.log(protein + offset)) ** 2
            out[row, j] = -0.5 * square / sigma**2 - count[c] * (np.log(sigma) + 0.5 * np.log(2 * np.pi))


@dataclass(frozen=True)
class TransfectedCells:
    """Measurements of S cells: time and y (S, T), of which the first `count` (S,) exist."""

    time: np.ndarray
    y: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, dataset):
        """The cells of a dataset without gaps."""
        y, observed, _, _ = dataset.y_padded()
        assert all(subject.observed.all() for subject in dataset.subjects)
        time = np.zeros(y.shape)
        for i, subject in enumerate(dataset.subjects):
            time[i, : subject.n_observed] = subject.design.observation_times
        return cls(time, np.where(observed, y, 0.0), observed.sum(axis=1).astype(np.int64))

    def log_likelihood(self, phi: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Log likelihood (R, N) of phi (R, N, 6) for the cells (R,)."""
        out = np.empty(phi.shape[:2])
        with np.errstate(over="ignore"):
            _log_likelihood(phi, cell, self.time, self.y, self.count, out)
        return np.where(np.isnan(out), -np.inf, out)
