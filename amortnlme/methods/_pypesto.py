"""The one door to pyPESTO: multistart minimization of a value-and-gradient function.

Imported inside functions only, because importing pyPESTO costs more than a fit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pypesto
import pypesto.optimize
from pypesto.engine import SingleCoreEngine
from pypesto.objective import ObjectiveBase

logging.getLogger("pypesto").setLevel(logging.ERROR)

ValueAndGradient = Callable[[np.ndarray], tuple[float, np.ndarray]]
ValueGradientInformation = Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True, eq=False)
class Minimum:
    """Outcome of a multistart minimization.

    Attributes
    ----------
    x : ndarray, shape (n,)
        Best point found.
    value : float
    values : ndarray, shape (n_starts,)
        Final value of every start, best first; inf for failed starts.
    n_evaluations : int
        Over all starts.
    message : str
        What the optimizer said about the best start.
    """

    x: np.ndarray
    value: float
    values: np.ndarray
    n_evaluations: int
    message: str


class GradientObjective(ObjectiveBase):
    """A pyPESTO objective around a function that returns value and gradient together.

    Parameters
    ----------
    function : callable
        Maps x (n,) to (value, gradient (n,)).
    names : sequence of str
        Names of the n parameters.
    curved : callable, optional
        Maps x to (value, gradient, information (n, n)); the information stands in for the Hessian.
    """

    # Tells the SciPy optimizers to ask for value and gradient in one call; without it both are computed
    # twice.
    grad = True

    def __init__(
        self,
        function: ValueAndGradient,
        names: Sequence[str],
        curved: ValueGradientInformation | None = None,
    ) -> None:
        super().__init__(x_names=list(names))
        self.function = function
        self.curved = curved
        self.n_calls = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> GradientObjective:
        """Copy the shell but share the function, whose closure holds all draws."""
        new = GradientObjective(self.function, list(self.x_names or []), self.curved)
        memo[id(self)] = new
        # pyPESTO attaches its history after construction; a copy starts with a fresh one.
        new.n_calls = self.n_calls
        return new

    def check_mode(self, mode: str) -> bool:
        """Only function values and gradients; no residuals."""
        return mode == "mode_fun"

    def check_sensi_orders(self, sensi_orders: tuple[int, ...], mode: str) -> bool:
        """Orders 0 and 1, and 2 where there is an information matrix."""
        highest = 1 if self.curved is None else 2
        return mode == "mode_fun" and all(order <= highest for order in sensi_orders)

    def call_unprocessed(
        self, x: np.ndarray, sensi_orders: tuple[int, ...], mode: str, return_dict: bool = False, **_: Any
    ) -> dict[str, Any]:
        """Evaluate for pyPESTO; the keyword arguments it passes along carry nothing this objective uses."""
        self.n_calls += 1
        point = np.asarray(x, dtype=np.float64)
        result: dict[str, Any] = {}
        if self.curved is not None and 2 in sensi_orders:
            value, gradient, result["hess"] = self.curved(point)
        else:
            value, gradient = self.function(point)
        result["fval"] = float(value)
        if 1 in sensi_orders:
            result["grad"] = np.asarray(gradient, dtype=np.float64)
        return result


def minimize_multistart(
    function: ValueAndGradient,
    starts: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    names: Sequence[str],
    max_iterations: int = 500,
    value_tolerance: float = 1e-12,
    gradient_tolerance: float = 1e-6,
    curved: ValueGradientInformation | None = None,
) -> Minimum:
    """Minimize from several starting points: L-BFGS-B, or fides where there is an information matrix.

    Parameters
    ----------
    function : callable
        Maps x (n,) to (value, gradient (n,)); may return inf.
    starts : ndarray, shape (n_starts, n)
    lower, upper : ndarray, shape (n,)
        Box.
    names : sequence of str
    max_iterations : int
    value_tolerance, gradient_tolerance : float
        Relative change of the value and largest gradient entry at which a start ends.
    curved : callable, optional
        See `GradientObjective`.

    Returns
    -------
    Minimum
    """
    calls = 0

    def counted(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal calls
        calls += 1
        return function(x)

    def counted_curved(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        nonlocal calls
        calls += 1
        assert curved is not None
        return curved(x)

    problem = pypesto.Problem(
        GradientObjective(counted, names, None if curved is None else counted_curved),
        lb=lower,
        ub=upper,
        x_guesses=np.clip(starts, lower, upper),
        x_names=list(names),
    )
    optimizer = (_l_bfgs_b if curved is None else _trust_region)(
        max_iterations, value_tolerance, gradient_tolerance
    )
    result = pypesto.optimize.minimize(
        problem, optimizer, n_starts=len(starts), engine=SingleCoreEngine(), progress_bar=False
    )
    best = result.optimize_result[0]
    values = np.array(
        [np.inf if r.fval is None else r.fval for r in result.optimize_result], dtype=np.float64
    )
    x = np.asarray(best.x if best.x is not None else problem.x_guesses_full[0], dtype=np.float64)
    return Minimum(x, float(values[0]), values, calls, str(best.message))


def _l_bfgs_b(max_iterations: int, value: float, gradient: float) -> pypesto.optimize.ScipyOptimizer:
    options = {
        "maxiter": max_iterations,
        "maxfun": 3 * max_iterations,
        "ftol": value,
        "gtol": gradient,
        "maxcor": 25,
    }
    return pypesto.optimize.ScipyOptimizer(method="L-BFGS-B", options=options)


def _trust_region(max_iterations: int, value: float, gradient: float) -> pypesto.optimize.FidesOptimizer:
    options = {"maxiter": max_iterations, "fatol": 0.0, "frtol": value, "gatol": gradient, "grtol": 0.0}
    return pypesto.optimize.FidesOptimizer(options=options, verbose=logging.ERROR)
