"""Individual parameters: names, units, transforms from natural (psi) to unconstrained scale (phi)."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amortnlme.core.errors import ModelError
from amortnlme.core.transforms import transform

ROLES = ("structural", "error")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One individual parameter.

    Attributes
    ----------
    name : str
        A Python identifier; the right-hand side uses `p.<name>`.
    unit : str
        For instance "1/h"; "1" for a dimensionless parameter.
    transform : str
        "identity", "log" or "logit": phi = transform(psi).
    typical : float
        A typical value on the natural scale.
    text : str
        What it means, in a few words.
    role : str
        "structural" (enters the dynamics or an output) or "error" (of an error model: an SD, or an exponent).

    Raises
    ------
    ModelError
        E_MODEL_PARAMETER_NAME, E_MODEL_PARAMETER_UNIT, E_MODEL_PARAMETER_ROLE, E_MODEL_PARAMETER_TYPICAL,
        E_TRANSFORM.
    """

    name: str
    unit: str
    transform: str
    typical: float
    text: str = ""
    role: str = "structural"

    def __post_init__(self) -> None:
        """Refuse what would only fail later."""
        if not str(self.name).isidentifier() or keyword.iskeyword(self.name):
            raise ModelError(
                "E_MODEL_PARAMETER_NAME",
                f"{self.name!r} cannot be a parameter name: the model writes p.<name>. Use letters, digits "
                "and underscores, not starting with a digit, and no Python keyword.",
            )
        if not isinstance(self.unit, str) or not self.unit.strip():
            raise ModelError(
                "E_MODEL_PARAMETER_UNIT",
                f"parameter {self.name!r} has no unit. Give one, for instance '1/h', or '1' if it is "
                "dimensionless.",
            )
        if self.role not in ROLES:
            raise ModelError(
                "E_MODEL_PARAMETER_ROLE",
                f"parameter {self.name!r} has the role {self.role!r}. Allowed: {', '.join(ROLES)}.",
            )
        if not bool(transform(self.transform).in_domain(np.asarray(self.typical, dtype=float))):
            raise ModelError(
                "E_MODEL_PARAMETER_TYPICAL",
                f"parameter {self.name!r} has the typical value {self.typical}, which the transform "
                f"{self.transform!r} does not allow. Give a value inside its domain.",
            )


@dataclass(frozen=True, slots=True)
class ParameterSpace:
    """The individual parameters of a model, in the order of the columns of phi.

    Attributes
    ----------
    parameters : tuple of Parameter

    Raises
    ------
    ModelError
        E_MODEL_DUPLICATE_PARAMETER, E_MODEL_NO_PARAMETERS.
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        """Refuse empty and duplicate lists."""
        object.__setattr__(self, "parameters", tuple(self.parameters))
        names = [parameter.name for parameter in self.parameters]
        if not names:
            raise ModelError(
                "E_MODEL_NO_PARAMETERS", "the model declares no parameters. Declare at least one."
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ModelError(
                "E_MODEL_DUPLICATE_PARAMETER",
                f"parameter {twice[0]!r} is declared {names.count(twice[0])} times. Give each parameter "
                "its own name.",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names in column order."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def d(self) -> int:
        """Number of parameters."""
        return len(self.parameters)

    @property
    def units(self) -> tuple[str, ...]:
        """Units in column order."""
        return tuple(parameter.unit for parameter in self.parameters)

    @property
    def typical_phi(self) -> np.ndarray:
        """Typical values on the unconstrained scale, shape (d,)."""
        return self.to_phi(np.array([parameter.typical for parameter in self.parameters], dtype=np.float64))

    def index(self, name: str) -> int:
        """Column of a parameter.

        Parameters
        ----------
        name : str

        Returns
        -------
        int

        Raises
        ------
        ModelError
            E_MODEL_UNKNOWN_PARAMETER.
        """
        if name not in self.names:
            raise ModelError(
                "E_MODEL_UNKNOWN_PARAMETER",
                f"there is no parameter {name!r}. The model has {', '.join(self.names)}.",
            )
        return self.names.index(name)

    def indices(self, names: Iterable[str]) -> tuple[int, ...]:
        """Columns of several parameters.

        Parameters
        ----------
        names : iterable of str

        Returns
        -------
        tuple of int

        Raises
        ------
        ModelError
            E_MODEL_UNKNOWN_PARAMETER.
        """
        return tuple(self.index(name) for name in names)

    def to_phi(self, psi: np.ndarray) -> np.ndarray:
        """Transform natural to unconstrained values.

        Parameters
        ----------
        psi : ndarray, shape (..., d)   [parameter units]

        Returns
        -------
        ndarray, shape (..., d)
        """
        return self._columnwise("forward", psi)

    def to_psi(self, phi: np.ndarray) -> np.ndarray:
        """Transform unconstrained to natural values.

        Parameters
        ----------
        phi : ndarray, shape (..., d)

        Returns
        -------
        ndarray, shape (..., d)   [parameter units]
        """
        return self._columnwise("inverse", phi)

    def dpsi_dphi(self, phi: np.ndarray) -> np.ndarray:
        """Differentiate each natural parameter with respect to its unconstrained one.

        Parameters
        ----------
        phi : ndarray, shape (..., d)

        Returns
        -------
        ndarray, shape (..., d)   [parameter units]
        """
        return self._columnwise("derivative", phi)

    def log_abs_det(self, phi: np.ndarray) -> np.ndarray:
        """Log determinant of the map phi -> psi, which takes densities of psi to densities of phi.

        Parameters
        ----------
        phi : ndarray, shape (..., d)

        Returns
        -------
        ndarray, shape (...)   [nats]
        """
        return self._columnwise("log_abs_det", phi).sum(axis=-1)

    def to_config(self) -> list[dict[str, Any]]:
        """Return JSON-able parameters.

        Returns
        -------
        list of dict
        """
        return [
            {
                "name": parameter.name,
                "unit": parameter.unit,
                "transform": parameter.transform,
                "typical": float(parameter.typical),
                "text": parameter.text,
                "role": parameter.role,
            }
            for parameter in self.parameters
        ]

    @classmethod
    def from_config(cls, config: Sequence[dict[str, Any]]) -> ParameterSpace:
        """Rebuild from `to_config`.

        Parameters
        ----------
        config : sequence of dict

        Returns
        -------
        ParameterSpace

        Raises
        ------
        ModelError
            E_MODEL_CONFIG for missing or unknown keys, and those of `Parameter`.
        """
        expected = {"name", "unit", "transform", "typical", "text", "role"}
        for entry in config:
            if set(entry) != expected:
                raise ModelError(
                    "E_MODEL_CONFIG",
                    f"a stored parameter has the keys {sorted(entry)}; expected {sorted(expected)}. The "
                    "file was written by another version or changed by hand.",
                )
        return cls(
            tuple(
                Parameter(
                    name=entry["name"],
                    unit=entry["unit"],
                    transform=entry["transform"],
                    typical=float(entry["typical"]),
                    text=entry["text"],
                    role=entry["role"],
                )
                for entry in config
            )
        )

    def _columnwise(self, method: str, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, dtype=np.float64)
        if values.shape[-1:] != (self.d,):
            raise ModelError(
                "E_MODEL_PARAMETER_SHAPE",
                f"parameter values have shape {values.shape}; the last axis must hold the {self.d} "
                f"parameters {', '.join(self.names)}.",
            )
        out = np.empty(values.shape)
        with np.errstate(
            all="ignore"
        ):  # absurd values become inf or NaN, which the solver reports as a status
            for i, parameter in enumerate(self.parameters):
                out[..., i] = getattr(transform(parameter.transform), method)(values[..., i])
        return out
