"""The simple ODE fitted to cells of the SDE: what the ODE makes of the noise of the reactions.

    PYTHONPATH=experiments/classical python experiments/arruda_2024/noise_as_variance.py --cells 100

Cells are simulated from the published population of the SDE, each with a Brownian path of its own, and
fitted by SAEM with the simple ODE, whose k_m0_scale stands for the product of three parameters of the SDE.
As a control the same individuals are simulated without the noise of the reactions, by the ODE itself.
Targets are the sample moments of the very individuals. Published (amortized, one data set): the ODE
overestimates the variance about threefold, the SDE 1.3-fold. The surrogate of raw network draws stands beside
SAEM, as published: cells of the SDE lie outside of what the estimator of the ODE was trained on.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from study import Row, Study, fit_row, markdown

from amortnlme.core.rng import stream
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.subject import Subject
from amortnlme.methods.amortized import Amortized
from amortnlme.methods.fit import fit
from amortnlme.methods.saem import Saem
from amortnlme.model.individual import IndividualModel
from amortnlme.model.registry import load_model
from amortnlme.neural.estimator import Estimator
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

HERE = Path(__file__).parent
#: Population of the published study: means and variances of the logarithms, in the order of the SDE.
MEAN = np.array([-0.694, -7.014, 0.027, 5.704, 0.751, -0.164, 2.079, -3.454])
VARIANCE = np.array([0.941, 7.014, 0.675, 6e-5, 0.0, 0.116, 0.0, 0.0])
RANDOM = ("delta", "gamma", "k_m0_scale", "t0")
SEED_OF_INDIVIDUALS, SEED_OF_PATHS, SEED_OF_CONTROL, SEED_OF_DRAWS = 21, 22, 23, 24


def as_ode(phi: np.ndarray) -> np.ndarray:
    """Parameters of the SDE as those of the simple ODE, shape (n, 6)."""
    product = phi[:, 2:5].sum(axis=1)
    return np.column_stack([phi[:, :2], product, phi[:, 5:]])


def dataset(model: IndividualModel, phi: np.ndarray, seed: int) -> Dataset:
    design = Design.from_doses([], np.arange(1, 181) / 6.0)
    found = model.simulate(phi, design, None, stream(seed))
    if found.status.any():
        raise SystemExit(f"{np.count_nonzero(found.status)} of {len(phi)} cells could not be simulated")
    subjects = [Subject.from_observations(f"cell_{i}", design, row) for i, row in enumerate(found.y)]
    return Dataset(tuple(subjects), name=f"{len(phi)} cells of {model.name}")


def one_fit(data: Dataset, phi: np.ndarray, estimator: Estimator | None) -> Row:
    population = PopulationModel(random_effects=RandomEffects(RANDOM))
    if estimator is None:
        found = fit(data, population, Saem(referee_points=256), model="mrna_transfection_simple", seed=1)
    else:
        draws = estimator.sample(data, 1000, stream(SEED_OF_DRAWS))
        found = fit(draws, population, Amortized(correction="none"), dataset=data, seed=1)
    columns = [found.parameter_names.index(name) for name in RANDOM]
    estimate, truth = np.diagonal(found.omega)[columns], phi.var(axis=0)[columns]
    # delta and gamma may be exchanged: the role that fits the individuals better.
    swapped = np.array([1, 0, 2, 3])
    if (
        np.abs(found.theta[:2] - phi[:, :2].mean(axis=0)).sum()
        > np.abs(found.theta[1::-1] - phi[:, :2].mean(axis=0)).sum()
    ):
        estimate = estimate[swapped]
    return fit_row(found) | {
        "variance": estimate,
        "sample_variance": truth,
        "ratio": estimate / truth,
        "sigma": float(np.exp(found.theta[-1])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, nargs="+", default=[100])
    parser.add_argument("--again", action="store_true", help="replace stored runs")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    sde, ode = load_model("mrna_transfection_sde"), load_model("mrna_transfection_simple")
    estimator = Estimator.load("mrna_transfection_simple")
    study = Study("noise_as_variance", args.out, {"population": "published"}, args.again)
    lines = []
    for n in args.cells:
        rng = stream(SEED_OF_INDIVIDUALS)
        phi = MEAN + np.sqrt(VARIANCE) * rng.standard_normal((n, len(MEAN)))
        for name, data in (
            ("SDE", dataset(sde, phi, SEED_OF_PATHS)),
            ("ODE (control)", dataset(ode, as_ode(phi), SEED_OF_CONTROL)),
        ):
            for method, how in (("SAEM", None), ("surrogate of raw draws", estimator)):
                key = f"n={n} {name}" + ("" if how is None else f", {method}")
                row = study.run(key, partial(one_fit, data, as_ode(phi), how))
                ratios = [f"{value:.2f}" for value in row["ratio"]]
                seconds = f"{row['cpu_s']:.0f}"
                lines.append([str(n), name, method, row["status"], *ratios, f"{row['sigma']:.4f}", seconds])
    titles = ("cells", "simulated by", "fit", "status", *(f"variance ratio {name}" for name in RANDOM))
    print(markdown((*titles, "sigma (true 0.0316)", "CPU s"), lines))


if __name__ == "__main__":
    main()
