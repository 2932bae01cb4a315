"""Untraced model functions on plain numbers, integrated by SciPy: shares no code with the engines."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.integrate import ode, solve_ivp

from amortnlme.core.errors import ModelError, SolveError
from amortnlme.model.dynamics import Jump

if TYPE_CHECKING:
    from amortnlme.model.individual import IndividualModel

Number = float | complex
Slope = Callable[[Any, Sequence[Any]], Sequence[Any]]

# Imaginary perturbation of the complex step: its square vanishes beside one, so derivatives are exact.
STEP = 1e-20
# Evaluations of the right-hand side for one individual; a few thousand suffice for an ordinary design.
MAX_CALLS = 1_000_000
# Steps per interval after which the explicit method gives up; what needs more is stiff.
EXPLICIT_STEPS = 1000
IMPLICIT_STEPS = 50_000
# Absolute tolerance as a fraction of the relative one, in units of the largest state.
ABSOLUTE = 1e-4


class OrderedComplex(complex):
    """A complex number that compares by its real part, for model functions that branch with `where`."""

    __slots__ = ()

    def __add__(self, other: complex) -> OrderedComplex:
        return OrderedComplex(complex(self) + complex(other))

    def __sub__(self, other: complex) -> OrderedComplex:
        return OrderedComplex(complex(self) - complex(other))

    def __rsub__(self, other: complex) -> OrderedComplex:
        return OrderedComplex(complex(other) - complex(self))

    def __mul__(self, other: complex) -> OrderedComplex:
        return OrderedComplex(complex(self) * complex(other))

    def __truediv__(self, other: complex) -> OrderedComplex:
        return OrderedComplex(complex(self) / complex(other))

    def __rtruediv__(self, other: complex) -> OrderedComplex:
        return OrderedComplex(complex(other) / complex(self))

    def __pow__(self, other: complex, modulus: None = None) -> OrderedComplex:
        return OrderedComplex(complex(self) ** complex(other))

    def __rpow__(self, other: complex, modulus: None = None) -> OrderedComplex:
        return OrderedComplex(complex(other) ** complex(self))

    def __neg__(self) -> OrderedComplex:
        return OrderedComplex(-complex(self))

    def __abs__(self) -> OrderedComplex:  # pyright: ignore[reportIncompatibleMethodOverride]
        return -self if self.real < 0.0 else self

    def __lt__(self, other: complex) -> bool:
        return self.real < complex(other).real

    def __le__(self, other: complex) -> bool:
        return self.real <= complex(other).real

    def __gt__(self, other: complex) -> bool:
        return self.real > complex(other).real

    def __ge__(self, other: complex) -> bool:
        return self.real >= complex(other).real

    __radd__ = __add__
    __rmul__ = __mul__


class Individual:
    """One individual's model functions, evaluated on numbers.

    Parameters
    ----------
    model : IndividualModel
    values : mapping of str to float or complex
        Parameters on the natural scale.
    rtol : float
        Relative tolerance of the integration.
    kind : type
        `float`; `complex` or `OrderedComplex` when a parameter has an imaginary part.
    euler_step : float, optional   [time]
        Make equal explicit Euler steps of at most this length instead of integrating.
    """

    def __init__(
        self,
        model: IndividualModel,
        values: Mapping[str, Number],
        rtol: float,
        kind: type = float,
        *,
        euler_step: float | None = None,
    ) -> None:
        self.model = model
        self.values = dict(values)
        self.rtol = rtol
        self.kind = kind
        self.euler_step = euler_step
        self.dtype = np.float64 if kind is float else np.complex128
        self.n_calls = 0
        self._drift = _drift(model)

    @property
    def n(self) -> int:
        """Number of states."""
        return len(self.model.states)

    def parameters(self, covariates: Mapping[str, float]) -> SimpleNamespace:
        """Parameters and covariates under the names a model function uses.

        Parameters
        ----------
        covariates : mapping of str to float

        Returns
        -------
        SimpleNamespace

        Raises
        ------
        ModelError
            E_MODEL_COVARIATE_MISSING.
        """
        missing = [name for name in self.model.covariates if name not in covariates]
        if missing:
            raise ModelError(
                "E_MODEL_COVARIATE_MISSING",
                f"the model uses the covariate {missing[0]!r}, which comes with no value. Given: "
                f"{', '.join(covariates) or 'none'}. Let the design sampler draw it.",
            )
        return SimpleNamespace(**self.values, **{name: covariates[name] for name in self.model.covariates})

    def states(self, x: np.ndarray) -> SimpleNamespace:
        """States under the names a model function uses.

        Parameters
        ----------
        x : ndarray, shape (n,)

        Returns
        -------
        SimpleNamespace
        """
        return SimpleNamespace(**dict(zip(self.model.states, self._numbers(x), strict=True)))

    def slope(self, t: Number, x: np.ndarray, p: SimpleNamespace) -> np.ndarray:
        """Evaluate dy/dt, counting the calls.

        Parameters
        ----------
        t : float or complex   [time]
        x : ndarray, shape (n,)
        p : SimpleNamespace

        Returns
        -------
        ndarray, shape (n,)

        Raises
        ------
        SolveError
            E_SOLVE_REFERENCE after too many calls, or where the functions have no value.
        """
        self.n_calls += 1
        if self.n_calls > MAX_CALLS:
            raise self.failure(f"gave up after {MAX_CALLS} evaluations of the right-hand side")
        try:
            found = self._drift(t, self.states(x), p)
        except (ArithmeticError, ValueError) as fault:
            raise self.failure(f"cannot evaluate the right-hand side at t = {t} ({fault})") from fault
        return np.array(found, dtype=self.dtype).reshape(self.n)

    def whole(self, value: Any) -> Any:
        """Round what enters a jump process, whose states are whole numbers; else return it as it is.

        Parameters
        ----------
        value : float, complex or ndarray

        Returns
        -------
        float, complex or ndarray
        """
        return np.rint(value) if isinstance(self.model.dynamics, Jump) else value

    def failure(self, what: str) -> SolveError:
        """Return the error that says what the reference could not do.

        Parameters
        ----------
        what : str
            As in "the reference integrator <what>".

        Returns
        -------
        SolveError
        """
        values = {name: complex(value).real for name, value in self.values.items()}
        return SolveError(
            "E_SOLVE_REFERENCE",
            f"the reference integrator {what} for {values}. The parameters are too extreme for it; narrow "
            "the prior.",
        )

    def integrate(
        self,
        x: np.ndarray,
        begin: Number,
        end: Number,
        p: SimpleNamespace,
        rate: np.ndarray,
        *,
        homogeneous: bool = False,
    ) -> np.ndarray:
        """Advance the states from one time to another, on a straight line if the times are complex.

        Parameters
        ----------
        x : ndarray, shape (n,)
        begin, end : float or complex   [time]
            Complex where an event time depends on a perturbed parameter: states are analytic in the times.
        p : SimpleNamespace
        rate : ndarray, shape (n,)   [amount/time]
        homogeneous : bool
            Leave out what the right-hand side produces at y = 0.

        Returns
        -------
        ndarray, shape (n,)

        Raises
        ------
        SolveError
            E_SOLVE_REFERENCE when no SciPy method succeeds.
        """
        length = complex(end - begin).real
        if length <= 0.0:
            return x
        direction = (end - begin) / length
        nothing = np.zeros(self.n)

        def along(s: float, state: np.ndarray) -> np.ndarray:
            t = begin + s * direction
            if self.kind is not float and isinstance(t, complex):
                t = self.kind(t)
            found = self.slope(t, state, p) + rate
            if homogeneous:
                found = found - self.slope(t, nothing, p)
            return direction * found

        if self.euler_step is not None:
            steps = math.ceil(length / self.euler_step)
            for i in range(steps):
                x = x + length / steps * along(i * length / steps, x)
            return x
        size = max(float(np.abs(x).max()), float(np.abs(rate).max()) * length, 1e-30)
        if self.dtype == np.float64:
            return self._solve(along, x, length, self.rtol * ABSOLUTE * size)
        return _join(self._solve(_split_slope(along), _split(x), length, self.rtol * ABSOLUTE * size))

    def _solve(
        self, slope: Callable[[float, np.ndarray], np.ndarray], x: np.ndarray, length: float, atol: float
    ) -> np.ndarray:
        """Integrate real states over [0, length]: explicitly, or by an implicit method where it is stiff."""
        for name, steps in (("dop853", EXPLICIT_STEPS), ("lsoda", IMPLICIT_STEPS)):
            solver = ode(slope).set_integrator(name, rtol=self.rtol, atol=atol, nsteps=steps)
            solver.set_initial_value(x, 0.0)
            with warnings.catch_warnings():
                # That a method gives up is seen below, and the next one tried.
                warnings.simplefilter("ignore")
                found = solver.integrate(length)
            if solver.successful() and np.isfinite(found).all():
                return np.array(found)
        try:
            with np.errstate(all="ignore"):  # rates that overflow end in one of the failures below
                last = solve_ivp(slope, (0.0, length), x, method="Radau", rtol=self.rtol, atol=atol)
        except ValueError as cause:  # SciPy refuses a Jacobian that is not finite
            raise self.failure("meets rates that are not finite") from cause
        if not last.success or not np.isfinite(last.y[:, -1]).all():
            raise self.failure("finds no method that succeeds")
        return last.y[:, -1]

    def _numbers(self, x: np.ndarray) -> list[Any]:
        return [OrderedComplex(v) for v in x.tolist()] if self.kind is OrderedComplex else x.tolist()


def _split(x: np.ndarray) -> np.ndarray:
    """Real parts, then imaginary parts in units of the step: both are under error control."""
    return np.concatenate([np.real(x), np.imag(x) / STEP])


def _join(v: np.ndarray) -> np.ndarray:
    n = v.shape[0] // 2
    return v[:n] + 1j * STEP * v[n:]


def _split_slope(
    slope: Callable[[float, np.ndarray], np.ndarray],
) -> Callable[[float, np.ndarray], np.ndarray]:
    def split(s: float, v: np.ndarray) -> np.ndarray:
        return _split(slope(s, _join(v)))

    return split


def _drift(model: IndividualModel) -> Callable[[Any, Any, Any], Any]:
    """Return dy/dt: of random dynamics that of the mean as long as it is affine in the states."""
    dynamics = model.dynamics
    if not isinstance(dynamics, Jump):
        return dynamics.rhs  # pyright: ignore[reportAttributeAccessIssue]

    def drift(t: Any, y: Any, p: Any) -> list[Any]:
        rates = dynamics.propensities(t, y, p)
        return [
            sum(
                change.get(state, 0) * rate
                for change, rate in zip(dynamics.stoichiometry, rates, strict=True)
            )
            for state in model.states
        ]

    return drift
