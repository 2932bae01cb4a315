"""Forward sensitivities of the detailed mRNA model: 10 parameters, 180 outputs, 400 prior draws, rtol 1e-6.

    python benchmarks/simulation/sensitivities.py

Cost: against a plain scalar solve (the same method, one simulation at a time, straight-line code) and against
the package's predictions in lanes. Error of df/dlog(parameter): largest over the outputs, as a share of its
largest value over the outputs (plus 1e-3), per draw and parameter, against the complex step at rtol 1e-11.
"""

from __future__ import annotations

import numpy as np
from measure import race, save, show, use_one_core
from mrna_ode import ATOL, RTOL, draws, model_at

N, N_COST, STEP = 400, 2000, 1e-30


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

    def scalar() -> np.ndarray:
        plain(psi[:N_COST], times, RTOL, ATOL, out)
        return out

    scalar()
    lanes = model.predict(phi[:N_COST], design).f
    agreement = float(np.abs(out - lanes).max())
    found = model.predict_with_sensitivity(phi[:N], design)
    reference = complex_step(psi[:N], times)
    size = np.abs(reference).max(axis=1) + 1e-3
    assert found.df_dphi is not None
    error = (np.abs(found.df_dphi[:, :, :10] - reference).max(axis=1) / size).ravel()
    quantiles = np.quantile(error, [0.5, 0.99, 1.0]).tolist()
    rows = race(
        [
            (
                "predict_with_sensitivity",
                lambda: model.predict_with_sensitivity(phi[:N_COST], design).f,
                None,
            ),
            ("plain scalar solve", scalar, None),
            ("predictions in lanes", lambda: model.predict(phi[:N_COST], design).f, None),
        ]
    )
    show(rows)
    figures = {
        "failed": int((found.status != 0).sum()),
        "error_median": quantiles[0],
        "error_q99": quantiles[1],
        "error_worst": quantiles[2],
        "cost_in_plain_scalar_solves": 1.0 / rows[1].ratio,
        "cost_in_predictions_in_lanes": 1.0 / rows[2].ratio,
        "largest_difference_of_the_two_solvers": agreement,
    }
    for key, value in figures.items():
        print(f"{key}: {value:.3g}")
    save("sensitivities", figures, rows)


if __name__ == "__main__":
    use_one_core()
    main()
