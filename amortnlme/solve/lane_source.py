"""What the steps of all schemes have in common as source: loads, error test, length of the next step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import sympy

from amortnlme.solve import lanes
from amortnlme.solve.emit import emit_assignments
from amortnlme.solve.lanes import LANES, LaneLayout
from amortnlme.solve.trace import TracedSystem


@dataclass(frozen=True, slots=True, eq=False)
class LaneModel:
    """A traced system with its place in the lanes' memory.

    Attributes
    ----------
    system : TracedSystem
    observed : tuple of int
        States that outputs use.
    """

    system: TracedSystem
    observed: tuple[int, ...]

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states."""
        return self.system.names.states

    @property
    def inputs(self) -> tuple[sympy.Symbol, ...]:
        """Symbols of parameters and covariates."""
        return (*self.system.symbols.parameters, *self.system.symbols.covariates)

    @property
    def layout(self) -> LaneLayout:
        """Place of every quantity."""
        return LaneLayout(len(self.states), len(self.inputs), len(self.observed))

    def derivative_lines(self, stage: str, state: str, time: str, indent: int) -> list[str]:
        """Write `f<stage>_<state>`, the derivatives at the states `<state>_<name>` and a time.

        Parameters
        ----------
        stage : str
            Number of the stage.
        state : str
            Prefix of the variables that hold the states there.
        time : str
            Variable that holds the time there.
        indent : int

        Returns
        -------
        list of str
        """
        symbols = self.system.symbols
        there = {
            symbol: sympy.Symbol(f"{state}_{name}", real=True)
            for symbol, name in zip(symbols.states, self.states, strict=True)
        }
        there[symbols.time] = sympy.Symbol(time, real=True)
        derivatives = [
            f.xreplace(there) + sympy.Symbol(f"rate_{name}", real=True)
            for f, name in zip(self.system.derivatives, self.states, strict=True)
        ]
        targets = [f"f{stage}_{name}" for name in self.states]
        return emit_assignments(targets, derivatives, indent, f"c{stage}_")

    @property
    def depends_on_time(self) -> bool:
        """Whether the right-hand side holds the time."""
        return any(self.system.symbols.time in f.free_symbols for f in self.system.derivatives)


def lane(quantity: int) -> str:
    """Write the element of the flat array that holds a quantity of lane `l`.

    Parameters
    ----------
    quantity : int

    Returns
    -------
    str
    """
    return f"W[{quantity * LANES} + l]"


def combination(coefficients: Sequence[float], terms: Sequence[str]) -> str:
    """Write a linear combination without its zeros.

    Parameters
    ----------
    coefficients : sequence of float
    terms : sequence of str

    Returns
    -------
    str
    """
    return (
        " + ".join(f"{c!r} * {term}" for c, term in zip(coefficients, terms, strict=True) if c != 0.0)
        or "0.0"
    )


def load_lines(model: LaneModel, used: Set[Any], indent: int, *, lane_rates: bool = True) -> list[str]:
    """Load states, infusion rates and the inputs in use.

    Parameters
    ----------
    model : LaneModel
    used : set of sympy.Symbol
        Symbols that occur in what follows.
    indent : int
    lane_rates : bool
        Whether the infusion rates are used.

    Returns
    -------
    list of str
    """
    layout = model.layout
    lines = [f"y_{name} = {lane(layout.state + i)}" for i, name in enumerate(model.states)]
    if lane_rates:
        lines += [f"rate_{name} = {lane(layout.rate + i)}" for i, name in enumerate(model.states)]
    lines += [
        f"{symbol} = {lane(layout.input + j)}" for j, symbol in enumerate(model.inputs) if symbol in used
    ]
    return [" " * indent + line for line in lines]


def begin_lines(indent: int) -> list[str]:
    """Write how a step's length is chosen: land on the stop, and never leave a sliver before it.

    Parameters
    ----------
    indent : int

    Returns
    -------
    list of str
        They define t, h, wanted, lands and remaining.
    """
    return [
        " " * indent + line
        for line in (
            f"t = {lane(lanes.TIME)}",
            f"wanted = {lane(lanes.PROPOSED)}",
            f"remaining = {lane(lanes.STOP)} - t",
            "half = 0.5 * remaining",
            "lands = wanted >= remaining",
            "shortened = wanted > half",
            "h = half if shortened else wanted",
            "h = remaining if lands else h",
        )
    ]


def finish_lines(model: LaneModel, errors: Sequence[str], order_power: str, indent: int) -> list[str]:
    """Write the error test, the acceptance and the length of the next step.

    Parameters
    ----------
    model : LaneModel
        New states stand in `new_<state>`.
    errors : sequence of str
        Estimated error of every state.
    order_power : str
        Expression of the raw growth factor in `bounded_error`.
    indent : int

    Returns
    -------
    list of str
    """
    layout = model.layout
    lines = []
    for name, error in zip(model.states, errors, strict=True):
        lines += [
            f"size_{name} = abs(y_{name})",
            f"new_size_{name} = abs(new_{name})",
            f"size_{name} = new_size_{name} if new_size_{name} > size_{name} else size_{name}",
            f"error_{name} = ({error}) / ({lane(lanes.ATOL)} + {lane(lanes.RTOL)} * size_{name})",
        ]
    # An infinite state would pass the test, as it is divided by its own size: infinity times zero is NaN.
    squares = " + ".join(f"(error_{name} * error_{name} + 0.0 * new_{name})" for name in model.states)
    lines += [
        f"error = math.sqrt(({squares}) * {1.0 / len(model.states)!r})",
        "accepted = error <= 1.0",
        # Comparisons with NaN are false: a NaN becomes the largest error.
        "bounded_error = error if error < 1e10 else 1e10",
        "bounded_error = bounded_error if bounded_error > 1e-10 else 1e-10",
        f"factor = {order_power}",
        "smallest = 0.2 if accepted else 0.1",
        f"largest = 1.0 if {lane(lanes.REJECTED)} > 0.0 else 8.0",
        "factor = factor if factor < largest else largest",
        "factor = factor if factor > smallest else smallest",
        "longer = h * factor",
        # A step cut short to land says little: go on with what was wanted before.
        "kept = wanted if wanted > longer else longer",
        "longer = kept if accepted & shortened else longer",
        f"landed = {lane(lanes.STOP)} if lands else t + h",
        "new_time = landed if accepted else t",
        f"n_steps = {lane(lanes.N_STEPS)} + 1.0",
        "outcome = 2.0 if lands else 1.0",
        "trouble = 2.0 if new_time + longer <= new_time else 0.0",
        "trouble = 1.0 if n_steps >= max_steps else trouble",
        f"attention = 1.0 if {lane(lanes.WATCH)} <= new_time else trouble",
        "attention = 1.0 if accepted & lands else attention",
        f"{lane(lanes.TIME)} = new_time",
        f"{lane(lanes.PROPOSED)} = longer",
        f"{lane(lanes.REJECTED)} = 0.0 if accepted else 1.0",
        f"{lane(lanes.N_STEPS)} = n_steps",
        f"{lane(lanes.OUTCOME)} = outcome if accepted else 0.0",
        f"{lane(lanes.TROUBLE)} = trouble",
        f"{lane(lanes.ATTENTION)} = attention",
        f"{lane(lanes.ERROR)} = error",
        f"{lane(lanes.BEFORE)} = t",
        f"{lane(lanes.LENGTH)} = h",
    ]
    lines += [
        f"{lane(layout.state + i)} = new_{name} if accepted else y_{name}"
        for i, name in enumerate(model.states)
    ]
    return [" " * indent + line for line in lines]


def dense_lines(model: LaneModel, coefficients: Mapping[str, Sequence[str]], indent: int) -> list[str]:
    """Store the interpolation of the observed states.

    Parameters
    ----------
    model : LaneModel
    coefficients : mapping of str to sequence of str, length 4
        Per observed state, the coefficients of s, s**2, s**3 and s**4.
    indent : int

    Returns
    -------
    list of str
    """
    layout = model.layout
    lines = []
    for j, i in enumerate(model.observed):
        name = model.states[i]
        first = layout.dense + lanes.N_DENSE * j
        values = (f"y_{name}", *coefficients[name])
        lines += [f"{lane(first + k)} = {value}" for k, value in enumerate(values)]
    return [" " * indent + line for line in lines]
