"""Sunitinib: do FOCEI and SAEM recover the published estimates from 47 virtual patients?

    python experiments/classical/sunitinib.py                        studies 1..3, FOCEI and SAEM
    python experiments/classical/sunitinib.py --studies 1 --methods focei
    python experiments/classical/sunitinib.py --small                12 patients, a short SAEM
    python experiments/classical/sunitinib.py --cost                 seconds of one likelihood evaluation

The patients' data are not public. Truth: the NONMEM 7.5 FOCEI estimates that come with Arruda et
al. (2024), ICML. 50 (half of the patients), 37.5 or 25 mg daily, 4 weeks on and 2 off, 606
observations: parent and metabolite at 303 times.

Only concentrations of the metabolite are measured, so (fm_factor, CLM, V3, Q34, V4) share a redundant scale.
As in the publication the fraction metabolized is given: the typical fm_factor is fixed at 1 and varies.
"""

from __future__ import annotations

import time

import numpy as np
from study import Row, Study, fit_row, markdown, open_study, options, show

from amortnlme.core.rng import generator
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, DesignBatch, Dose
from amortnlme.data.subject import Subject
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.classical import Focei
from amortnlme.methods.fit import fit
from amortnlme.methods.saem import Saem
from amortnlme.model.individual import IndividualModel
from amortnlme.model.registry import load_model
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

EFFECTS = ("V2", "V3", "CLP", "fm_factor")
GIVEN = {"fm_factor": 1.0}
POPULATION = PopulationModel(random_effects=RandomEffects(EFFECTS, "full"), fixed=GIVEN)
TYPICAL = {
    "ka": 0.133,
    "V2": 1820.0,
    "CLP": 33.9,
    "CLM": 16.5,
    "V3": 730.0,
    "Q34": 2.75,
    "V4": 592.0,
    "Q25": 0.371,
    "s_parent": 0.367,
    "s_metabolite": 0.281,
    "fm_factor": 1.0,
}
OMEGA = np.array(
    [
        [0.0621, 0.0473, 0.0, 0.0],
        [0.0473, 0.169, -0.0613, 0.0],
        [0.0, -0.0613, 0.088, -0.0421],
        [0.0, 0.0, -0.0421, 0.113],
    ]
)
DOSES, SHARES = (50.0, 37.5, 25.0), (0.5, 0.3, 0.2)  # mg
DAY = 24.0  # h
METHODS: dict[str, AbstractMethod] = {"focei": Focei(), "saem": Saem()}


def sampling_times(n: int, rng: np.random.Generator) -> np.ndarray:
    """Absorption on day 1, troughs and afternoons of two cycles, the end of a break."""
    first = rng.uniform(2.0, 12.0, 1)
    # Days 8-28 and 43-70 are on treatment; doses at 0 h of each day, visits in clinic hours or at trough.
    days = np.concatenate([rng.integers(7, 28, 4), rng.integers(49, 70, 4)])[: n - 2]
    rest = days * DAY + np.where(rng.random(len(days)) < 0.5, -0.5, rng.uniform(2.0, 10.0, len(days)))
    washout = rng.uniform(29.0, 41.0, 1) * DAY
    return np.sort(np.concatenate([first, np.round(rest, 1), np.round(washout, 1)]))


def simulate(model: IndividualModel, n: int, seed: int) -> Dataset:
    """Patients with the published random effects; 7 sampling times for 21 of 47, 6 for the others."""
    rng = generator(seed)
    weight = np.round(np.clip(np.exp(rng.normal(np.log(78.0), 0.18, n)), 40.0, 150.0), 1)
    phi = np.tile(np.log([TYPICAL[name] for name in model.parameters.names]), (n, 1))
    index = [model.parameters.index(name) for name in EFFECTS]
    phi[:, index] += rng.multivariate_normal(np.zeros(4), OMEGA, n, method="cholesky")
    designs = []
    for i in range(n):
        dose = float(rng.choice(DOSES, p=SHARES))
        cycles = [Dose(start * DAY, dose, ii=DAY, addl=27) for start in (0, 42)]
        times = sampling_times(7 if i % 47 < 21 else 6, rng)
        designs.append(Design.from_doses(cycles, np.repeat(times, 2), np.tile([1, 2], len(times))))
    covariates = [{"weight": float(w)} for w in weight]
    batch = DesignBatch.from_designs(designs, {"weight": weight})
    simulated = model.simulate_batch(phi, batch, rng)
    subjects = [
        Subject.from_observations(f"P{i + 1}", design, simulated.y[i][: design.n_observations], covariates[i])
        for i, design in enumerate(designs)
    ]
    return Dataset(tuple(subjects), name=f"sunitinib, {n} virtual patients, seed {seed}")


def true_theta(model: IndividualModel) -> np.ndarray:
    """Logarithms of the typical values that are estimated."""
    return np.log([TYPICAL[name] for name in model.parameters.names if name not in GIVEN])


def true_x(model: IndividualModel) -> np.ndarray:
    factor = np.linalg.cholesky(OMEGA)
    theta = true_theta(model)
    return np.array([*theta, *factor[np.tril_indices(4)]])


def one(model: IndividualModel, dataset: Dataset, method: AbstractMethod) -> Row:
    result = fit(dataset, POPULATION, method, model=model, seed=1)
    return fit_row(result) | {"truth": true_x(model)}


def small_one(model: IndividualModel, dataset: Dataset) -> Row:
    """Two independent random effects, few iterations of SAEM: it is the script that is checked."""
    population = PopulationModel(random_effects=RandomEffects(("V2", "CLP")), fixed=GIVEN)
    method = Saem(50, 50, 20, n_chains=2, n_points=32, referee_points=64)
    result = fit(dataset, population, method, model=model, seed=1)
    theta = true_theta(model)
    return fit_row(result) | {"truth": [*theta, *np.sqrt([OMEGA[0, 0], OMEGA[2, 2]])]}


def cost(model: IndividualModel, dataset: Dataset) -> None:
    """Seconds of one evaluation, to plan by."""
    bound = model.bind(dataset)
    phi = np.tile(np.log([TYPICAL[name] for name in model.parameters.names]), (dataset.n_subjects, 1))
    many = np.repeat(phi[:, None], 20, axis=1)
    for name, call in (
        ("log_likelihood, 20 points per patient", lambda: bound.log_likelihood(many)),
        ("gauss_newton, 1 point per patient", lambda: bound.gauss_newton(phi)),
        ("expansions, 1 point per patient", lambda: bound.expansions(phi[:, None])),
    ):
        call()
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        print(
            f"{name}: {time.perf_counter() - wall:.3f} s, {time.process_time() - cpu:.3f} CPU s", flush=True
        )


def table(study: Study, model: IndividualModel, runs: list[str]) -> str:
    names = study.runs[runs[0]]["x_names"]
    rows = []
    for k, name in enumerate(names):
        truth = study.runs[runs[0]]["truth"][k]
        cells = [name, f"{truth:.4f}"]
        for run in runs:
            row = study.runs[run]
            se = None if row["x_se"] is None else row["x_se"][k]
            distance = row["x"][k] - truth
            cells.append(
                f"{row['x'][k]:.4f} (no SE)" if se is None else f"{distance / se:+.2f} (SE {se:.3f})"
            )
        rows.append(cells)
    last = ["status", ""]
    for run in runs:
        row = study.runs[run]
        last.append(f"{row['status']}, -2LL {row['ofv']:.1f} +- {row['ofv_se']:.1f}, {row['wall_s']:.0f} s")
    return markdown(("x", "truth", *runs), [*rows, last])


def main() -> None:
    parser = options("sunitinib", __doc__ or "")
    parser.add_argument(
        "--studies", type=int, nargs="+", default=[1, 2, 3], help="seeds of the virtual studies"
    )
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--cost", action="store_true", help="only time one likelihood evaluation")
    args = parser.parse_args()
    model, n = load_model("sunitinib"), 12 if args.small else 47
    if args.cost:
        cost(model, simulate(model, n, 1))
        return
    settings = {"patients": n, "typical": TYPICAL, "omega": OMEGA.tolist(), "doses": DOSES, "shares": SHARES}
    study = open_study("sunitinib", args, settings)
    runs = []
    for seed in (1,) if args.small else args.studies:
        dataset = simulate(model, n, seed)
        if args.small:
            runs.append(f"saem, study {seed}")
            study.run(runs[-1], lambda d=dataset: small_one(model, d))
            continue
        for method in args.methods:
            runs.append(f"{method}, study {seed}")
            study.run(runs[-1], lambda d=dataset, m=METHODS[method]: one(model, d, m))
    show(args, study.name, table(study, model, runs))


if __name__ == "__main__":
    main()
