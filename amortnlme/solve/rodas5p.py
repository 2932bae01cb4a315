"""Rodas5P: a Rosenbrock method of order 5 for stiff systems, as source of one step in lanes.

G. Steinebach, "Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks within the Julia
Differential Equations package", BIT Numerical Mathematics 63:27 (2023). Eight stages with one factorization
of I/(h gamma) - J, an embedded method of order 4 and an interpolation of order 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from amortnlme.solve import lane_source as source
from amortnlme.solve.emit import emit_assignments
from amortnlme.solve.lane_source import LaneModel, combination

N_STAGES = 8
GAMMA = 0.21193756319429014
# Stage s is evaluated at y + sum_j A[s][j] k_j; the last two stages continue from their predecessors.
A: tuple[tuple[float, ...], ...] = (
    (),
    (3.0,),
    (2.849394379747939, 0.45842242204463923),
    (-6.954028509809101, 2.489845061869568, -10.358996098473584),
    (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
    (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946),
)
# C[s][j] k_j / h on the right-hand side of stage s.
C: tuple[tuple[float, ...], ...] = (
    (),
    (-14.155112264123755,),
    (-17.97296035885952, -2.859693295451294),
    (147.12150275711716, -1.41221402718213, 71.68940251302358),
    (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
    (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
    (
        30.91273214028599,
        -3.1208243349937974,
        77.79954646070892,
        34.28646028294783,
        -19.097331116725623,
        -28.087943162872662,
    ),
    (
        37.80277123390563,
        -3.2571969029072276,
        112.26918849496327,
        66.9347231244047,
        -40.06618937091002,
        -54.66780262877968,
        -9.48861652309627,
    ),
)
# Times of the stages and weights of h df/dt, as fractions of the step.
NODES = (0.0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664, 1.0, 1.0, 1.0)
TIME_WEIGHTS = (
    0.21193756319429014,
    -0.42387512638858027,
    -0.3384627126235924,
    1.8046452872882734,
    2.325825639765069,
    0.0,
    0.0,
    0.0,
)
# y(s) = (1 - s) y0 + s (y1 + (1 - s) (r0 + s (r1 + s r2))) with r = H k.
H: tuple[tuple[float, ...], ...] = (
    (
        25.948786856663858,
        -2.5579724845846235,
        10.433815404888879,
        -2.3679251022685204,
        0.524948541321073,
        1.1241088310450404,
        0.4272876194431874,
        -0.17202221070155493,
    ),
    (
        -9.91568850695171,
        -0.9689944594115154,
        3.0438037242978453,
        -24.495224566215796,
        20.176138334709044,
        15.98066361424651,
        -6.789040303419874,
        -6.710236069923372,
    ),
    (
        11.419903575922262,
        2.8879645146136994,
        72.92137995996029,
        80.12511834622643,
        -52.072871366152654,
        -59.78993625266729,
        -0.15582684282751913,
        4.883087185713722,
    ),
)


def step_lines(model: LaneModel, indent: int) -> list[str]:
    """Write the body of one step of lane `l`.

    Parameters
    ----------
    model : LaneModel
    indent : int

    Returns
    -------
    list of str
    """
    used = set().union(*(f.free_symbols for f in model.system.derivatives))
    lines = source.begin_lines(indent)
    lines += source.load_lines(model, used, indent)
    lines += stage_lines(model, indent)
    lines += _comment("new state, error test, next step", indent)
    lines += _indented([f"new_{name} = z7_{name} + k7_{name}" for name in model.states], indent)
    lines += _indented(_interpolation_lines(model), indent)
    lines += source.dense_lines(
        model,
        {model.states[i]: [f"d{k}_{model.states[i]}" for k in range(1, 5)] for i in model.observed},
        indent,
    )
    errors = [f"k7_{name}" for name in model.states]
    return lines + source.finish_lines(model, errors, "0.9 * rough_inverse_fifth_root(bounded_error)", indent)


def stage_lines(model: LaneModel, indent: int) -> list[str]:
    """Write Jacobian, factorization and all stages, on scalars that hold nothing of lanes.

    Parameters
    ----------
    model : LaneModel
    indent : int

    Returns
    -------
    list of str
        From t, h, `y_<state>`, `rate_<state>` and the inputs to the stages `k<s>_<state>` and the last
        argument `z7_<state>`.
    """
    system = model.system
    slopes = [sympy.diff(f, system.symbols.time) for f in system.derivatives]
    lines = _comment("Jacobian and its factors", indent)
    lines += _jacobian_lines(model, slopes, indent)
    factors, filled = _factor_lines(model)
    lines += _indented(factors, indent)
    for stage in range(N_STAGES):
        lines += _comment(f"stage {stage + 1}", indent)
        lines += _stage_lines(model, stage, slopes, filled, indent)
    return lines


def _indented(lines: Sequence[str], indent: int) -> list[str]:
    return [" " * indent + line for line in lines]


def _comment(text: str, indent: int) -> list[str]:
    return _indented([f"# {text}"], indent)


def _jacobian_lines(model: LaneModel, slopes: Sequence[sympy.Expr], indent: int) -> list[str]:
    entries = {
        f"j{r}_{c}": entry
        for r, row in enumerate(model.system.jacobian)
        for c, entry in enumerate(row)
        if entry != 0
    }
    moving = {f"df_dt_{name}": slope for name, slope in zip(model.states, slopes, strict=True) if slope != 0}
    wanted = entries | moving
    return emit_assignments(list(wanted), list(wanted.values()), indent, "cj_")


def filled_pattern(coupled: Sequence[Sequence[bool]]) -> list[list[bool]]:
    """Entries of L and U that can differ from zero when a matrix is factored without pivoting.

    Parameters
    ----------
    coupled : n x n of bool
        Entries of the matrix that can differ from zero; the diagonal counts as such.

    Returns
    -------
    list of list of bool
    """
    n = len(coupled)
    filled = [[bool(coupled[r][c]) or r == c for c in range(n)] for r in range(n)]
    for pivot in range(n):
        for r in range(pivot + 1, n):
            if filled[r][pivot]:
                for c in range(pivot + 1, n):
                    filled[r][c] = filled[r][c] or filled[pivot][c]
    return filled


def _factor_lines(model: LaneModel) -> tuple[list[str], list[list[bool]]]:
    """W = I/(h gamma) - J = L U.

    No pivoting: W is diagonally dominant once h is small. Before, a bad pivot makes the error of the step
    large or NaN, and the step is repeated with a smaller one.
    """
    coupled = [[entry != 0 for entry in row] for row in model.system.jacobian]
    filled = filled_pattern(coupled)
    n = len(coupled)
    lines = ["per_h = 1.0 / h", f"diagonal = per_h * {1.0 / GAMMA!r}"]
    for r in range(n):
        for c in range(n):
            if filled[r][c]:
                entry = f"-j{r}_{c}" if coupled[r][c] else "0.0"
                lines.append(f"w{r}_{c} = {f'diagonal + {entry}' if r == c else entry}")
    for pivot in range(n):
        lines.append(f"v{pivot} = 1.0 / w{pivot}_{pivot}")
        for r in range(pivot + 1, n):
            if not filled[r][pivot]:
                continue
            lines.append(f"w{r}_{pivot} = w{r}_{pivot} * v{pivot}")
            lines += [
                f"w{r}_{c} = w{r}_{c} - w{r}_{pivot} * w{pivot}_{c}"
                for c in range(pivot + 1, n)
                if filled[pivot][c]
            ]
    return lines, filled


def _stage_lines(
    model: LaneModel, stage: int, slopes: Sequence[sympy.Expr], filled: list[list[bool]], indent: int
) -> list[str]:
    states = model.states
    there, time = ("y", "t") if stage == 0 else (f"z{stage}", f"t{stage}")
    lines = []
    if 0 < stage < len(A):
        for name in states:
            lines.append(f"z{stage}_{name} = y_{name} + {combination(A[stage], _stages(stage, name))}")
    elif stage > 0:
        before = stage - 1
        lines += [f"z{stage}_{name} = z{before}_{name} + k{before}_{name}" for name in states]
    if stage > 0 and model.depends_on_time:
        lines.append(f"{time} = t + {NODES[stage]!r} * h")
    lines = _indented(lines, indent)
    lines += model.derivative_lines(str(stage), there, time, indent)
    return lines + _indented(_solve_lines(model, stage, slopes, filled), indent)


def _stages(stage: int, name: str) -> list[str]:
    return [f"k{j}_{name}" for j in range(stage)]


def _solve_lines(
    model: LaneModel, stage: int, slopes: Sequence[sympy.Expr], filled: list[list[bool]]
) -> list[str]:
    """W k = f + C k_before / h + h d df/dt, by forward and back substitution."""
    states, n = model.states, len(model.states)
    lines = []
    for r, name in enumerate(states):
        right = f"f{stage}_{name}"
        if stage > 0:
            right += f" + per_h * ({combination(C[stage], _stages(stage, name))})"
        if slopes[r] != 0 and TIME_WEIGHTS[stage] != 0.0:
            right += f" + h * {TIME_WEIGHTS[stage]!r} * df_dt_{name}"
        known = "".join(f" - w{r}_{c} * b{stage}_{c}" for c in range(r) if filled[r][c])
        lines.append(f"b{stage}_{r} = {right}{known}")
    for r in reversed(range(n)):
        known = "".join(f" - w{r}_{c} * k{stage}_{states[c]}" for c in range(r + 1, n) if filled[r][c])
        lines.append(f"k{stage}_{states[r]} = (b{stage}_{r}{known}) * v{r}")
    return lines


def _interpolation_lines(model: LaneModel) -> list[str]:
    """Powers of s: (1-s) y0 + s y1 + s (1-s) (r0 + s r1 + s**2 r2), multiplied out."""
    lines = []
    for i in model.observed:
        name = model.states[i]
        lines += [
            f"r{q}_{name} = {combination(weights, _stages(N_STAGES, name))}" for q, weights in enumerate(H)
        ]
        lines += [
            f"d1_{name} = new_{name} - y_{name} + r0_{name}",
            f"d2_{name} = r1_{name} - r0_{name}",
            f"d3_{name} = r2_{name} - r1_{name}",
            f"d4_{name} = -r2_{name}",
        ]
    return lines
