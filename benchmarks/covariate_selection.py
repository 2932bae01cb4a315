"""CPU seconds of an exact selection: 5 parameters, tens to hundreds of covariates, against brute force.

    python benchmarks/covariate_selection.py

Simulated conditional means: six covariates act on every parameter, the others are noise; covariates correlate
pairwise by 0 or 0.5. Small cases are checked against all subsets by least squares. Where `pyscipopt` is
installed, the cheapest subset at the selected variance is also found by SCIP (mixed-integer quadratic, given
a minute).
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import time
from pathlib import Path

import numpy as np

from amortnlme.methods.best_subset import cheapest_subset, profiled_subset

RESULTS = Path(__file__).parent / "results"
CASES = (
    *((100, 10, 0.0), (500, 30, 0.5), (2425, 50, 0.5), (500, 100, 0.0)),
    *((2425, 200, 0.0), (2425, 200, 0.5), (1000, 200, 0.0)),
)
N_PARAMETERS = 5


def products(n: int, p: int, correlation: float, seed: int) -> np.ndarray:
    """Centered sums of squares and products of covariates and one parameter."""
    rng = np.random.default_rng([n, p, seed])
    shared = rng.normal(size=(n, 1))
    x = np.sqrt(1.0 - correlation) * rng.normal(size=(n, p)) + np.sqrt(correlation) * shared
    beta = np.zeros(p)
    beta[rng.choice(p, size=min(6, p), replace=False)] = rng.choice([-1, 1], min(6, p)) * 0.2
    centered = np.column_stack([x, x @ beta + rng.normal(size=n)])
    centered -= centered.mean(axis=0)
    return centered.T @ centered


def brute_force(table: np.ndarray, n: int, extra: float, penalty: float) -> float:
    """Smallest profiled objective of all subsets."""
    p, best = len(table) - 1, np.inf
    for members in itertools.product([False, True], repeat=p):
        columns = np.flatnonzero(members)
        cross = table[columns, -1]
        rss = table[-1, -1]
        if len(columns):
            rss = rss - cross @ np.linalg.solve(table[np.ix_(columns, columns)], cross)
        best = min(best, n * np.log((rss + extra) / n) + penalty * len(columns))
    return best


def scip(table: np.ndarray, price: float) -> float:
    """Smallest RSS + price x columns by SCIP, indicators with a bound of 100 as published."""
    import pyscipopt  # pyright: ignore[reportMissingImports]

    model, p = pyscipopt.Model(), len(table) - 1
    model.hideOutput()
    b = [model.addVar(lb=-100.0, ub=100.0) for _ in range(p)]
    z = [model.addVar(vtype="B") for _ in range(p)]
    value = model.addVar(lb=None)
    for j in range(p):
        model.addCons(b[j] <= 100.0 * z[j])
        model.addCons(b[j] >= -100.0 * z[j])
    square = pyscipopt.quicksum(table[i, j] * b[i] * b[j] for i in range(p) for j in range(p))
    linear = pyscipopt.quicksum(-2.0 * table[j, -1] * b[j] for j in range(p))
    model.addCons(square + linear + table[-1, -1] <= value)
    model.setObjective(value + price * pyscipopt.quicksum(z))
    model.setParam("limits/gap", 1e-6)
    model.setParam("limits/time", 60.0)
    model.optimize()
    return float(model.getObjVal())


def main() -> None:
    """Print the table and write results/covariate_selection.json."""
    profiled_subset(products(100, 20, 0.0, 0), np.arange(21), 100, 30.0, np.log(100))  # compile
    has_scip = importlib.util.find_spec("pyscipopt") is not None
    rows = []
    for n, p, correlation in CASES:
        penalty, extra = float(np.log(n)), 0.3 * n
        tables = [products(n, p, correlation, k) for k in range(N_PARAMETERS)]
        before = time.process_time()
        found = [profiled_subset(table, np.arange(p + 1), n, extra, penalty) for table in tables]
        seconds = time.process_time() - before
        row = {
            "subjects": n,
            "covariates": p,
            "correlation": correlation,
            "cpu_s": seconds,
            "proven": all(subset.proven for subset in found),
            "sizes": [subset.size for subset in found],
        }
        values = [n * np.log((s.rss + extra) / n) + penalty * s.size for s in found]
        if p <= 10:
            exact = [brute_force(table, n, extra, penalty) for table in tables]
            row["error"] = float(np.max(np.abs(np.array(exact) - values)))
        if has_scip and p <= 30:
            price = penalty * (found[0].rss + extra) / n
            cheap = cheapest_subset(tables[0], np.arange(p + 1), price)
            before = time.process_time()
            row["scip_error"] = scip(tables[0], price) - (cheap.rss + price * cheap.size)
            row["scip_cpu_s_one_parameter"] = time.process_time() - before
        rows.append(row)
        print(row, flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "covariate_selection.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
