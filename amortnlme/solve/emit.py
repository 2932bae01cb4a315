"""SymPy expressions as straight-line Numba source that LLVM can turn into SIMD code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sympy
from sympy.printing.pycode import PythonCodePrinter

from amortnlme.core.errors import ModelError

# Integer powers up to this one are written as products.
LONGEST_PRODUCT = 8
PREAMBLE = """import math

from amortnlme.solve.vector_math import vexp, vlog, vpow
"""


# Typed as anything: SymPy's printers narrow the return types of one another in ways nobody can override.
_Base: Any = PythonCodePrinter


class _Printer(_Base):
    """Prints one expression; arms of a `where` become lines of their own, so that it compiles to a select."""

    def __init__(self, names: Iterator[sympy.Symbol] | None) -> None:
        _Base.__init__(self, {"fully_qualified_modules": True})
        self._names = names
        self.pending: list[str] = []

    def emptyPrinter(self, expr: Any) -> str:
        raise ModelError(
            "E_MODEL_FUNCTION",
            f"the expression {expr} uses {type(expr).__name__!r}, which cannot be compiled. Use + - * / **, "
            "abs, min, max and exp, log, sqrt, where from amortnlme.model.functions.",
        )

    _print_not_supported = emptyPrinter

    # Functions of Python's math module have printers of their own, found before this one.
    _print_Function = emptyPrinter

    def _print_Integer(self, expr: Any) -> str:
        return repr(float(expr))

    def _print_Rational(self, expr: Any) -> str:
        return repr(float(expr))

    def _print_Float(self, expr: Any) -> str:
        return repr(float(expr))

    def _print_NumberSymbol(self, expr: Any) -> str:
        return repr(float(expr))

    def _print_Infinity(self, expr: Any) -> str:
        return "math.inf"

    def _print_NegativeInfinity(self, expr: Any) -> str:
        return "-math.inf"

    def _print_NaN(self, expr: Any) -> str:
        return "math.nan"

    def _print_exp(self, expr: Any) -> str:
        return f"vexp({self._print(expr.args[0])})"

    def _print_log(self, expr: Any) -> str:
        return f"vlog({self._print(expr.args[0])})"

    def _print_Abs(self, expr: Any) -> str:
        return f"abs({self._print(expr.args[0])})"

    def _print_sign(self, expr: Any) -> str:
        x = self._atom(expr.args[0])
        return f"(1.0 if {x} > 0.0 else (-1.0 if {x} < 0.0 else 0.0))"

    def _print_Heaviside(self, expr: Any) -> str:
        x = self._atom(expr.args[0])
        return f"(1.0 if {x} > 0.0 else (0.0 if {x} < 0.0 else 0.5))"

    def _print_DiracDelta(self, expr: Any) -> str:
        return "0.0"  # the slope of a jump, away from it

    def _print_Max(self, expr: Any) -> str:
        return self._extreme(expr, ">")

    def _print_Min(self, expr: Any) -> str:
        return self._extreme(expr, "<")

    def _extreme(self, expr: Any, relation: str) -> str:
        first, *others = (self._atom(a) for a in expr.args)
        for other in others:
            first = self._named(f"({first} if {first} {relation} {other} else {other})")
        return first

    def _print_Piecewise(self, expr: Any) -> str:
        pairs = [(self._atom(value), condition) for value, condition in expr.args]
        text = pairs[-1][0] if pairs[-1][1] == True else "math.nan"  # noqa: E712 (SymPy's true)
        for value, condition in reversed(pairs[:-1] if pairs[-1][1] == True else pairs):  # noqa: E712
            text = f"({value} if {self._print(condition)} else {text})"
        return text

    def _print_And(self, expr: Any) -> str:
        return "(" + " & ".join(f"({self._print(a)})" for a in sorted(expr.args, key=str)) + ")"

    def _print_Or(self, expr: Any) -> str:
        return "(" + " | ".join(f"({self._print(a)})" for a in sorted(expr.args, key=str)) + ")"

    def _print_Not(self, expr: Any) -> str:
        return f"(not {self._print(expr.args[0])})"

    def _print_BooleanTrue(self, expr: Any) -> str:
        return "True"

    def _print_BooleanFalse(self, expr: Any) -> str:
        return "False"

    def _print_Relational(self, expr: Any) -> str:
        return f"({self._print(expr.lhs)} {expr.rel_op} {self._print(expr.rhs)})"

    def _print_Pow(self, expr: Any) -> str:
        base, exponent = expr.as_base_exp()
        if exponent == sympy.Rational(1, 2):
            return f"math.sqrt({self._print(base)})"
        if exponent == sympy.Rational(-1, 2):
            return f"(1.0 / math.sqrt({self._print(base)}))"
        if exponent.is_Float and float(exponent) == int(exponent):
            exponent = sympy.Integer(int(exponent))
        if exponent.is_Integer and 0 < abs(int(exponent)) <= LONGEST_PRODUCT:
            factor = self._atom(base) if abs(int(exponent)) > 1 else f"({self._print(base)})"
            product = " * ".join([factor] * abs(int(exponent)))
            return f"({product})" if exponent > 0 else f"(1.0 / ({product}))"
        return f"vpow({self._print(base)}, {self._print(exponent)})"

    def _atom(self, expr: Any) -> str:
        """Return the expression as a name or number that can be repeated without cost."""
        text = self._print(expr)
        return text if expr.is_Atom else self._named(text)

    def _named(self, text: str) -> str:
        if text.isidentifier():
            return text
        if self._names is None:
            return f"({text})"
        name = str(next(self._names))
        self.pending.append(f"{name} = {text}")
        return name


def emit_assignments(
    targets: Sequence[str],
    expressions: Sequence[sympy.Expr],
    indent: int,
    prefix: str,
    substitutions: Mapping[sympy.Symbol, sympy.Expr] | None = None,
) -> list[str]:
    """Write `target = expression` lines, common subexpressions first.

    Parameters
    ----------
    targets : sequence of str
        What stands left of the equal sign.
    expressions : sequence of sympy.Expr
        One per target. Symbols appear under their names.
    indent : int
        Spaces before every line.
    prefix : str
        Subexpressions are called prefix0, prefix1, ...; it must not occur elsewhere in the function.
    substitutions : mapping of sympy.Symbol to sympy.Expr, optional
        Applied before anything else.

    Returns
    -------
    list of str

    Raises
    ------
    ModelError
        E_MODEL_FUNCTION when an expression holds a function that cannot be compiled.
    """
    table = dict(substitutions or {})
    wanted = [sympy.sympify(e).xreplace(table) for e in expressions]
    names = sympy.numbered_symbols(prefix, real=True)
    shared, reduced = sympy.cse(wanted, symbols=names, order="none")
    printer = _Printer(names)
    lines: list[str] = []
    values = [*((str(symbol), value) for symbol, value in shared), *zip(targets, reduced, strict=True)]
    for target, value in values:
        text = printer.doprint(value)
        lines += [*printer.pending, f"{target} = {text}"]
        printer.pending.clear()
    return [" " * indent + line for line in lines]


def scalar(expression: sympy.Expr) -> str:
    """Write one expression as it stands, without lines of its own.

    Parameters
    ----------
    expression : sympy.Expr

    Returns
    -------
    str

    Raises
    ------
    ModelError
        E_MODEL_FUNCTION when it holds a function that cannot be compiled.
    """
    return _Printer(None).doprint(sympy.sympify(expression))
