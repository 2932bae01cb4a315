"""Sparse bolus study: 500 subjects with three samples each, combined error, correlated CL and V.

    python experiments/classical/sparse_bolus.py            500 subjects, all methods
    python experiments/classical/sparse_bolus.py --small    60 subjects, four methods

Little is known about each subject, so approximations around the conditional modes show their bias. Arbiter:
the dense lattice of bolus_lattice.py. Its estimates are the truth of this data set; its standard errors are
the unit of all distances. Data: simulated with the seed in SETTINGS; times uniform in WINDOWS.
"""

from __future__ import annotations

import numpy as np
from bolus_lattice import Lattice, maximum_likelihood, value_and_gradient
from study import Row, fit_row, markdown, open_study, options, show

from amortnlme.core.rng import generator
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, DesignBatch, Dose
from amortnlme.data.subject import Subject
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.classical import Fo, Foce, Focei, Laplace, Quadrature
from amortnlme.methods.first_order_likelihood import ConditionalFirstOrderLikelihood, FirstOrderLikelihood
from amortnlme.methods.fit import fit
from amortnlme.methods.laplace_likelihood import LaplaceLikelihood
from amortnlme.methods.likelihood_fit import ModalObjective
from amortnlme.methods.quadrature_likelihood import QuadratureLikelihood
from amortnlme.methods.referee import referee
from amortnlme.methods.saem import Saem
from amortnlme.model.registry import load_model
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

MODEL = "one_compartment_infusion"
POPULATION = PopulationModel(random_effects=RandomEffects(("CL", "V"), "full"))
DOSE = 500.0
WINDOWS = ((0.25, 2.0), (3.0, 10.0), (12.0, 30.0))  # h
NAMES = ("ln CL", "ln V", "ln a", "ln b", "L CL", "L V,CL", "L V")
# CL 5 L/h, V 40 L, a 0.3 mg/L, b 0.3; SDs 0.35 and 0.3, correlation 0.4.
GENERATING = np.array([*np.log([5.0, 40.0, 0.3, 0.3]), 0.35, 0.4 * 0.3, 0.3 * np.sqrt(1 - 0.4**2)])
SEED = 20240511
NODES = (5, 9, 15, 21, 31)
REFEREE_POINTS = (512, 4096)
METHODS: dict[str, AbstractMethod] = {
    "quadrature": Quadrature(n_nodes=21),
    # Averaging until the Monte-Carlo error of every estimate is well below the bar of 0.1 SE.
    "saem": Saem(n_averaging=800, n_chains=2),
    "laplace": Laplace(),
    "focei": Focei(),
    "foce": Foce(),
    "fo": Fo(),
}
COARSE, FINE, FINEST = Lattice(0.2, 7.0), Lattice(0.1, 8.0), Lattice(0.05, 9.0)


def simulate(n: int) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Subjects, and their times and values as plain arrays for the arbiter."""
    rng, model = generator(SEED), load_model(MODEL)
    low, high = np.array(WINDOWS).T
    times = np.round(rng.uniform(low, high, (n, 3)), 2)
    factor = np.array([[GENERATING[4], 0.0], [GENERATING[5], GENERATING[6]]])
    phi = np.tile(GENERATING[:4], (n, 1))
    phi[:, :2] += rng.standard_normal((n, 2)) @ factor.T
    designs = [Design.from_doses([Dose(0.0, DOSE)], t) for t in times]
    y = model.simulate_batch(phi, DesignBatch.from_designs(designs), rng).y
    subjects = [Subject.from_observations(f"S{i + 1}", designs[i], y[i]) for i in range(n)]
    return Dataset(tuple(subjects), name=f"sparse bolus, {n} subjects"), times, y


def arbiter(times: np.ndarray, y: np.ndarray) -> Row:
    x, se = maximum_likelihood(GENERATING, DOSE, times, y, COARSE)
    coarse, gradient = value_and_gradient(x, DOSE, times, y, COARSE)
    fine = value_and_gradient(x, DOSE, times, y, FINE)[0]
    finest = value_and_gradient(x, DOSE, times, y, FINEST)[0]
    at_truth = value_and_gradient(GENERATING, DOSE, times, y, FINE)[0]
    return {
        "x": x,
        "x_se": se,
        "exact": fine,
        "coarse_minus_fine": coarse - fine,
        "fine_minus_finest": fine - finest,
        "largest_gradient_times_se": float(np.max(np.abs(gradient * se))),
        "at_generating_values": at_truth,
    }


def ladder(dataset: Dataset, truth: Row) -> Row:
    """Every approximation of -2LL minus the exact value, all at the exact estimates: no optimizer."""
    x = np.array(truth["x"])
    model = load_model(MODEL)
    bound = model.bind(dataset)
    population = POPULATION.bind(dataset.covariate_table(), model.parameters)
    objectives: dict[str, ModalObjective] = {
        "fo": FirstOrderLikelihood(bound, population),
        "foce": ConditionalFirstOrderLikelihood(bound, population),
        "focei": LaplaceLikelihood(bound, population),
        "laplace": LaplaceLikelihood(bound, population, "observed"),
    }
    objectives |= {f"{n} nodes": QuadratureLikelihood(bound, population, n) for n in NODES}
    row: Row = {
        name: -2.0 * float(objective.value_and_scores(x)[0].sum()) - truth["exact"]
        for name, objective in objectives.items()
    }
    modes = objectives["laplace"].modes(x)
    for n in REFEREE_POINTS:
        verdict = referee(bound, *population.unpack(x), modes, generator(SEED + n), n)
        row |= {f"8 x {n} importance nodes": [verdict.ofv - truth["exact"], verdict.ofv_se]}
    return row


def one(dataset: Dataset, times: np.ndarray, y: np.ndarray, method: AbstractMethod) -> Row:
    result = fit(dataset, POPULATION, method, model=MODEL, seed=1)
    exact = value_and_gradient(result.x, DOSE, times, y, FINE)[0]
    return fit_row(result) | {"exact": exact}


def ladder_table(row: Row) -> str:
    names = [name for name in row if not name.endswith("_s")]
    cells = [
        f"{row[n][0]:+.3f} +- {row[n][1]:.3f}" if isinstance(row[n], list) else f"{row[n]:+.4f}"
        for n in names
    ]
    return markdown(tuple(names), [cells])


def distance_table(rows: dict[str, Row], truth: Row) -> str:
    x, se = np.array(truth["x"]), np.array(truth["x_se"])
    first = ["arbiter", "0", "-", "-", "-", *("0" for _ in NAMES), "-"]
    lines = [first]
    for name, row in rows.items():
        z = (np.array(row["x"]) - x) / se
        own = "-" if row["criterion"] is None else f"{row['criterion'] - row['exact']:+.3f}"
        lines.append(
            [
                f"{name} ({row['status']})",
                f"{row['exact'] - truth['exact']:.4f}",
                f"{row['ofv'] - row['exact']:+.3f} +- {row['ofv_se']:.3f}",
                own,
                " / ".join(f"{100 * s:.0f}" for s in row["eta_shrinkage"]),
                *(f"{v:+.3f}" for v in z),
                f"{row['cpu_s']:.1f}",
            ]
        )
    titles = ("method", "above exact minimum", "referee - exact", "own criterion - exact", "shrinkage %")
    return markdown((*titles, *NAMES, "CPU s"), lines)


def main() -> None:
    args = options("sparse_bolus", __doc__ or "").parse_args()
    n = 60 if args.small else 500
    settings = {
        "seed": SEED,
        "subjects": n,
        "dose": DOSE,
        "windows": WINDOWS,
        "generating": GENERATING.tolist(),
    }
    study = open_study("sparse_bolus", args, settings)
    dataset, times, y = simulate(n)
    truth = study.run("arbiter", lambda: arbiter(times, y))
    print(
        {
            key: truth[key]
            for key in ("exact", "coarse_minus_fine", "fine_minus_finest", "largest_gradient_times_se")
        }
    )
    show(args, "sparse_bolus ladder", ladder_table(study.run("ladder", lambda: ladder(dataset, truth))))
    names = ("quadrature", "laplace", "focei", "fo") if args.small else tuple(METHODS)
    rows = {name: study.run(name, lambda m=METHODS[name]: one(dataset, times, y, m)) for name in names}
    show(args, "sparse_bolus", distance_table(rows, truth))


if __name__ == "__main__":
    main()
