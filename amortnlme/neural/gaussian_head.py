"""From the numbers of a recognition network to Gaussian laws on the phi scale, and derivatives back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.neural.encoder import frozen

# SDs between exp(-8) and exp(8) of the first ones.
_LOG_SD_BOUND = 8.0


@dataclass(frozen=True, slots=True, eq=False)
class GaussianHead:
    """What the numbers of the network mean: m = center + scale a, C = diag(scale) T.

    T is lower triangular; the network gives log T_kk less `log_sd`, bounded, and the entries below.

    Attributes
    ----------
    center, scale : ndarray, shape (r,)
        On the phi scale.
    log_sd : ndarray, shape (r,)
        Logarithm of the first SDs, in units of `scale`.
    """

    center: np.ndarray
    scale: np.ndarray
    log_sd: np.ndarray

    @property
    def r(self) -> int:
        """Number of individual parameters that vary."""
        return len(self.center)

    @property
    def n_numbers(self) -> int:
        """Numbers per subject."""
        return 2 * self.r + self.r * (self.r - 1) // 2

    def law(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn the numbers of the network into means and roots.

        Parameters
        ----------
        numbers : ndarray, shape (n, k)

        Returns
        -------
        mean : ndarray, shape (n, r)
            On the phi scale.
        root : ndarray, shape (n, r, r)
            Lower triangular with a positive diagonal.
        """
        r, values = self.r, np.asarray(numbers, dtype=np.float64)
        rows, columns = np.tril_indices(r, -1)
        relative = np.zeros((len(values), r, r))
        diagonal = np.arange(r)
        bounded = _LOG_SD_BOUND * np.tanh(values[:, r : 2 * r] / _LOG_SD_BOUND)
        relative[:, diagonal, diagonal] = np.exp(self.log_sd + bounded)
        relative[:, rows, columns] = values[:, 2 * r :]
        return self.center + self.scale * values[:, :r], self.scale[:, None] * relative

    def pull(
        self, numbers: np.ndarray, root: np.ndarray, by_mean: np.ndarray, by_root: np.ndarray
    ) -> np.ndarray:
        """Chain derivatives by mean and root back to the numbers.

        Parameters
        ----------
        numbers : ndarray, shape (n, k)
        root : ndarray, shape (n, r, r)
            What `law` gave for them.
        by_mean : ndarray, shape (n, r)
        by_root : ndarray, shape (n, r, r)

        Returns
        -------
        ndarray, shape (n, k)
        """
        r, values = self.r, np.asarray(numbers, dtype=np.float64)
        rows, columns = np.tril_indices(r, -1)
        diagonal = np.arange(r)
        slope = 1.0 - np.tanh(values[:, r : 2 * r] / _LOG_SD_BOUND) ** 2
        on_diagonal = by_root[:, diagonal, diagonal] * root[:, diagonal, diagonal] * slope
        below = (by_root * self.scale[:, None])[:, rows, columns]
        return np.concatenate([by_mean * self.scale, on_diagonal, below], axis=1)

    def to_config(self) -> dict[str, list[float]]:
        """JSON-able constants."""
        return {name: [float(v) for v in getattr(self, name)] for name in GaussianHead.__slots__}

    @classmethod
    def from_config(cls, config: dict[str, list[float]]) -> GaussianHead:
        """Rebuild from `to_config`."""
        return cls(*(frozen(config[name]) for name in GaussianHead.__slots__))
