"""Prior distributions of the individual parameters on the unconstrained scale phi."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from amortnlme.core.errors import ModelError

LOG_2PI = float(np.log(2.0 * np.pi))


class AbstractPrior(ABC):
    """A proper distribution of phi that can be sampled and evaluated."""

    @property
    @abstractmethod
    def d(self) -> int:
        """Number of parameters."""

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw parameters.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator

        Returns
        -------
        ndarray, shape (n, d)
        """

    @abstractmethod
    def log_prob(self, phi: np.ndarray) -> np.ndarray:
        """Log density.

        Parameters
        ----------
        phi : ndarray, shape (..., d)

        Returns
        -------
        ndarray, shape (...)   [nats]
        """

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description; `prior_from_config` rebuilds it.

        Returns
        -------
        dict
        """


class NormalPrior(AbstractPrior):
    """Multivariate normal prior on phi.

    Parameters
    ----------
    mean : array_like, shape (d,)
    sd : array_like, shape (d,), optional
        Standard deviations of independent parameters.
    covariance : array_like, shape (d, d), optional
        Instead of `sd`.

    Raises
    ------
    ModelError
        E_PRIOR_SHAPE, E_PRIOR_NOT_POSITIVE.
    """

    __slots__ = ("_chol", "_covariance", "_mean", "_sd")

    def __init__(self, mean: Any, sd: Any = None, *, covariance: Any = None) -> None:
        self._mean = np.array(mean, dtype=np.float64)
        if (sd is None) == (covariance is None):
            raise ModelError("E_PRIOR_SHAPE", "NormalPrior needs either `sd` or `covariance`, and not both.")
        d = self._mean.shape[0] if self._mean.ndim == 1 else -1
        spread = np.array(sd if covariance is None else covariance, dtype=np.float64)
        if d < 1 or spread.shape != ((d,) if covariance is None else (d, d)):
            raise ModelError(
                "E_PRIOR_SHAPE",
                f"NormalPrior got a mean of shape {self._mean.shape} and "
                f"{'sd' if covariance is None else 'covariance'} of shape {spread.shape}. Give (d,) and "
                "(d,), or (d, d) for a covariance.",
            )
        self._sd = spread if covariance is None else None
        self._covariance = np.diag(spread**2) if covariance is None else spread
        try:
            if not np.allclose(self._covariance, self._covariance.T) or not np.isfinite(self._mean).all():
                raise np.linalg.LinAlgError
            if self._sd is not None and not (self._sd > 0).all():
                raise np.linalg.LinAlgError
            self._chol = np.linalg.cholesky(self._covariance)
        except np.linalg.LinAlgError as fault:
            raise ModelError(
                "E_PRIOR_NOT_POSITIVE",
                "NormalPrior needs a finite mean and positive standard deviations (or a symmetric "
                f"positive definite covariance); got {spread.tolist()}.",
            ) from fault
        for array in (self._mean, self._covariance, self._chol):
            array.setflags(write=False)

    @property
    def d(self) -> int:
        """Number of parameters."""
        return self._mean.shape[0]

    @property
    def mean(self) -> np.ndarray:
        """Mean, shape (d,)."""
        return self._mean

    @property
    def covariance(self) -> np.ndarray:
        """Covariance, shape (d, d)."""
        return self._covariance

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw parameters; see `AbstractPrior.sample`."""
        z = rng.standard_normal((n, self.d))
        # Not a BLAS product, whose rounding may depend on how many rows come together.
        return self._mean + np.einsum("ij,nj->ni", self._chol, z)

    def log_prob(self, phi: np.ndarray) -> np.ndarray:
        """Log density; see `AbstractPrior.log_prob`."""
        residual = np.asarray(phi, dtype=np.float64) - self._mean
        z = np.empty_like(residual)
        for i in range(self.d):
            z[..., i] = (residual[..., i] - (z[..., :i] * self._chol[i, :i]).sum(axis=-1)) / self._chol[i, i]
        return -0.5 * (z**2).sum(axis=-1) - np.log(np.diag(self._chol)).sum() - 0.5 * self.d * LOG_2PI

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description; see `AbstractPrior.to_config`."""
        config: dict[str, Any] = {"kind": "normal", "mean": self._mean.tolist()}
        if self._sd is not None:
            config["sd"] = self._sd.tolist()
        else:
            config["covariance"] = self._covariance.tolist()
        return config

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NormalPrior) and self.to_config() == other.to_config()

    def __hash__(self) -> int:
        return hash(str(self.to_config()))

    def __repr__(self) -> str:
        return f"NormalPrior({self.to_config()})"


def prior_from_config(config: dict[str, Any]) -> AbstractPrior:
    """Rebuild a prior from `AbstractPrior.to_config`.

    Parameters
    ----------
    config : dict

    Returns
    -------
    AbstractPrior

    Raises
    ------
    ModelError
        E_PRIOR_CONFIG for an unknown kind or unknown keys.
    """
    if config.get("kind") == "normal" and set(config) in (
        {"kind", "mean", "sd"},
        {"kind", "mean", "covariance"},
    ):
        return NormalPrior(config["mean"], config.get("sd"), covariance=config.get("covariance"))
    raise ModelError(
        "E_PRIOR_CONFIG",
        f"the stored prior {config!r} is not understood. Allowed: kind 'normal' with mean and sd or "
        "covariance.",
    )
