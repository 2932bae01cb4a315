"""One row of an estimates table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """One population estimate on the scale a reader expects, with its uncertainty.

    Attributes
    ----------
    name : str
        E.g. "ka", "beta_V_weight", "omega_ka", "corr_ke_V", "iov_ke", "a".
    kind : {"theta", "beta", "omega_sd", "omega_corr", "iov_sd", "iov_corr", "sigma"}
    scale : str
        "natural" (typical values and residual-error parameters, in `unit`), "phi" (coefficients and SDs of
        random effects, on the unconstrained scale) or "correlation".
    unit : str
    value : float
    se : float or None
        Standard error on the same scale (delta method); None where a Wald SE does not exist.
    rse_percent : float or None
        100 se / |value|.
    ci_low, ci_high : float or None
        95 % interval, formed on the unconstrained scale (phi, log SD, Fisher z) and mapped back.
    is_fixed : bool
        Whether the value was given rather than estimated.
    """

    name: str
    kind: str
    scale: str
    unit: str
    value: float
    se: float | None = None
    rse_percent: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    is_fixed: bool = False
