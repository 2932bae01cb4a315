"""Random designs for training: what an estimator is taught to see, and whether a patient looks like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from amortnlme.core.errors import DesignError
from amortnlme.data.design import DesignBatch
from amortnlme.data.design_sampler_base import AbstractDesignSampler, merge_records, unsampled_features
from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.subject import Subject

SCHEDULES = ("uniform", "log", "stratified")
# A dose is per_kg x weight with per_kg rounded to 0.01 mg/kg, so it may miss its range by half a rounding
# step.
AMOUNT_TOLERANCE = 0.01
# Doses come at least this fraction of the interval after the one before, whatever the jitter.
MIN_GAP = 0.125


@dataclass(frozen=True, slots=True)
class RandomDesignSampler(AbstractDesignSampler):
    """One or several doses, and observations at random times after each of them.

    Attributes
    ----------
    observations, doses : tuple of int
        Smallest and largest number of each.
    single_dose_probability : float
        Probability of the smallest number of doses; larger numbers are equally likely.
    dose_amount : tuple of float   [amount]
        Range of the amounts, log-uniform.
    weight : tuple of float, or None   [kg]
        Range of the body weight (log-normal around 70 kg, SD 0.22, truncated). The first dose is then a
        rounded amount per kg times the weight, and weight is returned as a covariate.
    intervals : tuple of float   [time]
        Dosing intervals, equally likely.
    jitter_probability, time_jitter, amount_jitter : float
        Probability that a patient's later doses are irregular; SD of their times as a fraction of the
        interval; SD of their log amounts.
    horizon : tuple of float   [time]
        Range (log-uniform) of how long after a dose observations may be taken.
    first_sample : float   [time]
        Earliest sample after a dose in the log-spaced schedules.
    after_last_dose : float
        Probability that an observation follows the last dose rather than any dose.
    schedules : tuple of str
        Equally likely: "uniform" and "log" (independent times), "stratified" (one time per slice,
        log-spaced).
    infusion_probability : float
        Probability that a patient's doses are infusions.
    infusion_duration : tuple of float   [time]
        Range of their duration, log-uniform.

    Raises
    ------
    DesignError
        E_DESIGN_SAMPLER for an empty or impossible range.
    """

    observations: tuple[int, int] = (2, 20)
    doses: tuple[int, int] = (1, 8)
    single_dose_probability: float = 0.5
    dose_amount: tuple[float, float] = (100.0, 1000.0)
    weight: tuple[float, float] | None = None
    intervals: tuple[float, ...] = (6.0, 8.0, 12.0, 24.0)
    jitter_probability: float = 0.5
    time_jitter: float = 0.15
    amount_jitter: float = 0.3
    horizon: tuple[float, float] = (8.0, 40.0)
    first_sample: float = 0.1
    after_last_dose: float = 0.6
    schedules: tuple[str, ...] = SCHEDULES
    infusion_probability: float = 0.0
    infusion_duration: tuple[float, float] = (0.5, 4.0)

    def __post_init__(self) -> None:
        """Refuse impossible options."""
        for name in ("observations", "doses", "dose_amount", "horizon", "infusion_duration", "weight"):
            pair = getattr(self, name)
            if pair is not None and (len(pair) != 2 or not 0 < pair[0] <= pair[1]):
                raise DesignError(
                    "E_DESIGN_SAMPLER",
                    f"{name} is {pair}; a range needs two positive numbers, smallest first.",
                )
        for name in (
            "single_dose_probability",
            "jitter_probability",
            "after_last_dose",
            "infusion_probability",
        ):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise DesignError(
                    "E_DESIGN_SAMPLER",
                    f"{name} is {getattr(self, name)}; a probability lies between 0 and 1.",
                )
        if not self.schedules or not set(self.schedules) <= set(SCHEDULES):
            raise DesignError(
                "E_DESIGN_SAMPLER",
                f"schedules is {self.schedules}; allowed are {', '.join(SCHEDULES)}, at least one.",
            )
        if not self.intervals or min(self.intervals) <= 0 or not 0 < self.first_sample < self.horizon[0]:
            raise DesignError(
                "E_DESIGN_SAMPLER",
                f"intervals {self.intervals} must be positive, and first_sample {self.first_sample} must "
                f"lie between 0 and the shortest horizon {self.horizon[0]}.",
            )

    @property
    def max_observations(self) -> int:
        """Largest number of observations of a design."""
        return self.observations[1]

    @property
    def max_records(self) -> int:
        """Largest number of records of a design."""
        return self.observations[1] + self.doses[1]

    def sample(self, n: int, rng: np.random.Generator) -> DesignBatch:
        """Draw designs with their covariates; see `AbstractDesignSampler.sample`."""
        weight, first_amount = self._first_dose(n, rng)
        n_doses, dose_time, amount = self._doses(n, first_amount, rng)
        n_observations, time = self._observations(n, n_doses, dose_time, rng)
        duration = np.zeros(n)
        if self.infusion_probability > 0.0:
            is_infusion = rng.random(n) < self.infusion_probability
            duration = np.where(is_infusion, _log_uniform(self.infusion_duration, n, rng), 0.0)
        dose_time = np.where(np.arange(self.doses[1]) < n_doses[:, None], dose_time, np.inf)
        time = np.where(np.arange(self.observations[1]) < n_observations[:, None], time, np.inf)
        covariates = {} if weight is None else {"weight": weight}
        return merge_records(dose_time, amount, duration, time, np.ones(time.shape), covariates)

    def contains(self, subject: Subject) -> tuple[str, ...]:
        """Say why a subject lies outside; see `AbstractDesignSampler.contains`.

        Weight and other covariates are not looked at: given the individual parameters they say nothing about
        the observations, and an estimator trained under this sampler does not see them.
        """
        design = subject.design
        reasons = unsampled_features(subject)
        reasons += self._count_reasons(subject.n_observed, design.n_doses)
        if design.n_doses:
            reasons += self._dose_reasons(
                design.dose_times, design.dose_amounts, design.duration[design.is_dose]
            )
            observed = design.observation_times[np.asarray(subject.observed, dtype=bool)]
            reasons += self._time_reasons(observed, design.dose_times)
        return tuple(reasons)

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description; see `AbstractDesignSampler.to_config`."""
        options = {name: getattr(self, name) for name in RandomDesignSampler.__dataclass_fields__}
        return {"kind": "random", **{k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}}

    def _first_dose(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray | None, np.ndarray]:
        target = _log_uniform(self.dose_amount, n, rng)
        if self.weight is None:
            return None, target
        weight = np.clip(70.0 * np.exp(0.22 * rng.standard_normal(n)), *self.weight).round(1)
        return weight, np.round(target / weight, 2) * weight

    def _doses(
        self, n: int, first_amount: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw number, times (n, D) and amounts (n, D) of the doses; the first is at time 0."""
        low, high = self.doses
        more = rng.integers(low + 1, high + 1, n) if high > low else np.full(n, low)
        n_doses = np.where(rng.random(n) < self.single_dose_probability, low, more)
        tau = rng.choice(np.asarray(self.intervals), n)[:, None]
        irregular = (rng.random(n) < self.jitter_probability)[:, None]
        index = np.arange(high)
        shift = np.where(irregular & (index > 0), self.time_jitter * rng.standard_normal((n, high)), 0.0)
        time = tau * (index + shift)
        gap = MIN_GAP * tau[:, 0]
        for k in range(1, high):
            time[:, k] = np.maximum(time[:, k], time[:, k - 1] + gap)
        change = np.where(irregular & (index > 0), self.amount_jitter * rng.standard_normal((n, high)), 0.0)
        amount = first_amount[:, None] * np.exp(change)
        amount[:, 1:] = np.clip(amount[:, 1:], *self.dose_amount)
        return n_doses, time, amount

    def _observations(
        self, n: int, n_doses: np.ndarray, dose_time: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw number and unsorted times (n, O) of the observations."""
        low, high = self.observations
        count = rng.integers(low, high + 1, n)
        any_dose = np.minimum(
            (rng.random((n, high)) * n_doses[:, None]).astype(np.int64), n_doses[:, None] - 1
        )
        last = rng.random((n, high)) < self.after_last_dose
        dose = np.where(last, n_doses[:, None] - 1, any_dose)
        horizon = _log_uniform(self.horizon, n, rng)[:, None]
        u = rng.random((n, high))
        span = horizon / self.first_sample
        slices = (np.arange(high) + 0.2 + 0.6 * u) / count[:, None]
        delays = {
            "uniform": u * horizon,
            "log": self.first_sample * span**u,
            # Slices beyond the count belong to observations that are dropped.
            "stratified": self.first_sample * span ** np.minimum(slices, 1.0),
        }
        which = rng.integers(0, len(self.schedules), n)
        delay = np.choose(which[:, None], [delays[name] for name in self.schedules])
        return count, np.take_along_axis(dose_time, dose, axis=1) + delay

    def _count_reasons(self, n_observed: int, n_doses: int) -> list[str]:
        reasons = []
        for count, (low, high), what in (
            (n_observed, self.observations, "observations"),
            (n_doses, self.doses, "doses"),
        ):
            if not low <= count <= high:
                reasons.append(f"it has {count} {what}; the designs have {low} to {high}")
        return reasons

    def _dose_reasons(self, times: np.ndarray, amounts: np.ndarray, durations: np.ndarray) -> list[str]:
        reasons = []
        low, high = self.dose_amount
        outside = (amounts < low * (1 - AMOUNT_TOLERANCE)) | (amounts > high * (1 + AMOUNT_TOLERANCE))
        if outside.any():
            reasons.append(f"it has a dose of {amounts[outside][0]:g}; the designs have {low:g} to {high:g}")
        gaps = np.diff(times)
        shortest = MIN_GAP * min(self.intervals)
        longest = max(self.intervals) * (1.0 + 4.0 * self.time_jitter)
        if gaps.size and (gaps.min() < shortest or gaps.max() > longest):
            worst = gaps.min() if gaps.min() < shortest else gaps.max()
            reasons.append(f"two doses are {worst:g} apart; the designs have {shortest:g} to {longest:g}")
        infused = durations > 0.0
        if infused.any() and self.infusion_probability == 0.0:
            reasons.append("it has an infusion; the designs have none")
        elif not infused.all() and self.infusion_probability == 1.0:
            reasons.append("it has a bolus dose; the designs have infusions only")
        elif infused.any():
            short, long = self.infusion_duration
            if (durations[infused] < short).any() or (durations[infused] > long).any():
                reasons.append(
                    f"it has an infusion over {durations[infused].min():g} to "
                    f"{durations[infused].max():g}; the designs have {short:g} to {long:g}"
                )
        return reasons

    def _time_reasons(self, observed: np.ndarray, doses: np.ndarray) -> list[str]:
        reasons = []
        if observed.size and observed.min() < doses[0]:
            reasons.append("it has an observation before the first dose; the designs have none")
        after = observed[observed >= doses[0]]
        if after.size:
            last_dose = doses[np.searchsorted(doses, after, side="right") - 1]
            delay = float((after - last_dose).max())
            if delay > self.horizon[1]:
                reasons.append(
                    f"it has an observation {delay:g} after the last dose; the designs have at most "
                    f"{self.horizon[1]:g}"
                )
        return reasons


def _log_uniform(bounds: tuple[float, float], n: int, rng: np.random.Generator) -> np.ndarray:
    low, high = np.log(bounds)
    return np.exp(low + (high - low) * rng.random(n))


def design_sampler_from_config(config: dict[str, Any]) -> AbstractDesignSampler:
    """Rebuild a design sampler from `AbstractDesignSampler.to_config`.

    Parameters
    ----------
    config : dict

    Returns
    -------
    AbstractDesignSampler

    Raises
    ------
    DesignError
        E_DESIGN_SAMPLER for an unknown kind or unknown keys.
    """
    options: dict[str, Any] = {key: value for key, value in config.items() if key != "kind"}
    kind = config.get("kind")
    if kind == "random" and set(options) == set(RandomDesignSampler.__dataclass_fields__):
        lists: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        return RandomDesignSampler(**lists)
    if kind == "protocol" and set(options) == set(ProtocolDesignSampler.__dataclass_fields__):
        return ProtocolDesignSampler.from_config(options)
    raise DesignError(
        "E_DESIGN_SAMPLER",
        f"the stored design sampler {config!r} is not understood. It was written by another version or "
        "changed by hand.",
    )
