"""Part of a study protocol: when what is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from amortnlme.data.design_sampler_doses import (
    MAX_DEVIATION,
    check_range,
    deviations,
    options_from_config,
    refusal,
)


class AbstractSampling(ABC):
    """When some outputs are measured, all of them at the same times."""

    __slots__ = ()

    # 1-based outcomes that are measured.
    outputs: tuple[int, ...]

    @property
    @abstractmethod
    def counts(self) -> tuple[int, int]:
        """Smallest and largest number of times."""

    @abstractmethod
    def sample(self, n: int, dose_time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw times.

        Parameters
        ----------
        n : int
        dose_time : ndarray, shape (n, D)   [time]
            Increasing; inf beyond the last dose.
        rng : numpy.random.Generator

        Returns
        -------
        ndarray, shape (n, K)   [time]
            Unsorted; inf beyond a design's number of times. A view of one row where nothing is drawn.
        """

    @abstractmethod
    def window(self, last_dose: float) -> tuple[float, float]:
        """Earliest and latest time that can be drawn.

        Parameters
        ----------
        last_dose : float   [time]

        Returns
        -------
        tuple of float   [time]
        """

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Return JSON-able fields with a "kind"; `sampling_from_config` rebuilds the sampling.

        Returns
        -------
        dict
        """


@dataclass(frozen=True, slots=True)
class PlannedTimes(AbstractSampling):
    """Times of a plan, of which some may be missed and which are kept more or less exactly.

    Attributes
    ----------
    times : tuple of float   [time]
        Increasing.
    outputs : tuple of int
    jitter : tuple of float   [time]
        SD of the deviation from each planned time (or one for all), truncated at 2.5 SDs.
    keep : tuple of int, or None
        Range of the number of planned times that take place, all equally likely; None: every one.
    complete : float
        Probability that as many times take place as `keep` allows, whatever number was drawn: a plan that is
        mostly followed to its end.
    """

    times: tuple[float, ...]
    outputs: tuple[int, ...] = (1,)
    jitter: tuple[float, ...] = (0.0,)
    keep: tuple[int, int] | None = None
    complete: float = 0.0

    def __post_init__(self) -> None:
        """Refuse impossible options."""
        k = len(self.times)
        if not k or not self.outputs or any(np.diff(self.times) <= 0):
            raise refusal(
                f"the times must increase and the outputs not be empty; given {self.times} and "
                f"{self.outputs}."
            )
        if len(self.jitter) not in (1, k) or min(self.jitter) < 0:
            raise refusal(f"jitter is {self.jitter}; give one SD for all or each of the {k} times.")
        if self.window(0.0)[0] < 0.0:
            raise refusal(
                f"a time of {self.times} with the jitter {self.jitter} may fall below 0 (at {MAX_DEVIATION} "
                "SDs). Use a smaller jitter for the first times."
            )
        if self.keep is not None and not 0 <= self.keep[0] <= self.keep[1] <= k:
            raise refusal(f"keep is {self.keep}; it lies between 0 and the number of times, {k}.")
        if not 0.0 <= self.complete <= 1.0 or (self.complete > 0.0 and self.keep is None):
            raise refusal(
                f"complete is {self.complete} with keep {self.keep}; a probability lies between 0 and 1, and "
                "without keep every plan is complete."
            )

    @property
    def counts(self) -> tuple[int, int]:
        """Smallest and largest number of times."""
        return self.keep or (len(self.times), len(self.times))

    def sample(self, n: int, dose_time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw times; see `AbstractSampling.sample`."""
        shape = (n, len(self.times))
        time = np.broadcast_to(np.asarray(self.times, dtype=np.float64), shape)
        if max(self.jitter) > 0:
            time = time + np.asarray(self.jitter) * deviations(shape, rng)
        if self.keep is None:
            return time
        count = rng.integers(self.keep[0], self.keep[1] + 1, n)
        if self.complete > 0.0:
            count = np.where(rng.random(n) < self.complete, self.keep[1], count)
        rank = rng.random(shape).argsort(axis=1).argsort(axis=1)
        return np.where(rank < count[:, None], time, np.inf)

    def window(self, last_dose: float) -> tuple[float, float]:
        """Earliest and latest time that can be drawn; see `AbstractSampling.window`."""
        spread = MAX_DEVIATION * np.broadcast_to(self.jitter, len(self.times))
        return float((self.times - spread).min()), float((self.times + spread).max())

    def to_config(self) -> dict[str, Any]:
        """Return JSON-able fields; see `AbstractSampling.to_config`."""
        fields = asdict(self).items()
        return {"kind": "planned", **{k: list(v) if isinstance(v, tuple) else v for k, v in fields}}


@dataclass(frozen=True, slots=True)
class RandomTimes(AbstractSampling):
    """Independent uniform times between `earliest` and `follow_up` after the last dose.

    Attributes
    ----------
    number : tuple of int
        Range of the number of times, all equally likely.
    follow_up : float   [time]
        After the last dose (after time 0 where there is none).
    earliest : float   [time]
    outputs : tuple of int
    """

    number: tuple[int, int]
    follow_up: float
    earliest: float = 0.0
    outputs: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        """Refuse impossible options."""
        check_range("number", self.number, allow_zero=True)
        if not self.outputs or not 0.0 <= self.earliest < self.follow_up:
            raise refusal(
                f"outputs {self.outputs} must not be empty, and earliest {self.earliest} must lie before "
                f"follow_up {self.follow_up}."
            )

    @property
    def counts(self) -> tuple[int, int]:
        """Smallest and largest number of times."""
        return self.number

    def sample(self, n: int, dose_time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw times; see `AbstractSampling.sample`."""
        low, high = self.number
        count = rng.integers(low, high + 1, n)
        latest = (_last_dose(dose_time) + self.follow_up)[:, None]
        time = self.earliest + (latest - self.earliest) * rng.random((n, high))
        return np.where(np.arange(high) < count[:, None], time, np.inf)

    def window(self, last_dose: float) -> tuple[float, float]:
        """Earliest and latest time that can be drawn; see `AbstractSampling.window`."""
        return self.earliest, last_dose + self.follow_up

    def to_config(self) -> dict[str, Any]:
        """Return JSON-able fields; see `AbstractSampling.to_config`."""
        fields = asdict(self).items()
        return {"kind": "random", **{k: list(v) if isinstance(v, tuple) else v for k, v in fields}}


@dataclass(frozen=True, slots=True)
class VisitTimes(AbstractSampling):
    """Times in windows after doses: troughs, peaks, or both, at visits on random dosing days.

    A subject keeps to some of the windows, each of them with probability 1/2 and at least one; its visits are
    spread evenly over the doses. A share of the subjects (`elsewhere`) has uniform times instead, breaks and
    the time after the last dose included.

    Attributes
    ----------
    number : tuple of int
        Range of the number of times, all equally likely.
    windows : tuple of tuple of float   [time]
        (earliest, latest) after a dose.
    elsewhere : float
        Share of the subjects whose times are uniform from the first dose on.
    follow_up : float   [time]
        Latest time after the last dose, for those.
    outputs : tuple of int
    """

    number: tuple[int, int]
    windows: tuple[tuple[float, float], ...]
    elsewhere: float
    follow_up: float
    outputs: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        """Refuse impossible options."""
        check_range("number", self.number, allow_zero=True)
        for window in self.windows:
            check_range("a window", window, allow_zero=True)
        if not self.outputs or not self.windows or not 0.0 <= self.elsewhere <= 1.0:
            raise refusal(
                f"outputs {self.outputs} and windows {self.windows} must not be empty, and elsewhere "
                f"{self.elsewhere} lie between 0 and 1."
            )
        if self.follow_up < max(latest for _, latest in self.windows):
            raise refusal(
                f"follow_up is {self.follow_up}; it must not end before the windows {self.windows}."
            )

    @property
    def counts(self) -> tuple[int, int]:
        """Smallest and largest number of times."""
        return self.number

    def sample(self, n: int, dose_time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw times; see `AbstractSampling.sample`."""
        low, high = self.number
        count = rng.integers(low, high + 1, n)
        windows = np.asarray(self.windows)
        kept = rng.random((n, len(windows))) < 0.5
        kept[np.arange(n), rng.integers(0, len(windows), n)] = True
        # A random one of the kept windows: the largest of their random numbers.
        which = np.argmax(rng.random((n, high, len(windows))) * kept[:, None], axis=2)
        earliest, latest = windows[which, 0], windows[which, 1]
        n_doses = np.maximum(np.isfinite(dose_time).sum(axis=1), 1)[:, None]
        dose = np.take_along_axis(dose_time, (n_doses * rng.random((n, high))).astype(np.int64), axis=1)
        time = dose + earliest + (latest - earliest) * rng.random((n, high))
        anywhere = (_last_dose(dose_time) + self.follow_up)[:, None] * rng.random((n, high))
        time = np.where(rng.random((n, 1)) < self.elsewhere, anywhere, time)
        return np.where(np.arange(high) < count[:, None], time, np.inf)

    def window(self, last_dose: float) -> tuple[float, float]:
        """Earliest and latest time that can be drawn; see `AbstractSampling.window`."""
        return 0.0, last_dose + self.follow_up

    def to_config(self) -> dict[str, Any]:
        """Return JSON-able fields; see `AbstractSampling.to_config`."""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {"kind": "visits", **fields, "windows": [list(window) for window in self.windows]}


def _last_dose(dose_time: np.ndarray) -> np.ndarray:
    """Time (n,) of the last dose; 0 where there is none."""
    return np.max(np.where(np.isfinite(dose_time), dose_time, 0.0), axis=1, initial=0.0)


_SAMPLINGS: dict[str, type[PlannedTimes] | type[RandomTimes] | type[VisitTimes]] = {
    "planned": PlannedTimes,
    "random": RandomTimes,
    "visits": VisitTimes,
}


def sampling_from_config(config: Mapping[str, Any]) -> AbstractSampling:
    """Rebuild a sampling from `part_to_config`.

    Parameters
    ----------
    config : mapping

    Returns
    -------
    AbstractSampling

    Raises
    ------
    DesignError
        E_DESIGN_SAMPLER for an unknown kind, or missing or unknown keys.
    """
    sampling = _SAMPLINGS.get(config.get("kind", ""))
    if sampling is None:
        raise refusal(
            f"the stored sampling {dict(config)!r} has no known kind. Allowed: {', '.join(_SAMPLINGS)}."
        )
    options = {key: value for key, value in config.items() if key != "kind"}
    options = options_from_config(options, sampling.__dataclass_fields__)
    if "windows" in options:
        options["windows"] = tuple(tuple(window) for window in options["windows"])
    return sampling(**options)
