"""The three studies of Rohleff et al. (2025) as data, base model and candidate relations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import amortnlme
from amortnlme.methods.selection import SelectionProblem
from amortnlme.methods.vae_search import VaeSchedule
from amortnlme.population.candidates import Candidates, parse_candidates


@dataclass(frozen=True)
class Study:
    """One data set with what is to be decided about it, and the settings of the paper."""

    name: str
    dataset: amortnlme.Dataset
    model: amortnlme.IndividualModel
    base: amortnlme.PopulationModel
    candidates: Candidates
    published: VaeSchedule
    width: int

    def problem(self, seed: int) -> SelectionProblem:
        """What a search is given."""
        return SelectionProblem.of(self.dataset, self.base, self.candidates, self.model, None, seed)


def _published(n_steps: int, rate: float) -> VaeSchedule:
    """400 iterations: burn-in 100, annealing 50, 200 more, averaging 50; one draw per gradient step."""
    return VaeSchedule(
        n_burn_in=100,
        n_annealing=50,
        n_main=200,
        n_smoothing=50,
        n_steps=n_steps,
        n_samples=1,
        burn_in_rate=8e-3,
        rate=rate,
        burn_in_weight=1e-3,
        first_weight=1e-2,
    )


def theophylline() -> Study:
    """Twelve patients, single doses; three parameters times weight and sex."""
    dataset = amortnlme.load_bundled("theophylline")
    return _theophylline("theophylline", dataset, 5e-3)


def theophylline_multiple(folder: Path) -> Study:
    """Twenty simulated patients of the authors, ten doses each."""
    table = pd.read_csv(folder / "theophylline_multiple_sim.csv")
    # A row with a dose is also a measurement, taken before it.
    measured = table.assign(AMT=0.0, EVID=0, DV=table["Concentration"])
    dosed = table[table["Dose"] > 0].assign(EVID=1, AMT=lambda t: t["Dose"], DV=np.nan)
    events = pd.concat([measured, dosed]).sort_values(["ID", "Time", "EVID"], kind="stable")
    frame = events.rename(columns={"Time": "TIME", "Weight": "weight", "Sex": "sex"})
    kept = frame[["ID", "TIME", "EVID", "AMT", "DV", "weight", "sex"]]
    return _theophylline("multiple", amortnlme.read_frame(kept), 2e-3)


def _theophylline(name: str, dataset: amortnlme.Dataset, rate: float) -> Study:
    base = amortnlme.PopulationModel(random_effects=amortnlme.RandomEffects(("ka", "ke", "V")))
    candidates = parse_candidates(["ka, ke, V ~ log(weight), linear(sex)"], dataset.covariate_table())
    model = amortnlme.load_model("one_compartment_oral")
    return Study(name, dataset, model, base, candidates, _published(5, rate), 25)


def neonates(folder: Path) -> Study:
    """189 simulated newborns of the authors; five parameters times five covariates."""
    table = pd.read_csv(folder / "neonates_sim.csv")
    frame = table.rename(columns={"Time": "TIME"}).assign(EVID=0, AMT=0.0)
    dataset = amortnlme.read_frame(frame)
    effects = ("W0", "kin", "Tlag", "koutmax", "T50")
    base = amortnlme.PopulationModel(random_effects=amortnlme.RandomEffects(effects))
    line = f"{', '.join(effects)} ~ linear(Sex), linear(DelM), log(GA), log(Mage), linear(Para2)"
    candidates = parse_candidates([line], dataset.covariate_table())
    model = amortnlme.load_model("neonatal_weight")
    return Study("neonates", dataset, model, base, candidates, _published(10, 5e-3), 50)
