"""Designs that follow the protocol of a study: doses, measurements of several outputs, covariates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from amortnlme.core.errors import DesignError
from amortnlme.data.design import DesignBatch
from amortnlme.data.design_sampler_base import AbstractDesignSampler, merge_records, unsampled_features
from amortnlme.data.design_sampler_covariates import (
    Covariate,
    check_order,
    covariate_from_config,
    sample_covariates,
)
from amortnlme.data.design_sampler_doses import MAX_DEVIATION, Doses
from amortnlme.data.design_sampler_times import AbstractSampling, sampling_from_config
from amortnlme.data.repeated_design import repeat_design
from amortnlme.data.subject import Subject

# Amounts and times may differ from their range by rounding in a table.
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class ProtocolDesignSampler(AbstractDesignSampler):
    """Designs of one study protocol.

    Attributes
    ----------
    samplings : tuple of AbstractSampling
        An output belongs to one of them only.
    doses : Doses or None
        None: nobody is dosed.
    covariates : tuple of Covariate
        Drawn in this order; returned with the designs.

    Raises
    ------
    DesignError
        E_DESIGN_SAMPLER for a protocol that contradicts itself.
    """

    samplings: tuple[AbstractSampling, ...]
    doses: Doses | None = None
    covariates: tuple[Covariate, ...] = ()

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        check_order(self.covariates)
        outputs = [output for sampling in self.samplings for output in sampling.outputs]
        if not outputs or len(set(outputs)) != len(outputs) or min(outputs) < 1:
            raise DesignError(
                "E_DESIGN_SAMPLER",
                f"the samplings measure the outputs {outputs}; each output, counted from 1, belongs to one "
                "sampling.",
            )
        if sum(sampling.counts[0] for sampling in self.samplings) < 1:
            raise DesignError(
                "E_DESIGN_SAMPLER",
                "a design of this protocol may have no observation at all. Let one sampling have at least "
                "one.",
            )
        per = None if self.doses is None else self.doses.per
        if per is not None and per not in [covariate.name for covariate in self.covariates]:
            raise DesignError(
                "E_DESIGN_SAMPLER",
                f"doses are given per {per!r}, which is not among the covariates of the protocol. Add it.",
            )

    @property
    def max_observations(self) -> int:
        """Largest number of observations of a design."""
        return sum(sampling.counts[1] * len(sampling.outputs) for sampling in self.samplings)

    @property
    def max_records(self) -> int:
        """Largest number of records of a design."""
        return self.max_observations + (0 if self.doses is None else self.doses.number[1])

    def sample(self, n: int, rng: np.random.Generator) -> DesignBatch:
        """Draw designs with their covariates; see `AbstractDesignSampler.sample`."""
        covariates = sample_covariates(self.covariates, n, rng)
        dose_time, amount, duration = np.zeros((n, 0)), np.zeros((n, 0)), np.zeros(n)
        if self.doses is not None:
            dose_time, amount, duration = self.doses.sample(n, covariates, rng)
        times, outputs = [], []
        for sampling in self.samplings:
            time = sampling.sample(n, dose_time, rng)
            for output in sampling.outputs:
                times.append(time)
                outputs.append(np.broadcast_to(output, time.shape))
        is_fixed = self.doses is None and all(time.strides[0] == 0 for time in times)
        # Nothing was drawn: the records of one design are sorted, and everybody gets them.
        k = 1 if is_fixed else n
        merged = merge_records(
            dose_time[:k],
            amount[:k],
            duration[:k],
            np.concatenate([time[:k] for time in times], axis=1),
            np.concatenate([output[:k] for output in outputs], axis=1),
            {} if is_fixed else covariates,
        )
        return repeat_design(merged, n, covariates) if is_fixed else merged

    def contains(self, subject: Subject) -> tuple[str, ...]:
        """Say why a subject lies outside; see `AbstractDesignSampler.contains`.

        Covariates the subject has are compared with the bounds of the protocol; one it lacks is no reason,
        because a model that needs it refuses to run without it.
        """
        reasons = unsampled_features(subject) + self._dose_reasons(subject)
        doses = subject.design.dose_times
        last_dose = float(doses[-1]) if doses.size else 0.0
        present = np.asarray(subject.observed, dtype=bool)
        times = subject.design.observation_times[present]
        labels = subject.design.observation_outputs[present]
        known = {output for sampling in self.samplings for output in sampling.outputs}
        unknown = sorted(set(labels.tolist()) - known)
        if unknown:
            reasons.append(
                f"it has observations of outcome {unknown[0]}; the designs have "
                f"{', '.join(map(str, sorted(known)))}"
            )
        for sampling in self.samplings:
            for output in sampling.outputs:
                reasons += _time_reasons(sampling, output, times[labels == output], last_dose)
        for covariate in self.covariates:
            reasons += _covariate_reasons(covariate, subject)
        return tuple(reasons)

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description; see `AbstractDesignSampler.to_config`."""
        covariates = [asdict(covariate) for covariate in self.covariates]
        for config in covariates:
            config["bounds"] = list(config["bounds"])
            config["effects"] = [list(effect) for effect in config["effects"]]
        return {
            "kind": "protocol",
            "samplings": [sampling.to_config() for sampling in self.samplings],
            "doses": None if self.doses is None else self.doses.to_config(),
            "covariates": covariates,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ProtocolDesignSampler:
        """Rebuild from the fields of `to_config`.

        Parameters
        ----------
        config : mapping
            "samplings", "doses" and "covariates".

        Returns
        -------
        ProtocolDesignSampler

        Raises
        ------
        DesignError
            E_DESIGN_SAMPLER when a part is not understood.
        """
        samplings = tuple(sampling_from_config(part) for part in config["samplings"])
        doses = None if config["doses"] is None else Doses.from_config(config["doses"])
        return cls(samplings, doses, tuple(covariate_from_config(entry) for entry in config["covariates"]))

    def _dose_reasons(self, subject: Subject) -> list[str]:
        design, plan = subject.design, self.doses
        if plan is None:
            return ["it is dosed; the designs have no doses"] if design.n_doses else []
        low, high = plan.number
        if not low <= design.n_doses <= high:
            return [f"it has {design.n_doses} doses; the designs have {low} to {high}"]
        reasons = []
        smallest, largest = (min(plan.levels), max(plan.levels)) if plan.levels else plan.amount
        amounts = design.dose_amounts
        slack = plan.unit_size / 2 + ROUNDING * largest
        if plan.per is not None:
            per = float(subject.covariate_values(plan.per)[0]) if plan.per in subject.covariates else np.nan
            smallest, largest, slack = smallest * per, largest * per, plan.unit_size / 2 + ROUNDING * per
        lowest = min(smallest - slack, plan.unit_size or np.inf) if plan.unit_size else smallest - slack
        outside = ~((amounts >= lowest) & (amounts <= max(largest + slack, plan.unit_size)))
        if outside.any():
            reasons.append(
                f"it has a dose of {amounts[outside][0]:g}; the designs have {smallest:g} to {largest:g}"
            )
        if plan.change == 0.0 and np.ptp(amounts) > 2 * slack:
            reasons.append(
                f"its doses are {amounts.min():g} to {amounts.max():g}; in the designs all of a course are "
                "equal"
            )
        gaps = np.diff(design.dose_times)
        spread = 2 * MAX_DEVIATION * plan.jitter
        shortest = min(plan.intervals) * (1.0 - spread)
        longest = max(plan.intervals) * (1.0 + max(off for _, off in plan.cycles) + spread)
        too_short = gaps < shortest * (1.0 - ROUNDING)
        if too_short.any() or (gaps > longest * (1.0 + ROUNDING)).any():
            worst = gaps.min() if too_short.any() else gaps.max()
            reasons.append(f"two doses are {worst:g} apart; the designs have {shortest:g} to {longest:g}")
        durations = design.duration[design.is_dose]
        short, long = plan.duration
        if (durations < short * (1 - ROUNDING)).any() or (durations > long * (1 + ROUNDING)).any():
            reasons.append(
                f"its doses last {durations.min():g} to {durations.max():g}; the designs have {short:g} to "
                f"{long:g} (0 is a bolus)"
            )
        return reasons


def _time_reasons(sampling: AbstractSampling, output: int, times: np.ndarray, last_dose: float) -> list[str]:
    reasons = []
    low, high = sampling.counts
    if not low <= times.size <= high:
        reasons.append(
            f"it has {times.size} observations of outcome {output}; the designs have {low} to {high}"
        )
    earliest, latest = sampling.window(last_dose)
    slack = ROUNDING * max(abs(earliest), abs(latest))
    outside = (times < earliest - slack) | (times > latest + slack)
    if outside.any():
        reasons.append(
            f"it has an observation of outcome {output} at {times[outside][0]:g}; the designs have "
            f"{earliest:g} to {latest:g}"
        )
    return reasons


def _covariate_reasons(covariate: Covariate, subject: Subject) -> list[str]:
    if covariate.name not in subject.covariates:
        return []
    values = subject.covariate_values(covariate.name)
    low, high = covariate.bounds
    outside = ~((values >= low) & (values <= high))
    if not outside.any():
        return []
    return [
        f"its covariate {covariate.name!r} is {values[outside][0]:g}; the designs have {low:g} to {high:g}"
    ]
