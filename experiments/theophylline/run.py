"""The theophylline truth table: amortized population fits against the exact maximum-likelihood estimates.

    PYTHONPATH=tests python experiments/theophylline/run.py                  draws of the shipped estimator
    PYTHONPATH=tests python experiments/theophylline/run.py --draws exact    draws from the exact posteriors

Writes results/truth_table_<draws>.json and prints the table of README.md. The exact values come from the
quadrature of tests/reference, which shares no code with the package's likelihood.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reference.exact_draws import exact_posterior_draws
from reference.quadrature import COVARIATE_COLUMNS, Theophylline, objective, read_theophylline

from amortnlme.core.rng import stream
from amortnlme.data.bundled import load_bundled
from amortnlme.methods.amortized import Amortized
from amortnlme.methods.fit import fit
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.model.registry import load_model
from amortnlme.population.posterior_draws import PosteriorDraws
from amortnlme.population.toml import read_population

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MODEL = "one_compartment_oral"
N_DRAWS = 1000
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Truth:
    """Exact maximum-likelihood estimates of one population model."""

    name: str
    x: np.ndarray
    se: np.ndarray | None
    ofv: float


def read_truth() -> list[Truth]:
    stored = json.loads(
        (ROOT / "tests" / "reference" / "theophylline_exact.json").read_text(encoding="utf-8")
    )
    return [
        Truth(name, np.array(m["x"]), np.array(m["se"]) if "se" in m else None, m["minus_two_log_likelihood"])
        for name, m in stored["models"].items()
    ]


def make_draws(kind: str, data: Theophylline) -> PosteriorDraws:
    dataset = load_bundled("theophylline")
    if kind == "estimator":
        from amortnlme.neural.estimator import Estimator

        return Estimator.load(ROOT / "trained_models" / MODEL).sample(dataset, N_DRAWS, stream(1))
    model = load_model(MODEL)
    phi = exact_posterior_draws(data, N_DRAWS, stream(1))
    return PosteriorDraws(
        phi=phi,
        log_q=np.zeros(phi.shape[:2]),
        log_prior=model.prior.log_prob(phi.reshape(-1, 4)).reshape(phi.shape[:2]),
        subject_ids=dataset.ids,
        parameters=model.parameters,
        prior=model.prior,
        model_name=model.name,
        model_fingerprint=model.fingerprint,
        dataset_fingerprint=dataset.fingerprint,
    )


def against_truth(result: PopulationFit, truth: Truth, data: Theophylline) -> dict[str, Any]:
    """Exact -2LL at the estimates above the exact minimum, and distances in exact standard errors."""
    x = np.array([*result.x[:3], *result.x[4:], result.x[3]])
    row: dict[str, Any] = {
        "above_minimum": objective(data, truth.name, x, nodes=13) - truth.ofv,
        "status": result.status.value,
        "ofv": result.ofv,
        "ofv_se": result.ofv_se,
    }
    if truth.se is not None:
        z = np.abs((x - truth.x) / truth.se)
        n_fixed = 3 + len(COVARIATE_COLUMNS[truth.name])
        row |= {"z_fixed": z[:n_fixed].max(), "z_omega": z[n_fixed:-1].max(), "z_a": z[-1]}
    return {key: float(v) if isinstance(v, np.floating) else v for key, v in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", choices=("estimator", "exact"), default="estimator")
    kind = parser.parse_args().draws
    data, dataset = read_theophylline(), load_bundled("theophylline")
    draws = make_draws(kind, data)
    rows = []
    for truth in read_truth():
        population = read_population(HERE / "populations" / f"theophylline_{truth.name}.toml")
        row: dict[str, Any] = {"population": population.name, "exact_minimum": truth.ofv}
        for correction in ("none", "likelihood"):
            seconds, cpu, worst = [], [], []
            for seed in SEEDS:
                start, start_cpu = time.perf_counter(), time.process_time()
                result = fit(draws, population, Amortized(correction=correction), dataset=dataset, seed=seed)
                seconds.append(time.perf_counter() - start)
                cpu.append(time.process_time() - start_cpu)
                worst.append(against_truth(result, truth, data))
            row[correction] = {
                **worst[0],
                **{
                    key: max(w[key] for w in worst)
                    for key in ("above_minimum", "z_fixed", "z_omega", "z_a")
                    if key in worst[0]
                },
                "first_seconds": seconds[0],
                "warm_seconds": min(seconds[1:]),
                "warm_cpu_seconds": min(cpu[1:]),
            }
        rows.append(row)
    document = {"draws": kind, "n_draws": N_DRAWS, "seeds": SEEDS, "rows": rows}
    (HERE / "results").mkdir(exist_ok=True)
    path = HERE / "results" / f"truth_table_{kind}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    table = markdown_table(rows)
    write_into_readme(kind, table)
    print(table)


def markdown_table(rows: list[dict[str, Any]]) -> str:
    titles = (
        "population",
        "exact min",
        "uncorrected (z)",
        "corrected (z)",
        "-2LL +- SE",
        "status",
        "s",
        "CPU s",
    )
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for row in rows:
        cells = [row["population"], f"{row['exact_minimum']:.2f}"]
        for correction in ("none", "likelihood"):
            part = row[correction]
            z = (
                f" ({part['z_fixed']:.3f} / {part['z_omega']:.3f} / {part['z_a']:.3f})"
                if "z_a" in part
                else ""
            )
            cells.append(f"{part['above_minimum']:.4f}{z}")
        best = row["likelihood"]
        cells += [f"{best['ofv']:.2f} +- {best['ofv_se']:.2f}", best["status"]]
        cells += [f"{best['warm_seconds']:.2f}", f"{best['warm_cpu_seconds']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_into_readme(kind: str, table: str) -> None:
    """Replace the table below its marker in README.md."""
    path, marker = HERE / "README.md", f"<!-- table: {kind} -->"
    before, after = path.read_text(encoding="utf-8").split(marker)
    rest = after.lstrip("\n").split("\n")
    while rest and rest[0].startswith("|"):
        rest.pop(0)
    tail = "\n".join(rest).lstrip("\n")
    path.write_text(f"{before}{marker}\n\n{table}\n\n{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
