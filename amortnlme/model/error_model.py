"""Residual-error models: y = f + sd(f) eps, or log y = log f + s eps, with censoring (M3) and derivatives.

The sigma parameters are standard deviations on the natural scale, and exponents where sd grows with a power
of f.

Every sd is even in f. At f = 0, where sd may have a cusp, its slope is given as 0, the mean of its two sides:
a prediction that is 0 whatever the parameters (before the first dose) has no slope by them either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass
from typing import Any

import numpy as np

from amortnlme.core.errors import ModelError
from amortnlme.model.censoring import censored_log_density

HALF_LOG_2PI = 0.5 * float(np.log(2.0 * np.pi))


@dataclass(frozen=True, slots=True, eq=False)
class ErrorTerms:
    """Log density of every observation with what methods need to differentiate it.

    Attributes
    ----------
    ll : ndarray, shape (..., m)   [nats]
    dll_df : ndarray, shape (..., m)
    dll_dsigma : ndarray, shape (..., m, n_sigma)
    mean_weight, sd_weight : ndarray, shape (..., m)
        Expected information: mean_weight (dh)^2 + sd_weight (ds)^2 with h the mean on the error model's
        scale.
    dh_df, ds_df : ndarray, shape (..., m)
    ds_dsigma : ndarray, shape (..., m, n_sigma)
    """

    ll: np.ndarray
    dll_df: np.ndarray
    dll_dsigma: np.ndarray
    mean_weight: np.ndarray
    sd_weight: np.ndarray
    cross_weight: np.ndarray
    dh_df: np.ndarray
    ds_df: np.ndarray
    ds_dsigma: np.ndarray


class AbstractErrorModel(ABC):
    """A distribution of one observation given its prediction."""

    __slots__ = ()

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the residual-error parameters, in the order of the columns of sigma."""

    @property
    def exponents(self) -> tuple[str, ...]:
        """Those of `names` that are exponents of the prediction, not SDs."""
        return ()

    @property
    def is_log_scale(self) -> bool:
        """Whether the residual is normal on the log scale."""
        return False

    @abstractmethod
    def sd_with_derivatives(
        self, f: np.ndarray, sigma: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residual SD on the error model's scale, and its derivatives.

        Parameters
        ----------
        f : ndarray, shape (..., m)   [observation units]
        sigma : ndarray, shape (..., n_sigma)

        Returns
        -------
        sd : ndarray, shape (..., m)
        dsd_df : ndarray, shape (..., m)
        dsd_dsigma : ndarray, shape (..., m, n_sigma)
        """

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description; `error_model_from_config` rebuilds it.

        Returns
        -------
        dict
        """

    def sd(self, f: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Residual SD on the error model's scale.

        Parameters
        ----------
        f : ndarray, shape (..., m)   [observation units]
        sigma : ndarray, shape (..., n_sigma)

        Returns
        -------
        ndarray, shape (..., m)
        """
        return self.sd_with_derivatives(f, sigma)[0]

    def log_density(
        self,
        y: np.ndarray,
        f: np.ndarray,
        sigma: np.ndarray,
        censoring: np.ndarray | None = None,
        limit: np.ndarray | None = None,
    ) -> np.ndarray:
        """Log density of observations, or log probability of censored ones.

        Parameters
        ----------
        y : ndarray, shape (..., m)   [observation units]
            For a censored observation, the quantification limit.
        f : ndarray, shape (..., m)   [observation units]
        sigma : ndarray, shape (..., n_sigma)
        censoring : ndarray of int, shape (..., m), optional
            0 observed, 1 below y, -1 above y.
        limit : ndarray, shape (..., m), optional
            Other end of a censoring interval; NaN for none.

        Returns
        -------
        ndarray, shape (..., m)   [nats]
            -inf where y is impossible.
        """
        return self.terms(y, f, sigma, censoring, limit).ll

    def log_density_with_gradient(
        self,
        y: np.ndarray,
        f: np.ndarray,
        sigma: np.ndarray,
        censoring: np.ndarray | None = None,
        limit: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log density and its derivatives with respect to f and sigma.

        Parameters
        ----------
        y, f, sigma, censoring, limit : ndarray
            As `log_density`.

        Returns
        -------
        ll : ndarray, shape (..., m)   [nats]
        dll_df : ndarray, shape (..., m)
        dll_dsigma : ndarray, shape (..., m, n_sigma)
            Derivatives are 0 where ll is -inf.
        """
        terms = self.terms(y, f, sigma, censoring, limit)
        return terms.ll, terms.dll_df, terms.dll_dsigma

    def terms(
        self,
        y: np.ndarray,
        f: np.ndarray,
        sigma: np.ndarray,
        censoring: np.ndarray | None = None,
        limit: np.ndarray | None = None,
    ) -> ErrorTerms:
        """Everything a likelihood method needs per observation.

        Parameters
        ----------
        y, f, sigma, censoring, limit : ndarray
            As `log_density`.

        Returns
        -------
        ErrorTerms
        """
        with np.errstate(all="ignore"):
            s, ds_df, ds_dsigma = self.sd_with_derivatives(f, sigma)
            if self.is_log_scale:
                dh_df = 1.0 / f
                residual = np.log(y) - np.log(f)
                jacobian = np.log(y)
            else:
                dh_df = np.ones_like(f)
                residual = y - f
                jacobian = 0.0
            inverse = 1.0 / s
            z = residual * inverse
            ll = -0.5 * z * z - np.log(s) - HALF_LOG_2PI - jacobian
            dll_dh = z * inverse
            dll_ds = (z * z - 1.0) * inverse
            mean_weight = inverse * inverse
            sd_weight = 2.0 * mean_weight
            cross_weight = np.zeros_like(mean_weight)
            if censoring is not None and np.any(censoring):
                columns = (ll, dll_dh, dll_ds, mean_weight, cross_weight, sd_weight)
                censored_log_density(self.is_log_scale, y, f, s, censoring, limit, columns)
            possible = np.isfinite(ll) & np.isfinite(dll_dh) & (s > 0.0)
            dll_df = dll_dh * dh_df + dll_ds * ds_df
            dll_dsigma = dll_ds[..., None] * ds_dsigma
        if not possible.all():
            ll = np.where(possible, ll, -np.inf)
            dll_df = np.where(possible, dll_df, 0.0)
            dll_dsigma = np.where(possible[..., None], dll_dsigma, 0.0)
        return ErrorTerms(
            ll, dll_df, dll_dsigma, mean_weight, sd_weight, cross_weight, dh_df, ds_df, ds_dsigma
        )

    def draw(self, f: np.ndarray, sigma: np.ndarray, standard_normal: np.ndarray) -> np.ndarray:
        """Draw observations.

        Parameters
        ----------
        f : ndarray, shape (..., m)   [observation units]
        sigma : ndarray, shape (..., n_sigma)
        standard_normal : ndarray, shape (..., m)

        Returns
        -------
        ndarray, shape (..., m)   [observation units]
        """
        # in place: a batch of simulations is large, and memory costs more here than arithmetic
        y = self.sd(f, sigma) * standard_normal
        if self.is_log_scale:
            return np.multiply(f, np.exp(y, out=y), out=y)
        return np.add(f, y, out=y)


@dataclass(frozen=True, slots=True)
class Additive(AbstractErrorModel):
    """y = f + a eps.

    Attributes
    ----------
    a : str
        Name of the SD parameter [observation units].
    """

    a: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the residual-error parameters."""
        return (self.a,)

    def sd_with_derivatives(
        self, f: np.ndarray, sigma: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residual SD; see `AbstractErrorModel.sd_with_derivatives`."""
        return self.sd(f, sigma), np.zeros_like(f), np.ones((*f.shape, 1))

    def sd(self, f: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Residual SD alone; see `AbstractErrorModel.sd`."""
        return np.broadcast_to(sigma[..., :1], f.shape)

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {"kind": "additive", "a": self.a}


@dataclass(frozen=True, slots=True)
class Proportional(AbstractErrorModel):
    """y = f + b |f| eps.

    Attributes
    ----------
    b : str
        Name of the relative SD parameter [1]. A prediction of exactly 0 has no density; use Combined for
        data with samples before the first dose.
    """

    b: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the residual-error parameters."""
        return (self.b,)

    def sd_with_derivatives(
        self, f: np.ndarray, sigma: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residual SD; see `AbstractErrorModel.sd_with_derivatives`."""
        b = sigma[..., :1]
        return b * np.abs(f), b * np.sign(f), np.abs(f)[..., None]

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {"kind": "proportional", "b": self.b}


@dataclass(frozen=True, slots=True)
class Power(AbstractErrorModel):
    """y = f + b |f|^c eps.

    Attributes
    ----------
    b : str
        Name of the SD parameter: the SD where |f| is 1 [observation units^(1 - c)]. A prediction of exactly 0
        has no density; use Combined for data with samples before the first dose.
    c : str
        Name of the exponent [1]; 0 makes the error additive, 1 proportional.
    """

    b: str
    c: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the residual-error parameters."""
        return (self.b, self.c)

    @property
    def exponents(self) -> tuple[str, ...]:
        """Those of `names` that are exponents."""
        return (self.c,)

    def sd_with_derivatives(
        self, f: np.ndarray, sigma: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residual SD; see `AbstractErrorModel.sd_with_derivatives`."""
        b = sigma[..., 0:1]
        size, size_df, size_dc = _power(f, sigma[..., 1:2])
        return b * size, b * size_df, np.stack([size, b * size_dc], axis=-1)

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {"kind": "power", "b": self.b, "c": self.c}


@dataclass(frozen=True, slots=True)
class Combined(AbstractErrorModel):
    """Additive error plus one that is proportional to the prediction or to a power of it.

    Attributes
    ----------
    a, b : str
        Names of the additive SD [observation units] and the relative SD [1]; with an exponent the SD where
        |f| is 1 [observation units^(1 - c)].
    convention : str
        "variance": sd^2 = a^2 + (b |f|^c)^2, two independent errors (Y = F + F*EPS(1) + EPS(2); combined2 of
        Monolix). "sd": sd = a + b |f|^c (combined1 of Monolix).
    c : str or None
        Name of the exponent [1]; None fixes it at 1.

    Raises
    ------
    ModelError
        E_MODEL_ERROR_CONVENTION.
    """

    a: str
    b: str
    convention: str = "variance"
    c: str | None = None

    def __post_init__(self) -> None:
        """Refuse unknown conventions."""
        if self.convention not in ("variance", "sd"):
            raise ModelError(
                "E_MODEL_ERROR_CONVENTION",
                f"Combined has the convention {self.convention!r}. Allowed: 'variance' (sd^2 = a^2 + (b "
                "|f|^c)^2) and 'sd' (sd = a + b |f|^c).",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the residual-error parameters."""
        return (self.a, self.b, *self.exponents)

    @property
    def exponents(self) -> tuple[str, ...]:
        """Those of `names` that are exponents."""
        return () if self.c is None else (self.c,)

    def sd_with_derivatives(
        self, f: np.ndarray, sigma: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residual SD; see `AbstractErrorModel.sd_with_derivatives`."""
        a, b = sigma[..., 0:1], sigma[..., 1:2]
        if self.c is None:
            size, size_df, by_c = np.abs(f), np.sign(f), []
        else:
            size, size_df, size_dc = _power(f, sigma[..., 2:3])
            by_c = [size_dc]
        if self.convention == "sd":
            by_sigma = [np.ones_like(f), size, *(b * slope for slope in by_c)]
            return a + b * size, b * size_df, np.stack(by_sigma, axis=-1)
        sd = np.hypot(a, b * size)
        by_size = b * b * size / sd
        by_sigma = [a / sd, b * size * size / sd, *(by_size * slope for slope in by_c)]
        return sd, by_size * size_df, np.stack(by_sigma, axis=-1)

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        config = {"kind": "combined", "a": self.a, "b": self.b, "convention": self.convention}
        # Without an exponent the description stays what it was before there were any: it enters fingerprints.
        return config if self.c is None else {**config, "c": self.c}


@dataclass(frozen=True, slots=True)
class LogNormal(AbstractErrorModel):
    """log y = log f + s eps; the density is that of y itself.

    Attributes
    ----------
    s : str
        Name of the SD on the log scale [1].
    """

    s: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the residual-error parameters."""
        return (self.s,)

    @property
    def is_log_scale(self) -> bool:
        """Whether the residual is normal on the log scale."""
        return True

    def sd_with_derivatives(
        self, f: np.ndarray, sigma: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residual SD; see `AbstractErrorModel.sd_with_derivatives`."""
        return self.sd(f, sigma), np.zeros_like(f), np.ones((*f.shape, 1))

    def sd(self, f: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Residual SD alone; see `AbstractErrorModel.sd`."""
        return np.broadcast_to(sigma[..., :1], f.shape)

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {"kind": "lognormal", "s": self.s}


def _power(f: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """|f|^c with its derivatives by f and c, both 0 at f = 0."""
    with np.errstate(divide="ignore"):  # a negative exponent at f = 0: infinite, hence no density
        size = np.abs(f) ** c
    moves = np.abs(f) > 0.0
    at = np.where(moves, f, 1.0)
    return size, np.where(moves, c * size / at, 0.0), np.where(moves, size * np.log(np.abs(at)), 0.0)


def error_model_from_config(config: dict[str, Any]) -> AbstractErrorModel:
    """Rebuild an error model from `AbstractErrorModel.to_config`.

    Parameters
    ----------
    config : dict

    Returns
    -------
    AbstractErrorModel

    Raises
    ------
    ModelError
        E_MODEL_CONFIG for an unknown kind or unknown keys.
    """
    kinds = {
        "additive": Additive,
        "proportional": Proportional,
        "power": Power,
        "combined": Combined,
        "lognormal": LogNormal,
    }
    options = {key: value for key, value in config.items() if key != "kind"}
    kind = kinds.get(config.get("kind", ""))
    fields = {} if kind is None else kind.__dataclass_fields__
    needed = {name for name, field in fields.items() if field.default is MISSING}
    if kind is None or not needed <= set(options) <= set(fields):
        raise ModelError(
            "E_MODEL_CONFIG",
            f"the stored error model {config!r} is not understood. Allowed kinds: {', '.join(kinds)}.",
        )
    return kind(**options)
