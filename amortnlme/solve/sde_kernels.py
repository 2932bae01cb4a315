"""Source of the steps of an SDE: Euler-Maruyama or Milstein, formulas only, written for lanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy

from amortnlme.solve import sde_lanes
from amortnlme.solve.emit import PREAMBLE, emit_assignments
from amortnlme.solve.hoisting import Hoisted, hoist
from amortnlme.solve.sde_lanes import LANES, SdeLayout
from amortnlme.solve.trace import TracedSystem

Matrix = tuple[tuple[sympy.Expr, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class SdeFormulas:
    """The formulas of one model as its step needs them.

    Attributes
    ----------
    system : TracedSystem
        The drift.
    hoisted : Hoisted
        Derivatives, then the diffusion matrix row by row, then (Milstein) the slopes of its diagonal, then
        the Jacobian row by row.
    n_noises : int
    is_milstein : bool
    non_negative : tuple of str
        States set to zero when a step makes them negative.
    """

    system: TracedSystem
    hoisted: Hoisted
    n_noises: int
    is_milstein: bool
    non_negative: tuple[str, ...]

    @classmethod
    def from_model(
        cls, system: TracedSystem, noise: Matrix, *, is_milstein: bool, non_negative: tuple[str, ...]
    ) -> SdeFormulas:
        """Collect formulas and take out what stays the same along a path.

        Parameters
        ----------
        system : TracedSystem
        noise : tuple of tuple of sympy.Expr, n_states x n_noises
        is_milstein : bool
            The noise must be diagonal, entry i depending on state i only.
        non_negative : tuple of str

        Returns
        -------
        SdeFormulas
        """
        states = system.symbols.states
        slopes = [sympy.diff(noise[i][i], s) for i, s in enumerate(states)] if is_milstein else []
        formulas = (
            *system.derivatives,
            *(entry for row in noise for entry in row),
            *slopes,
            *(entry for row in system.jacobian for entry in row),
        )
        moving = {system.symbols.time, *states}
        return cls(system, hoist(formulas, moving), len(noise[0]), is_milstein, non_negative)

    @property
    def layout(self) -> SdeLayout:
        """Place of every quantity in the lanes' memory."""
        return SdeLayout(len(self.names), len(self.hoisted.symbols), self.n_noises)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the states."""
        return self.system.names.states

    @property
    def derivatives(self) -> tuple[sympy.Expr, ...]:
        """Drift of every state."""
        return self.hoisted.expressions[: len(self.names)]

    @property
    def noise(self) -> Matrix:
        """Diffusion matrix."""
        n, m = len(self.names), self.n_noises
        return _rows(self.hoisted.expressions[n : n + n * m], n, m)

    @property
    def slopes(self) -> tuple[sympy.Expr, ...]:
        """Derivative of every diagonal entry of the noise by its state; empty unless Milstein."""
        n = len(self.names)
        first = n + n * self.n_noises
        return self.hoisted.expressions[first : first + n] if self.is_milstein else ()

    @property
    def jacobian(self) -> Matrix:
        """Slope of the drift of state i in state j."""
        n = len(self.names)
        return _rows(self.hoisted.expressions[-n * n :], n, n)


def sde_source(formulas: SdeFormulas) -> str:
    """Write the module of a model: `advance` and `fastest_rate`.

    Parameters
    ----------
    formulas : SdeFormulas

    Returns
    -------
    str
    """
    scheme = "Milstein" if formulas.is_milstein else "Euler-Maruyama"
    lines = [
        f'"""{scheme} steps of a stochastic differential equation, written by amortnlme; do not edit.',
        "",
        f"States: {', '.join(formulas.names)}.",
        *(
            f"{symbol} = {value}"
            for symbol, value in zip(formulas.hoisted.symbols, formulas.hoisted.values, strict=True)
        ),
        '"""',
        "",
        PREAMBLE,
        "from numba import njit, types",
        "",
        "reals = types.float64[::1]",
        "",
        *_advance(formulas),
        "",
        *_fastest_rate(formulas),
        "",
    ]
    return "\n".join(lines)


def _rows(entries: Sequence[sympy.Expr], n: int, m: int) -> Matrix:
    return tuple(tuple(entries[i * m : (i + 1) * m]) for i in range(n))


def _decorator(signature: str) -> str:
    return f'@njit({signature}, cache=True, nogil=True, error_model="numpy", fastmath={{"contract"}})'


def _load(name: str, array: str, row: int | str, indent: int) -> str:
    offset = row * LANES if isinstance(row, int) else row
    return f"{' ' * indent}{name} = {array}[{offset} + lane]"


def _loads(formulas: SdeFormulas, wanted: Sequence[sympy.Expr], indent: int) -> list[str]:
    """Load what some formulas use: states under their traced symbols, constants under theirs."""
    layout = formulas.layout
    used = set().union(*(e.free_symbols for e in wanted)) if wanted else set()
    rows = [
        *((s, layout.state + i) for i, s in enumerate(formulas.system.symbols.states)),
        *((s, layout.constant + i) for i, s in enumerate(formulas.hoisted.symbols)),
    ]
    return [_load(str(symbol), "work", row, indent) for symbol, row in rows if symbol in used]


def _advance(formulas: SdeFormulas) -> list[str]:
    layout, names = formulas.layout, formulas.names
    states = [str(symbol) for symbol in formulas.system.symbols.states]
    entries = [
        (f"b_{name}_{j}", e)
        for name, row in zip(names, formulas.noise, strict=True)
        for j, e in enumerate(row)
        if e != 0
    ]
    entries += [(f"s_{name}", e) for name, e in zip(names, formulas.slopes, strict=False) if e != 0]
    expressions = [*formulas.derivatives, *(e for _, e in entries)]
    targets = [*(f"f_{name}" for name in names), *(target for target, _ in entries)]
    stepped = [*expressions, *formulas.system.symbols.states]
    per_step = layout.n_pairs * LANES
    lines = [
        _decorator("types.void(reals, reals, types.int64, types.int64, types.int64)"),
        "def advance(work, drawn, n, stride, lanes):",
        '    """Take n steps; row k * stride / lanes of `drawn` holds the length of step k."""',
        "    for k in range(n):",
        f"        length = {sde_lanes.LENGTHS * LANES} + k * stride",
        f"        root = {sde_lanes.ROOTS * LANES} + k * stride",
        f"        normal = {sde_lanes.NORMALS * LANES} + k * {per_step}",
        "        for lane in range(lanes):",
        _load("h", "drawn", "length", 12),
        _load("root_h", "drawn", "root", 12),
        *_time_lines(expressions, formulas),
        *_loads(formulas, stepped, 12),
        *(_load(f"z{j}", "drawn", f"normal + {layout.normal_offset(j)}", 12)
          for j in range(layout.n_noises) if any(row[j] != 0 for row in formulas.noise)),
        *emit_assignments(targets, expressions, 12, "e"),
    ]  # fmt: skip
    for i, (name, state) in enumerate(zip(names, states, strict=True)):
        lines += [
            _load(f"r_{name}", "work", layout.rate + i, 12),
            f"            n_{name} = {_new_state(formulas, i, name, state)}",
        ]
    for i, name in enumerate(names):
        # Not a maximum, which would turn NaN into zero.
        value = f"0.0 if n_{name} < 0.0 else n_{name}" if name in formulas.non_negative else f"n_{name}"
        lines.append(f"            work[{(layout.state + i) * LANES} + lane] = {value}")
    return lines


def _new_state(formulas: SdeFormulas, i: int, name: str, state: str) -> str:
    text = f"{state} + (f_{name} + r_{name}) * h"
    noise = [f"b_{name}_{j} * z{j}" for j, e in enumerate(formulas.noise[i]) if e != 0]
    if noise:
        text += f" + root_h * ({' + '.join(noise)})"
    if formulas.is_milstein and formulas.slopes[i] != 0:
        text += f" + 0.5 * b_{name}_{i} * s_{name} * h * (z{i} * z{i} - 1.0)"
    return text


def _time_lines(expressions: Sequence[sympy.Expr], formulas: SdeFormulas) -> list[str]:
    time = formulas.system.symbols.time
    if not any(time in e.free_symbols for e in expressions):
        return []
    return [
        _load("begin", "work", sde_lanes.BEGIN, 12),
        _load("done", "work", sde_lanes.DONE, 12),
        _load("step", "work", sde_lanes.STEP, 12),
        _load("start", "work", sde_lanes.START, 12),
        "            t = begin + (done + k) * step",
        "            t = start if t < start else t",
    ]


def _fastest_rate(formulas: SdeFormulas) -> list[str]:
    """Write a bound of the rates of the drift: max_i |J_ii| + sum_j sqrt|J_ij J_ji|.

    It is exact for triangular Jacobians, a bound for two states that feed each other, and does not change
    with the units of the states.
    """
    names, jacobian = formulas.names, formulas.jacobian
    n = len(names)
    used = [
        (i, j) for i in range(n) for j in range(n) if jacobian[i][j] != 0 and (i == j or jacobian[j][i] != 0)
    ]
    expressions = [jacobian[i][j] for i, j in used]
    lines = [
        _decorator("types.void(reals, types.int64)"),
        "def fastest_rate(work, lanes):",
        '    """Bound the rates at which the drift moves at the present states."""',
        "    k = 0.0",
        "    for lane in range(lanes):",
        *(line[4:] for line in _time_lines(expressions, formulas)),
        *_loads(formulas, expressions, 8),
        *emit_assignments([f"j_{names[i]}_{names[j]}" for i, j in used], expressions, 8, "e"),
        "        bound = 0.0",
        "        checksum = 0.0",
    ]
    for i in range(n):
        terms = [f"abs(j_{names[i]}_{names[i]})"] if (i, i) in used else []
        terms += [
            f"math.sqrt(abs(j_{names[i]}_{names[j]} * j_{names[j]}_{names[i]}))"
            for j in range(n)
            if j != i and (i, j) in used
        ]
        if terms:
            lines += [
                f"        rate = {' + '.join(terms)}",
                "        bound = rate if rate > bound else bound",
                "        checksum = checksum + 0.0 * rate",  # a maximum alone would lose NaN
            ]
    return [*lines, f"        work[{sde_lanes.BOUND * LANES} + lane] = bound + checksum"]
