"""Source of one Rodas5P step together with its exact tangent, parameters as SIMD lanes.

Rodas5P (Steinebach 2023) applied to the system of y and S = dy/dp without ever forming it: every stage
solves (I / (h gamma) - J) k = g, whose derivative is the same linear system with another right-hand side,

    J(z) Z + f_p(z) + d(J k)/dy S + d(J k)/dp + (terms of df/dt) + sum_j c_j K_j / h,

where z, Z are the stage's state and its derivative, and k is held fixed in d(J k). Without that last pair of
terms the sensitivities would be those of a W-method: of lower order than the states.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sympy

from amortnlme.solve.emit import emit_assignments
from amortnlme.solve.rodas5p import GAMMA, N_STAGES, NODES, TIME_WEIGHTS, A, C, H
from amortnlme.solve.tangent_interface import (
    BLOCK_DENSE,
    BLOCK_RATE,
    BLOCK_S,
    BLOCK_S_NEW,
    ROW_CLOCK,
    ROW_ERROR,
    ROW_SCALE,
    block,
    count_lanes,
    lane_row,
    stage_table,
)
from amortnlme.solve.trace import TracedSystem

Cells = dict[tuple[int, int], sympy.Expr]
# Symbols of the formulas that are no names of the model.
_TIME_WEIGHT = sympy.Symbol("time_weight", real=True)


@dataclass(frozen=True, slots=True, eq=False)
class VariationalSystem:
    """A right-hand side and the derivatives its tangent needs; cells hold what is not zero.

    Attributes
    ----------
    system : TracedSystem
    sensitive : tuple of int
        Parameters (columns of psi) to differentiate by, one lane each.
    direction : tuple of sympy.Symbol, length n
        Stands for the stage k in `curvature` and `mixed`.
    jacobian : dict, cells (i, j) of states
    by_parameter : dict, cells (i, lane)
    by_time : dict of int to sympy.Expr
        Explicit df_i/dt.
    curvature : dict, cells (i, j) of states
        d(J k)_i / dy_j, plus `time_weight` times d(df_i/dt)/dy_j.
    mixed : dict, cells (i, lane)
        d(J k)_i / dp, plus `time_weight` times d(df_i/dt)/dp.
    aging : dict of int to sympy.Expr
        d(J k)_i / dt, plus `time_weight` times d(df_i/dt)/dt.
    """

    system: TracedSystem
    sensitive: tuple[int, ...]
    direction: tuple[sympy.Symbol, ...]
    jacobian: Cells
    by_parameter: Cells
    by_time: dict[int, sympy.Expr]
    curvature: Cells
    mixed: Cells
    aging: dict[int, sympy.Expr]

    @classmethod
    def from_trace(cls, system: TracedSystem, sensitive: Sequence[int]) -> VariationalSystem:
        """Differentiate a right-hand side.

        Parameters
        ----------
        system : TracedSystem
        sensitive : sequence of int

        Returns
        -------
        VariationalSystem
        """
        symbols, n = system.symbols, len(system.derivatives)
        parameters = [symbols.parameters[column] for column in sensitive]
        direction = tuple(sympy.Symbol(f"direction_{i}", real=True) for i in range(n))
        jacobian = {(i, j): e for i, row in enumerate(system.jacobian) for j, e in enumerate(row) if e != 0}
        slopes = [sympy.diff(f, symbols.time) for f in system.derivatives]
        along = [
            sympy.Add(*(e * direction[j] for (row, j), e in jacobian.items() if row == i))
            + _TIME_WEIGHT * slopes[i]
            for i in range(n)
        ]
        return cls(
            system=system,
            sensitive=tuple(sensitive),
            direction=direction,
            jacobian=jacobian,
            by_parameter=_gradient(system.derivatives, parameters),
            by_time={i: e for i, e in enumerate(slopes) if e != 0},
            curvature=_gradient(along, symbols.states),
            mixed=_gradient(along, parameters),
            aging={i: e for (i, _), e in _gradient(along, [symbols.time]).items()},
        )


def _gradient(functions: Iterable[sympy.Expr], variables: Sequence[sympy.Symbol]) -> Cells:
    return {
        (i, j): slope
        for i, f in enumerate(functions)
        for j, variable in enumerate(variables)
        if variable in f.free_symbols and (slope := sympy.diff(f, variable)) != 0
    }


def emit_tangent_step(variational: VariationalSystem) -> list[str]:
    """Write the body of a function (t, h, y, p, x, rate, direct, rtol, atol, y_new, dense, w) -> error.

    `rate` (n) adds to dy/dt, `direct` is 1, or 0 to leave out how p enters dy/dt itself (S then follows the
    states alone). ROW_CLOCK of w says how the clock depends on p, as that of a regimen does on its lag.
    Writes the new state, three rows of dense output, and into w the same of S and every lane's mean squared
    error. Returns the states' error, a root mean square in units of the tolerance; a step is good when it is
    at most 1 (NaN is not).

    Parameters
    ----------
    variational : VariationalSystem

    Returns
    -------
    list of str
    """
    writer = _Writer(variational)
    writer.load_arguments()
    writer.factorize()
    for stage in range(N_STAGES):
        writer.stage(stage)
    writer.finish()
    lanes = writer.lanes
    return [
        *(f"    {line}" for line in writer.states),
        "    # every parameter is a lane of its own",
        f"    for l in range({lanes}):",
        *(f"        {line}" for line in writer.tangents),
        "    return error",
    ]


def unpack(array: str, symbols: Sequence[sympy.Symbol], used: set[sympy.Basic]) -> list[str]:
    """Write the loads of those symbols that are used.

    Parameters
    ----------
    array : str
        Name of the array that holds their values in this order.
    symbols : sequence of sympy.Symbol
    used : set of sympy.Symbol

    Returns
    -------
    list of str
    """
    return [f"{symbol} = {array}[{i}]" for i, symbol in enumerate(symbols) if symbol in used]


def _weighted(weights: Sequence[float], names: Sequence[str]) -> str:
    terms = [f"{weight!r} * {name}" for weight, name in zip(weights, names, strict=True) if weight != 0.0]
    return " + ".join(terms)


def _elimination(cells: Iterable[tuple[int, int]], n: int) -> set[tuple[int, int]]:
    """Cells that elimination without exchange of rows can fill."""
    filled = {*cells, *((i, i) for i in range(n))}
    for c in range(n):
        below = [r for r in range(c + 1, n) if (r, c) in filled]
        filled |= {(r, j) for r in below for j in range(c + 1, n) if (c, j) in filled}
    return filled


class _Writer:
    """Collects the lines of one step: those of the states, and those repeated for every lane.

    Upper-case names are derivatives of the lower-case ones: k3_0 is stage 3 of state 0, K3_0 its tangent.
    """

    def __init__(self, variational: VariationalSystem) -> None:
        self.v = variational
        self.n = len(variational.direction)
        self.lanes = count_lanes(len(variational.sensitive))
        self.filled = _elimination(variational.jacobian, self.n)
        self.states: list[str] = []
        self.tangents: list[str] = []

    def emit(
        self, targets: Sequence[str], expressions: Sequence[sympy.Expr], prefix: str, table: dict
    ) -> None:
        self.states += emit_assignments(targets, expressions, 0, prefix, table)

    def at(self, index: int, i: int) -> str:
        return f"w[{block.py_func(index, self.n, self.lanes) + i * self.lanes} + l]"

    def load_arguments(self) -> None:
        """Read states, parameters and covariates; prepare what does not change with the stage."""
        v, symbols = self.v, self.v.system.symbols
        groups = (v.system.derivatives, v.by_parameter.values(), v.curvature.values(), v.mixed.values())
        used = set().union(*(e.free_symbols for group in groups for e in group))
        self.states += unpack("y", symbols.states, set(symbols.states))
        self.states += unpack("p", symbols.parameters, used)
        self.states += unpack("x", symbols.covariates, used)
        self.states += [f"rate_{i} = rate[{i}]" for i in range(self.n)]
        self.tangents += [f"S_{i} = {self.at(BLOCK_S, i)}" for i in range(self.n)]
        self.tangents += [f"R_{i} = {self.at(BLOCK_RATE, i)}" for i in range(self.n)]
        if v.by_time:
            clock = lane_row.py_func(ROW_CLOCK, self.n, self.lanes)
            self.tangents.append(f"clock = w[{clock} + l]")

    def factorize(self) -> None:
        """Eliminate I / (h gamma) - J without pivoting: it is diagonally dominant once h is small enough."""
        v, n = self.v, self.n
        targets = [f"j_{i}_{j}" for i, j in v.jacobian] + [f"ft_{i}" for i in v.by_time]
        self.emit(targets, [*v.jacobian.values(), *v.by_time.values()], "cj_", {})
        self.states += ["per_h = 1.0 / h", f"diagonal = per_h * {1.0 / GAMMA!r}"]
        for i, j in sorted(self.filled):
            entry = "diagonal" if i == j else "0.0"
            slope = f" - j_{i}_{j}" if (i, j) in v.jacobian else ""
            self.states.append(f"m_{i}_{j} = {entry}{slope}")
        for c in range(n):
            self.states.append(f"inverse_{c} = 1.0 / m_{c}_{c}")
            for r in (r for r in range(c + 1, n) if (r, c) in self.filled):
                self.states.append(f"m_{r}_{c} = m_{r}_{c} * inverse_{c}")
                self.states += [
                    f"m_{r}_{j} = m_{r}_{j} - m_{r}_{c} * m_{c}_{j}"
                    for j in range(c + 1, n)
                    if (c, j) in self.filled
                ]

    def solve(self, lines: list[str], unknown: str, right: Sequence[str]) -> None:
        """Forward and back substitution; unknown_i is the solution."""
        n = self.n
        for i in range(n):
            lines.append(f"b_{i} = {right[i]}")
            lines += [f"b_{i} = b_{i} - m_{i}_{c} * b_{c}" for c in range(i) if (i, c) in self.filled]
        for i in reversed(range(n)):
            rest = "".join(f" - m_{i}_{c} * {unknown}_{c}" for c in range(i + 1, n) if (i, c) in self.filled)
            lines.append(f"{unknown}_{i} = (b_{i}{rest}) * inverse_{i}")

    def stage(self, s: int) -> None:
        """Stage s of the states, its coefficients, and its tangent."""
        v, n, symbols = self.v, self.n, self.v.system.symbols
        z = self._arguments(s)
        table: dict = {y: sympy.Symbol(f"{z.lower()}_{i}") for i, y in enumerate(symbols.states)} if s else {}
        if s and self._sees_time():
            self.states.append(f"t{s} = t + {NODES[s]!r} * h")
            table[symbols.time] = sympy.Symbol(f"t{s}")
        targets = [f"f{s}_{i}" for i in range(n)]
        expressions = list(v.system.derivatives)
        if s:  # stage 0 stands where J was evaluated
            targets += [f"j{s}_{i}_{j}" for i, j in v.jacobian]
            expressions += v.jacobian.values()
            targets += [f"ft{s}_{i}" for i in v.by_time]
            expressions += v.by_time.values()
        targets += [f"q{s}_{i}_{j}" for i, j in v.by_parameter]
        self.emit(targets, [*expressions, *v.by_parameter.values()], f"c{s}_", table)
        weight = TIME_WEIGHTS[s]
        if v.by_time:
            self.states.append(f"time_weight = {weight!r} * h")
        self.solve(self.states, f"k{s}", [self._right(s, i, weight) for i in range(n)])
        self._coefficients(s)
        self.solve(self.tangents, f"K{s}", [self._tangent_right(s, i, z) for i in range(n)])

    def _sees_time(self) -> bool:
        return any(self.v.system.symbols.time in f.free_symbols for f in self.v.system.derivatives)

    def _arguments(self, s: int) -> str:
        """Write the stage's arguments z and Z; return the name of the latter."""
        if s == 0:
            return "S"
        for i in range(self.n):
            if s < len(A):
                y = self.v.system.symbols.states[i]
                self.states.append(f"z{s}_{i} = {y} + {_weighted(A[s], self._stages('k', s, i))}")
                self.tangents.append(f"Z{s}_{i} = S_{i} + {_weighted(A[s], self._stages('K', s, i))}")
            else:  # stiffly accurate: the last stages refine one another
                self.states.append(f"z{s}_{i} = z{s - 1}_{i} + k{s - 1}_{i}")
                self.tangents.append(f"Z{s}_{i} = Z{s - 1}_{i} + K{s - 1}_{i}")
        return f"Z{s}"

    def _stages(self, letter: str, s: int, i: int) -> list[str]:
        return [f"{letter}{q}_{i}" for q in range(s)]

    def _right(self, s: int, i: int, weight: float) -> str:
        text = f"f{s}_{i} + rate_{i}"
        if s:
            text += f" + per_h * ({_weighted(C[s], self._stages('k', s, i))})"
        if i in self.v.by_time and weight != 0.0:
            text += f" + time_weight * ft_{i}"
        return text

    def _coefficients(self, s: int) -> None:
        """Write what multiplies S in the stage's tangent, and into w what enters without S."""
        v = self.v
        table = {symbol: sympy.Symbol(f"k{s}_{i}") for i, symbol in enumerate(v.direction)}
        targets = [f"g{s}_{i}_{j}" for i, j in v.curvature] + [f"h{s}_{i}_{j}" for i, j in v.mixed]
        targets += [f"a{s}_{i}" for i in v.aging]
        expressions = [*v.curvature.values(), *v.mixed.values(), *v.aging.values()]
        self.emit(targets, expressions, f"d{s}_", table)
        offset = stage_table.py_func(s, self.n, self.lanes)
        for i, j in sorted({*v.by_parameter, *v.mixed}):
            terms = [f"q{s}_{i}_{j}"] * ((i, j) in v.by_parameter) + [f"h{s}_{i}_{j}"] * ((i, j) in v.mixed)
            self.states.append(f"w[{offset + i * self.lanes + j}] = direct * ({' + '.join(terms)})")

    def _tangent_right(self, s: int, i: int, z: str) -> str:
        v, n = self.v, self.n
        terms = [f"R_{i}"]
        if any(row == i for row, _ in (*v.by_parameter, *v.mixed)):
            terms.append(f"w[{stage_table.py_func(s, n, self.lanes) + i * self.lanes} + l]")
        jacobian = f"j{s}" if s else "j"
        terms += [f"{jacobian}_{i}_{j} * {z}_{j}" for j in range(n) if (i, j) in v.jacobian]
        terms += [f"g{s}_{i}_{j} * S_{j}" for j in range(n) if (i, j) in v.curvature]
        terms += [f"{f'ft{s}' if s else 'ft'}_{i} * clock"] * (i in v.by_time)
        terms += [f"a{s}_{i} * clock"] * (i in v.aging)
        if s:
            terms.append(f"per_h * ({_weighted(C[s], self._stages('K', s, i))})")
        return " + ".join(terms)

    def finish(self) -> None:
        """Write the new state, the dense output and the error, of the states and of every lane."""
        n, last = self.n, N_STAGES - 1
        symbols = self.v.system.symbols.states
        scale = f"w[{lane_row.py_func(ROW_SCALE, n, self.lanes)} + l]"
        self.tangents.append(f"scale = {scale}")
        for i, y in enumerate(symbols):
            self.states += [
                f"new_{i} = z{last}_{i} + k{last}_{i}",
                f"y_new[{i}] = new_{i}",
                f"size_{i} = max(abs({y}), abs(new_{i}))",
                f"e_{i} = k{last}_{i} / (atol + rtol * size_{i})",
            ]
            # The error is that of dy/dlog p = p dy/dp: comparable with y, whatever the unit of p.
            self.tangents += [
                f"N_{i} = Z{last}_{i} + K{last}_{i}",
                f"{self.at(BLOCK_S_NEW, i)} = N_{i}",
                f"a_{i} = abs(S_{i})",
                f"a_{i} = abs(N_{i}) if abs(N_{i}) > a_{i} else a_{i}",
                f"a_{i} = scale * a_{i}",
                f"a_{i} = a_{i} if a_{i} > size_{i} else size_{i}",
                f"E_{i} = scale * K{last}_{i} / (atol + rtol * a_{i})",
            ]
            for q, weights in enumerate(H):
                self.states.append(f"dense[{q * n + i}] = {_weighted(weights, self._stages('k', 8, i))}")
                self.tangents.append(
                    f"{self.at(BLOCK_DENSE + q, i)} = {_weighted(weights, self._stages('K', 8, i))}"
                )
        mean = " + ".join
        self.states.append(f"error = math.sqrt(({mean(f'e_{i} * e_{i}' for i in range(n))}) * {1.0 / n!r})")
        error = f"w[{lane_row.py_func(ROW_ERROR, n, self.lanes)} + l]"
        self.tangents.append(f"{error} = ({mean(f'E_{i} * E_{i}' for i in range(n))}) * {1.0 / n!r}")
