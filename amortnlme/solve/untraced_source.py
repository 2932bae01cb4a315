"""The text of a right-hand side that cannot be traced, gathered into one module that Numba compiles.

The module holds everything the function needs, the values of its constants included, so that its text decides
on its results: it keys the cache of machine code and the fingerprint of the model.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import inspect
import keyword
import math
import textwrap
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import sympy
from numba import types
from numba.core.errors import NumbaError
from numba.extending import is_jitted

from amortnlme.core.errors import ModelError
from amortnlme.solve import functions
from amortnlme.solve.kernel_module import load_kernels
from amortnlme.solve.trace import Names, TracedSystem, make_symbols

# derivative(t, y, p, out): p holds parameters, then covariates
DERIVATIVE = types.void(types.float64, types.float64[::1], types.float64[::1], types.float64[::1])
# Definitions of the functions of amortnlme.model.functions on numbers.
NUMERIC = {
    "exp": "exp = math.exp",
    "log": "log = math.log",
    "sqrt": "sqrt = math.sqrt",
    "where": "@njit\ndef where(condition, if_true, if_false):\n    return if_true if condition else if_false",
}
_HOW_TO = "See docs/how-to/untraceable-models.md."


def opaque_system(rhs: Callable[..., Any], names: Names) -> TracedSystem:
    """Stand in for a trace: derivatives are unknown functions of what the right-hand side uses.

    Parameters
    ----------
    rhs : callable
        `rhs(t, y, p)`.
    names : Names

    Returns
    -------
    TracedSystem
        The names of its functions hold a hash of the source text, comments and formatting left out.

    Raises
    ------
    ModelError
        E_MODEL_SIGNATURE, E_MODEL_UNKNOWN_NAME, E_MODEL_RHS_LENGTH, E_MODEL_UNTRACED_SOURCE,
        E_MODEL_UNTRACED_GLOBAL.
    """
    symbols = make_symbols(names)
    gathered = _gather(rhs, names)
    used = _used_names(gathered, names)
    inputs = zip(
        (*names.parameters, *names.covariates), (*symbols.parameters, *symbols.covariates), strict=True
    )
    arguments = (symbols.time, *symbols.states, *(symbol for name, symbol in inputs if name in used))
    label = hashlib.sha256(gathered.text.encode()).hexdigest()[:16]
    derivatives = tuple(sympy.Function(f"untraced_{label}_{s}")(*arguments) for s in names.states)
    jacobian = tuple(tuple(sympy.diff(f, s) for s in symbols.states) for f in derivatives)
    return TracedSystem(names, symbols, derivatives, jacobian, (), False)


def compile_rhs(rhs: Callable[..., Any], names: Names) -> Any:
    """Compile a right-hand side as it stands.

    Parameters
    ----------
    rhs : callable
        `rhs(t, y, p)`.
    names : Names

    Returns
    -------
    callable
        `derivative(t, y, p, out)` for Numba drivers, with the signature DERIVATIVE.

    Raises
    ------
    ModelError
        As `opaque_system`; E_MODEL_UNTRACED_COMPILE when Numba refuses the code.
    """
    source = module_source(rhs, names)
    try:
        return load_kernels(f"untraced_{rhs.__name__}", source).derivative
    except NumbaError as fault:
        told = str(fault).split("During: ")[0]  # what follows is about Numba, not about the model
        lines = [line.strip() for line in told.splitlines() if line.strip()]
        reason = " ".join(line for line in lines if not line.startswith(("Failed in", "File ")))
        raise ModelError(
            "E_MODEL_UNTRACED_COMPILE",
            f"the right-hand side {rhs.__name__!r} cannot be traced, and Numba cannot compile it: {reason} "
            f"Use numbers, tuples, arrays, loops, branches and functions of math and numpy. {_HOW_TO}",
        ) from fault


def module_source(rhs: Callable[..., Any], names: Names) -> str:
    """Write the module in which a right-hand side is compiled.

    Parameters
    ----------
    rhs : callable
        `rhs(t, y, p)`.
    names : Names

    Returns
    -------
    str

    Raises
    ------
    ModelError
        As `opaque_system`.
    """
    gathered = _gather(rhs, names)
    inputs = (*names.parameters, *names.covariates)
    for name in (*names.states, *inputs):
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            raise ModelError(
                "E_MODEL_UNTRACED_SOURCE",
                f"{name!r} cannot be a field of a named tuple, as which an untraced right-hand side sees it. "
                "Begin the name with a letter.",
            )
    states = ", ".join(f"y[{i}]" for i in range(len(names.states)))
    values = ", ".join(f"p[{i}]" for i in range(len(inputs)))
    lines = [f"    out[{i}] = found[{i}]" for i in range(len(names.states))]
    if len(names.states) == 1 and not gathered.returns_tuple:
        lines = ["    out[0] = found"]
    return "\n".join(
        [
            f'"""Right-hand side {rhs.__name__!r} as written, for states {", ".join(names.states)}. '
            'Generated: change the model instead."""',
            "",
            "import math",
            "from collections import namedtuple",
            "",
            "import numpy as np",
            "from numba import njit, types",
            "",
            f"States = namedtuple('States', {list(names.states)!r})",
            f"Inputs = namedtuple('Inputs', {list(inputs)!r})",
            "",
            "# What the model file defines.",
            gathered.text,
            "",
            "# What the solver calls.",
            "vector = types.float64[::1]",
            "signature = types.void(types.float64, vector, vector, vector)",
            "@njit(signature, cache=True, nogil=True, error_model='numpy')",
            "def derivative(t, y, p, out):",
            f"    found = {gathered.entry}(t, States({states}), Inputs({values}))",
            *lines,
            "",
        ]
    )


class _Gathered:
    """Functions and constants that a right-hand side needs, under names of their own."""

    __slots__ = ("_names", "_taken", "entry", "parts", "returns_tuple", "tree")

    def __init__(self, rhs: Callable[..., Any]) -> None:
        # Names of the module itself and builtins are not free.
        self._taken = {
            "math",
            "np",
            "njit",
            "types",
            "namedtuple",
            "vector",
            "States",
            "Inputs",
            "derivative",
        }
        self._names: dict[int, str] = {}
        self.parts: list[str] = []
        self.tree = _function_tree(rhs)
        self.returns_tuple = any(
            isinstance(node.value, ast.Tuple) for node in ast.walk(self.tree) if isinstance(node, ast.Return)
        )
        self.entry = self._function(rhs, rhs.__name__, rhs.__name__)

    @property
    def text(self) -> str:
        """Source of everything, what is used before what uses it."""
        return "\n".join(self.parts)

    def _own_name(self, wanted: str) -> str:
        name, i = wanted, 2
        while name in self._taken or name in vars(builtins):
            name, i = f"{wanted}_{i}", i + 1
        self._taken.add(name)
        return name

    def _function(self, function: Callable[..., Any], wanted: str, owner: str) -> str:
        function = _plain(function)
        if id(function) in self._names:
            return self._names[id(function)]
        name = self._names[id(function)] = self._own_name(wanted)
        tree = _function_tree(function)
        renamed = {
            used: own
            for used in sorted(_free_names(tree))
            if (own := self._value(_look_up(function, used, owner), used, owner)) is not None
        }
        tree.name = name
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                node.id = renamed.get(node.id, node.id)
        self.parts.append(f"@njit(error_model='numpy')\n{ast.unparse(tree)}\n")
        return name

    def _value(self, value: Any, name: str, owner: str) -> str | None:
        """Define a global of a function; return its name here, None for a builtin."""
        if value is getattr(builtins, name, _MISSING):
            return None
        if id(value) in self._names:
            return self._names[id(value)]
        if is_jitted(value) or (isinstance(value, FunctionType) and value.__module__ != functions.__name__):
            return self._function(value, name, owner)
        own = self._own_name(name)
        self._names[id(value)] = own
        text = _definition(own, value)
        if text is None:
            raise ModelError(
                "E_MODEL_UNTRACED_GLOBAL",
                f"the untraced right-hand side {owner!r} uses {name!r}, a {type(value).__name__}. It may use "
                "numbers, tuples and arrays of numbers, functions of the model file, of math, of numpy and "
                f"of amortnlme.model.functions. {_HOW_TO}",
            )
        self.parts.append(text)
        return own


_MISSING = object()


def _plain(function: Any) -> Any:
    """Return the Python function behind one that is compiled already."""
    return function.py_func if is_jitted(function) else function


def _definition(name: str, value: Any) -> str | None:
    """Write a constant or an imported function; None if it is neither."""
    if value is math or value is np:
        return f"import {value.__name__} as {name}"
    if isinstance(value, FunctionType) and value.__module__ == functions.__name__:
        text = NUMERIC.get(value.__name__)
        return (
            None
            if text is None
            else text.replace(f"{value.__name__} =", f"{name} =", 1).replace(
                f"def {value.__name__}(", f"def {name}(", 1
            )
        )
    for module in (math, np):
        found = getattr(value, "__name__", None)
        if (
            isinstance(found, str)
            and not isinstance(value, ModuleType)
            and getattr(module, found, _MISSING) is value
        ):
            return f"from {module.__name__} import {found} as {name}"
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        kind = "float64" if value.dtype.kind == "f" else "int64"
        return f"{name} = np.array({_literal(value.tolist())}, dtype=np.{kind})"
    text = _literal(value)
    return None if text is None else f"{name} = {text}"


def _literal(value: Any) -> str | None:
    """Write numbers and sequences of numbers so that they read back as the same bits."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int):
        return repr(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"float('{value}')"
    if isinstance(value, list | tuple):
        items = [_literal(item) for item in value]
        if all(item is not None for item in items):
            return f"({''.join(f'{item}, ' for item in items)})"
    return None


def _function_tree(function: Any) -> ast.FunctionDef:
    """Parse a function, without decorators, annotations and docstring."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError) as fault:
        raise _source_error(function, "its source text cannot be read") from fault
    found = tree.body[0]
    if not isinstance(found, ast.FunctionDef):
        raise _source_error(function, "it is not defined by `def`")
    found.decorator_list = []
    for node in ast.walk(found):
        if isinstance(node, ast.Raise | ast.Assert | ast.Try | ast.Global | ast.Nonlocal):
            raise _source_error(
                function, f"it holds `{ast.unparse(node).splitlines()[0]}`: return nan instead"
            )
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        elif isinstance(node, ast.arg):
            node.annotation = None
    return found


def _source_error(function: Any, reason: str) -> ModelError:
    name = getattr(function, "__name__", repr(function))
    return ModelError(
        "E_MODEL_UNTRACED_SOURCE",
        f"the untraced function {name!r} cannot be compiled from its source: {reason}. Write it with `def` "
        f"in a file, from numbers, loops and branches. {_HOW_TO}",
    )


def _free_names(tree: ast.FunctionDef) -> set[str]:
    loaded, bound = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef) and node is not tree:
            bound.add(node.name)
    return loaded - bound


def _look_up(function: Any, name: str, owner: str) -> Any:
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    if name in cells:
        return cells[name].cell_contents
    for place in (function.__globals__, vars(builtins)):
        if name in place:
            return place[name]
    raise ModelError(
        "E_MODEL_UNTRACED_GLOBAL",
        f"the untraced right-hand side {owner!r} uses {name!r}, which is defined nowhere. Define it above.",
    )


def _gather(rhs: Callable[..., Any], names: Names) -> _Gathered:
    rhs = _plain(rhs)
    arguments = list(inspect.signature(rhs).parameters)
    if len(arguments) != 3:
        raise ModelError(
            "E_MODEL_SIGNATURE",
            f"the right-hand side takes ({', '.join(arguments)}), but it is called with (t, y, p): time, "
            "states, parameters and covariates. Give it these arguments.",
        )
    gathered = _Gathered(rhs)
    inputs = (*names.parameters, *names.covariates)
    for argument, kind, declared in (
        (arguments[1], "state", names.states),
        (arguments[2], "structural parameter or covariate", inputs),
    ):
        unknown = sorted(_attributes(gathered.tree, argument) - set(declared))
        if unknown:
            raise ModelError(
                "E_MODEL_UNKNOWN_NAME",
                f"the model uses {argument}.{unknown[0]}, but it declares no {kind} {unknown[0]!r}. "
                f"Declared: {', '.join(declared) or 'none'}.",
            )
    for node in ast.walk(gathered.tree):
        if not isinstance(node, ast.Return) or not isinstance(node.value, ast.Tuple):
            continue
        if len(node.value.elts) != len(names.states):
            raise ModelError(
                "E_MODEL_RHS_LENGTH",
                f"the right-hand side {rhs.__name__!r} returns {len(node.value.elts)} value(s) for "
                f"{len(names.states)} states ({', '.join(names.states)}). Return one derivative per state, "
                "in the order of the states.",
            )
    return gathered


def _attributes(tree: ast.AST, argument: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == argument
    }


def _used_names(gathered: _Gathered, names: Names) -> set[str]:
    """Attributes read from the third argument, or from anything in a function that may have been given it."""
    argument = gathered.tree.args.args[2].arg
    used = _attributes(gathered.tree, argument)
    bare = sum(isinstance(n, ast.Name) and n.id == argument for n in ast.walk(gathered.tree))
    read = sum(
        isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == argument
        for n in ast.walk(gathered.tree)
    )
    if bare > read:
        everywhere = ast.parse(gathered.text)
        used |= {node.attr for node in ast.walk(everywhere) if isinstance(node, ast.Attribute)}
    return used & {*names.parameters, *names.covariates}
