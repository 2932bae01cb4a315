"""From ragged designs and measurements to padded token sequences, masks and conditions.

Measurements and doses are divided by the subject's first dose, because linear systems look alike at every
dose, and measurements (as an option) also by their own root mean square; the logarithms of both divisors are
conditions, so nothing is lost. All constants are measured once on a masked pilot set and stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from amortnlme.data.design import DesignBatch
from amortnlme.neural.features import raw_features
from amortnlme.neural.spec import NetworkSpec


@dataclass(frozen=True, slots=True)
class Encoded:
    """Network input of n subjects.

    Attributes
    ----------
    tokens : ndarray (n, T, F) float32
        Standardized tokens, right-padded with zeros.
    length : ndarray (n,) int
        Number of valid tokens of each subject.
    conditions : ndarray (n, C) float32
        Standardized log first dose, log counts and covariates.
    shift : ndarray (n, d) float64
        What the unconstrained parameters lose when doses and measurements are divided by the subject's
        scales.
    """

    tokens: np.ndarray
    length: np.ndarray
    conditions: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class EventEncoder:
    """Turns a DesignBatch with measurements into tokens, and phi into network coordinates and back.

    Attributes
    ----------
    spec : NetworkSpec
        Which tokens and features are built.
    covariates : tuple of str
        Covariates given to the network.
    n_outputs : int
        Number of kinds of measurement (DVIDs).
    dose_exponent, output_exponent : ndarray (d,)
        Power of the first dose, and of the output scale, by which each parameter is divided.
    dose_reference, output_scale, time_scale : float
        Pilot medians and RMS that make doses, outputs and times of order one.
    feature_mean, feature_sd, condition_mean, condition_sd, phi_mean, phi_sd : ndarray
        Standardization constants of tokens (F,), conditions (C,) and parameters (d,).
    rise_columns : tuple of int
        Columns of the parameters named in `NetworkSpec.rise`.
    """

    spec: NetworkSpec
    covariates: tuple[str, ...]
    n_outputs: int
    dose_exponent: np.ndarray
    output_exponent: np.ndarray
    dose_reference: float
    output_scale: float
    time_scale: float
    feature_mean: np.ndarray
    feature_sd: np.ndarray
    condition_mean: np.ndarray
    condition_sd: np.ndarray
    phi_mean: np.ndarray
    phi_sd: np.ndarray
    rise_columns: tuple[int, ...] = ()

    def encode(self, batch: DesignBatch, y: np.ndarray, observed: np.ndarray) -> Encoded:
        """Encode n subjects.

        Parameters
        ----------
        batch : DesignBatch
            n designs.
        y : ndarray (n, m), unit of the outputs
            Measurements; entries that are not observed are ignored, NaN included.
        observed : ndarray (n, m) bool
            Which measurements exist.

        Returns
        -------
        Encoded
            Tokens padded to the longest sequence present.
        """
        raw, valid, conditions, shift = raw_features(self, batch, y, observed)
        tokens, mask, length = _compact((raw - self.feature_mean) / self.feature_sd, valid)
        scaled = (conditions - self.condition_mean) / self.condition_sd
        return Encoded(
            (tokens * mask[..., None]).astype(np.float32), length, scaled.astype(np.float32), shift
        )

    def to_network(self, phi: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Map parameters to network coordinates.

        Parameters
        ----------
        phi : ndarray (n, ..., d)
            Parameters, unconstrained scale.
        shift : ndarray (n, d)
            Shift of each subject, from `Encoded`.

        Returns
        -------
        ndarray (n, ..., d)
            Standardized coordinates.
        """
        return (phi - _aligned(shift, phi.ndim) - self.phi_mean) / self.phi_sd

    def to_phi(self, coordinates: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Map network coordinates to parameters: the inverse of `to_network`.

        Parameters
        ----------
        coordinates : ndarray (n, ..., d)
            Standardized coordinates.
        shift : ndarray (n, d)
            Shift of each subject, from `Encoded`.

        Returns
        -------
        ndarray (n, ..., d) float64
            Parameters, unconstrained scale.
        """
        scaled = self.phi_mean + self.phi_sd * np.asarray(coordinates, dtype=np.float64)
        return scaled + _aligned(shift, scaled.ndim)

    @property
    def log_abs_det(self) -> float:
        """Log |d coordinates / d phi|, the same for all subjects: shifts have unit Jacobian."""
        return -float(np.log(self.phi_sd).sum())

    def to_config(self) -> dict[str, Any]:
        """JSON-able constants; the network spec is stored beside them by the caller."""
        out: dict[str, Any] = {"covariates": list(self.covariates), "n_outputs": self.n_outputs}
        for name in _SCALARS:
            out[name] = float(getattr(self, name))
        for name in _VECTORS:
            out[name] = [float(value) for value in np.atleast_1d(getattr(self, name))]
        if self.rise_columns:
            out["rise_columns"] = list(self.rise_columns)
        return out

    @classmethod
    def from_config(cls, config: Mapping[str, Any], spec: NetworkSpec) -> EventEncoder:
        """Rebuild an encoder.

        Parameters
        ----------
        config : mapping
            What `to_config` gave.
        spec : NetworkSpec
            Network options.

        Returns
        -------
        EventEncoder
            An encoder with the same constants.
        """
        vectors: dict[str, Any] = {name: frozen(config[name]) for name in _VECTORS}
        scalars: dict[str, Any] = {name: float(config[name]) for name in _SCALARS}
        return cls(
            spec=spec,
            covariates=tuple(config["covariates"]),
            n_outputs=int(config["n_outputs"]),
            **scalars,
            **vectors,
            rise_columns=tuple(int(column) for column in config.get("rise_columns", ())),
        )


_SCALARS = ("dose_reference", "output_scale", "time_scale")
MOMENTS = ("feature_mean", "feature_sd", "condition_mean", "condition_sd", "phi_mean", "phi_sd")
_VECTORS = ("dose_exponent", "output_exponent", *MOMENTS)


def _compact(raw: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Move the valid records to the front, in order, and drop columns that only hold padding."""
    length = valid.sum(axis=1)
    width = max(int(length.max(initial=0)), 1)
    order = np.argsort(~valid, axis=1, kind="stable")[:, :width]
    mask = np.arange(width)[None, :] < length[:, None]
    return np.where(mask[..., None], np.take_along_axis(raw, order[..., None], axis=1), 0.0), mask, length


def pad_tokens(tokens: np.ndarray, width: int) -> np.ndarray:
    """Right-pad tokens, or relieve them of padding.

    Parameters
    ----------
    tokens : ndarray (n, T, F)
        Tokens whose valid part is no longer than `width`.
    width : int
        Wanted length.

    Returns
    -------
    ndarray (n, width, F)
        Tokens, zeros after their end.
    """
    kept = tokens[:, :width]
    return np.pad(kept, ((0, 0), (0, width - kept.shape[1]), (0, 0)))


def _aligned(shift: np.ndarray, ndim: int) -> np.ndarray:
    """Shift (n, d) with axes inserted so that it broadcasts against (n, ..., d)."""
    return shift.reshape(shift.shape[:1] + (1,) * (ndim - 2) + shift.shape[1:])


def frozen(values: Any) -> np.ndarray:
    """Return a read-only copy.

    Parameters
    ----------
    values : array_like
        Numbers of any shape.

    Returns
    -------
    ndarray float64
        Not writeable.
    """
    out = np.array(values, dtype=np.float64)
    out.flags.writeable = False
    return out
