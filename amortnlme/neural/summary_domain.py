"""Whether a subject's measurements look like any that the network was trained on.

A design inside the training designs says nothing about the measurements: another unit, another assay or
another mechanism gives summaries that no simulation gives, and posteriors that mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Share of the simulated subjects that lie beyond the limit themselves: the false-alarm rate.
_FALSE_ALARM = 0.002
_RIDGE = 1e-4
_DIGITS = 7


@dataclass(frozen=True, slots=True, eq=False)
class SummaryDomain:
    """Where the summaries of simulated subjects lie.

    Attributes
    ----------
    n : int
        Simulated subjects.
    mean : ndarray (p,)
        Of what the density is conditioned on.
    whitening : ndarray (p, p)
        Maps deviations from the mean to numbers of unit covariance.
    limit : float
        Distance (root mean square of those numbers) that 0.2 % of the simulated subjects exceed.
    """

    n: int
    mean: np.ndarray
    whitening: np.ndarray
    limit: float

    @classmethod
    def measure(cls, summaries: np.ndarray) -> SummaryDomain:
        """Measure the domain.

        Parameters
        ----------
        summaries : ndarray (n, p)
            Of simulated subjects.

        Returns
        -------
        SummaryDomain
        """
        values = summaries.astype(np.float64)
        mean = values.mean(axis=0)
        covariance = np.atleast_2d(np.cov(values.T))
        # Summaries that repeat each other, or are constant, get no weight of their own.
        variance = np.maximum(np.diagonal(covariance), 1e-12)
        root = np.linalg.cholesky(covariance + _RIDGE * np.diag(variance))
        whitening = np.linalg.inv(root).round(_DIGITS)
        blank = cls(len(values), mean.round(_DIGITS), whitening, np.inf)
        limit = float(np.quantile(blank.distance(values), 1.0 - _FALSE_ALARM))
        return cls(len(values), blank.mean, whitening, round(limit, _DIGITS))

    def distance(self, summaries: np.ndarray) -> np.ndarray:
        """Root mean square (n,) of the whitened deviations of summaries (n, p)."""
        white = (summaries.astype(np.float64) - self.mean) @ self.whitening.T
        return np.sqrt((white**2).mean(axis=1))

    def reasons(self, summaries: np.ndarray) -> list[tuple[str, ...]]:
        """Say for every subject, from its summaries (n, p), why it lies outside; empty for one inside."""
        return [
            ()
            if distance <= self.limit
            else (
                f"its measurements look unlike those of {self.n} simulated subjects (distance "
                f"{distance:.2f}; theirs reach {self.limit:.2f})",
            )
            for distance in self.distance(summaries)
        ]

    def to_config(self) -> dict[str, Any]:
        """JSON-able content."""
        return {
            "n": self.n,
            "mean": self.mean.tolist(),
            "whitening": self.whitening.tolist(),
            "limit": self.limit,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SummaryDomain:
        """Rebuild from `to_config`; raises ValueError for arrays of other shapes or values.

        Parameters
        ----------
        config : mapping
            What `to_config` gave.

        Returns
        -------
        SummaryDomain
        """
        mean, whitening = (np.asarray(config[name], dtype=np.float64) for name in ("mean", "whitening"))
        limit = float(config["limit"])
        finite = np.isfinite(mean).all() and np.isfinite(whitening).all() and np.isfinite(limit)
        if mean.ndim != 1 or whitening.shape != (mean.size, mean.size) or not finite:
            raise ValueError(f"summaries of shapes {mean.shape} and {whitening.shape}, or not finite")
        return cls(int(config["n"]), mean, whitening, limit)
