"""Forward sensitivities of the detailed mRNA model: 10 parameters, 180 outputs, 400 prior draws, rtol 1e-6.

    python benchmarks/simulation/sensitivities.py

Cost: against a plain scalar solve (the same method, one simulation at a time, straight-line code) and against
the package's predictions in lanes. Error of df/dlog(parameter): largest over the outputs, as a share of its
largest value over the outputs (plus 1e-3), per draw and parameter, against the complex step at rtol 1e-11.
"""

from __future__ import annotations

import numpy as np
from measure import Row, cpu_seconds, save, show, use_one_core
from mrna_ode import ATOL, RTOL, draws, model_at

N, N_COST, REPEATS, STEP = 400, 2000, 5, 1e-30


def complex_step(psi: np.ndarray, times: np.ndarray) -> np.ndarray:
    """df/dlog(psi), shape (n, 180, 10)."""
    from scalar_rodas5p import kernels

    solve = kernels()[1]
    found = np.empty((len(psi), len(times), 10))
    out = np.empty(len(times), complex)
    for s, p in enumerate(psi[:, :10]):
        for j in range(10):
            moved = p.astype(complex)
            moved[j] += 1j * STEP * p[j]
            solve(moved, times, 1e-11, 1e-13, out)
            found[s, :, j] = out.imag / STEP
    return found


def main() -> None:
    """Print the table and write results/sensitivities.json."""
    from scalar_rodas5p import kernels

    from amortnlme.data.design import Design

    phi, psi, times = draws()
    model, design = model_at(RTOL, ATOL), Design.from_doses([], times)
    plain, out = kernels()[0], np.empty((N_COST, len(times)))

    def scalar() -> None:
        plain(psi[:N_COST], times, RTOL, ATOL, out)

    scalar()
    lanes = model.predict(phi[:N_COST], design).f
    agreement = float(np.abs(out - lanes).max())
    found = model.predict_with_sensitivity(phi[:N], design)
    reference = complex_step(psi[:N], times)
    size = np.abs(reference).max(axis=1) + 1e-3
    assert found.df_dphi is not None
    error = (np.abs(found.df_dphi[:, :, :10] - reference).max(axis=1) / size).ravel()
    quantiles = np.quantile(error, [0.5, 0.99, 1.0])
    seconds = {
        "sensitivities": cpu_seconds(lambda: model.predict_with_sensitivity(phi[:N_COST], design), REPEATS),
        "plain scalar solve": cpu_seconds(scalar, REPEATS),
        "predictions in lanes": cpu_seconds(lambda: model.predict(phi[:N_COST], design), REPEATS),
    }
    failed = int((found.status != 0).sum())
    rows = [
        Row(
            "amortnlme predict_with_sensitivity",
            N_COST / seconds["sensitivities"],
            N_COST,
            failed,
            *quantiles.tolist(),
        )
    ]
    rows += [
        Row(name, N_COST / seconds[name], N_COST) for name in ("plain scalar solve", "predictions in lanes")
    ]
    show(rows)
    figures = {
        "cost_in_plain_scalar_solves": seconds["sensitivities"] / seconds["plain scalar solve"],
        "cost_in_predictions_in_lanes": seconds["sensitivities"] / seconds["predictions in lanes"],
        "largest_difference_of_the_two_solvers": agreement,
    }
    for key, value in figures.items():
        print(f"{key}: {value:.3g}")
    save("sensitivities", figures, rows)


if __name__ == "__main__":
    use_one_core()
    main()
