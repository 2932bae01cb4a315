"""Seconds of one population model, from draws to estimates with standard errors, as subjects are added.

    python benchmarks/population_swap.py

Simulated oral one-compartment studies (12 concentrations per subject, weight as a covariate). Posterior draws
are made without a network: Gaussians around each subject's conditional mode under the training prior, 500 per
subject.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import numpy as np

from amortnlme.core.rng import generator
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.subject import Subject
from amortnlme.methods.fit import fit
from amortnlme.model.individual import IndividualModel
from amortnlme.model.registry import load_model
from amortnlme.population.bundled import load_bundled_population
from amortnlme.population.posterior_draws import PosteriorDraws

TIMES = np.geomspace(0.25, 24.0, 12)
SIZES = (12, 50, 200)


def study(model: IndividualModel, n: int, rng: np.random.Generator) -> tuple[Dataset, np.ndarray]:
    """Simulated subjects and their parameters."""
    design = Design.from_doses([Dose(0.0, 320.0)], TIMES)
    weight = rng.normal(70.0, 10.0, n)
    phi = np.log([1.6, 0.087, 32.0, 0.7]) + rng.standard_normal((n, 4)) * [0.6, 0.15, 0.14, 0.0]
    phi[:, 2] += 0.6 * np.log(weight / 70.0)
    y = model.simulate(phi, design, {}, rng).y
    subjects = [
        Subject.from_observations(f"S{i}", design, y[i], {"weight": float(weight[i])}) for i in range(n)
    ]
    return Dataset(tuple(subjects), name=f"simulated {n}"), phi


def gaussian_draws(
    model: IndividualModel, dataset: Dataset, start: np.ndarray, rng: np.random.Generator
) -> PosteriorDraws:
    """Draws of a Gaussian around each conditional mode under the prior, a stand-in for an estimator."""
    bound = model.bind(dataset)
    precision = np.linalg.inv(model.prior.covariance)
    phi = start.copy()
    for _ in range(50):
        _, gradient, information = bound.gauss_newton(phi)
        gradient = gradient - (phi - model.prior.mean) @ precision
        information = information + precision
        step = np.linalg.solve(information, gradient[..., None])[..., 0]
        phi = phi + np.clip(step, -0.3, 0.3)
    root = np.linalg.cholesky(np.linalg.inv(information))
    draws = phi[:, None] + rng.standard_normal((len(phi), 500, model.d)) @ np.swapaxes(root, 1, 2)
    return PosteriorDraws(
        phi=draws,
        log_q=np.zeros(draws.shape[:2]),
        log_prior=model.prior.log_prob(draws.reshape(-1, model.d)).reshape(draws.shape[:2]),
        subject_ids=dataset.ids,
        parameters=model.parameters,
        prior=model.prior,
        model_name=model.name,
        model_fingerprint=model.fingerprint,
        estimator_fingerprint="gaussian",
        dataset_fingerprint=dataset.fingerprint,
    )


def main() -> None:
    """Print the table and write results/population_swap.json."""
    model = load_model("one_compartment_oral")
    population = load_bundled_population("theophylline_v_weight")
    rows = []
    for n in SIZES:
        rng = generator(n)
        dataset, phi = study(model, n, rng)
        draws = gaussian_draws(model, dataset, phi, rng)
        fit(draws, population, dataset=dataset, model=model, seed=0)
        wall, cpu, status = [], [], ""
        for seed in range(1, 4):
            start, start_cpu = time.perf_counter(), time.process_time()
            result = fit(draws, population, dataset=dataset, model=model, seed=seed)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
            status = str(result.status)
        row = {
            "subjects": n,
            "wall_s": statistics.median(wall),
            "cpu_s": statistics.median(cpu),
            "status": status,
        }
        rows.append(row)
        print(
            f"{n:6d} subjects: {row['wall_s']:7.2f} s wall, {row['cpu_s']:7.2f} s CPU, {status}", flush=True
        )
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "population_swap.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
