"""Studies of joining: `run.py STUDY [--replicates 0 1 2] [--train 200]`; one JSON per replicate, resumed.

linear      study 1: normal dependence, endpoints fitted apart (headline)
linear-known, non-linear-known    generating typical values, variances and residual SDs put in
non-linear  study 2: the same margins with a dependence no normal law describes
scaling     study 3: up to 20 endpoints, exact linear-Gaussian likelihoods
table       read all JSON files and write the tables of README.md
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import system

from amortnlme.core.files import write_json_atomic
from amortnlme.core.rng import stream
from amortnlme.methods.join_families import Workshop
from amortnlme.methods.joint_model import JointModel
from amortnlme.methods.likelihood_bank import (
    JointScore,
    LikelihoodBank,
    make_bank,
    reference_law,
    score,
)
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.population.laws import AbstractLaw, GaussianLaw

HERE = Path(__file__).parent
NORMAL = ("one-pass", "gaussian", "shrunken", "sparse", "split")
LEARNED = ("mixture", "flow", "one-pass-flow", "conditional-mixture", "stacked")
N_NODES, N_NODES_BIOMARKERS = 512, 1024
N_COUPLED = 2  # effects of the primary endpoint, the first ones


def banks(joint: JointModel, study: Any, seed: int) -> dict[str, LikelihoodBank]:
    """Nodes of all subjects, placed around the EM Gaussian of the training ones."""
    independent = joint.independent.marginal(joint.learned)
    out: dict[str, LikelihoodBank] = {}
    first = make_bank(joint.bind(), joint.independent, joint.learned, stream(seed, 1), N_NODES // 2)
    shop = Workshop(first, None, independent, (), seed)
    around = reference_law(joint.held, shop.gaussian())
    out["train"] = make_bank(joint.bind(), around, joint.learned, stream(seed, 2), N_NODES)
    for k, part in enumerate(("tune", "test")):
        target = joint.bind(study[part][1])
        out[part] = make_bank(target, around, joint.learned, stream(seed, 3 + k), N_NODES)
        if part == "test":
            out["biomarkers"] = make_bank(
                target.without("response"), around, joint.learned, stream(seed, 9), N_NODES_BIOMARKERS
            )
    return out


class Judge:
    """Scores laws on the test subjects against independence and the generating law at the same margins."""

    def __init__(self, found: dict[str, LikelihoodBank], independent: GaussianLaw, linear: bool) -> None:
        self.banks, self.sd = found, np.sqrt(np.diagonal(independent.covariance))
        truth = system.Truth(linear)
        self.oracle = {
            p: score(found[p], lambda e: truth.log_density(e, self.sd)) for p in ("test", "biomarkers")
        }
        self.base = {p: score(found[p], independent) for p in ("test", "biomarkers")}

    def row(self, law: AbstractLaw | None) -> dict[str, Any]:
        """Gains in nats, total and of the biomarkers; agreement of primary effects from biomarkers."""
        scores: dict[str, JointScore] = (
            self.oracle if law is None else {p: score(self.banks[p], law) for p in self.oracle}
        )
        total, se = scores["test"].gain_over(self.base["test"])
        biomarkers, se_biomarkers = scores["biomarkers"].gain_over(self.base["biomarkers"])
        r_squared = []
        for k in range(N_COUPLED):
            x, y = scores["biomarkers"].mean[:, k], self.oracle["biomarkers"].mean[:, k]
            r_squared.append(float(np.corrcoef(x, y)[0, 1] ** 2) if x.std() > 1e-6 else 0.0)
        return {
            "total": total,
            "total_se": se,
            "biomarkers": biomarkers,
            "biomarkers_se": se_biomarkers,
            "primary": total - biomarkers,
            "r_squared": r_squared,
            "ess": [float(q) for q in np.quantile(scores["test"].ess, [0.0, 0.05, 0.5])],
            "ess_biomarkers": [float(q) for q in np.quantile(scores["biomarkers"].ess, [0.0, 0.05, 0.5])],
        }


def _fits(train: Any, name: str, seed: int, kept: Path | None) -> dict[str, PopulationFit]:
    """Fits of the endpoints, from a folder that keeps them where there is one."""
    paths = {} if kept is None else {e: kept / f"{name}_{e}.h5" for e in system.ENDPOINTS}
    if paths and all(path.exists() for path in paths.values()):
        return {e: PopulationFit.load(path) for e, path in paths.items()}
    fits = system.fit_endpoints(train, seed)
    for e, path in paths.items():
        fits[e].save(path)
    return fits


def replicate(
    linear: bool, known: bool, n_train: int, number: int, kept: Path | None, families: tuple[str, ...]
) -> dict[str, Any]:
    """One data set: fits of the endpoints, joint laws of every family, scores on 500 new subjects."""
    clock = time.process_time()
    study = system.study(linear, n_train, number)
    train = study["train"][1]
    # Where the generating parameters are put in, only the form of the fits matters: any will do.
    name = "linear_200_0" if known else f"{'linear' if linear else 'non-linear'}_{n_train}_{number}"
    fits = _fits(train, name, number, kept)
    print(f"fits {time.process_time() - clock:.0f} CPU s", flush=True)
    record: dict[str, Any] = {
        "linear": linear, "known": known, "n_train": n_train, "replicate": number,
        "fits": {
            name: {row.name: row.value for row in found.estimates} | {"status": found.status.value}
            for name, found in fits.items()
        },
        "cpu_fits": time.process_time() - clock,
    }  # fmt: skip
    if known:
        fits = system.at_the_truth(fits, train)
    joint = system.joint_model(fits, train)
    clock = time.process_time()
    found = banks(joint, study, number)
    record["cpu_banks"] = time.process_time() - clock
    print(f"banks {record['cpu_banks']:.0f} CPU s", flush=True)
    independent = joint.independent.marginal(joint.learned)
    primary = joint.effects_of("response")
    shop = Workshop(found["train"], found["tune"], independent, primary, number)
    judge = Judge(found, independent, linear)
    z = study["test"][0]
    truth = judge.oracle["biomarkers"].mean
    rows: dict[str, Any] = {"oracle": judge.row(None)}
    rows["oracle"]["r_squared_truth"] = [
        float(np.corrcoef(truth[:, k], z[:, k])[0, 1] ** 2) for k in range(N_COUPLED)
    ]
    for family in families:
        clock = time.process_time()
        law, notes = shop.fit(family)
        seconds = time.process_time() - clock
        print(f"{family} {seconds:.1f} CPU s", flush=True)
        rows[family] = {**judge.row(law), "cpu": seconds, "notes": notes}
    record["families"] = rows
    return record


def run_study(
    name: str, n_train: int, numbers: list[int], kept: Path | None, families: tuple[str, ...]
) -> None:
    """All replicates that have no file yet."""
    linear, known = not name.startswith("non-linear"), name.endswith("known")
    for number in numbers:
        path = HERE / "results" / f"{name}_{n_train}_{number}.json"
        if path.exists():
            continue
        clock = time.process_time()
        record = replicate(linear, known, n_train, number, kept, families)
        record["cpu"] = time.process_time() - clock
        path.parent.mkdir(exist_ok=True)
        write_json_atomic(path, record)
        oracle = record["families"]["oracle"]
        shares = ", ".join(
            f"{family} {100 * row['total'] / oracle['total']:.1f}"
            f"/{100 * row['primary'] / oracle['primary']:.0f}"
            for family, row in record["families"].items()
        )
        print(
            f"{path.name}: oracle {oracle['total']:.1f} nats; {shares}; {record['cpu']:.0f} CPU s", flush=True
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "study", choices=("linear", "linear-known", "non-linear", "non-linear-known", "table")
    )
    parser.add_argument("--replicates", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--normal-only", action="store_true", help="leave mixtures and networks out")
    parser.add_argument("--fits", type=Path, help="existing folder that keeps the fits of the endpoints")
    options = parser.parse_args()
    if options.study == "table":
        import table

        table.write(HERE)
        return
    families = NORMAL if options.normal_only else (*NORMAL, *LEARNED)
    run_study(options.study, options.train, options.replicates, options.fits, families)


if __name__ == "__main__":
    main()
