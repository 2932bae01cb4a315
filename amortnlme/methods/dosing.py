"""Dose individualization: which dose keeps a patient's level above a target with a given probability.

Any draws of the patient's parameters will do: those of `patient_posterior`, or the rows of an estimator's
`PosteriorDraws`. The same draws serve at every dose, so that the search is deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import root_scalar

from amortnlme.core.errors import DesignError, UsageError
from amortnlme.data.design import FIELDS, Design, Dose, EventKind
from amortnlme.data.subject import Subject, TimeVarying
from amortnlme.model.individual import IndividualModel

#: Relative precision of the dose.
PRECISION = 1e-4
#: Widenings of the bracket, and the largest factor of each.
MAX_WIDENINGS, WIDEST = 40, 10.0


@dataclass(frozen=True, slots=True)
class Regimen:
    """Doses to come, up to their common scale, and when the level matters.

    Attributes
    ----------
    doses : tuple of Dose
        Amounts are relative: the amount sought multiplies them. Times are those of the patient's clock.
    times : tuple of float
        When the level is looked at; at the time of a dose, before it (the trough).
    output : int
        1-based outcome of the model.

    Raises
    ------
    DesignError
        E_DOSE_REGIMEN without doses or times.
    """

    doses: tuple[Dose, ...]
    times: tuple[float, ...]
    output: int = 1

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to do."""
        object.__setattr__(self, "doses", tuple(self.doses))
        object.__setattr__(self, "times", tuple(self.times))
        if not self.doses or not self.times or not any(dose.amount > 0 for dose in self.doses):
            raise DesignError(
                "E_DOSE_REGIMEN",
                f"the regimen has {len(self.doses)} doses and {len(self.times)} times. Give at least one "
                "dose of a positive relative amount, and one time at which the level matters.",
            )


def repeated(
    start: float, every: float, n_doses: int, duration: float = 0.0, compartment: int = 0, output: int = 1
) -> Regimen:
    """Equal doses at equal intervals, with the trough before every next dose and after the last interval.

    Parameters
    ----------
    start, every : float   [time unit]
    n_doses : int
    duration : float   [time unit]
        Of infusions; 0 for boluses.
    compartment : int
        1-based; 0 is the model's default.
    output : int
        1-based.

    Returns
    -------
    Regimen

    Raises
    ------
    DesignError
        E_DOSE_REGIMEN.
    """
    if n_doses < 1 or not every > 0 or duration < 0:
        raise DesignError(
            "E_DOSE_REGIMEN",
            f"{n_doses} doses every {every:g}, over {duration:g} each, make no regimen. Give at least one "
            "dose, a positive interval, and a duration of zero (bolus) or above.",
        )
    begin = start + every * np.arange(n_doses)
    doses = tuple(Dose(float(t), 1.0, compartment, duration) for t in begin)
    return Regimen(doses, tuple(float(t) for t in begin + every), output)


@dataclass(frozen=True, slots=True, eq=False)
class DoseAdvice:
    """The smallest dose that reaches a target.

    Attributes
    ----------
    amount : float   [amount unit]
        Multiplies the relative amounts of the regimen.
    probability : float
        Share of the draws whose levels stay above the target at all times.
    levels : ndarray, shape (n_draws, n_times)   [output unit]
    """

    amount: float
    probability: float
    levels: np.ndarray


def predict_regimen(
    model: IndividualModel, phi: np.ndarray, patient: Subject, regimen: Regimen, amount: float
) -> np.ndarray:
    """Predict the levels under a regimen that follows what the patient was given before.

    Parameters
    ----------
    model : IndividualModel
    phi : ndarray, shape (n_draws, d)
    patient : Subject
        The doses of the past still count, and covariates keep their last value.
    regimen : Regimen
    amount : float   [amount unit]

    Returns
    -------
    ndarray, shape (n_draws, n_times)   [output unit]
        Without measurement error, times rising; NaN where the model cannot be solved.

    Raises
    ------
    DesignError
        E_DOSE_START when the regimen begins before the patient's last record.
    """
    past = patient.design
    ahead = _design(regimen, amount)
    if past.n_records and ahead.time[0] < past.time[-1]:
        raise DesignError(
            "E_DOSE_START",
            f"the regimen begins at {ahead.time[0]:g}, before the last record of patient {patient.id!r} at "
            f"{past.time[-1]:g}. Start it at that time or later.",
        )
    # What was measured in the past says nothing more here; its place keeps covariates in step.
    kept = {name: np.array(getattr(past, name)) for name in FIELDS}
    kept["output"][past.is_observation] = 0
    kept["kind"][past.is_observation] = int(EventKind.OTHER)
    whole = Design(**{name: np.concatenate([kept[name], getattr(ahead, name)]) for name in FIELDS})
    covariates: dict[str, float | np.ndarray] = {}
    for name in model.covariates:
        value = patient.covariates.get(name)
        before = patient.covariate_values(name)
        last = before[-1] if isinstance(value, TimeVarying) else value
        covariates[name] = np.concatenate([before, np.full(ahead.n_records, last)])
    found = model.predict(phi, whole, covariates)
    return np.where((found.status == 0)[:, None], found.f, np.nan)


def dose_for(
    model: IndividualModel,
    phi: np.ndarray,
    patient: Subject,
    regimen: Regimen,
    above: float,
    probability: float = 0.9,
    largest: float = np.inf,
) -> DoseAdvice:
    """Find the smallest dose whose levels stay above a target with a probability.

    Parameters
    ----------
    model : IndividualModel
    phi : ndarray, shape (n_draws, d)
        Draws of the patient's parameters. Levels must rise with the dose.
    patient : Subject
    regimen : Regimen
    above : float   [output unit]
        At all times of the regimen.
    probability : float
        Posterior probability that it is so.
    largest : float   [amount unit]

    Returns
    -------
    DoseAdvice
        To a relative precision of 1e-4; the amount is 0 where nothing need be given.

    Raises
    ------
    UsageError
        E_DOSE_TARGET; E_DOSE_OUT_OF_REACH when not even the largest dose does.
    DesignError
        E_DOSE_START.
    """
    if not 0 < probability < 1 or not np.isfinite(above) or not largest > 0:
        raise UsageError(
            "E_DOSE_TARGET",
            f"a level above {above!r} with probability {probability!r}, by at most {largest!r}, cannot be "
            "sought. Give a finite level, a probability between 0 and 1, and a positive largest dose.",
        )

    def margin(amount: float) -> float:
        """Level that the wanted share of draws exceeds, less the target."""
        lowest = predict_regimen(model, phi, patient, regimen, amount).min(axis=1)
        lowest = np.where(np.isnan(lowest), -np.inf, lowest)
        return float(np.quantile(lowest, 1.0 - probability, method="lower")) - above

    low, at_low = 0.0, margin(0.0)
    if at_low >= 0:
        return _advice(model, phi, patient, regimen, above, 0.0)
    given = patient.design.dose_amounts
    high = min(float(np.median(given[given > 0])) if (given > 0).any() else 1.0, largest)
    at_high = margin(high)
    for _ in range(MAX_WIDENINGS):
        if at_high >= 0 or high == largest:
            break
        # Where the level rises in proportion to the dose, one step suffices.
        rise = (at_high - at_low) / high
        wanted = high - 1.05 * at_high / rise if rise > 0 else np.inf
        low, high = high, min(float(np.clip(wanted, 1.2 * high, WIDEST * high)), largest)
        at_high = margin(high)
    if not at_high >= 0:
        raise UsageError(
            "E_DOSE_OUT_OF_REACH",
            f"a dose of {high:g} keeps the level above {above:g} with less than probability {probability:g}. "
            "Lower the target or the probability, shorten the interval, or allow a larger dose.",
        )
    if margin(low) >= 0:
        return _advice(model, phi, patient, regimen, above, low)
    found = root_scalar(margin, bracket=(low, high), method="brentq", xtol=0.5 * PRECISION * high)
    amount = float(found.root)
    while amount < high and margin(amount) < 0:
        amount = min(amount * (1.0 + 0.5 * PRECISION), high)
    return _advice(model, phi, patient, regimen, above, amount)


def _advice(
    model: IndividualModel, phi: np.ndarray, patient: Subject, regimen: Regimen, above: float, amount: float
) -> DoseAdvice:
    levels = predict_regimen(model, phi, patient, regimen, amount)
    return DoseAdvice(amount, float((levels >= above).all(axis=1).mean()), levels)


def _design(regimen: Regimen, amount: float) -> Design:
    doses = [replace(dose, amount=dose.amount * amount) for dose in regimen.doses]
    given = Design.from_doses(doses, ())
    looked = Design.from_doses((), regimen.times, regimen.output)
    table = {name: np.concatenate([getattr(looked, name), getattr(given, name)]) for name in FIELDS}
    # The sort is stable: at one time the trough comes before the dose.
    order = np.argsort(table["time"], kind="stable")
    return Design(**{name: column[order] for name, column in table.items()})
