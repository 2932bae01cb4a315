"""Part of a study protocol: courses of doses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from amortnlme.core.errors import DesignError

# Irregular times stay within this many standard deviations of their plan, so that a domain has an edge.
MAX_DEVIATION = 2.5


def refusal(text: str) -> DesignError:
    """Make the error of an impossible option.

    Parameters
    ----------
    text : str

    Returns
    -------
    DesignError
    """
    return DesignError("E_DESIGN_SAMPLER", text)


def check_range(name: str, pair: tuple[float, ...], *, allow_zero: bool = False) -> None:
    """Refuse a pair of numbers that is no range.

    Parameters
    ----------
    name : str
    pair : tuple of float
    allow_zero : bool
        Whether the range may start at zero.

    Raises
    ------
    DesignError
        E_DESIGN_SAMPLER.
    """
    if len(pair) != 2 or not (pair[0] >= 0 if allow_zero else pair[0] > 0) or not pair[0] <= pair[1]:
        raise refusal(
            f"{name} is {pair}; a range needs two {'non-negative' if allow_zero else 'positive'} numbers, "
            "smallest first."
        )


def log_uniform(bounds: tuple[float, float], n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw numbers whose logarithm is uniform.

    Parameters
    ----------
    bounds : tuple of float
    n : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n,)
    """
    low, high = np.log(bounds)
    return np.exp(low + (high - low) * rng.random(n))


def deviations(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw standard normals truncated at MAX_DEVIATION.

    Parameters
    ----------
    shape : tuple of int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray
    """
    low, high = ndtr(-MAX_DEVIATION), ndtr(MAX_DEVIATION)
    return ndtri(low + (high - low) * rng.random(shape))


def options_from_config(config: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the stored fields of a part into options; lists become tuples.

    Parameters
    ----------
    config : mapping
    expected : mapping
        Its keys are the fields.

    Returns
    -------
    dict

    Raises
    ------
    DesignError
        E_DESIGN_SAMPLER for missing or unknown keys.
    """
    if set(config) != set(expected):
        raise refusal(
            f"the stored part {dict(config)!r} of a design sampler is not understood. It needs the keys "
            f"{', '.join(expected)}."
        )
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}


@dataclass(frozen=True, slots=True)
class Doses:
    """A course of doses, the first at time 0.

    Attributes
    ----------
    amount : tuple of float   [amount, or amount per unit of `per`]
        Range, log-uniform; ignored where `levels` are given.
    levels : tuple of float   [as amount]
        Amounts, equally likely.
    per : str or None
        Covariate by which the amount is multiplied, such as "weight" for a dose per kg.
    unit_size : float   [amount]
        The dose is rounded to a multiple of this (a vial, a tablet), at least one; 0: not rounded.
    number : tuple of int
        Range of the number of doses, all equally likely.
    intervals : tuple of float   [time]
        Dosing intervals, equally likely.
    cycles : tuple of tuple of int
        Schedules, equally likely. (on, off): after `on` doses `off` intervals without a dose; (0, 0): no
        breaks.
    change : float
        Probability that the amount changes once within a course, at a random dose, to another draw.
    jitter : float
        SD of the dose times as a fraction of the interval, at most 0.15 so that doses keep their order.
    duration : tuple of float   [time]
        Range of the infusion's duration, log-uniform; (0, 0): boluses.
    """

    amount: tuple[float, float] = (100.0, 100.0)
    levels: tuple[float, ...] = ()
    per: str | None = None
    unit_size: float = 0.0
    number: tuple[int, int] = (1, 1)
    intervals: tuple[float, ...] = (24.0,)
    cycles: tuple[tuple[int, int], ...] = ((0, 0),)
    change: float = 0.0
    jitter: float = 0.0
    duration: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Refuse impossible options."""
        check_range("amount", self.amount)
        check_range("number", self.number)
        if any(level <= 0 for level in self.levels) or self.unit_size < 0:
            raise refusal(f"levels {self.levels} must be positive, unit_size {self.unit_size} not negative.")
        if not self.intervals or min(self.intervals) <= 0 or not 0.0 <= self.jitter <= 0.15:
            raise refusal(
                f"intervals {self.intervals} must be positive and jitter {self.jitter} between 0 and 0.15."
            )
        if self.duration != (0.0, 0.0):
            check_range("duration", self.duration)
        for cycle in self.cycles:
            if len(cycle) != 2 or (tuple(cycle) != (0, 0) and min(cycle) < 1):
                raise refusal(
                    f"a cycle is {cycle}; give (on, off), both at least 1, or (0, 0) for no breaks."
                )
        if not self.cycles or not 0.0 <= self.change <= 1.0:
            raise refusal(
                f"cycles {self.cycles} must not be empty and change {self.change} lie between 0 and 1."
            )

    def sample(
        self, n: int, covariates: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw courses.

        Parameters
        ----------
        n : int
        covariates : mapping of str to ndarray, shape (n,)
        rng : numpy.random.Generator

        Returns
        -------
        time : ndarray, shape (n, D)   [time]
            inf beyond the last dose.
        amount : ndarray, shape (n, D)   [amount]
        duration : ndarray, shape (n,)   [time]
        """
        low, high = self.number
        count = rng.integers(low, high + 1, n)
        index = np.arange(high)
        cycles = np.asarray(self.cycles)
        # Nothing is drawn where there is no choice, so that such designs stay what they were.
        chosen = rng.integers(0, len(cycles), n) if len(cycles) > 1 else np.zeros(n, dtype=np.int64)
        on, off = cycles[chosen, :1], cycles[chosen, 1:]
        place = index + np.where(on > 0, off * (index // np.maximum(on, 1)), 0)
        tau = rng.choice(np.asarray(self.intervals), n)[:, None]
        moved = self.jitter * deviations((n, high), rng) * (index > 0)
        time = np.where(index < count[:, None], tau * (place + moved), np.inf)
        amount = np.broadcast_to(self._amount(n, covariates, rng)[:, None], (n, high))
        if self.change > 0.0:
            later = self._amount(n, covariates, rng)[:, None]
            at = np.where(rng.random(n) < self.change, rng.integers(0, count), high)
            amount = np.where(index < at[:, None], amount, later)
        duration = log_uniform(self.duration, n, rng) if self.duration[1] > 0 else np.zeros(n)
        return time, amount, duration

    def _amount(
        self, n: int, covariates: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> np.ndarray:
        """One amount (n,) for each course."""
        amount = rng.choice(self.levels, n) if self.levels else log_uniform(self.amount, n, rng)
        if self.per is not None:
            amount = amount * covariates[self.per]
        if self.unit_size:
            amount = np.maximum(np.round(amount / self.unit_size), 1.0) * self.unit_size
        return amount

    def to_config(self) -> dict[str, Any]:
        """Return the JSON-able fields.

        Returns
        -------
        dict
        """
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return fields | {"cycles": [list(cycle) for cycle in self.cycles]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Doses:
        """Rebuild from `to_config`.

        Parameters
        ----------
        config : mapping

        Returns
        -------
        Doses

        Raises
        ------
        DesignError
            E_DESIGN_SAMPLER for missing or unknown keys.
        """
        options = options_from_config(config, cls.__dataclass_fields__)
        options["cycles"] = tuple(tuple(cycle) for cycle in options["cycles"])
        return cls(**options)
