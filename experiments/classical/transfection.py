"""Transfected cells: SAEM from 20 starts beside Monolix's stored runs.

    python experiments/classical/transfection.py                                   all of it (hours)
    python experiments/classical/transfection.py --models simple --sizes 50 100    part of it
    python experiments/classical/transfection.py --small                           10 cells, 2 starts

Data and stored runs: `--data`, the folder with synthetic_transfection/ and reference_results/ (Arruda et al.
2024, MIT licence; not part of this repository). Each start is one run, stored when it is done. The stored
objectives of Monolix are linearized for the simple model, so its best estimates are evaluated anew, by the
same importance sampling as ours. Its omegas are SDs; they are squared here. Truth: sample moments of the
very cells that were fitted. MSE as in the reference: mean square over means and variances of all parameters
on the log scale, variances floored at 0.001, the better of the two roles of delta and gamma (simple model).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from study import ROOT, Row, Study, fit_row, markdown, open_study, options, show

from amortnlme.core.rng import stream
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.subject import Subject
from amortnlme.methods import saem
from amortnlme.methods.data_start import individual_moments
from amortnlme.methods.ebe import better_modes, find_ebe
from amortnlme.methods.fit import fit
from amortnlme.methods.referee import referee
from amortnlme.model.registry import load_model
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

VARIANCE_FLOOR = 0.001
#: A start is in the best mode when its -2LL is within this of the best one, plus three Monte-Carlo SEs.
SAME_MODE = 10.0
#: Options of SAEM that are stored with the runs.
OPTIONS = ("n_exploration", "max_exploration", "n_averaging", "n_chains", "candidates", "referee_points")


@dataclass(frozen=True)
class Cells:
    """One of the two models with its files; `monolix` names its parameters there, the residual SD apart."""

    model: str
    data: str
    truth: str
    monolix: tuple[str, ...]
    swap: tuple[int, int] | None
    method: saem.Saem


KINDS = {
    "simple": Cells(
        "mrna_transfection_simple",
        "simple_v1_n500_monolix.csv.gz",
        "simple_v1_population_truth.csv",
        ("delta", "gamma", "km0scale", "tBegin", "offset"),
        (0, 1),
        saem.Saem(referee_points=1024),
    ),
    "detailed": Cells(
        "mrna_transfection_detailed",
        "detailed_n500_wide.csv.gz",
        "detailed_population_truth.csv",
        (
            "delta1m0", "delta2", "e0_m0", "k2m0scale", "k2",
            "k1m0", "r0_m0", "gamma", "tBegin", "offset",
        ),
        None,
        # An ODE without closed form: derivatives cost twelve likelihoods. Nodes beside those of the tempered
        # cells, which are nearly all, and standard errors are kept cheap.
        saem.Saem(
            max_exploration=250, n_averaging=100, n_chains=2, candidates=6, n_points=16, referee_points=128,
        ),
    ),
}  # fmt: skip


def read_cells(folder: Path, kind: Cells, n: int) -> Dataset:
    """The first n cells (the smaller sets are nested in the larger ones)."""
    table = pd.read_csv(folder / "synthetic_transfection" / kind.data)
    if "variable" in table.columns:
        table = table.pivot(index="variable", columns="time", values="value")
    else:
        table = table.set_index("cell")
    design = Design.from_doses([], np.asarray(table.columns, dtype=float))
    ids = [f"cell_{i}" for i in range(n)]
    subjects = [Subject.from_observations(name, design, table.loc[name].to_numpy(float)) for name in ids]
    return Dataset(tuple(subjects), name=f"{kind.model}, {n} cells")


def population(kind: Cells) -> PopulationModel:
    """Random effects on everything but the residual SD, independent: as Monolix was run."""
    names = load_model(kind.model).parameters.names
    return PopulationModel(random_effects=RandomEffects(names[:-1]))


def moments_of_truth(folder: Path, kind: Cells, n: int) -> tuple[np.ndarray, np.ndarray]:
    table = pd.read_csv(folder / "synthetic_transfection" / kind.truth)
    # A small study has no stored moments of its own; those of 50 cells only check the script then.
    row = table[table["n"] == str(n if n >= 50 else 50)].iloc[0]
    names = [column.removeprefix("mean_") for column in table.columns if column.startswith("mean_")]
    mean = np.array([float(row[f"mean_{name}"]) for name in names])
    return mean, np.array([float(row[f"var_{name}"]) for name in names])


def squared_error(
    mean: np.ndarray, variance: np.ndarray, truth: tuple[np.ndarray, np.ndarray], kind: Cells
) -> float:
    orders = [np.arange(len(mean))]
    if kind.swap is not None:
        orders.append(orders[0].copy())
        orders[1][list(kind.swap)] = kind.swap[::-1]
    true_variance = np.maximum(truth[1], VARIANCE_FLOOR)
    errors = [
        np.concatenate([mean[o] - truth[0], np.maximum(variance[o], VARIANCE_FLOOR) - true_variance])
        for o in orders
    ]
    return min(float(np.mean(error**2)) for error in errors)


def one_start(folder: Path, kind: Cells, n: int, number: int, n_starts: int, method: saem.Saem) -> Row:
    """Run SAEM from one of the starts that Saem(starts=n_starts) would use."""
    dataset, original = read_cells(folder, kind, n), saem.data_starts

    def only(target, prior, bound, count, rng):
        return original(target, prior, bound, n_starts * method.candidates, rng)[number::n_starts]

    # One start at a time, so that finished ones are kept and each has its own time.
    with mock.patch.object(saem, "data_starts", only):
        result = fit(dataset, population(kind), method, model=kind.model, seed=number + 1)
    truth = moments_of_truth(folder, kind, n)
    mse = squared_error(result.theta, np.diagonal(result.omega), truth, kind)
    return fit_row(result) | {"mse": mse}


def at_monolix(folder: Path, name: str, kind: Cells, n: int) -> Row:
    """-2LL by importance sampling at the best of Monolix's stored estimates, and the spread of its runs."""
    runs = pd.read_csv(folder / "reference_results" / f"saem_all_runs_{name}.csv.gz")
    runs = runs[runs["n"] == n].reset_index(drop=True)
    truth = moments_of_truth(folder, kind, n)
    theta = np.column_stack([runs[[f"{k}_pop" for k in kind.monolix]].to_numpy(), np.log(runs["a"])])
    sd = runs[[f"omega_{k}" for k in kind.monolix]].to_numpy()
    variance = np.column_stack([sd**2, np.zeros(len(runs))])
    mse = [squared_error(m, v, truth, kind) for m, v in zip(theta, variance, strict=True)]
    best = int(np.argmin(runs["OFV"]))
    model, dataset = load_model(kind.model), read_cells(folder, kind, n)
    bound = model.bind(dataset)
    bound_population = population(kind).bind(dataset.covariate_table(), model.parameters)
    mu, factor = bound_population.unpack(np.concatenate([theta[best], sd[best]]))
    alone = individual_moments(bound, model.prior, n)[0]
    start = np.linalg.lstsq(factor, (alone - mu).T, rcond=None)[0].T
    modes = better_modes(find_ebe(bound, mu, factor), find_ebe(bound, mu, factor, start=start))
    verdict = referee(bound, mu, factor, modes, stream(1), kind.method.referee_points)
    return {
        "runs": len(runs),
        "stored_best": float(runs["OFV"].min()),
        "stored_median": float(runs["OFV"].median()),
        "stored_share": float((runs["OFV"] < runs["OFV"].min() + SAME_MODE).mean()),
        "ofv": verdict.ofv,
        "ofv_se": verdict.ofv_se,
        "lowest_ess": float(verdict.ess.min()),
        "mse_best": mse[best],
        "mse_median": float(np.median(mse)),
        "seconds": float((runs["t_saem_s"] + runs["t_se_s"]).median()),
    }


def monolix_cells(row: Row) -> list[str]:
    return [
        f"Monolix, {row['runs']} starts",
        f"{row['ofv']:.1f} +- {row['ofv_se']:.1f} (stored {row['stored_best']:.1f})",
        f"(stored {row['stored_median']:.1f})",
        f"{row['mse_best']:.3f}",
        f"{row['mse_median']:.3f}",
        f"{100 * row['stored_share']:.0f} %",
        f"{row['seconds']:.0f} (8 cores)",
    ]


def our_cells(rows: list[Row]) -> list[str]:
    value = np.array([np.inf if r["ofv"] is None else r["ofv"] for r in rows])
    error = np.array([0.0 if r["ofv_se"] is None else r["ofv_se"] for r in rows])
    best = int(np.argmin(value))
    near = value < value[best] + SAME_MODE + 3.0 * np.hypot(error, error[best])
    mse = np.array([r["mse"] for r in rows])
    return [
        f"SAEM, {len(rows)} starts",
        f"{value[best]:.1f} +- {error[best]:.1f}",
        f"{np.median(value):.1f}",
        f"{mse[best]:.3f}",
        f"{np.median(mse):.3f}",
        f"{100 * near.mean():.0f} %",
        f"{np.median([r['wall_s'] for r in rows]):.0f} ({np.median([r['cpu_s'] for r in rows]):.0f} CPU)",
    ]


def table(args: argparse.Namespace, study: Study, sizes: list[int], n_starts: int) -> str:
    lines = []
    for name in args.models:
        kind, method = KINDS[name], KINDS[name].method
        if args.small:
            # Far too short to settle: it is the script that is checked.
            method = saem.Saem(50, 50, 20, n_chains=2, n_points=32, referee_points=64)
        for n in sizes:
            rows = []
            if n >= 50:
                key = f"{name} n={n} Monolix"
                row = study.run(key, lambda k=kind, m=name, c=n: at_monolix(args.data, m, k, c))
                lines.append([name, str(n), *monolix_cells(row)])
            for number in range(n_starts):
                key = f"{name} n={n} start {number + 1}"
                work = lambda k=kind, c=n, s=number, m=method: one_start(args.data, k, c, s, n_starts, m)  # noqa: E731
                rows.append(study.run(key, work))
            lines.append([name, str(n), *our_cells(rows)])
    titles = ("model", "cells", "", "best -2LL", "median -2LL", "MSE of the best", "median MSE")
    return markdown((*titles, "starts in the best mode", "s per start"), lines)


def main() -> None:
    parser = options("transfection", __doc__ or "")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--models", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 500])
    parser.add_argument("--starts", type=int, default=20)
    args = parser.parse_args()
    sizes, n_starts = ([10], 2) if args.small else (args.sizes, args.starts)
    methods = {name: {k: getattr(KINDS[name].method, k) for k in OPTIONS} for name in args.models}
    settings = {"starts": n_starts, "methods": methods}
    study = open_study("transfection", args, settings)
    show(args, "transfection", table(args, study, sizes, n_starts))


if __name__ == "__main__":
    main()
