"""Neonatal weight: 25 candidate relations, on the authors' simulated subjects or a cohort with known truth.

    python experiments/rohleff_2025/neonates.py --data authors --methods samba saem cossac
    python experiments/rohleff_2025/neonates.py --data cohort --subjects 300 --methods saem samba

The authors' real data are private. The cohort has their design (2 to 8 weights in the first week), their
covariates with the distributions of the simulated file, and relations of the size that the paper reports.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from selection_runs import RESULTS, Row, Runs

import amortnlme
from amortnlme.data.dataset import Dataset
from amortnlme.methods.saem_selection import SaemSelection
from amortnlme.methods.select import select
from amortnlme.methods.stepwise_selection import Cossac, Samba, Scm
from amortnlme.population.candidates import parse_candidates

LINE = "W0, kin, Tlag, koutmax, T50 ~ Sex, DelM, log(GA), log(Mage), Para2"
ON = ("W0", "kin", "Tlag", "koutmax", "T50")
SD = {"W0": 0.11, "kin": 0.35, "Tlag": 0.25, "koutmax": 0.30, "T50": 0.45}
#: Thirteen effects, as many as the paper's table selects.
TRUTH = {
    "W0~Sex": 0.035, "W0~GA": 1.4, "W0~Mage": 0.06, "W0~Para2": 0.03, "kin~GA": 3.0, "kin~Para2": 0.25,
    "kin~DelM": 0.20, "Tlag~DelM": -0.2, "Tlag~Para2": -0.2, "koutmax~DelM": -0.2, "koutmax~Sex": 0.15,
    "T50~GA": -4.0, "T50~DelM": 0.3,
}  # fmt: skip
METHODS = {
    "saem": SaemSelection(),
    "saem-none": SaemSelection(start="none"),
    "samba": Samba(),
    "cossac": Cossac(),
    "scm": Scm(criterion="bicc"),
}


def authors(folder: Path) -> Dataset:
    """The 189 simulated subjects of the authors."""
    table = pd.read_csv(folder / "neonates_sim.csv").rename(columns={"Time": "TIME"})
    table["ID"] = table["ID"].astype(int)
    return amortnlme.read_frame(table.assign(EVID=0, AMT=0.0), name="neonates")


def cohort(covariates: pd.DataFrame, n: int, seed: int) -> Dataset:
    """Simulate subjects: covariates drawn from those of the authors' file, truth as above."""
    rng = np.random.default_rng([2025, seed])
    who = covariates.iloc[rng.integers(len(covariates), size=n)].reset_index(drop=True)
    model = amortnlme.load_model("neonatal_weight")
    space = model.parameters
    phi = np.tile(space.to_phi(np.array([[p.typical for p in space.parameters]])), (n, 1))
    regressor = {name: who[name].to_numpy(float) for name in ("Sex", "DelM", "Para2")}
    regressor |= {name: np.log(who[name] / who[name].mean()).to_numpy() for name in ("GA", "Mage")}
    for name in ON:
        phi[:, space.index(name)] += SD[name] * rng.standard_normal(n)
    for relation, beta in TRUTH.items():
        parameter, covariate = relation.split("~")
        phi[:, space.index(parameter)] += beta * regressor[covariate]
    rows = []
    for i in range(n):
        days = np.sort(rng.choice(8, size=rng.integers(3, 9), replace=False))
        times = np.unique(np.concatenate([[0.0], days[days > 0] + rng.uniform(-0.3, 0.3, (days > 0).sum())]))
        rows.append(pd.DataFrame({"ID": i + 1, "TIME": times, "DV": 3000.0, "EVID": 0, "AMT": 0.0}))
        for name in who.columns:
            rows[-1][name] = who.loc[i, name]
    planned = amortnlme.read_frame(pd.concat(rows), name=f"cohort {n} {seed}")
    y, status = model.bind(planned).predict(phi[:, None])
    if status.any():
        raise SystemExit("a simulated newborn could not be solved")
    y = y[:, 0] + np.exp(phi[:, -1:]) * rng.standard_normal(y[:, 0].shape)
    subjects = [
        replace(s, y=np.where(s.observed, y[i, : len(s.y)], s.y)) for i, s in enumerate(planned.subjects)
    ]
    return replace(planned, subjects=tuple(subjects))


def work(dataset: Dataset, name: str, seed: int, rank: int) -> Row:
    """One selection."""
    base = amortnlme.PopulationModel(random_effects=amortnlme.RandomEffects(ON))
    candidates = parse_candidates([LINE], dataset.covariate_table())
    found = select(
        dataset, base, candidates, METHODS[name], model="neonatal_weight", most_models=rank, seed=seed
    )
    kept = ("found", "chosen", "scores", "runs", "seconds", "warnings", "steps")
    row = {key: value for key, value in found.to_dict().items() if key in kept}
    row["true_positive"] = len(set(found.found) & set(TRUTH))
    row["false_positive"] = len(set(found.found) - set(TRUTH))
    return row


def judged(dataset: Dataset, chosen: list[str]) -> Row:
    """BICc of one model: FOCEI estimates, importance-sampled -2LL."""
    base = amortnlme.PopulationModel(random_effects=amortnlme.RandomEffects(ON))
    population = parse_candidates([LINE], dataset.covariate_table()).population(base, chosen)
    found = amortnlme.fit(dataset, population, Samba().fitter, model="neonatal_weight")
    names = ("ofv", "ofv_se", "bicc", "n_parameters")
    return {name: getattr(found, name) for name in names} | {"status": found.status, "chosen": chosen}


def main() -> None:
    """Run what is not stored yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=("authors", "cohort"), default="authors")
    parser.add_argument("--folder", type=Path, default=Path("../shared/data"), help="of neonates_sim.csv")
    parser.add_argument("--subjects", type=int, default=300)
    parser.add_argument("--replicates", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=["saem", "samba"])
    parser.add_argument("--rank", type=int, default=0, help="models ranked by exact BICc")
    parser.add_argument("--judge", action="store_true", help="also fit what was found, for its BICc")
    options = parser.parse_args()
    given = authors(options.folder)
    runs = Runs("neonates", RESULTS)
    for k in range(options.replicates):
        dataset = given
        if options.data == "cohort":
            dataset = cohort(given.covariate_table(), options.subjects, k)
        for name in options.methods:
            key = f"{dataset.name} | {name}" + (f" | rank {options.rank}" if options.rank else "")
            row = runs.run(key, lambda d=dataset, n=name, k=k: work(d, n, k, options.rank))
            names = ", ".join(row["found"])
            print(f"{key}: {row['runs']} runs, {row['cpu_s']:.0f} CPU s, {names}")
            if options.judge:
                score = runs.run(f"{key} | judged", lambda d=dataset, c=row["found"]: judged(d, c))
                print(f"  BICc {score['bicc']:.1f}, -2LL {score['ofv']:.1f} +- {score['ofv_se']:.1f}")
            if options.data == "cohort":
                print(f"  true: {row['true_positive']} of {len(TRUTH)}, false: {row['false_positive']}")


if __name__ == "__main__":
    main()
