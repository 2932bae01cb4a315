"""Simulations per second of sunitinib: 28 daily doses, 8 samples of the parent, rtol 1e-6, atol 1e-9.

    python benchmarks/simulation/sunitinib_ode.py

Error: largest difference of the log concentration over the samples, against the ODE path at rtol 1e-12 (the
package's own ODE path: against the closed form).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from measure import race, save, show, use_one_core

N, N_PEER, N_SCIPY = 4000, 1000, 10
RTOL, ATOL = 1e-6, 1e-9
TIMES = np.array([1.5, 23.9, 98.2, 169.0, 340.5, 505.7, 649.0, 672.0])
DOSE, N_DOSES, INTERVAL, WEIGHT = 50.0, 28, 24.0, 70.0
QH, V5, FM = 80.0, 588.0, 0.21
FLOOR = 0.001  # ng/mL, under the logarithm of the model
SEED = 2


def predictions(method: str, rtol: float, atol: float, phi: np.ndarray) -> Callable[[], np.ndarray]:
    """Log concentrations of the package, by one method."""
    from amortnlme.data.design import Design, Dose
    from amortnlme.model.registry import load_model

    model = load_model("sunitinib")
    model = replace(model, dynamics=replace(model.dynamics, method=method, rtol=rtol, atol=atol))
    doses = [Dose(0.0, DOSE, ii=INTERVAL, addl=N_DOSES - 1)]
    design = Design.from_doses(doses, TIMES)

    def work() -> np.ndarray:
        prediction = model.predict(phi, design, {"weight": WEIGHT})
        prediction.f[prediction.status != 0] = np.nan
        return prediction.f

    return work


def numbalsoda_lsoda(psi: np.ndarray) -> Callable[[], np.ndarray]:
    """LSODA, started again at every dose."""
    import numba
    from numbalsoda import lsoda, lsoda_sig

    @numba.cfunc(lsoda_sig)
    def rhs(t, y, dy, p):
        liver = (p[0] * y[0] + QH / p[1] * y[1]) / (QH + p[2])
        to_deep = p[7] * (y[1] / p[1] - y[4] / V5)
        to_tissue = p[5] * (y[2] / p[4] - y[3] / p[6])
        dy[0] = -p[0] * y[0]
        dy[1] = QH * liver - QH / p[1] * y[1] - to_deep
        dy[2] = FM * p[10] * p[2] * liver - p[3] / p[4] * y[2] - to_tissue
        dy[3] = to_tissue
        dy[4] = to_deep

    address = rhs.address

    @numba.njit
    def run(psi, times, out):
        for s in range(psi.shape[0]):
            p = psi[s].copy()
            y = np.zeros(5)
            k = 0
            solved = True
            for d in range(N_DOSES):
                y[0] += DOSE
                begin = INTERVAL * d
                end = begin + INTERVAL
                last = k
                while last < times.shape[0] and times[last] <= end:
                    last += 1
                # LSODA wants growing times, and a sample may lie at the end of the interval
                grid = np.empty(last - k + 2)
                grid[0] = begin
                for q in range(k, last):
                    grid[1 + q - k] = times[q]
                grid[last - k + 1] = end + 1e-9
                found, success = lsoda(address, y, grid, p, RTOL, ATOL, 100000)
                solved = solved and success
                for q in range(k, last):
                    out[s, q] = np.log(1000.0 * found[1 + q - k, 1] / p[1] + FLOOR)
                y = found[last - k + 1].copy()
                k = last
            if not solved:
                out[s] = np.nan

    def work() -> np.ndarray:
        out = np.empty((len(psi), len(TIMES)))
        run(psi, TIMES, out)
        return out

    return work


def scipy_lsoda(psi: np.ndarray) -> Callable[[], np.ndarray]:
    """SciPy's LSODA with a compiled right-hand side, started again at every dose."""
    import numba
    from scipy.integrate import solve_ivp

    @numba.njit
    def rhs(t, y, p):
        liver = (p[0] * y[0] + QH / p[1] * y[1]) / (QH + p[2])
        to_deep = p[7] * (y[1] / p[1] - y[4] / V5)
        to_tissue = p[5] * (y[2] / p[4] - y[3] / p[6])
        dy = np.empty(5)
        dy[0] = -p[0] * y[0]
        dy[1] = QH * liver - QH / p[1] * y[1] - to_deep
        dy[2] = FM * p[10] * p[2] * liver - p[3] / p[4] * y[2] - to_tissue
        dy[3] = to_tissue
        dy[4] = to_deep
        return dy

    def one(p: np.ndarray) -> np.ndarray:
        y, out = np.zeros(5), np.full(len(TIMES), np.nan)
        for d in range(N_DOSES):
            y[0] += DOSE
            begin, end = INTERVAL * d, INTERVAL * (d + 1)
            inside = (begin < TIMES) & (end >= TIMES)
            grid = np.append(TIMES[inside & (end > TIMES)], end)
            found = solve_ivp(
                rhs, (begin, end), y, method="LSODA", t_eval=grid, args=(p,), rtol=RTOL, atol=ATOL
            )
            if not found.success:
                break
            out[inside] = np.log(1000.0 * found.y[1, : inside.sum()] / p[1] + FLOOR)
            y = found.y[:, -1].copy()
        return out

    return lambda: np.array([one(p) for p in psi])


def main() -> None:
    """Print the table and write results/sunitinib_ode.json."""
    from amortnlme.core.rng import generator
    from amortnlme.model.registry import load_model

    model = load_model("sunitinib")
    phi = model.prior.sample(N, generator(SEED))
    psi = model.parameters.to_psi(phi)
    reference = predictions("closed_form", RTOL, ATOL, phi)()
    fine = predictions("rodas5p", 1e-12, 1e-14, phi)()
    check = np.abs(fine - reference).max(axis=1)
    figures: dict[str, object] = {
        "rtol": RTOL,
        "atol": ATOL,
        "closed_form_against_rodas5p_1e-12": np.nanquantile(check, [0.5, 0.99, 1.0]).tolist(),
    }
    engines = [
        ("amortnlme predict, Rodas5P", predictions("rodas5p", RTOL, ATOL, phi), reference),
        ("amortnlme predict, closed form", predictions("closed_form", RTOL, ATOL, phi), fine),
    ]
    try:
        engines.append(("numbalsoda LSODA", numbalsoda_lsoda(psi[:N_PEER]), fine))
    except ImportError as missing:
        print(f"numbalsoda is left out: {missing}")
    engines.append(("SciPy LSODA, compiled rhs", scipy_lsoda(psi[:N_SCIPY]), fine))
    rows = race(engines)
    show(rows)
    for key, value in figures.items():
        print(f"{key}: {value}")
    save("sunitinib_ode", figures, rows)


if __name__ == "__main__":
    use_one_core()
    main()
