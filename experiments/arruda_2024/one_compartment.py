"""One-compartment study: skewed posteriors, a shared residual SD, quadrature as the arbiter.

    python experiments/arruda_2024/one_compartment.py --data-sets 4

300 patients with 8 concentrations, log-normal error; log ka, CL and V vary with SDs of 0.5, 0.3 and 0.12, the
residual SD (0.2) is shared. Posterior draws are exact (importance resampling). z = (estimate - MLE) / SE of
the MLE by adaptive Gauss-Hermite quadrature.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from exact_draws import exact_draws
from runs import Row, Runs, rms_table

from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.data.subject import Subject
from amortnlme.methods.amortized import Amortized
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.classical import Quadrature
from amortnlme.methods.fit import fit
from amortnlme.methods.monte_carlo import MonteCarlo
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import LogNormal
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.posterior_draws import PosteriorDraws

N, NODES = 300, 7
TIMES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0)
DESIGN = Design.from_doses([Dose(0.0, 100.0)], TIMES)
MEANS, SDS = np.log([1.3, 2.5, 33.0, 0.2]), np.array([0.5, 0.3, 0.12, 0.0])
POPULATION = PopulationModel(random_effects=RandomEffects(on=("ka", "CL", "V")))
NAMES = ["ka", "CL", "V", "sigma (shared)", "sd ka", "sd CL", "sd V"]


def _rhs(t, y, p):
    return -p.ka * y.depot, p.ka * y.depot - p.CL / p.V * y.central


def _concentration(t, y, p):
    return y.central / p.V


MODEL = IndividualModel(
    name="one_compartment_study",
    version="1",
    text="Oral one-compartment model with clearance and volume, log-normal residual error.",
    source="Textbook model; design and prior of the study described in the head of this file.",
    parameters=ParameterSpace(
        (
            Parameter("ka", "1/h", "log", 1.0, "absorption rate"),
            Parameter("CL", "L/h", "log", 3.0, "clearance"),
            Parameter("V", "L", "log", 30.0, "volume"),
            Parameter("sigma", "1", "log", 0.2, "residual SD of the log concentration", role="error"),
        )
    ),
    states=("depot", "central"),
    dynamics=LinearCompartments(_rhs, dose_state="depot"),
    outputs=(Output("concentration", "mg/L", _concentration, LogNormal("sigma")),),
    prior=NormalPrior(np.log([1.0, 3.0, 30.0, 0.2]), np.array([1.0, 1.0, 1.0, 0.6])),
    design_sampler=ProtocolDesignSampler((PlannedTimes(TIMES),)),
    units={"time": "h", "amount": "mg"},
)


def simulate(seed: int) -> Dataset:
    """One study."""
    rng = np.random.default_rng(50 + seed)
    phi = MEANS + SDS * rng.standard_normal((N, 4))
    y = MODEL.simulate(phi, DESIGN, {}, rng).y
    subjects = tuple(Subject.from_observations(f"S{i}", DESIGN, y[i]) for i in range(N))
    return Dataset(subjects, name=f"study {seed}")


def few_draws(draws: PosteriorDraws, n_draws: int, shift: float) -> PosteriorDraws:
    """The first draws of every subject, moved by `shift` posterior SDs."""
    phi = draws.phi + shift * draws.phi.std(axis=1, keepdims=True)
    phi = phi[:, :n_draws]
    log_prior = draws.prior.log_prob(phi.reshape(-1, draws.d)).reshape(phi.shape[:2])
    return replace(draws, phi=phi, log_q=np.zeros_like(log_prior), log_prior=log_prior)


def methods() -> dict[str, tuple[AbstractMethod, int, float, bool]]:
    """Label -> method, draws, shift of the draws in posterior SDs, whether the likelihood is given."""
    few = {"referee_points": 32, "referee_replicates": 2}
    return {
        "published, M = 100, variance .001": (MonteCarlo(pooled_variance=0.001, **few), 100, 0.0, False),
        "surrogate alone, M = 100": (Amortized(correction="none", **few), 100, 0.0, False),
        "corrected by the likelihood, M = 100": (Amortized(n_points=64, **few), 100, 0.0, True),
        "surrogate alone, K = 3, M = 1000": (
            Amortized(correction="none", n_components=3, **few), 1000, 0.0, False,
        ),
        "corrected, K = 3, M = 1000": (Amortized(n_components=3, **few), 1000, 0.0, True),
        "biased draws, surrogate alone": (Amortized(correction="none", **few), 1000, 0.1, False),
        "biased draws, likelihood": (Amortized(n_points=64, **few), 1000, 0.1, True),
    }  # fmt: skip


def one_fit(dataset: Dataset, draws: PosteriorDraws, arbiter: Row, label: str) -> Row:
    """Fit one data set by one method."""
    method, n_draws, shift, has_likelihood = methods()[label]
    part = few_draws(draws, n_draws, shift)
    data = {"dataset": dataset, "model": MODEL} if has_likelihood else {}
    result = fit(part, POPULATION, method, **data)
    z = (result.x - np.asarray(arbiter["x"])) / np.asarray(arbiter["se"])
    codes = [text[1 : text.find("]")] for text in result.warnings]
    return {"z": z, "status": result.status.value, "warnings": codes}


def quadrature(dataset: Dataset) -> Row:
    """Maximum-likelihood estimates."""
    method = Quadrature(n_nodes=NODES, referee_points=32, referee_replicates=2)
    result = fit(dataset, POPULATION, method, model=MODEL)
    assert result.covariance is not None, result.warnings
    return {"x": result.x, "se": np.sqrt(np.diagonal(result.covariance)), "status": result.status.value}


def main() -> None:
    """Run what is not stored and print the table."""
    parser = argparse.ArgumentParser(description="One-compartment study: see the head of this file.")
    parser.add_argument("--data-sets", type=int, default=4)
    parser.add_argument("--again", action="store_true", help="replace stored runs")
    parser.add_argument("--out", type=Path, help="folder of the JSON file (default results/)")
    args = parser.parse_args()
    runs = Runs("one_compartment", {"n": N, "nodes": NODES}, args.out, args.again)
    found: dict[str, list[Row]] = {}
    for seed in range(args.data_sets):
        dataset, draws = simulate(seed), None
        arbiter = runs.run(f"{seed} quadrature", partial(quadrature, dataset))
        for label in methods():
            key = f"{seed} {label}"
            if key not in runs.rows and draws is None:
                draws, share = exact_draws(MODEL, dataset, 1000, np.random.default_rng(seed))
                print(f"draws: effective share of the pool {np.median(share):.2f}, least {share.min():.2f}")
            if draws is not None:
                runs.run(key, partial(one_fit, dataset, draws, arbiter, label))
            found.setdefault(label, []).append(runs.rows[key])
    print(f"\n{args.data_sets} data sets: rms z\n\n{rms_table(list(found.items()), NAMES)}\n")
    for label, rows in found.items():
        flagged = sum("W_FIT_MC_ERROR" in row["warnings"] for row in rows)
        print(f"{label}: flagged by the gate {flagged} of {len(rows)} times")


if __name__ == "__main__":
    main()
