"""Warfarin, ten subjects: every classical method beside published values, with and without a BLQ limit.

    python experiments/classical/warfarin.py            all of it
    python experiments/classical/warfarin.py --small    two methods

Published: ferx-core (AGQ, its FOCEI, nlmixr2 FOCEI), NONMEM 7.5.1 for the censored table (LAPLACE INTER with
M3). Their objectives drop n log 2 pi of the n quantified observations; here ours do too. The likelihoods are
also evaluated at the published estimates: the difference there is arithmetic alone, no optimizer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from study import HERE, LOG_2PI, Row, Study, fit_row, markdown, open_study, options, show

from amortnlme.data.event_table import read_csv
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.classical import Fo, Foce, Focei, Laplace, Quadrature
from amortnlme.methods.fit import fit
from amortnlme.methods.laplace_likelihood import LaplaceLikelihood
from amortnlme.methods.likelihood_fit import ModalObjective
from amortnlme.methods.quadrature_likelihood import QuadratureLikelihood
from amortnlme.methods.saem import Saem
from amortnlme.model.registry import load_model
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

MODEL = str(HERE / "models" / "warfarin_cl.py")
POPULATION = PopulationModel(random_effects=RandomEffects(("CL", "V", "ka")))
SETTINGS = {"seed": 1, "quadrature_nodes": 9}
METHODS: dict[str, AbstractMethod] = {
    "quadrature": Quadrature(n_nodes=9),
    "saem": Saem(),
    "laplace": Laplace(),
    "focei": Focei(),
    "foce": Foce(),
    "fo": Fo(),
}


@dataclass(frozen=True)
class Published:
    """CL, V, ka, their variances, residual SD, and the objective without n log 2 pi."""

    who: str
    values: tuple[float, ...]
    objective: float
    approximation: str = ""  # which of our likelihoods to evaluate at the values


TABLES = {
    "warfarin": (
        Published(
            "AGQ, 9 nodes (ferx)",
            (0.132687, 7.73746, 0.81090, 0.028592, 0.009592, 0.336036, 0.010565),
            -285.977,
            "quadrature",
        ),
        Published(
            "ferx FOCEI",
            (0.132695, 7.73771, 0.81080, 0.028590, 0.009592, 0.335871, 0.010565),
            -286.004,
            "focei",
        ),
        Published(
            "nlmixr2 FOCEI",
            (0.132738, 7.73851, 0.82849, 0.030642, 0.010205, 0.342155, 0.010574),
            -285.947,
            "focei",
        ),
    ),
    "warfarin_bloq": (
        Published(
            "NONMEM LAPLACE INTER",
            (0.13280, 7.7314, 0.80982, 0.028849, 0.0095440, 0.33577, 0.010760),
            -216.78754391843171,
            "laplace",
        ),
    ),
}
FILES = {"warfarin": "warfarin_10.csv", "warfarin_bloq": "warfarin_bloq.csv"}
COLUMNS = ("", "CL", "V", "ka", "var CL", "var V", "var ka", "sigma", "own criterion", "-2LL by referee")


def one(table: str, method: AbstractMethod) -> Row:
    result = fit(read_csv(HERE / "data" / FILES[table]), POPULATION, method, model=MODEL, seed=1)
    values = [*np.exp(result.theta[:3]), *np.diagonal(result.omega)[:3], result.sigma["b"]]
    constant = (result.n_observations - result.n_censored) * LOG_2PI
    return fit_row(result) | {
        "values": values,
        "criterion_nonmem": result.criterion - constant,
        "ofv_nonmem": result.ofv_nonmem,
    }


def at_published(table: str, published: Published) -> Row:
    """Our value of the same approximation at their estimates."""
    dataset, model = read_csv(HERE / "data" / FILES[table]), load_model(MODEL)
    bound, population = (
        model.bind(dataset),
        POPULATION.bind(dataset.covariate_table(), model.parameters),
    )
    v = published.values
    x = np.array([*np.log(v[:3]), np.log(v[6]), *np.sqrt(v[3:6])])
    objective: ModalObjective
    if published.approximation == "quadrature":
        objective = QuadratureLikelihood(bound, population, 9)
    else:
        curvature = "observed" if published.approximation == "laplace" else "expected"
        objective = LaplaceLikelihood(bound, population, curvature)
    value = -2.0 * objective.value_and_scores(x)[0].sum()
    n = dataset.n_observations - sum(s.n_censored for s in dataset.subjects)
    return {"ours": value - n * LOG_2PI, "published": published.objective}


def table(study: Study, name: str, methods: tuple[str, ...]) -> str:
    rows = []
    for published in TABLES[name]:
        key = f"{name} at {published.who}"
        ours = study.run(key, lambda p=published: at_published(name, p))["ours"]
        objective = f"{published.objective:.3f} (ours at these values: {ours:.3f})"
        rows.append([published.who, *(f"{v:.6g}" for v in published.values), objective, "-"])
    for method in methods:
        row = study.run(f"{name} {method}", lambda m=method: one(name, METHODS[m]))
        own = "-" if row["criterion_nonmem"] is None else f"{row['criterion_nonmem']:.3f}"
        rows.append(
            [
                f"**{method}** ({row['status']})",
                *(f"{v:.6g}" for v in row["values"]),
                own,
                f"{row['ofv_nonmem']:.3f} +- {row['ofv_se']:.3f}",
            ]
        )
    return markdown(COLUMNS, rows)


def main() -> None:
    args = options("warfarin", __doc__ or "").parse_args()
    study = open_study("warfarin", args, SETTINGS)
    methods = ("quadrature", "focei") if args.small else tuple(METHODS)
    show(args, "warfarin", table(study, "warfarin", methods))
    # FO and FOCE linearize: they have no probability of a censored value and refuse the table.
    censored = tuple(m for m in methods if m not in ("fo", "foce"))
    show(args, "warfarin_bloq", table(study, "warfarin_bloq", censored))


if __name__ == "__main__":
    main()
