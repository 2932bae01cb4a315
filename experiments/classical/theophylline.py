"""Theophylline: every classical method against the exact maximum-likelihood estimates.

    PYTHONPATH=tests python experiments/classical/theophylline.py            all of it
    PYTHONPATH=tests python experiments/classical/theophylline.py --small    one population, three methods

Three tables: distances to the exact optimum of four population models; what 20 random starts end in; the
public example theo_sd. The exact values are those of tests/reference (quadrature with its own closed form).
"""

from __future__ import annotations

import json

import numpy as np
from reference.quadrature import COVARIATE_COLUMNS, objective, read_theophylline
from study import HERE, LOG_2PI, ROOT, Row, Study, fit_row, markdown, open_study, options, show

from amortnlme.data.bundled import load_bundled
from amortnlme.data.event_table import read_csv
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.classical import Fo, Foce, Focei, Laplace, Quadrature
from amortnlme.methods.fit import fit
from amortnlme.methods.saem import Saem
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.toml import read_population

MODEL = "one_compartment_oral"
METHODS: dict[str, AbstractMethod] = {
    "quadrature": Quadrature(n_nodes=7),
    "saem": Saem(),
    "laplace": Laplace(),
    "focei": Focei(),
    "foce": Foce(),
    "fo": Fo(),
}
SETTINGS = {"seed": 1, "quadrature_nodes": 7, "starts": 20, "start_seed": 2}
#: nlmixr2 documentation, FOCEI: ln ka, ln CL, ln V with SEs, additive SD, IIV CV % and -2LL - n log 2 pi.
PUBLISHED = {
    "ln ka": (0.4655, 0.1954),
    "ln CL": (1.012, 0.0756),
    "ln V": (3.460, 0.0429),
    "additive SD": (0.6947, 0.0926),
    "CV ka %": (70.5, None),
    "CV CL %": (26.8, None),
    "CV V %": (13.9, None),
    "objective": (116.8036, None),
}


def truths() -> Row:
    path = ROOT / "tests" / "reference" / "theophylline_exact.json"
    return json.loads(path.read_text(encoding="utf-8"))["models"]


def population(name: str) -> PopulationModel:
    return read_population(HERE.parent / "theophylline" / "populations" / f"theophylline_{name}.toml")


def against_truth(name: str, method: AbstractMethod) -> Row:
    """A fit, its exact -2LL above the exact minimum, and its distances in exact standard errors."""
    result = fit(load_bundled("theophylline"), population(name), method, model=MODEL, seed=SETTINGS["seed"])
    # The reference has log a last.
    x = np.array([*result.x[:3], *result.x[4:], result.x[3]])
    truth = truths()[name]
    exact = objective(read_theophylline(), name, x, nodes=13)
    row = fit_row(result) | {"above_minimum": exact - truth["minus_two_log_likelihood"], "exact": exact}
    if "se" in truth:
        z = (x - truth["x"]) / truth["se"]
        n_fixed = 3 + len(COVARIATE_COLUMNS[name])
        row |= {"z_fixed": z[:n_fixed], "z_omega": z[n_fixed:-1], "z_a": z[-1]}
    return row


def many_starts(method: AbstractMethod) -> Row:
    result = fit(
        load_bundled("theophylline"),
        population("none"),
        method,
        model=MODEL,
        seed=SETTINGS["start_seed"],
    )
    entry = next(stage for stage in result.trace if stage["stage"] == "starts")
    return fit_row(result) | {"start_objectives": list(entry["start_objectives"])}


def against_nlmixr2(method: AbstractMethod) -> Row:
    effects = PopulationModel(random_effects=RandomEffects(("ka", "CL", "V")))
    dataset, model = read_csv(HERE / "data" / "theo_sd.csv"), str(HERE / "models" / "oral_clearance.py")
    result = fit(dataset, effects, method, model=model)
    value = result.ofv if np.isnan(result.criterion) else result.criterion
    cv = 100.0 * np.sqrt(np.expm1(np.diagonal(result.omega)[:3]))
    errors = [None] * 4 if result.covariance is None else np.sqrt(np.diagonal(result.covariance))[:4]
    found = [*result.theta[:3], result.sigma["a"], *cv, value - result.n_observations * LOG_2PI]
    return fit_row(result) | {"published_names": list(PUBLISHED), "found": found, "found_se": errors}


def distance_table(study: Study, names: tuple[str, ...], methods: tuple[str, ...]) -> str:
    rows = []
    for name in names:
        for method in methods:
            row = study.run(f"{name} {method}", lambda n=name, m=method: against_truth(n, METHODS[m]))
            z = "-"
            if "z_a" in row:
                z = f"{_largest(row['z_fixed'])} / {_largest(row['z_omega'])} / {abs(row['z_a']):.3f}"
            rows.append(
                [
                    name,
                    method,
                    f"{row['above_minimum']:.4f}",
                    z,
                    f"{row['ofv']:.2f} +- {row['ofv_se']:.2f}",
                    "-" if row["criterion"] is None else f"{row['criterion']:.3f}",
                    row["status"],
                    f"{row['cpu_s']:.1f}",
                ]
            )
    titles = ("population", "method", "above exact minimum", "distance (SE)", "-2LL by referee")
    return markdown((*titles, "own criterion", "status", "CPU s"), rows)


def _largest(values: list[float]) -> str:
    return f"{max(abs(v) for v in values):.3f}"


def start_table(study: Study, methods: dict[str, AbstractMethod]) -> str:
    rows = []
    for name, method in methods.items():
        row = study.run(f"starts {name}", lambda m=method: many_starts(m))
        values = np.array([np.inf if v is None else v for v in row["start_objectives"]])
        ka, ke = row["estimates"]["ka"][0], row["estimates"]["ke"][0]
        near = int((values < values.min() + 0.3).sum())
        rows.append(
            [name, f"{ka:.3f}", f"{ke:.4f}", f"{near} of {len(values)}", f"{values.max() - values.min():.2f}"]
        )
    return markdown(("method", "ka", "ke", "starts within 0.3 of the best", "worst - best"), rows)


def public_table(study: Study, methods: tuple[str, ...]) -> str:
    rows = [["nlmixr2 FOCEI", *(f"{v:g}" + (f" ({se:g})" if se else "") for v, se in PUBLISHED.values())]]
    for method in methods:
        row = study.run(f"theo_sd {method}", lambda m=method: against_nlmixr2(METHODS[m]))
        errors = [*(row["found_se"] or [None] * 4)[:4], *[None] * 4]
        digits = [4, 4, 4, 4, 1, 1, 1, 3]
        rows.append(
            [
                method,
                *(
                    f"{v:.{n}f}" + (f" ({se:.4f})" if se else "")
                    for v, se, n in zip(row["found"], errors, digits, strict=True)
                ),
            ]
        )
    return markdown(("", *PUBLISHED), rows)


def main() -> None:
    args = options("theophylline", __doc__ or "").parse_args()
    study = open_study("theophylline", args, SETTINGS)
    names = ("none",) if args.small else tuple(COVARIATE_COLUMNS)
    methods = ("quadrature", "focei", "fo") if args.small else tuple(METHODS)
    show(args, "theophylline", distance_table(study, names, methods))
    show(
        args,
        "theo_sd",
        public_table(study, ("focei",) if args.small else ("focei", "laplace", "quadrature", "saem")),
    )
    n = 3 if args.small else SETTINGS["starts"]
    many: dict[str, AbstractMethod] = {"focei": Focei(starts=n)}
    if not args.small:
        many |= {"laplace": Laplace(starts=n), "saem": Saem(starts=n)}
    show(args, "theophylline starts", start_table(study, many))


if __name__ == "__main__":
    main()
