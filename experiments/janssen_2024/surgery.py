"""A simulated study around surgery: bolus, continuous infusion, boluses; combined error; VWF mostly missing.

    python experiments/janssen_2024/surgery.py --data FOLDER --replicates 1 2 3

The real data of the study are not public. Here 66 patients are drawn from the published virtual ones (weight,
age, blood group, VWF), with the published effects of weight and VWF on CL and V1 and the published omega. A
bolus of 40 IU/kg comes before surgery, a continuous infusion of 3 IU/kg/h from 1 h on, 2 IU/kg/h from 24 h to
72 h, then 20 IU/kg every 12 h, four times. Levels at 0.5, 6, 24, 48, 72, 84 and 108 h; additive SD 0.034
IU/mL, proportional 0.16, as estimated for the real patients. VWF is missing in 65 %, completely at random.

On complete data the methods are compared: the skeleton with networks, ridge 2. With VWF missing, the power
laws alone, by FOCEI: patients with VWF only, the median for all, and ten imputations by the learned copula,
which knows the conditional modes of a fit without VWF or does not. Stored in results/surgery.json; a rerun
continues.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from amortnlme.simulators.factor_viii import vwf_effect
from patients import TRUE_OMEGA
from run import HERE

from amortnlme.core.files import make_folder, write_json_atomic
from amortnlme.core.json_values import json_values
from amortnlme.core.rng import generator
from amortnlme.data.covariate_model import impute
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.imputation import fill_covariate
from amortnlme.data.subject import Subject
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.classical import Fo, Foce, Focei, Quadrature
from amortnlme.methods.fit import fit
from amortnlme.methods.imputed import pool_fits
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.validation import with_ridge
from amortnlme.methods.vi import Vi
from amortnlme.model.individual import IndividualModel
from amortnlme.model.registry import load_model
from amortnlme.population.toml import read_population

N_PATIENTS, MISSING, N_IMPUTATIONS = 66, 0.65, 10
TIMES = np.array([0.5, 6.0, 24.0, 48.0, 72.0, 84.0, 108.0])
ERROR = (0.034, 0.16)
METHODS: dict[str, AbstractMethod] = {
    "fo": Fo(referee_points=0),
    "foce": Foce(referee_points=0),
    "focei": Focei(referee_points=0),
    "vi": Vi(referee_points=0, n_nodes=3),
    "quadrature": Quadrature(referee_points=0),
}


@cache
def surgery_model() -> IndividualModel:
    """The individual model."""
    return load_model(str(HERE / "models" / "factor_viii_surgery.py"))


def virtual_patients(folder: Path) -> list[dict[str, float]]:
    """Covariates of the published virtual patients."""
    with gzip.open(folder / "fviii_medcm_simulation.csv.gz", "rt", encoding="utf-8") as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream)}
    names = {"weight": "wt", "age": "age", "group_o": "bgo", "vwf": "vwf"}
    return [{ours: float(row[theirs]) for ours, theirs in names.items()} for row in rows.values()]


def true_typical(covariates: dict[str, float]) -> np.ndarray:
    """Log of (CL, V1, Q, V2) and of the error SDs that belong to covariates."""
    weight = covariates["weight"]
    cl = 0.1 * (weight / 70.0) ** 0.75 * vwf_effect(covariates["vwf"])
    return np.log([cl, 2.0 * weight / 70.0, 0.15, 0.75, *ERROR])


def simulated(folder: Path, seed: int) -> tuple[Dataset, Dataset, np.ndarray]:
    """A study with and without all VWF, and the true typical parameters of its patients."""
    rng, model = generator(seed), surgery_model()
    everyone = virtual_patients(folder)
    chosen = [everyone[i] for i in rng.choice(len(everyone), N_PATIENTS, replace=False)]
    typical = np.stack([true_typical(c) for c in chosen])
    root, subjects, with_gaps = np.linalg.cholesky(TRUE_OMEGA), [], []
    lost = rng.permutation(N_PATIENTS) < round(MISSING * N_PATIENTS)
    for k, covariates in enumerate(chosen):
        kg = covariates["weight"]
        doses = [Dose(0.0, 40.0 * kg), Dose(1.0, 3.0 * kg * 23.0, duration=23.0)]
        doses += [Dose(24.0, 2.0 * kg * 48.0, duration=48.0)]
        doses += [Dose(72.0 + 12.0 * j, 20.0 * kg) for j in range(4)]
        # A level at the time of a bolus is the trough before it.
        times = np.where(TIMES >= 72.0, TIMES - 1e-3, TIMES)
        design = Design.from_doses(doses, times)
        phi = typical[k].copy()
        phi[:2] += root @ rng.standard_normal(2)
        y = model.simulate(phi[None], design, None, rng).y[0]
        subjects.append(Subject.from_observations(str(k + 1), design, y, covariates))
        gaps = covariates | {"vwf": np.nan} if lost[k] else covariates
        with_gaps.append(replace(subjects[-1], covariates=gaps))
    return Dataset(tuple(subjects)), Dataset(tuple(with_gaps)), typical


def compared(complete: Dataset, typical: np.ndarray) -> dict[str, Any]:
    """Every method on the complete data."""
    model = surgery_model()
    population = with_ridge(read_population(HERE / "populations" / "skeleton.toml"), 2.0)
    rows = {}
    for name, method in METHODS.items():
        cpu = time.process_time()
        result = fit(complete, population, method, model=model, seed=1)
        cpu = time.process_time() - cpu
        joined = population.bind(complete.covariate_table(), model.parameters)
        gap = joined.unpack(result.x)[0][:, :2] - typical[:, :2]
        sd = np.sqrt(np.diagonal(result.omega)[:2])
        rows[name] = {
            "status": result.status.value,
            "cpu_s": cpu,
            "rms_log_CL": float(np.sqrt((gap[:, 0] ** 2).mean())),
            "rms_log_V1": float(np.sqrt((gap[:, 1] ** 2).mean())),
            "omega1": float(sd[0]),
            "omega2": float(sd[1]),
            "rho": float(result.omega[0, 1] / sd.prod()),
            "a": result.sigma["a"],
            "b": result.sigma["b"],
        }
    return rows


def imputed(complete: Dataset, gaps: Dataset, seed: int) -> dict[str, Any]:
    """The effect of VWF on CL by the ways to treat its absence, by FOCEI."""
    model = surgery_model()
    population = replace(read_population(HERE / "populations" / "skeleton.toml"), networks=())

    def focei(data: Dataset) -> PopulationFit:
        return fit(data, population, Focei(referee_points=0), model=model, seed=1)

    known = [s.id for s in gaps.subjects if np.isfinite(s.covariates["vwf"])]
    rows = {"complete data": _effect(focei(complete)), "recorded only": _effect(focei(gaps.select(known)))}
    rows["median"] = _effect(focei(fill_covariate(gaps, "vwf", "median")))
    blind = replace(population, covariates=tuple(e for e in population.covariates if e.covariate != "vwf"))
    modes = fit(gaps, blind, Focei(referee_points=0), model=model, seed=1).individuals
    helper = pd.DataFrame(modes.ebe_eta, columns=["eta_CL", "eta_V1"], index=pd.Index(modes.ids))
    for name, auxiliary in (("imputed, covariates only", None), ("imputed, with modes", helper)):
        made = impute(gaps, N_IMPUTATIONS, generator(100 + seed), auxiliary)
        pooled = pool_fits([focei(data) for data in made], made, model)
        rows[name] = _effect(pooled) | {
            "missing_information": float(pooled.missing_information[_place(pooled.fits[0])])
        }
    return rows


def _place(result: PopulationFit) -> int:
    return result.x_names.index("beta_CL_vwf")


def _effect(result: Any) -> dict[str, Any]:
    row = {r.name: r for r in result.estimates}
    beta = row["beta_CL_vwf"]
    return {"beta": beta.value, "se": beta.se, "omega_CL": row["omega_CL"].value}


def main() -> None:
    """Run what is not stored yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--replicates", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    path = make_folder(HERE / "results") / "surgery.json"
    rows: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    steps: dict[str, Callable[[Dataset, Dataset, np.ndarray, int], dict[str, Any]]] = {
        "methods": lambda complete, gaps, typical, seed: compared(complete, typical),
        "missing": lambda complete, gaps, typical, seed: imputed(complete, gaps, seed),
    }
    for seed in arguments.replicates:
        study = simulated(arguments.data, seed)
        for step, make in steps.items():
            key = f"replicate {seed}/{step}"
            if key not in rows:
                rows[key] = json_values(make(*study, seed))
                write_json_atomic(path, rows)
                for name, row in rows[key].items():
                    print(key, name, row, flush=True)


if __name__ == "__main__":
    main()
