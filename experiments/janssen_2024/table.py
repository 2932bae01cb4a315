"""Tables and the figure of the stored runs: `python experiments/janssen_2024/table.py --data FOLDER`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from amortnlme.simulators.factor_viii import vwf_effect
from patients import read_patients
from run import HERE, METHODS, RIDGES, plain_model

from amortnlme.core.files import make_folder
from amortnlme.diagnostics.partial_effects import partial_effect
from amortnlme.population.toml import read_population
from amortnlme.report.figures import to_png
from amortnlme.report.plots_partial_effects import partial_effect_curves

Rows = dict[int, dict[str, Any]]


def rows_of(runs: dict[str, Any], name: str, method: str, ridge: float | None, starts: int) -> Rows:
    """Rows of one method by fold, with one ridge, or with the ridge picked by validation of FO."""
    found: Rows = {}
    for fold in range(1, 21):
        stem, tail = f"{name}/fold {fold:02d}", f"best of {starts}"
        chosen = ridge
        if ridge is None:
            # The ridge is picked among fits from one start.
            tried = {r: runs.get(f"{stem}/fo/ridge {r:g}/best of 1") for r in RIDGES[name]}
            if any(row is None for row in tried.values()):
                continue
            chosen = min(tried, key=lambda r: _number(tried[r]["validation"]))  # pyright: ignore[reportOptionalSubscript]
        row = runs.get(f"{stem}/{method}/ridge {chosen:g}/{tail}")
        if row is not None:
            found[fold] = row
    return found


def line(label: str, rows: Rows) -> str:
    """One row of the table: medians over folds, and fold 1."""
    kept = list(rows.values())
    bad = sum(not np.isfinite(_number(r["rmse"])) for r in kept)
    far = sum(_number(r["kl"]) > 1 for r in kept if np.isfinite(_number(r["kl"])))
    cells = [label, str(len(kept)), f"{bad} / {far}"]
    cells += [_quartiles([_number(r["rmse"]) for r in kept], 2)]
    cells += [_quartiles([_number(r["kl"]) for r in kept], 3)]
    for key, digits in (("sigma", 2), ("omega1", 3), ("omega2", 3), ("test", 1)):
        cells.append(f"{np.median([_number(r[key]) for r in kept]):.{digits}f}")
    refit = [_number(r["refit"]["kl"]) for r in kept if "refit" in r]
    cells.append(f"{np.median(refit):.3f}" if refit else "-")
    cells.append(f"{np.median([r['cpu_s'] for r in kept]):.1f}")
    first = rows.get(1)
    cells.append(f"{_number(first['rmse']):.2f}, {_number(first['kl']):.3f}" if first else "-")
    return "| " + " | ".join(cells) + " |"


def paired(runs: dict[str, Any], name: str, method: str, starts: int) -> str:
    """Median and largest distance to exact maximum likelihood with the same ridge, fold by fold."""
    ours, exact = (rows_of(runs, name, m, None, starts) for m in (method, "quadrature"))
    folds = sorted(set(ours) & set(exact))
    if not folds:
        return "-"
    parts = []
    for key, digits in (("rmse", 3), ("kl", 3), ("sigma", 2)):
        gap = [abs(_number(ours[k][key]) - _number(exact[k][key])) for k in folds]
        if np.isfinite(gap).all():
            parts.append(f"{key} {np.median(gap):.{digits}f} (max {max(gap):.{digits}f})")
    return ", ".join(parts)


def figure(runs: dict[str, Any], folder: Path, method: str, starts: int) -> None:
    """Covariate effects of the skeleton over the folds, with the true functions."""
    patients, model = read_patients(folder), plain_model()
    population = read_population(HERE / "populations" / "skeleton.toml")
    members = []
    for fold, row in rows_of(runs, "skeleton", method, None, starts).items():
        data = patients.dataset(patients.folds[fold - 1][0])
        members.append((population.bind(data.covariate_table(), model.parameters), np.array(row["x"])))
    table = patients.dataset(np.arange(500)).covariate_table()
    reference = {"weight": 70.0, "vwf": 100.0}
    pairs = (("CL", "weight"), ("CL", "vwf"), ("V1", "weight"))
    effects = [partial_effect(members, table, *pair, reference=reference) for pair in pairs]
    by_vwf = np.vectorize(vwf_effect)
    truth = {
        ("CL", "weight"): lambda w: 0.1 * (w / 70.0) ** 0.75 * vwf_effect(100.0),
        ("CL", "vwf"): lambda v: 0.1 * by_vwf(v),
        ("V1", "weight"): lambda w: 2.0 * w / 70.0,
    }
    path = make_folder(HERE / "figures") / f"effects_{method}.png"
    path.write_bytes(to_png(partial_effect_curves(effects, truth)))


def variants() -> None:
    """Print the lines of `variants.py`, one for every kind of run."""
    path = HERE / "results" / "variants.json"
    runs = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kinds: dict[str, Rows] = {}
    for key, row in runs.items():
        part, *rest = key.split("/")
        if part == "sampled":
            kinds.setdefault(f"skeleton, sampled VI, {rest[2]}", {})[int(rest[1].split()[1])] = row
        elif part == "stopped":
            fold, ridge = int(rest[1].split()[1]), rest[3]
            kinds.setdefault(f"published, fo, stopped early, {ridge}", {})[fold] = row
            best = kinds.setdefault("published, fo, stopped early, ridge picked", {})
            if fold not in best or _number(row["validation"]) < _number(best[fold]["validation"]):
                best[fold] = row
        else:
            kinds.setdefault(f"published on fold 1, no ridge, {rest[1]} (initializations)", {})[
                int(rest[2].split()[1])
            ] = row
    for label, rows in kinds.items():
        print(line(label, rows))


def main() -> None:
    """Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--starts", type=int, default=1)
    arguments = parser.parse_args()
    runs = json.loads((HERE / "results" / "runs.json").read_text(encoding="utf-8"))
    head = (
        "model, ridge, method", "folds", "non-finite / KL > 1", "RMSE", "KL", "sigma", "omega1", "omega2",
        "test", "KL refit", "CPU s", "fold 1: RMSE, KL",
    )  # fmt: skip
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    known = {k: runs.get(f"known typical values/fold {k:02d}/quadrature") for k in range(1, 21)}
    print(line("true typical values, exact ML", {k: row for k, row in known.items() if row is not None}))
    for name, ridges in RIDGES.items():
        for ridge, method in [(r, "fo") for r in ridges] + [(None, m) for m in METHODS]:
            rows = rows_of(runs, name, method, ridge, arguments.starts)
            if rows:
                print(line(f"{name}, {'picked' if ridge is None else f'{ridge:g}'}, {method}", rows))
    variants()
    print("\ndistance to exact ML with the same ridge:")
    for name in RIDGES:
        for method in METHODS:
            print(f"  {name} {method}: {paired(runs, name, method, arguments.starts)}")
    figure(runs, arguments.data, "quadrature", arguments.starts)


def _number(value: float | str | None) -> float:
    """JSON holds no infinities."""
    return float("inf") if value is None else float(value)


def _quartiles(values: list[float], digits: int) -> str:
    # No interpolation between a finite and an infinite value.
    method = "linear" if np.isfinite(values).all() else "closest_observation"
    low, middle, high = np.percentile(values, [25, 50, 75], method=method)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    main()
