"""One SymPy trace of a plain-Python model function, from which everything else is derived."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import sympy

from amortnlme.core.errors import ModelError

ModelFunction = Callable[[Any, Any, Any], Any]
# What traced functions return; floors above name it without importing SymPy.
Expression = sympy.Expr
ParameterFunction = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Shift:
    """A parameter that moves between periods: transform(psi) gains the effect of the period in force.

    Attributes
    ----------
    parameter : str
    transform : {"identity", "log", "logit"}
        The scale on which the effects add.
    effects : tuple of str
        Parameters, one per period.
    indicators : tuple of str
        Covariates, one per period: 1 while it is in force, else 0.
    """

    parameter: str
    transform: str
    effects: tuple[str, ...]
    indicators: tuple[str, ...]

    def moved(self, values: dict[str, sympy.Expr]) -> sympy.Expr:
        """Write the parameter in terms of itself, the effects and the indicators.

        Parameters
        ----------
        values : dict of str to sympy.Expr
            Of every parameter and covariate.

        Returns
        -------
        sympy.Expr
        """
        psi = values[self.parameter]
        shift = sympy.Add(
            *(values[x] * values[k] for x, k in zip(self.indicators, self.effects, strict=True))
        )
        if self.transform == "log":
            return psi * sympy.exp(shift)
        if self.transform == "logit":
            return psi / (psi + (1 - psi) * sympy.exp(-shift))
        return psi + shift


@dataclass(frozen=True, slots=True)
class Names:
    """The names a model function may use, in declaration order.

    Attributes
    ----------
    states : tuple of str
        Available as `y.<name>`.
    parameters : tuple of str
        Individual parameters on the natural scale, available as `p.<name>`.
    covariates : tuple of str
        Covariates, available as `p.<name>` too.
    shifts : tuple of Shift
        Parameters for which `p.<name>` is the value in the period in force.
    """

    states: tuple[str, ...]
    parameters: tuple[str, ...]
    covariates: tuple[str, ...] = ()
    shifts: tuple[Shift, ...] = ()


@dataclass(frozen=True, slots=True)
class Symbols:
    """The SymPy symbols of time, states, parameters and covariates."""

    time: sympy.Symbol
    states: tuple[sympy.Symbol, ...]
    parameters: tuple[sympy.Symbol, ...]
    covariates: tuple[sympy.Symbol, ...]

    @property
    def all(self) -> tuple[sympy.Symbol, ...]:
        """Every symbol, in the order in which compiled functions take their arguments."""
        return (self.time, *self.states, *self.parameters, *self.covariates)


@dataclass(frozen=True, slots=True, eq=False)
class TracedSystem:
    """A right-hand side as expressions.

    Attributes
    ----------
    names : Names
    symbols : Symbols
    derivatives : tuple of sympy.Expr, length n_states
        dy/dt of every state.
    jacobian : tuple of tuple of sympy.Expr, n_states x n_states
        d(dy_i/dt)/dy_j.
    inputs : tuple of sympy.Expr, length n_states
        dy/dt at y = 0, production that does not depend on the states; empty unless dy/dt is linear in y.
    is_linear_constant : bool
        Whether dy/dt = K y + b with K and b free of y and t (so that closed-form propagation applies).
    """

    names: Names
    symbols: Symbols
    derivatives: tuple[sympy.Expr, ...]
    jacobian: tuple[tuple[sympy.Expr, ...], ...]
    inputs: tuple[sympy.Expr, ...]
    is_linear_constant: bool


class _Namespace:
    """Attribute access to symbols, with an error that names what exists."""

    __slots__ = ("_kind", "_letter", "_values")

    def __init__(self, letter: str, kind: str, values: dict[str, sympy.Expr]) -> None:
        self._letter = letter
        self._kind = kind
        self._values = values

    def __getattr__(self, name: str) -> sympy.Expr:
        values = self._values
        if name in values:
            return values[name]
        if name.startswith("__"):
            raise AttributeError(name)
        close = difflib.get_close_matches(name, values, n=1)
        hint = f" Did you mean {self._letter}.{close[0]}?" if close else ""
        raise ModelError(
            "E_MODEL_UNKNOWN_NAME",
            f"the model uses {self._letter}.{name}, but it declares no {self._kind} {name!r}. Declared: "
            f"{', '.join(values) or 'none'}.{hint}",
        )


def make_symbols(names: Names) -> Symbols:
    """Create the symbols of a model.

    Parameters
    ----------
    names : Names

    Returns
    -------
    Symbols

    Raises
    ------
    ModelError
        E_MODEL_DUPLICATE_NAME when a parameter and a covariate, or two states, share a name.
    """
    for kind, group in (
        ("state", names.states),
        ("parameter or covariate", (*names.parameters, *names.covariates)),
    ):
        twice = sorted({name for name in group if group.count(name) > 1})
        if twice:
            raise ModelError(
                "E_MODEL_DUPLICATE_NAME",
                f"{kind} {twice[0]!r} is declared more than once. Give each its own name.",
            )

    def symbols(prefix: str, group: Sequence[str]) -> tuple[sympy.Symbol, ...]:
        return tuple(sympy.Symbol(f"{prefix}_{name}", real=True) for name in group)

    return Symbols(
        time=sympy.Symbol("t", real=True),
        states=symbols("y", names.states),
        parameters=symbols("p", names.parameters),
        covariates=symbols("x", names.covariates),
    )


def trace(rhs: ModelFunction, names: Names) -> TracedSystem:
    """Trace a right-hand side `rhs(t, y, p)` that returns one derivative per state.

    Parameters
    ----------
    rhs : callable
        Plain Python; `y.<state>`, `p.<parameter>`, `p.<covariate>`; functions of `amortnlme.model.functions`.
    names : Names

    Returns
    -------
    TracedSystem

    Raises
    ------
    ModelError
        E_MODEL_UNKNOWN_NAME, E_MODEL_BRANCH, E_MODEL_FUNCTION, E_MODEL_RHS_LENGTH, E_MODEL_RETURN_TYPE,
        E_MODEL_SIGNATURE.
    """
    symbols = make_symbols(names)
    returned = _as_sequence(_call(rhs, names, symbols, "the right-hand side", ("t", "y", "p")))
    if len(returned) != len(names.states):
        raise ModelError(
            "E_MODEL_RHS_LENGTH",
            f"the right-hand side {rhs.__name__!r} returns {len(returned)} value(s) for "
            f"{len(names.states)} states ({', '.join(names.states)}). Return one derivative per state, in "
            "the order of the states.",
        )
    derivatives = tuple(
        _expression(value, f"the derivative of {s!r}")
        for s, value in zip(names.states, returned, strict=True)
    )
    jacobian = tuple(tuple(sympy.diff(f, s) for s in symbols.states) for f in derivatives)
    moving = {symbols.time, *symbols.states}
    linear = all(not (entry.free_symbols & moving) for row in jacobian for entry in row)
    at_zero = [(s, sympy.S.Zero) for s in symbols.states]
    # Simplified, because x - x at another order of terms is zero too, and would count as an input.
    inputs = tuple(sympy.simplify(f.subs(at_zero)) for f in derivatives) if linear else ()
    linear = linear and not any(symbols.time in b.free_symbols for b in inputs)
    return TracedSystem(names, symbols, derivatives, jacobian, inputs, linear)


def trace_output(function: ModelFunction, names: Names, symbols: Symbols, output: str) -> sympy.Expr:
    """Trace an observable `fn(t, y, p)` that returns one number.

    Parameters
    ----------
    function : callable
    names : Names
    symbols : Symbols
        The symbols of the model's right-hand side.
    output : str
        Name of the output, for messages.

    Returns
    -------
    sympy.Expr

    Raises
    ------
    ModelError
        As `trace`.
    """
    value = _call(function, names, symbols, f"the output {output!r}", ("t", "y", "p"))
    return _expression(value, f"the output {output!r}")


def trace_rates(function: ModelFunction, names: Names, symbols: Symbols, what: str) -> tuple[sympy.Expr, ...]:
    """Trace a function `fn(t, y, p)` that returns any number of expressions, such as propensities.

    Parameters
    ----------
    function : callable
    names : Names
    symbols : Symbols
    what : str
        What the function stands for, for messages: "the propensities".

    Returns
    -------
    tuple of sympy.Expr

    Raises
    ------
    ModelError
        As `trace`.
    """
    returned = _as_sequence(_call(function, names, symbols, what, ("t", "y", "p")))
    return tuple(_expression(value, f"value {i} of {what}") for i, value in enumerate(returned, 1))


def trace_table(
    function: ModelFunction, names: Names, symbols: Symbols, what: str
) -> tuple[sympy.Expr | tuple[sympy.Expr, ...], ...]:
    """Trace a function `fn(t, y, p)` that returns expressions or rows of them, such as a diffusion matrix.

    Parameters
    ----------
    function : callable
    names : Names
    symbols : Symbols
    what : str
        What the function stands for, for messages: "the diffusion".

    Returns
    -------
    tuple of sympy.Expr or of tuple of sympy.Expr

    Raises
    ------
    ModelError
        As `trace`.
    """
    table: list[sympy.Expr | tuple[sympy.Expr, ...]] = []
    for i, row in enumerate(_as_sequence(_call(function, names, symbols, what, ("t", "y", "p"))), 1):
        where = f"row {i} of {what}"
        if isinstance(row, tuple | list):
            table.append(tuple(_expression(v, f"value {j} of {where}") for j, v in enumerate(row, 1)))
        else:
            table.append(_expression(row, where))
    return tuple(table)


def trace_constants(
    function: ParameterFunction, names: Names, symbols: Symbols, what: str
) -> tuple[sympy.Expr, ...]:
    """Trace a function `fn(p)` of parameters and covariates alone, such as initial states or a lag time.

    Parameters
    ----------
    function : callable
    names : Names
    symbols : Symbols
    what : str
        What the function stands for, for messages: "the lag time of 'depot'".

    Returns
    -------
    tuple of sympy.Expr

    Raises
    ------
    ModelError
        As `trace`.
    """
    returned = _as_sequence(_call(function, names, symbols, what, ("p",)))
    return tuple(_expression(value, f"value {i} of {what}") for i, value in enumerate(returned, 1))


def compile_numpy(symbols: Symbols, expressions: Sequence[sympy.Expr]) -> Callable[..., Sequence[Any]]:
    """Turn expressions into one vectorized numpy function of (time, states, parameters, covariates).

    Parameters
    ----------
    symbols : Symbols
    expressions : sequence of sympy.Expr

    Returns
    -------
    callable
        Takes one broadcastable array per symbol of `symbols.all`, returns one array or number per expression.
    """
    return sympy.lambdify(symbols.all, list(expressions), modules="numpy", cse=True)


def used_names(traced: TracedSystem, outputs: Sequence[sympy.Expr]) -> frozenset[str]:
    """Names of the parameters and covariates that occur in the dynamics or an output.

    Parameters
    ----------
    traced : TracedSystem
    outputs : sequence of sympy.Expr

    Returns
    -------
    frozenset of str
    """
    found = set().union(*(e.free_symbols for e in (*traced.derivatives, *outputs)))
    symbols = (*traced.symbols.parameters, *traced.symbols.covariates)
    names = (*traced.names.parameters, *traced.names.covariates)
    return frozenset(name for name, symbol in zip(names, symbols, strict=True) if symbol in found)


def canonical_text(expression: sympy.Expr) -> str:
    """Write an expression in a fixed order of terms, for fingerprints.

    Parameters
    ----------
    expression : sympy.Expr

    Returns
    -------
    str
    """
    return sympy.sstr(expression, order="lex")


def _as_sequence(returned: Any) -> Sequence[Any]:
    if isinstance(returned, sympy.Expr | int | float) or not isinstance(returned, Sequence):
        return (returned,)
    return returned


def _call(
    function: Callable[..., Any], names: Names, symbols: Symbols, what: str, expected: tuple[str, ...]
) -> Any:
    arguments = list(inspect.signature(function).parameters)
    if len(arguments) != len(expected):
        meaning = {"t": "time", "y": "states", "p": "parameters and covariates"}
        raise ModelError(
            "E_MODEL_SIGNATURE",
            f"{what} takes ({', '.join(arguments)}), but it is called with ({', '.join(expected)}): "
            f"{', '.join(meaning[name] for name in expected)}. Give it these arguments.",
        )
    _refuse_branches(function, arguments, what)
    states: dict[str, sympy.Expr] = dict(zip(names.states, symbols.states, strict=True))
    inputs: dict[str, sympy.Expr] = dict(zip(names.parameters, symbols.parameters, strict=True))
    inputs.update(zip(names.covariates, symbols.covariates, strict=True))
    moved = {shift.parameter: shift.moved(inputs) for shift in names.shifts}
    y = _Namespace("y", "state", states)
    p = _Namespace("p", "structural parameter or covariate", inputs | moved)
    try:
        given = {"t": symbols.time, "y": y, "p": p}
        return function(*(given[name] for name in expected))
    except ModelError:
        raise
    except Exception as fault:
        line, text = _where(function, fault)
        if "truth value" in str(fault):
            raise _branch_error(what, line, text) from fault
        raise ModelError(
            "E_MODEL_FUNCTION",
            f"{what} cannot be traced: line {line} `{text}` raises {type(fault).__name__}: {fault}. It is "
            "called with symbols, so use + - * / ** and exp, log, sqrt, where from "
            f"amortnlme.model.functions (not math.* or numpy.*).{_way_out(what)}",
        ) from fault


def _where(function: ModelFunction, fault: Exception) -> tuple[int, str]:
    frames = [
        frame
        for frame in traceback.extract_tb(fault.__traceback__)
        if frame.filename == function.__code__.co_filename
    ]
    if not frames:
        return function.__code__.co_firstlineno, function.__name__
    return frames[-1].lineno or 0, frames[-1].line or function.__name__


def _branch_error(what: str, line: int, text: str) -> ModelError:
    return ModelError(
        "E_MODEL_BRANCH",
        f"{what} branches on a state, parameter or time in line {line}: `{text}`. A trace sees symbols, "
        "which are neither true nor false. Use where(condition, if_true, if_false) from "
        f"amortnlme.model.functions.{_way_out(what)}",
    )


def _way_out(what: str) -> str:
    """Name the fallback, which right-hand sides alone have."""
    if what != "the right-hand side":
        return ""
    return " Code that cannot be written so is compiled as it stands by CompiledOde, which is slower."


def _refuse_branches(function: ModelFunction, arguments: list[str], what: str) -> None:
    """Find `if p.flag:`, which a symbol would silently answer with True."""
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return  # typed at a prompt, or a lambda inside an expression: relations still raise when traced
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            tested = {name.id for name in ast.walk(node.test) if isinstance(name, ast.Name)}
            if tested & set(arguments):
                raise _branch_error(what, first + node.lineno - 1, lines[node.lineno - 1].strip())


def _expression(value: Any, what: str) -> sympy.Expr:
    if isinstance(value, bool) or not isinstance(value, sympy.Expr | int | float | np.floating | np.integer):
        raise ModelError(
            "E_MODEL_RETURN_TYPE",
            f"{what} is a {type(value).__name__}, not a number or an expression of y and p. Return one "
            "scalar expression.",
        )
    return cast(sympy.Expr, sympy.sympify(value))
