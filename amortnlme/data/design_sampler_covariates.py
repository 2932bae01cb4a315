"""Distributions of covariates, one after the other, each of which may depend on those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from amortnlme.core.errors import DesignError

DISTRIBUTIONS = ("uniform", "normal", "log-normal", "bernoulli")


@dataclass(frozen=True, slots=True)
class Covariate:
    """A covariate of a simulated subject.

    Its mean is `mean` plus, for every effect (name, slope, low, high), slope times that covariate clipped to
    [low, high].

    Attributes
    ----------
    name : str
    distribution : str
        "uniform" on `bounds`; "normal"; "log-normal", whose `mean`, `sd` and effects are of the logarithm;
        "bernoulli": 1 with probability `mean`, else 0.
    bounds : tuple of float   [covariate units]
        Normal and log-normal values are drawn inside these bounds (truncated); (0, 1) for "bernoulli".
    mean, sd : float
    effects : tuple of (str, float, float, float)
        Covariates drawn before this one.
    decimals : int or None
        Digits after the point that are kept.

    Raises
    ------
    DesignError
        E_DESIGN_SAMPLER for an unknown distribution or an impossible value.
    """

    name: str
    distribution: str
    bounds: tuple[float, float]
    mean: float = 0.0
    sd: float = 1.0
    effects: tuple[tuple[str, float, float, float], ...] = ()
    decimals: int | None = None

    def __post_init__(self) -> None:
        """Refuse impossible options."""
        if self.distribution not in DISTRIBUTIONS:
            raise DesignError(
                "E_DESIGN_SAMPLER",
                f"covariate {self.name!r} has the distribution {self.distribution!r}. Allowed: "
                f"{', '.join(DISTRIBUTIONS)}.",
            )
        lowest = 0.0 if self.distribution == "log-normal" else -np.inf
        if len(self.bounds) != 2 or not lowest <= self.bounds[0] < self.bounds[1] or not self.sd > 0.0:
            raise DesignError(
                "E_DESIGN_SAMPLER",
                f"covariate {self.name!r} has bounds {self.bounds} and sd {self.sd}; it needs two bounds, "
                "smallest first (not negative if log-normal), and a positive sd.",
            )
        if self.distribution == "bernoulli" and not 0.0 <= self.mean <= 1.0:
            raise DesignError(
                "E_DESIGN_SAMPLER",
                f"covariate {self.name!r} has the probability {self.mean}; it lies between 0 and 1.",
            )

    def sample(self, n: int, before: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """Draw values.

        Parameters
        ----------
        n : int
        before : mapping of str to ndarray, shape (n,)
            Covariates already drawn.
        rng : numpy.random.Generator

        Returns
        -------
        ndarray, shape (n,)   [covariate units]
        """
        u = rng.random(n)
        if self.distribution == "bernoulli":
            return (u < self.mean).astype(np.float64)
        low, high = self.bounds
        if self.distribution == "uniform":
            values = low + (high - low) * u
        else:
            shifts = [slope * np.clip(before[name], a, b) for name, slope, a, b in self.effects]
            mean = np.full(n, self.mean) + sum(shifts, np.zeros(n))
            is_log = self.distribution == "log-normal"
            with np.errstate(divide="ignore"):
                ends = [(np.log(end) if is_log else end) - mean for end in (low, high)]
            p_low, p_high = (ndtr(end / self.sd) for end in ends)
            values = mean + self.sd * ndtri(p_low + u * (p_high - p_low))
            values = np.clip(np.exp(values) if is_log else values, low, high)
        return values if self.decimals is None else values.round(self.decimals)


def sample_covariates(
    covariates: Sequence[Covariate], n: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draw every covariate, in order.

    Parameters
    ----------
    covariates : sequence of Covariate
    n : int
    rng : numpy.random.Generator

    Returns
    -------
    dict of str to ndarray, shape (n,)
    """
    drawn: dict[str, np.ndarray] = {}
    for covariate in covariates:
        drawn[covariate.name] = covariate.sample(n, drawn, rng)
    return drawn


def check_order(covariates: Sequence[Covariate]) -> None:
    """Refuse covariates that occur twice or depend on one that is not drawn before them.

    Parameters
    ----------
    covariates : sequence of Covariate

    Raises
    ------
    DesignError
        E_DESIGN_SAMPLER.
    """
    seen: list[str] = []
    for covariate in covariates:
        unknown = [name for name, *_ in covariate.effects if name not in seen]
        if unknown or covariate.name in seen:
            what = f"depends on {unknown[0]!r}, which is not drawn before it" if unknown else "occurs twice"
            raise DesignError(
                "E_DESIGN_SAMPLER",
                f"covariate {covariate.name!r} {what}. Drawn before it: {', '.join(seen) or 'none'}.",
            )
        seen.append(covariate.name)


def covariate_from_config(config: Mapping[str, Any]) -> Covariate:
    """Rebuild a covariate from its fields.

    Parameters
    ----------
    config : mapping

    Returns
    -------
    Covariate

    Raises
    ------
    DesignError
        E_DESIGN_SAMPLER for missing or unknown keys.
    """
    if set(config) != set(Covariate.__dataclass_fields__):
        raise DesignError(
            "E_DESIGN_SAMPLER",
            f"the stored covariate {dict(config)!r} is not understood. It needs the keys "
            f"{', '.join(Covariate.__dataclass_fields__)}.",
        )
    options = dict(config)
    options["bounds"] = tuple(options["bounds"])
    options["effects"] = tuple(tuple(effect) for effect in options["effects"])
    return Covariate(**options)
