"""A slow, independent evaluation of a model: its untraced functions, integrated from event to event."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from amortnlme.core.errors import DesignError
from amortnlme.data.design import Design, EventKind
from amortnlme.model.reference_integrator import STEP, Individual, Number, OrderedComplex

if TYPE_CHECKING:
    from amortnlme.model.individual import IndividualModel

# A regimen is repeated this often before its steady state is looked for by Newton steps.
REPEATED_PERIODS = 4
MAX_NEWTON = 40
# Newton step, relative to the largest state, at which a steady state is accepted: a hundred times the
# rounding of one period where the slowest mode keeps 98 % of itself over a period.
SETTLED = 1e-9
ROUNDING = 1e-12


class _Infusion(NamedTuple):
    """An infusion that runs until `end` [time]."""

    end: Number
    state: int
    rate: Number


class _Arrival(NamedTuple):
    """A dose on its way; `duration` is 0 for a bolus."""

    time: Number
    state: int
    amount: Number
    duration: float


class _Path:
    """States on their way through events."""

    def __init__(
        self, individual: Individual, x: np.ndarray, clock: Number, start: Number | None, homogeneous: bool
    ) -> None:
        self.individual = individual
        self.initial = x
        self.x = x
        self.clock = clock
        self.start = start
        self.homogeneous = homogeneous
        self.running: list[_Infusion] = []
        self.arriving: list[_Arrival] = []

    def clear(self, x: np.ndarray, clock: Number) -> None:
        """Replace the states, switch off what runs, cancel what is on its way."""
        self.x, self.clock, self.running, self.arriving = x, clock, [], []

    def give(self, dose: _Arrival) -> None:
        if dose.duration > 0.0:
            self.running.append(_Infusion(dose.time + dose.duration, dose.state, dose.amount / dose.duration))
        else:
            self.x = self.x.copy()
            self.x[dose.state] += self.individual.whole(dose.amount)

    def move_to(self, time: Number, p: SimpleNamespace) -> None:
        """Advance through arrivals and infusion ends; those at `time` itself have happened afterwards."""
        while True:
            ahead: list[_Infusion | _Arrival] = [*self.running, *self.arriving]
            moments = [e.end if isinstance(e, _Infusion) else e.time for e in ahead]
            if not moments or _real(nearest := min(moments, key=_real)) > _real(time):
                break
            at = moments.index(nearest)
            event = ahead[at]
            self._advance(nearest, p)
            if isinstance(event, _Infusion):
                self.running.remove(event)
            else:
                self.arriving.remove(event)
                self.give(event)
        self._advance(time, p)

    def _advance(self, time: Number, p: SimpleNamespace) -> None:
        rate = np.zeros(self.individual.n, dtype=self.individual.dtype)
        for infusion in self.running:
            rate[infusion.state] += infusion.rate
        if self.start is not None and _real(self.clock) < _real(self.start):
            # Nothing moves yet, infusions included; boluses have been added and wait.
            self.clock = time if _real(time) <= _real(self.start) else self.start
        self.x = self.individual.integrate(self.x, self.clock, time, p, rate, homogeneous=self.homogeneous)
        self.clock = time


def reference_prediction(
    model: IndividualModel,
    phi: np.ndarray,
    design: Design,
    covariates: Mapping[str, np.ndarray] | None = None,
    *,
    rtol: float = 1e-12,
) -> np.ndarray:
    """Predict one individual by numerical integration of the untraced model functions.

    Parameters
    ----------
    model : IndividualModel
        Of random dynamics the path of the drift (of the mean reaction rates) is followed.
    phi : ndarray, shape (d,)
    design : Design
        Steady-state doses are reached by repeating the regimen until nothing changes.
    covariates : mapping of str to ndarray of shape (k,), optional
        Values in force from each record on.
    rtol : float
        Relative tolerance of the integrator.

    Returns
    -------
    ndarray, shape (m,)   [observation units]

    Raises
    ------
    DesignError
        E_DESIGN_STEADY_STATE when a steady state is not reached.
    SolveError
        E_SOLVE_REFERENCE when the integration fails.
    """
    psi = model.parameters.to_psi(np.asarray(phi, dtype=float))
    individual = Individual(model, dict(zip(model.parameters.names, psi.tolist(), strict=True)), rtol)
    return np.array(_observe(individual, design, covariates), dtype=float)


def reference_states(
    model: IndividualModel,
    phi: np.ndarray,
    design: Design,
    covariates: Mapping[str, np.ndarray] | None = None,
    *,
    rtol: float = 1e-12,
    euler_step: float | None = None,
) -> np.ndarray:
    """As `reference_prediction`, but the states at the observations.

    Parameters
    ----------
    model, phi, design, covariates, rtol
        As `reference_prediction`.
    euler_step : float, optional   [time]
        Make equal explicit Euler steps of at most this length instead of integrating: the mean of a path by
        Euler-Maruyama, where the drift is affine in the states.

    Returns
    -------
    ndarray, shape (m, n_states)

    Raises
    ------
    DesignError, SolveError
        As `reference_prediction`.
    """
    psi = model.parameters.to_psi(np.asarray(phi, dtype=float))
    values = dict(zip(model.parameters.names, psi.tolist(), strict=True))
    individual = Individual(model, values, rtol, euler_step=euler_step)
    return np.array([x for _, x, _ in _observations(individual, design, covariates)], dtype=float)


def reference_sensitivity(
    model: IndividualModel,
    phi: np.ndarray,
    design: Design,
    covariates: Mapping[str, np.ndarray] | None = None,
    *,
    rtol: float = 1e-12,
) -> np.ndarray:
    """Differentiate `reference_prediction` with respect to phi by the complex step.

    Event times that depend on parameters become complex too: the states are integrated along straight lines
    between them, so no formula for jumps of derivatives is needed.

    Parameters
    ----------
    model, phi, design, covariates, rtol
        As `reference_prediction`.

    Returns
    -------
    ndarray, shape (m, d)
        df/dphi

    Raises
    ------
    DesignError, SolveError
        As `reference_prediction`.
    TypeError
        When the model's functions do not take complex numbers.
    """
    phi = np.asarray(phi, dtype=float)
    psi = model.parameters.to_psi(phi)
    slope = model.parameters.dpsi_dphi(phi)
    found = np.zeros((design.n_observations, model.parameters.d))
    for column, parameter in enumerate(model.parameters.parameters):
        if parameter.role != "structural":
            continue
        step = STEP * max(abs(float(psi[column])), abs(float(slope[column])))
        values: dict[str, Number] = dict(zip(model.parameters.names, psi.tolist(), strict=True))
        values[parameter.name] = complex(float(psi[column]), step)
        found[:, column] = _imaginary_parts(model, values, design, covariates, rtol) / step * slope[column]
    return found


def _imaginary_parts(
    model: IndividualModel,
    values: dict[str, Number],
    design: Design,
    covariates: Mapping[str, np.ndarray] | None,
    rtol: float,
) -> np.ndarray:
    try:
        return np.imag(_observe(Individual(model, values, rtol, complex), design, covariates))
    except TypeError:  # a comparison: numbers that have an order are slower, but can do it
        ordered = {k: OrderedComplex(v) if isinstance(v, complex) else v for k, v in values.items()}
        individual = Individual(model, ordered, rtol, OrderedComplex)
        return np.imag(np.array(_observe(individual, design, covariates), dtype=complex))


def _observe(
    individual: Individual, design: Design, covariates: Mapping[str, np.ndarray] | None
) -> list[Number]:
    """Evaluate the outputs at the observations."""
    outputs = individual.model.outputs
    return [
        outputs[max(int(design.output[i]) - 1, 0)].fn(float(design.time[i]), individual.states(x), p)
        for i, x, p in _observations(individual, design, covariates)
    ]


def _observations(
    individual: Individual, design: Design, covariates: Mapping[str, np.ndarray] | None
) -> Iterator[tuple[int, np.ndarray, SimpleNamespace]]:
    """Go through the records; yield record number, states and parameters at every observation."""
    k = design.n_records
    table = {name: np.broadcast_to(v, (k,)) for name, v in (covariates or {}).items()}
    if not k:
        return
    entry = individual.model.dynamics.entry
    p = individual.parameters({name: float(v[0]) for name, v in table.items()})
    initial = np.zeros(individual.n, dtype=individual.dtype)
    if entry.initial is not None:
        initial[:] = individual.whole(np.array(entry.initial(p)))
    start = None if entry.start is None else _scalar(entry.start(p))
    # A start before the first record sets the states moving there and then.
    first = float(design.time[0])
    clock = first if start is None or _real(start) > first else start
    path = _Path(individual, initial, clock, start, homogeneous=False)
    for i in range(k):
        time, kind = float(design.time[i]), int(design.kind[i])
        if kind == EventKind.RESET:
            path.clear(initial, time)
        else:
            path.move_to(time, p)
        p = individual.parameters({name: float(v[i]) for name, v in table.items()})
        if kind == EventKind.OBSERVATION:
            yield i, path.x, p
        elif kind in (EventKind.BOLUS, EventKind.INFUSION):
            _record_dose(path, design, i, p)


def _record_dose(path: _Path, design: Design, i: int, p: SimpleNamespace) -> None:
    """Do what a dose record says: now, later (lag), or as the last of an endless regimen."""
    model = path.individual.model
    entry, compartment = model.dynamics.entry, int(design.compartment[i])
    state = compartment - 1 if compartment else model.states.index(model.dynamics.dose_state)
    name = model.states[state]
    lag = _scalar(entry.lag[name](p)) if entry.lag and name in entry.lag else 0.0
    fraction = (
        _scalar(entry.bioavailability[name](p))
        if entry.bioavailability and name in entry.bioavailability
        else 1.0
    )
    time, ss, ii = float(design.time[i]), int(design.ss[i]), float(design.ii[i])
    infused = float(design.duration[i]) if design.kind[i] == EventKind.INFUSION else 0.0
    dose = _Arrival(time + lag, state, fraction * float(design.amount[i]), infused)
    if ss == 1:
        path.clear(np.zeros_like(path.x), path.clock)
    if ss:
        # The last arrival that is not later than the record; the following ones are doses on their way.
        periods = math.ceil(_real(lag) / ii)
        last = dose._replace(time=dose.time - periods * ii)
        begin = np.zeros_like(path.x) if ss == 2 else path.initial
        regimen = _steady_state(path.individual, begin, last, ii, p, homogeneous=ss == 2)
        regimen.give(last)
        regimen.move_to(time, p)
        path.x = path.x + regimen.x
        path.running += regimen.running
        path.arriving += [last._replace(time=last.time + j * ii) for j in range(1, periods + 1)]
    elif _real(lag) > 0.0:
        path.arriving.append(dose)
    else:
        path.give(dose)


def _steady_state(
    individual: Individual,
    x: np.ndarray,
    dose: _Arrival,
    ii: float,
    p: SimpleNamespace,
    *,
    homogeneous: bool,
) -> _Path:
    """Return the states just before `dose`, one of an endless series every `ii` that began at x long ago."""

    def earlier(x: np.ndarray, time: Number) -> _Path:
        path = _Path(individual, x, time, None, homogeneous)
        back = 1
        while back * ii < dose.duration:
            path.running.append(
                _Infusion(time + dose.duration - back * ii, dose.state, dose.amount / dose.duration)
            )
            back += 1
        return path

    def period(x: np.ndarray) -> np.ndarray:
        path = earlier(x, dose.time - ii)
        path.give(dose._replace(time=dose.time - ii))
        path.move_to(dose.time, p)
        return path.x

    for _ in range(REPEATED_PERIODS):
        x = period(x)
    inverse = None
    last_error = math.inf
    for _ in range(MAX_NEWTON):
        change = period(x) - x
        if not np.isfinite(change).all():
            break
        if inverse is None:
            inverse = np.linalg.pinv(np.eye(individual.n) - _differences(period, x))
        error = inverse @ change
        size = float(np.abs(error).max())
        stalls = size > 0.3 * last_error
        # As small as it gets, or so small that only rounding keeps it from falling.
        for bound, enough in ((ROUNDING, True), (SETTLED, stalls)):
            tangent = np.imag(x) + STEP * np.real(x)
            if (
                enough
                and _is_small(np.real(error), np.real(x), bound)
                and _is_small(np.imag(error), tangent, bound)
            ):
                return earlier(x, dose.time)
        if stalls:
            inverse = None
        last_error = size
        x = x + error
    raise DesignError(
        "E_DESIGN_STEADY_STATE",
        f"no steady state was reached by repeating a dose every {ii:g}. Check that everything is eliminated.",
    )


def _is_small(error: np.ndarray, x: np.ndarray, bound: float) -> bool:
    return float(np.abs(error).max()) <= bound * float(np.abs(x).max())


def _differences(period: Any, x: np.ndarray) -> np.ndarray:
    """Differentiate one period by central differences of the real parts, shape (n, n)."""
    n, scale = x.shape[0], 1e-5 * max(float(np.abs(np.real(x)).max()), 1e-30)
    columns = []
    for j in range(n):
        step = np.zeros(n)
        step[j] = scale
        columns.append(np.real(period(x + step) - period(x - step)) / (2.0 * scale))
    return np.array(columns).T


def _real(value: Number) -> float:
    return value.real


def _scalar(returned: Any) -> Number:
    return returned[0] if isinstance(returned, tuple | list) else returned
