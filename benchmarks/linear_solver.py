"""Simulations per second of the linear solver against SciPy's LSODA and a hand-written closed form.

    python benchmarks/linear_solver.py

Work: one oral dose, 12 concentrations, parameters from the prior of `one_compartment_oral`. LSODA integrates
the two states at rtol 1e-8. The closed form is the Bateman function in vectorized NumPy for this one design
only: it knows neither events nor other models, and stands for what arithmetic alone costs.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.integrate import solve_ivp

from amortnlme.core.rng import generator
from amortnlme.data.design import Design, DesignBatch, Dose
from amortnlme.model.registry import load_model

TIMES = np.geomspace(0.25, 24.0, 12)
DOSE = 320.0


def per_second(work: Callable[[], object], n: int, repeats: int) -> float:
    """Median of simulations per CPU second."""
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        rates.append(n / (time.process_time() - start))
    return statistics.median(rates)


def lsoda(psi: np.ndarray) -> np.ndarray:
    """Concentrations of one patient by SciPy."""
    ka, ke, volume = psi
    solution = solve_ivp(
        lambda t, y: (-ka * y[0], ka * y[0] - ke * y[1]),
        (0.0, 24.0),
        (DOSE, 0.0),
        method="LSODA",
        t_eval=TIMES,
        rtol=1e-8,
        atol=1e-10,
    )
    return solution.y[1] / volume


def bateman(psi: np.ndarray) -> np.ndarray:
    """Concentrations of many patients, one design, NumPy."""
    ka, ke, volume = psi[:, 0, None], psi[:, 1, None], psi[:, 2, None]
    return DOSE * ka / (volume * (ka - ke)) * (np.exp(-ke * TIMES) - np.exp(-ka * TIMES))


def main() -> None:
    """Print the table and write results/linear_solver.json."""
    model = load_model("one_compartment_oral")
    design = Design.from_doses([Dose(0.0, DOSE)], TIMES)
    n = 50_000
    phi = model.prior.sample(n, generator(1))
    psi = model.parameters.to_psi(phi)[:, :3]
    batch = DesignBatch.from_designs([design]).take(np.zeros(n, dtype=np.int64))
    model.simulate_batch(phi[:100], batch.take(np.arange(100)), generator(2))
    f = model.predict(phi[:200], design, {}).f
    error = max(
        float(np.max(np.abs(lsoda(p) - row) / np.max(row))) for p, row in zip(psi[:200], f, strict=True)
    )
    rates = {
        "amortnlme, simulate_batch (events, noise)": per_second(
            lambda: model.simulate_batch(phi, batch, generator(2)), n, 7
        ),
        "amortnlme, predict": per_second(lambda: model.predict(phi, design, {}), n, 7),
        "amortnlme, predict_with_sensitivity": per_second(
            lambda: model.predict_with_sensitivity(phi, design, {}), n, 7
        ),
        "Bateman function, NumPy, one design": per_second(lambda: bateman(psi), n, 7),
        "SciPy LSODA, rtol 1e-8": per_second(lambda: [lsoda(p) for p in psi[:200]], 200, 5),
    }
    reference = rates["SciPy LSODA, rtol 1e-8"]
    print(f"largest difference to LSODA, share of the peak: {error:.1e}")
    for name, rate in rates.items():
        print(f"{name:45s} {rate:12,.0f} per CPU second   {rate / reference:8.1f} x LSODA")
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "linear_solver.json").write_text(json.dumps({"rates": rates, "error": error}, indent=2) + "\n")


if __name__ == "__main__":
    main()
