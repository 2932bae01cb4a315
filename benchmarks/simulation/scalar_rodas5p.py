"""A plain Rodas5P of the detailed mRNA model, one simulation at a time, real or complex.

Real numbers: what a scalar solver costs. Complex numbers: derivatives by the complex step, the reference of
the package's sensitivities, with which it shares the coefficients of the method and nothing else.
"""

from __future__ import annotations

import math
from functools import cache

import numba
import numpy as np

from amortnlme.solve.rodas5p import GAMMA, A, C, H

N, STAGES = 4, 8
P = {"d1": 0, "d2": 1, "e0": 2, "K": 3, "k2": 4, "k1": 5, "r0": 6, "g": 7, "t0": 8, "offset": 9}
SLOPES = (
    "-d1*{0}*{1} - k1*{0}*{2} + k2*(r0 - {2})",
    "-d1*{0}*{1} + d2*(e0 - {1})",
    "-k1*{0}*{2} + k2*(r0 - {2})",
    "K*(r0 - {2}) - g*{3}",
)
JACOBIAN = {
    (0, 0): "-d1*{1} - k1*{2}",
    (0, 1): "-d1*{0}",
    (0, 2): "-k1*{0} - k2",
    (1, 0): "-d1*{1}",
    (1, 1): "-d1*{0} - d2",
    (2, 0): "-k1*{2}",
    (2, 2): "-k1*{0} - k2",
    (3, 2): "-K",
    (3, 3): "-g",
}


def _terms(coefficients: tuple[float, ...], i: int) -> str:
    return " + ".join(f"{c!r}*k{s}_{i}" for s, c in enumerate(coefficients) if c) or "0.0"


def _factor() -> tuple[list[str], list[list[bool]]]:
    """LU without pivoting of I/(h gamma) - J, zeros left out."""
    names = [f"y_{i}" for i in range(N)]
    filled = [[(i, j) in JACOBIAN or i == j for j in range(N)] for i in range(N)]
    lines = [
        f"w_{i}_{j} = " + ("dg" if i == j else "0.0") + f" - ({JACOBIAN.get((i, j), '0.0').format(*names)})"
        for i in range(N)
        for j in range(N)
        if filled[i][j]
    ]
    for c in range(N):
        lines.append(f"inv_{c} = 1.0/w_{c}_{c}")
        for r in range(c + 1, N):
            if not filled[r][c]:
                continue
            lines.append(f"w_{r}_{c} = w_{r}_{c}*inv_{c}")
            for j in range(c + 1, N):
                if filled[c][j]:
                    before = f"w_{r}_{j}" if filled[r][j] else "0.0"
                    lines.append(f"w_{r}_{j} = {before} - w_{r}_{c}*w_{c}_{j}")
                    filled[r][j] = True
    return lines, filled


def step_source() -> str:
    """One step: y at the end, scaled error, and the three vectors of the interpolation."""
    lines = [f"{name} = p[{i}]" for name, i in P.items() if name not in ("t0", "offset")]
    lines += [f"y_{i} = y[{i}]" for i in range(N)] + ["dg = 1.0/(h*" + repr(GAMMA) + ")"]
    factor, filled = _factor()
    lines += factor
    for s in range(STAGES):
        for i in range(N):
            if s == 0:
                lines.append(f"z0_{i} = y_{i}")
            elif s <= 5:
                lines.append(f"z{s}_{i} = y_{i} + {_terms(A[s], i)}")
            else:
                lines.append(f"z{s}_{i} = z{s - 1}_{i} + k{s - 1}_{i}")
        names = [f"z{s}_{i}" for i in range(N)]
        for i in range(N):
            lines.append(f"b_{i} = {SLOPES[i].format(*names)} + ({_terms(C[s], i)})/h")
            lines += [f"b_{i} = b_{i} - w_{i}_{c}*b_{c}" for c in range(i) if filled[i][c]]
        for i in reversed(range(N)):
            back = "".join(f" - w_{i}_{c}*k{s}_{c}" for c in range(i + 1, N) if filled[i][c])
            lines.append(f"k{s}_{i} = (b_{i}{back})*inv_{i}")
    lines.append("error = 0.0")
    for i in range(N):
        lines.append(f"new[{i}] = z7_{i} + k7_{i}")
        lines.append(f"scaled = abs(k7_{i})/(atol + rtol*max(abs(y_{i}), abs(new[{i}])))")
        lines.append("error = error + scaled*scaled")
        lines += [f"dense[{q}, {i}] = {_terms(H[q], i)}" for q in range(3)]
    lines.append(f"return math.sqrt(error/{N})")
    return "def step(y, p, h, rtol, atol, new, dense):\n" + "\n".join(f"    {line}" for line in lines) + "\n"


@cache
def kernels():
    """Compiled (solve, solve_through_outputs)."""
    space = {"math": math, "abs": abs}
    exec(step_source(), space)
    step = numba.njit(error_model="numpy")(space["step"])

    @numba.njit(error_model="numpy")
    def solve(psi, times, rtol, atol, out):
        """Log fluorescence of real parameters, outputs by interpolation."""
        for s in range(psi.shape[0]):
            p, k = psi[s], 0
            y, new, dense = np.array([1.0, p[2], p[6], 0.0]), np.empty(4), np.empty((3, 4))
            while k < times.shape[0] and times[k] <= p[8]:
                out[s, k] = math.log(p[9])
                k += 1
            t, h, rejected = p[8], 1e-4, False
            while k < times.shape[0]:
                h = min(h, times[-1] - t)
                error = step(y, p, h, rtol, atol, new, dense)
                if error <= 1.0:
                    end = t + h
                    if times[-1] - end <= 1e-12 * times[-1]:
                        end = times[-1]
                    while k < times.shape[0] and times[k] <= end:
                        x = (times[k] - t) / h
                        inner = dense[0, 3] + x * (dense[1, 3] + x * dense[2, 3])
                        protein = (1.0 - x) * y[3] + x * (new[3] + (1.0 - x) * inner)
                        out[s, k] = math.log(protein + p[9])
                        k += 1
                    t = end
                    y[:] = new
                    factor = 0.9 * max(error, 1e-10) ** -0.2
                    h *= min(8.0, max(0.2, min(factor, 1.0) if rejected else factor))
                    rejected = False
                else:
                    h *= max(0.1, 0.9 * error**-0.2) if error < 1e300 else 0.1
                    rejected = True

    @numba.njit(error_model="numpy")
    def solve_through_outputs(p, times, rtol, atol, out):
        """As above with complex parameters; every output ends a step, so that t0 may be complex."""
        y = np.array([1.0 + 0.0j, p[2], p[6], 0.0j])
        new, dense = np.empty(4, np.complex128), np.empty((3, 4), np.complex128)
        begin, fraction = p[8], 1e-6
        for k in range(times.shape[0]):
            if times[k] <= p[8].real:
                out[k] = np.log(p[9])
                continue
            length = times[k] - begin
            done = 0.0
            while done < 1.0:
                part = min(fraction, 1.0 - done)
                error = step(y, p, part * length, rtol, atol, new, dense)
                if error <= 1.0:
                    done = 1.0 if part == 1.0 - done else done + part
                    y[:] = new
                    grown = part * min(5.0, 0.9 * max(error, 1e-10) ** -0.2)
                    fraction = max(fraction, grown) if part < fraction else grown
                else:
                    fraction = part * max(0.1, 0.9 * error**-0.2)
            out[k] = np.log(y[3] + p[9])
            begin = times[k] + 0.0j

    return solve, solve_through_outputs
