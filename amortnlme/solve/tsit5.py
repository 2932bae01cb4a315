"""Tsit5: an explicit Runge-Kutta method of order 5 for systems that are not stiff, as source of one step.

Ch. Tsitouras, "Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption",
Computers & Mathematics with Applications 62 (2011) 770-775. Seven stages, the last at the new state (so the
next step reuses it), an embedded method of order 4 and an interpolation of order 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from amortnlme.solve import lane_source as source
from amortnlme.solve.lane_source import LaneModel, combination, lane

N_STAGES = 7
NODES = (0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0)
A: tuple[tuple[float, ...], ...] = (
    (),
    (0.161,),
    (-0.008480655492356989, 0.335480655492357),
    (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
    (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
    (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
    (
        0.09646076681806523,
        0.01,
        0.4798896504144996,
        1.379008574103742,
        -3.290069515436081,
        2.324710524099774,
    ),
)
# Weights of the embedded method of order 4.
EMBEDDED = (
    0.09468075576583945,
    0.009183565540343254,
    0.4877705284247616,
    1.234297566930479,
    -2.7077123499835256,
    1.866628418170587,
    1.0 / 66.0,
)
# Weights of the interpolation as leading coefficient and factors: polynomials in s, lowest power first.
_S2 = (0.0, 0.0, 1.0)
_FACTORS: tuple[tuple[float, tuple[tuple[float, ...], ...]], ...] = (
    (
        -1.0530884977290216,
        ((0.0, 1.0), (-1.3299890189751412, 1.0), (0.7139816917074209, -1.4364028541716351, 1.0)),
    ),
    (0.1017, (_S2, (1.2949852507374631, -2.1966568338249754, 1.0))),
    (2.490627285651252793, (_S2, (1.57803468208092486, -2.38535645472061657, 1.0))),
    (-16.54810288924490272, ((-1.21712927295533244, 1.0), (-0.61620406037800089, 1.0), _S2)),
    (47.37952196281928122, ((-1.203071208372362603, 1.0), (-0.658047292653547382, 1.0), _S2)),
    (-34.87065786149660974, ((-1.2, 1.0), (-2.0 / 3.0, 1.0), _S2)),
    (2.5, ((-1.0, 1.0), (-0.6, 1.0), _S2)),
)


def interpolation_weights() -> list[list[float]]:
    """Multiply the factors out.

    Returns
    -------
    list of list of float, 7 x 5
        Coefficient of s**k in the weight of every stage.
    """
    table = []
    for leading, factors in _FACTORS:
        weights = [leading]
        for factor in factors:
            weights = _product(weights, factor)
        table.append((weights + [0.0] * 5)[:5])
    return table


def _product(a: Sequence[float], b: Sequence[float]) -> list[float]:
    result = [0.0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            result[i + j] += x * y
    return result


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
    margin = " " * indent
    layout = model.layout
    lines = source.begin_lines(indent) + source.load_lines(model, used, indent)
    lines += [f"{margin}f0_{name} = {lane(layout.slope + i)}" for i, name in enumerate(model.states)]
    for stage in range(1, N_STAGES):
        lines.append(f"{margin}# stage {stage + 1}")
        lines += [
            f"{margin}z{stage}_{name} = y_{name} + h * ({combination(A[stage], _stages(stage, name))})"
            for name in model.states
        ]
        if model.depends_on_time:
            lines.append(f"{margin}t{stage} = t + {NODES[stage]!r} * h")
        lines += model.derivative_lines(str(stage), f"z{stage}", f"t{stage}", indent)
    lines.append(f"{margin}# new state, error test, next step")
    lines += [f"{margin}new_{name} = z6_{name}" for name in model.states]
    lines += source.dense_lines(model, _interpolation(model), indent)
    weights = [a - b for a, b in zip((*A[6], 0.0), EMBEDDED, strict=True)]
    errors = [f"h * ({combination(weights, _stages(N_STAGES, name))})" for name in model.states]
    lines += source.finish_lines(model, errors, "0.9 * rough_inverse_fifth_root(bounded_error)", indent)
    return lines + [
        f"{margin}{lane(layout.slope + i)} = f6_{name} if accepted else f0_{name}"
        for i, name in enumerate(model.states)
    ]


def _stages(stage: int, name: str) -> list[str]:
    return [f"f{j}_{name}" for j in range(stage)]


def _interpolation(model: LaneModel) -> dict[str, list[str]]:
    weights = interpolation_weights()
    names = [model.states[i] for i in model.observed]
    return {
        name: [
            f"h * ({combination([row[k] for row in weights], _stages(N_STAGES, name))})" for k in range(1, 5)
        ]
        for name in names
    }
