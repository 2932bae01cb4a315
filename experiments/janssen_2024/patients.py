"""The published virtual patients and folds, and what the study measures on them."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.subject import Subject

TRUE_OMEGA = np.array([[0.037, 0.0113], [0.0113, 0.017]])
COVARIATES = {"weight": "wt", "vwf": "vwf"}


@dataclass(frozen=True)
class Patients:
    """500 virtual patients with their folds.

    `folds[k]` holds the 0-based subjects of training (drawn with replacement), validation and test.
    """

    subjects: tuple[Subject, ...]
    folds: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]

    def dataset(self, index: np.ndarray) -> Dataset:
        """Subjects by number; one drawn twice is two subjects."""
        chosen, times = [], {}
        for i in map(int, index):
            subject = self.subjects[i]
            times[i] = times.get(i, 0) + 1
            name = subject.id if times[i] == 1 else f"{subject.id}_{times[i]}"
            chosen.append(replace(subject, id=name))
        return Dataset(subjects=tuple(chosen))


@cache
def read_patients(folder: Path) -> Patients:
    """Read the published files; doses are rate times duration, as the column `amt` is wrong."""
    with gzip.open(folder / "fviii_medcm_simulation.csv.gz", "rt", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    by_id: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_id.setdefault(row["id"], []).append(row)
    subjects = []
    for name, records in by_id.items():
        given = next(r for r in records if r["mdv"] == "1")
        observed = [r for r in records if r["mdv"] == "0"]
        rate, duration = float(given["rate"]), float(given["duration"])
        design = Design.from_doses(
            (Dose(float(given["time"]), rate * duration, duration=duration),),
            np.array([float(r["time"]) for r in observed]),
        )
        covariates = {ours: float(given[theirs]) for ours, theirs in COVARIATES.items()}
        y = np.array([float(r["dv"]) for r in observed])
        subjects.append(Subject.from_observations(name, design, y, covariates))
    table = np.genfromtxt(folder / "fviii_medcm_folds.csv", delimiter=",", skip_header=1, dtype=np.int64) - 1
    folds = []
    for k in range(20):
        train, validation = table[:, k], table[:, 20 + k]
        folds.append((train, validation, np.setdiff1d(np.arange(500), np.union1d(train, validation))))
    return Patients(tuple(subjects), tuple(folds))


def divergence_of_omega(omega: np.ndarray) -> float:
    """KL of N(0, true omega) from N(0, omega), the published measure."""
    if np.linalg.eigvalsh(omega)[0] <= 0:
        return float("inf")
    ratio = np.linalg.slogdet(omega)[1] - np.linalg.slogdet(TRUE_OMEGA)[1]
    return float(0.5 * (np.trace(np.linalg.solve(omega, TRUE_OMEGA)) - 2.0 + ratio))
