"""When a subject is dosed and observed, as records in processing order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from amortnlme.core.errors import DesignError


class EventKind(IntEnum):
    """What one record of a design does."""

    OBSERVATION = 0
    BOLUS = 1
    INFUSION = 2
    RESET = 3
    OTHER = 4


@dataclass(frozen=True, slots=True)
class Dose:
    """One dose as a person writes it.

    Attributes
    ----------
    time : float
        Time of the (first) dose.
    amount : float
        Amount, >= 0.
    compartment : int
        1-based; 0 is the model's default dosing compartment.
    duration : float
        Duration of an infusion; 0 for a bolus.
    ii : float
        Interval between doses when `addl` or `ss` is given.
    ss : int
        0, 1 (reset to steady state) or 2 (superpose steady state).
    addl : int
        Number of additional doses, one every `ii`.
    """

    time: float
    amount: float
    compartment: int = 0
    duration: float = 0.0
    ii: float = 0.0
    ss: int = 0
    addl: int = 0


_FIELDS = {
    "time": np.float64,
    "kind": np.int8,
    "compartment": np.int16,
    "amount": np.float64,
    "duration": np.float64,
    "ii": np.float64,
    "ss": np.int8,
    "output": np.int16,
}
FIELDS = tuple(_FIELDS)
# plain numbers: asking an enumeration for its members thousands of times is slow
_OBSERVATION, _BOLUS, _INFUSION, _RESET, _OTHER = (int(kind) for kind in EventKind)


def frozen_array(values: object, dtype: type) -> np.ndarray:
    """Return a read-only copy of values as an array.

    Parameters
    ----------
    values : array_like
        Anything numpy can make an array of.
    dtype : type
        Element type.

    Returns
    -------
    ndarray
        Read-only.
    """
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """Dosing and sampling records of one subject, in processing order; ADDL is already expanded.

    Row order decides at ties: an observation before a dose at the same time sees the trough, after it the
    peak.
    Time does not decrease except at a RESET record, where the clock may restart.

    Attributes
    ----------
    time : ndarray, shape (k,)
        Unit of time of the model.
    kind : ndarray, shape (k,)
        Members of `EventKind`.
    compartment : ndarray, shape (k,)
        1-based; 0 is the model's default.
    amount, duration, ii : ndarray, shape (k,)
        Amount of a dose; duration of an infusion (else 0); steady-state interval (else 0).
    ss : ndarray, shape (k,)
        0, 1 or 2.
    output : ndarray, shape (k,)
        1-based outcome (DVID) of an observation, else 0.

    Fields that mean nothing for a record (the amount of an observation, the interval of a single dose)
    become zero, so that designs that mean the same are equal.

    Raises
    ------
    DesignError
        If lengths differ, a value is not finite or negative, time decreases, or an infusion has no duration.
    """

    time: np.ndarray
    kind: np.ndarray
    compartment: np.ndarray
    amount: np.ndarray
    duration: np.ndarray
    ii: np.ndarray
    ss: np.ndarray
    output: np.ndarray

    def __post_init__(self) -> None:
        lengths = {name: np.shape(getattr(self, name)) for name in FIELDS}
        if len(set(lengths.values())) != 1 or len(lengths["time"]) != 1:
            raise DesignError(
                "E_DESIGN_SHAPE", f"All columns of a design must be 1-D of one length; given: {lengths}."
            )
        for name, dtype in _FIELDS.items():
            object.__setattr__(self, name, frozen_array(getattr(self, name), dtype))
        _check_records(self)
        _clear_meaningless(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Design):
            return NotImplemented
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in FIELDS)

    @property
    def n_records(self) -> int:
        """Number of records."""
        return len(self.time)

    @property
    def is_observation(self) -> np.ndarray:
        """Which records are observations, shape (k,)."""
        return self.kind == _OBSERVATION

    @property
    def is_dose(self) -> np.ndarray:
        """Which records are doses, shape (k,)."""
        return (self.kind == _BOLUS) | (self.kind == _INFUSION)

    @property
    def n_observations(self) -> int:
        """Number of observation records, m."""
        return int(self.is_observation.sum())

    @property
    def observation_times(self) -> np.ndarray:
        """Times of the observations, shape (m,)."""
        return self.time[self.is_observation]

    @property
    def observation_outputs(self) -> np.ndarray:
        """1-based outcomes of the observations, shape (m,)."""
        return self.output[self.is_observation]

    @property
    def n_doses(self) -> int:
        """Number of dose records."""
        return int(self.is_dose.sum())

    @property
    def dose_times(self) -> np.ndarray:
        """Times of the doses, shape (n_doses,)."""
        return self.time[self.is_dose]

    @property
    def dose_amounts(self) -> np.ndarray:
        """Amounts of the doses, shape (n_doses,)."""
        return self.amount[self.is_dose]

    @property
    def first_dose_amount(self) -> float:
        """Amount of the first dose; NaN where there is none."""
        return float(self.dose_amounts[0]) if self.n_doses else float("nan")

    @classmethod
    def from_doses(
        cls, doses: Sequence[Dose], times: Sequence[float] | np.ndarray, outputs: int | Sequence[int] = 1
    ) -> Design:
        """Build a design from doses and observation times; at one time doses come before observations.

        Additional doses (`addl`) do so too, as in event tables and in NONMEM.

        Parameters
        ----------
        doses : sequence of Dose
            In any order.
        times : sequence of float, shape (m,)
            Observation times, in any order.
        outputs : int or sequence of int
            1-based outcome of all or of each observation.

        Returns
        -------
        Design

        Raises
        ------
        DesignError
            If a dose or a time is impossible.
        """
        single = [one for dose in doses for one in expand_dose(dose)]
        observed = np.asarray(times, dtype=float).reshape(-1)
        labels = np.broadcast_to(np.asarray(outputs), observed.shape)
        table = {
            "time": np.concatenate([[dose.time for dose in single], observed]),
            "kind": [_dose_kind(dose) for dose in single] + [_OBSERVATION] * len(observed),
            "output": np.concatenate([np.zeros(len(single)), labels]),
        }
        for name in ("compartment", "amount", "duration", "ii", "ss"):
            table[name] = [getattr(dose, name) for dose in single] + [0] * len(observed)
        # the sort is stable, so that doses, which come first here, come first at one time
        order = np.argsort(table["time"], kind="stable")
        return cls(**{name: np.asarray(table[name])[order] for name in FIELDS})


def expand_dose(dose: Dose) -> list[Dose]:
    """Return a dose and its additional doses as single doses.

    Parameters
    ----------
    dose : Dose
        With or without `addl`.

    Returns
    -------
    list of Dose
        The first one keeps `ss` and its interval; the additional ones are plain doses.

    Raises
    ------
    DesignError
        If `addl` or `ss` is given without a positive `ii`, or `addl` is negative.
    """
    if dose.addl < 0 or ((dose.addl > 0 or dose.ss > 0) and not dose.ii > 0):
        raise DesignError(
            "E_DESIGN_INTERVAL",
            f"The dose at t = {dose.time} has ADDL = {dose.addl}, SS = {dose.ss} and II = {dose.ii}. "
            f"Additional and steady-state doses need ADDL >= 0 and a positive interval II.",
        )
    first = replace(dose, addl=0)
    return [first] + [
        replace(first, time=dose.time + i * dose.ii, ii=0.0, ss=0) for i in range(1, dose.addl + 1)
    ]


def _dose_kind(dose: Dose) -> int:
    return _INFUSION if dose.duration != 0 else _BOLUS


def _check_records(design: Design) -> None:
    for name in ("time", "amount", "duration", "ii"):
        values = getattr(design, name)
        if not np.isfinite(values).all() or (name != "time" and (values < 0).any()):
            raise DesignError(
                "E_DESIGN_VALUE",
                f"{name} must be finite and not negative; given {values}. Correct the records.",
            )
    if ((design.kind < _OBSERVATION) | (design.kind > _OTHER)).any():
        raise DesignError(
            "E_DESIGN_KIND", f"Unknown kind of record in {design.kind}. Allowed: 0 to 4, see EventKind."
        )
    if ((design.ss < 0) | (design.ss > 2)).any():
        raise DesignError(
            "E_DESIGN_SS",
            f"Unknown steady-state code in {design.ss}. Allowed: 0 (none), 1 (replace), 2 (add).",
        )
    if (design.compartment < 0).any() or (design.output[design.is_observation] < 1).any():
        raise DesignError(
            "E_DESIGN_LABEL",
            f"Compartments {design.compartment} count from 1 (0: the default), outcomes "
            f"{design.output[design.is_observation]} of observations from 1. Correct the records.",
        )
    falls = np.flatnonzero((np.diff(design.time) < 0) & (design.kind[1:] != _RESET))
    if falls.size:
        at = int(falls[0])
        raise DesignError(
            "E_DESIGN_UNSORTED",
            f"Record {at + 2} is at t = {design.time[at + 1]}, before record {at + 1} at t = "
            f"{design.time[at]}. "
            f"Time may fall only at a reset record; sort the records.",
        )
    if ((design.kind == _INFUSION) & ~(design.duration > 0)).any():
        raise DesignError(
            "E_DESIGN_DURATION", "An infusion has no duration. Give a positive duration, or make it a bolus."
        )
    if ((design.ss > 0) & ~(design.ii > 0)).any():
        raise DesignError("E_DESIGN_INTERVAL", "A steady-state dose has no interval. Give a positive II.")


def _clear_meaningless(design: Design) -> None:
    meaningful = {
        "amount": design.is_dose,
        "duration": design.kind == _INFUSION,
        "ss": design.is_dose,
        "ii": design.is_dose & (design.ss > 0),
        "output": design.is_observation,
    }
    for name, keep in meaningful.items():
        values = getattr(design, name)
        if values[~keep].any():
            object.__setattr__(design, name, frozen_array(np.where(keep, values, 0), _FIELDS[name]))


@dataclass(frozen=True, slots=True, eq=False)
class DesignBatch:
    """n designs, right-padded to rectangular arrays.

    Padding records are OTHER records at the design's last time, with zeros elsewhere.

    Attributes
    ----------
    time, kind, compartment, amount, duration, ii, ss, output : ndarray, shape (n, k)
        As in `Design`.
    n_records : ndarray of int, shape (n,)
        Records that are not padding.
    obs_slot : ndarray of int, shape (n, k)
        Column of the observation among the m observation columns; -1 for other records.
    observation_times : ndarray, shape (n, m)
        Padded with the last time of the design.
    observation_mask : ndarray of bool, shape (n, m)
    observation_output : ndarray of int, shape (n, m)
        1-based; padded with 0.
    covariates : mapping of str to ndarray, shape (n, k)
        The value in force from each record on.
    """

    time: np.ndarray
    kind: np.ndarray
    compartment: np.ndarray
    amount: np.ndarray
    duration: np.ndarray
    ii: np.ndarray
    ss: np.ndarray
    output: np.ndarray
    n_records: np.ndarray
    obs_slot: np.ndarray
    observation_times: np.ndarray
    observation_mask: np.ndarray
    observation_output: np.ndarray
    covariates: Mapping[str, np.ndarray]

    @property
    def n(self) -> int:
        """Number of designs."""
        return len(self.n_records)

    @property
    def n_observations(self) -> np.ndarray:
        """Number of observations of each design, shape (n,)."""
        return self.observation_mask.sum(axis=1)

    @classmethod
    def from_designs(
        cls, designs: Sequence[Design], covariates: Mapping[str, np.ndarray] | None = None
    ) -> DesignBatch:
        """Pad designs to one batch.

        Parameters
        ----------
        designs : sequence of Design, length n
        covariates : mapping of str to ndarray, optional
            Constant covariates of shape (n,), or values per record of shape (n, k).

        Returns
        -------
        DesignBatch

        Raises
        ------
        DesignError
            If there is no design or a covariate has another shape.
        """
        if not designs:
            raise DesignError("E_DESIGN_EMPTY", "A batch needs at least one design; none was given.")
        n_records = np.array([design.n_records for design in designs], dtype=np.int64)
        width = max(int(n_records.max()), 1)
        columns = {name: np.zeros((len(designs), width), dtype=dtype) for name, dtype in _FIELDS.items()}
        columns["kind"][:] = _OTHER
        for row, design in enumerate(designs):
            for name in FIELDS:
                columns[name][row, : design.n_records] = getattr(design, name)
            if design.n_records:
                columns["time"][row, design.n_records :] = design.time[-1]
        return cls.from_columns(columns, n_records, covariates)

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, np.ndarray],
        n_records: np.ndarray,
        covariates: Mapping[str, np.ndarray] | None = None,
    ) -> DesignBatch:
        """Build a batch from padded record columns; the observation arrays follow from them.

        Parameters
        ----------
        columns : mapping of str to ndarray, shape (n, k)
            Every field of `Design`, padded as described above.
        n_records : ndarray of int, shape (n,)
        covariates : mapping of str to ndarray, optional
            Shape (n,) or (n, k).

        Returns
        -------
        DesignBatch

        Raises
        ------
        DesignError
            If a covariate has another shape.
        """
        fields = {name: np.ascontiguousarray(columns[name], dtype=dtype) for name, dtype in _FIELDS.items()}
        shape = fields["time"].shape
        is_observation = fields["kind"] == _OBSERVATION
        slots = np.cumsum(is_observation, axis=1) - 1
        counts = is_observation.sum(axis=1)
        width = max(int(counts.max()), 1)
        mask = np.arange(width)[None, :] < counts[:, None]
        times = np.repeat(fields["time"][:, -1:], width, axis=1)
        outputs = np.zeros((shape[0], width), dtype=np.int16)
        times[mask] = fields["time"][is_observation]
        outputs[mask] = fields["output"][is_observation]
        spread = {}
        for name, values in (covariates or {}).items():
            array = np.asarray(values, dtype=float)
            if array.shape not in ((shape[0],), shape):
                raise DesignError(
                    "E_DESIGN_COVARIATE",
                    f"Covariate {name!r} has shape {array.shape}; {(shape[0],)} or {shape} is needed.",
                )
            spread[name] = np.ascontiguousarray(
                np.broadcast_to(array[:, None], shape) if array.ndim == 1 else array
            )
        return cls(
            **fields,
            n_records=np.asarray(n_records, dtype=np.int64),
            obs_slot=np.where(is_observation, slots, -1).astype(np.int64),
            observation_times=times,
            observation_mask=mask,
            observation_output=outputs,
            covariates=spread,
        )

    def take(self, index: np.ndarray) -> DesignBatch:
        """Return the designs at these rows, with the same padding.

        Parameters
        ----------
        index : ndarray of int or bool
            Rows.

        Returns
        -------
        DesignBatch
        """
        arrays = {name: getattr(self, name)[index] for name in (*FIELDS, *_DERIVED)}
        return DesignBatch(
            **arrays, covariates={name: values[index] for name, values in self.covariates.items()}
        )


_DERIVED = ("n_records", "obs_slot", "observation_times", "observation_mask", "observation_output")
