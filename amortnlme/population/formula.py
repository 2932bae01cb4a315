"""Population models in one line, with the signs of mixed-model formulas.

Statements are separated by `;` or by line breaks, one per parameter or list of parameters::

    ka ~ (1 | id)                                ka varies between subjects
    ke + V ~ (1 |p| id)                          so do ke and V, together: one label, one block of omega
    V ~ log(weight / 70) + (1 | id)              a power of weight, relative to 70
    V ~ weight + sex + (1 | id) + (1 | occ)      linear effects; V varies between occasions too
    ka ~ by(formulation) + (1 | id)              a typical value and a variance per formulation
    a = 0.3                                      a typical value that is given

A covariate without a center of its own is centered at its mean; `weight - 70` centers at 70, and
`log(weight / median)` at the median. What is not named is pooled. The text is parsed, never evaluated.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field

from amortnlme.core.errors import PopulationError
from amortnlme.population.effects import CENTERS, CovariateEffect, RandomEffects
from amortnlme.population.groups import GroupEffect
from amortnlme.population.population_model import PopulationModel

SUBJECT, OCCASION = "id", "occ"
#: Longer texts are no formulas.
MOST_CHARACTERS = 10_000

_TERMS = (
    "Terms: weight, weight - 70, log(weight), log(weight / 70), by(group), (1 | id), (1 |label| id), "
    "(1 | occ)."
)


@dataclass(slots=True)
class _Parts:
    """What the statements have said so far."""

    covariates: list[CovariateEffect] = field(default_factory=list)
    groups: list[GroupEffect] = field(default_factory=list)
    fixed: dict[str, float] = field(default_factory=dict)
    #: Level -> parameter -> label of its block; None: on its own.
    varying: dict[str, dict[str, str | None]] = field(default_factory=lambda: {SUBJECT: {}, OCCASION: {}})


def parse_formula(text: str, name: str | None = None) -> PopulationModel:
    """Build a population model from a formula.

    Parameters
    ----------
    text : str
        Statements as shown above.
    name : str, optional
        Of the population model; by default the formula itself.

    Returns
    -------
    PopulationModel

    Raises
    ------
    PopulationError
        E_POP_FORMULA, and the codes of the objects themselves.
    """
    if len(text) > MOST_CHARACTERS:
        raise PopulationError(
            "E_POP_FORMULA",
            f"the formula has {len(text)} characters; at most {MOST_CHARACTERS} are read. Write a TOML file.",
        )
    parts = _Parts()
    statements = [line.strip() for line in text.replace("\n", ";").split(";") if line.strip()]
    for statement in statements:
        _read_statement(statement, parts)
    between = parts.varying[SUBJECT]
    return PopulationModel(
        random_effects=RandomEffects(tuple(between), _blocks(between)),
        covariates=tuple(parts.covariates),
        occasion_effects=(
            RandomEffects(tuple(within), _blocks(within)) if (within := parts.varying[OCCASION]) else None
        ),
        groups=tuple(parts.groups),
        fixed=parts.fixed,
        name=name if name is not None else "; ".join(statements),
    )


def _read_statement(statement: str, parts: _Parts) -> None:
    left, sign, right = statement.partition("~")
    if not sign:
        _read_fixed(statement, parts)
        return
    parameters = [_name(node, statement) for node in _summands(_parse(left, statement))]
    for term in _summands(_parse(right, statement)):
        read = _READERS.get(type(term))
        if read is None:
            raise _refused(statement, f"{ast.unparse(term)!r} is no term")
        for parameter in parameters:
            read(term, parameter, parts, statement)


def _read_fixed(statement: str, parts: _Parts) -> None:
    left, sign, right = statement.partition("=")
    if not sign:
        raise _refused(statement, "it has neither '~' nor '='")
    name = _name(_parse(left, statement), statement)
    if name in parts.fixed:
        raise _refused(statement, f"{name} is fixed twice")
    parts.fixed[name] = _number(_parse(right, statement), statement)


def _read_covariate(node: ast.expr, parameter: str, parts: _Parts, statement: str) -> None:
    """`weight` or `weight - 70`."""
    center: str | float = "mean"
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.BitOr):
            _read_varying(node, parameter, parts, statement)
            return
        if not isinstance(node.op, ast.Sub):
            raise _refused(statement, f"{ast.unparse(node)!r} is no term")
        node, center = node.left, _center(node.right, statement)
    parts.covariates.append(CovariateEffect(parameter, _name(node, statement), "linear", center))


def _read_call(node: ast.expr, parameter: str, parts: _Parts, statement: str) -> None:
    """`log(weight)`, `log(weight / 70)` or `by(formulation)`."""
    assert isinstance(node, ast.Call)
    known = isinstance(node.func, ast.Name) and node.func.id in ("log", "by")
    if not known or len(node.args) != 1 or node.keywords:
        raise _refused(statement, f"{ast.unparse(node)!r} is no term")
    (inner,) = node.args
    assert isinstance(node.func, ast.Name)
    if node.func.id == "by":
        parts.groups.append(GroupEffect(parameter, _name(inner, statement)))
        return
    center: str | float = "mean"
    if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Div):
        inner, center = inner.left, _center(inner.right, statement)
    parts.covariates.append(CovariateEffect(parameter, _name(inner, statement), "log", center))


def _read_varying(node: ast.BinOp, parameter: str, parts: _Parts, statement: str) -> None:
    """`(1 | id)` or `(1 |label| id)`."""
    label = None
    one = node.left
    if isinstance(one, ast.BinOp) and isinstance(one.op, ast.BitOr):
        label, one = _name(one.right, statement), one.left
    level = _name(node.right, statement)
    if not (isinstance(one, ast.Constant) and one.value == 1 and one.value is not True):
        raise _refused(statement, f"{ast.unparse(node)!r} must begin with 1: only typical values vary")
    if level not in parts.varying:
        raise _refused(
            statement, f"nothing varies between {level!r}; allowed: {SUBJECT!r} and {OCCASION!r}"
        )
    if parameter in parts.varying[level]:
        raise _refused(statement, f"{parameter} varies between {level!r} twice")
    parts.varying[level][parameter] = label


_READERS: dict[type[ast.expr], Callable[[ast.expr, str, _Parts, str], None]] = {
    ast.Name: _read_covariate,
    ast.BinOp: _read_covariate,
    ast.Call: _read_call,
}


def _blocks(varying: dict[str, str | None]) -> str | tuple[tuple[str, ...], ...]:
    """Structure of the random effects: parameters with one label vary together."""
    labels = list(varying.values())
    if None not in labels and len(set(labels)) == 1 and len(labels) > 1:
        return "full"
    shared = [label for label in dict.fromkeys(labels) if label is not None and labels.count(label) > 1]
    blocks = tuple(tuple(name for name, of in varying.items() if of == label) for label in shared)
    return blocks or "diagonal"


def _parse(text: str, statement: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as cause:
        raise _refused(statement, f"{text.strip()!r} cannot be read") from cause


def _summands(node: ast.expr) -> list[ast.expr]:
    """Split a sum: `weight - 70 + sex` has the terms `weight - 70` and `sex`."""
    found = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        found.append(node.right)
        node = node.left
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        # Python reads `sex + weight - 70` from the left, as `(sex + weight) - 70`.
        inner = node.left
        if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Add):
            found.append(ast.BinOp(inner.right, ast.Sub(), node.right))
            return [*_summands(inner.left), *reversed(found)]
    return [node, *reversed(found)]


def _name(node: ast.expr, statement: str) -> str:
    if not isinstance(node, ast.Name):
        raise _refused(statement, f"{ast.unparse(node)!r} stands where a name belongs")
    return node.id


def _center(node: ast.expr, statement: str) -> str | float:
    if isinstance(node, ast.Name) and node.id in CENTERS:
        return node.id
    return _number(node, statement)


def _number(node: ast.expr, statement: str) -> float:
    sign = 1.0
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, node = -1.0, node.operand
    if not isinstance(node, ast.Constant) or isinstance(node.value, bool):
        raise _refused(statement, f"{ast.unparse(node)!r} stands where a number belongs")
    if not isinstance(node.value, int | float):
        raise _refused(statement, f"{ast.unparse(node)!r} stands where a number belongs")
    return sign * float(node.value)


def _refused(statement: str, why: str) -> PopulationError:
    return PopulationError("E_POP_FORMULA", f"cannot read {statement!r}: {why}. {_TERMS}")
