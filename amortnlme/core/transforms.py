"""Transforms between the natural scale psi (with units) and the unconstrained scale phi."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from amortnlme.core.errors import ModelError

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Transform:
    """A smooth, increasing, one-to-one map psi -> phi, applied element by element.

    Attributes
    ----------
    name : str
        One of ``"identity"``, ``"log"``, ``"logit"``.
    forward, inverse : callable
        psi -> phi and phi -> psi, arrays of any shape.
    derivative : callable
        d psi / d phi at phi.
    log_abs_det : callable
        log |d psi / d phi| at phi, element by element.
    in_domain : callable
        Whether psi can be transformed, element by element.
    """

    name: str
    forward: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    log_abs_det: Callable[[Array], Array]
    in_domain: Callable[[Array], Array]


def _logistic_log_derivative(phi: Array) -> Array:
    # log(s(1 - s)) without cancellation for large |phi|
    return -np.abs(phi) - 2.0 * np.log1p(np.exp(-np.abs(phi)))


_TRANSFORMS = {
    "identity": Transform(
        "identity",
        lambda psi: np.array(psi, dtype=float),
        lambda phi: np.array(phi, dtype=float),
        lambda phi: np.ones_like(phi, dtype=float),
        lambda phi: np.zeros_like(phi, dtype=float),
        lambda psi: np.isfinite(psi),
    ),
    "log": Transform(
        "log",
        np.log,
        np.exp,
        np.exp,
        lambda phi: np.array(phi, dtype=float),
        lambda psi: np.isfinite(psi) & (np.asarray(psi) > 0),
    ),
    "logit": Transform(
        "logit",
        lambda psi: np.log(psi) - np.log1p(-np.asarray(psi)),
        lambda phi: np.asarray(expit(phi)),
        lambda phi: np.exp(_logistic_log_derivative(np.asarray(phi, dtype=float))),
        lambda phi: _logistic_log_derivative(np.asarray(phi, dtype=float)),
        lambda psi: (np.asarray(psi) > 0) & (np.asarray(psi) < 1),
    ),
}


def transform(name: str) -> Transform:
    """Return the transform of that name.

    Parameters
    ----------
    name : str
        ``"identity"``, ``"log"`` (psi > 0) or ``"logit"`` (0 < psi < 1).

    Returns
    -------
    Transform

    Raises
    ------
    ModelError
        If there is no transform of that name.
    """
    if name not in _TRANSFORMS:
        raise ModelError("E_TRANSFORM", f"There is no transform {name!r}. Allowed: {', '.join(_TRANSFORMS)}.")
    return _TRANSFORMS[name]
