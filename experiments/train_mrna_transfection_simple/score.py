"""Score an estimator of the simple transfection model on single cells against exact posteriors.

Prints, for every cell, how far the raw and the importance-corrected draws are from the exact posterior under
the same prior: k-NN C2ST (k = 25, 1000 draws each), the largest first Wasserstein distance in posterior SDs,
the mass of the mode in which mRNA decays faster than protein, ESS / M and Pareto k; then the verdicts. Cells
whose weights are bad are corrected again by `escalate`: "corr." is after that.

    python score.py ARTEFACT [--cells 20] [--data CELLS.csv.gz] [--exact FILE.npz] [--out FILE.json] [--store]

Cells are simulated from the estimator's own prior and designs, or read from a wide table (a row for each
cell, a column for each time). Exact posteriors take minutes; --exact keeps them. --store puts the verdicts
into the calibration record of the artefact and into its card.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from exact import DELTA, GAMMA, Cells, exact_posterior

from amortnlme.core.rng import generator, stream
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.subject import Subject
from amortnlme.diagnostics.two_sample import classifier_two_sample, marginal_wasserstein
from amortnlme.methods.escalation import escalate
from amortnlme.methods.importance import importance_correct
from amortnlme.model.registry import load_model
from amortnlme.neural.sentinel import simulated_dataset

MODEL = "mrna_transfection_simple"
# Name of the check, column, statistic, bar and whether the statistic may exceed it.
CHECKS = (
    ("raw_draws_near_exact_posteriors", "C2ST", np.median, 0.62, False),
    ("corrected_draws_at_exact_posteriors", "corr. C2ST", np.median, 0.56, False),
    ("pareto_k_good_in_9_of_10", "corr. k-hat", lambda k: (k <= 0.7).mean(), 0.9, True),
)
COLUMNS = ("times", "R-hat", "C2ST", "W1", "mass", "exact mass", "ESS/M", "k-hat",
           "corr. ESS/M", "corr. k-hat", "corr. C2ST", "corr. W1", "corr. mass")  # fmt: skip


def simulated_cells(model, n, seed):
    """n cells from prior and design sampler of the model."""
    phi = model.prior.sample(n, stream(seed, 0))
    designs = model.design_sampler.sample(n, stream(seed, 1))
    return simulated_dataset(designs, model.simulate_batch(phi, designs, stream(seed, 2)).y)


def read_cells(path, n):
    """The first n cells of a wide table."""
    table = pd.read_csv(path, index_col="cell").iloc[:n]
    times = np.array([float(name) for name in table.columns])
    subjects = [
        Subject.from_observations(str(name), Design.from_doses([], times), row.to_numpy())
        for name, row in table.iterrows()
    ]
    return Dataset(tuple(subjects), name=Path(path).name)


def exact_draws(dataset, prior, seed, path):
    """Exact posterior draws, from `path` if it has them for this dataset."""
    if path is not None and path.exists():
        stored = np.load(path)
        if str(stored["dataset"]) == dataset.fingerprint:
            return stored["phi"], stored["r_hat"]
        raise SystemExit(f"{path} holds the posteriors of other cells. Delete it, or name another file.")
    y, observed, _, _ = dataset.y_padded()
    assert all(subject.observed.all() for subject in dataset.subjects)
    time = np.zeros(y.shape)
    for i, subject in enumerate(dataset.subjects):
        time[i, : subject.n_observed] = subject.design.observation_times
    cells = Cells(time, np.where(observed, y, 0.0), observed.sum(axis=1).astype(np.int64))
    normal = {name: np.array(prior.to_config()[name]) for name in ("mean", "sd")}
    exact = exact_posterior(cells, normal["mean"], normal["sd"], generator(seed))
    if path is not None:
        np.savez(path, phi=exact.phi, r_hat=exact.r_hat, dataset=dataset.fingerprint)
    return exact.phi, exact.r_hat


def faster_mass(phi):
    """Share of draws with delta > gamma."""
    return float((phi[:, DELTA] > phi[:, GAMMA]).mean())


def score(estimator, dataset, exact, r_hat, n_draws, seed):
    """One row of COLUMNS for each cell, raw and corrected draws."""
    raw = estimator.sample(dataset, n_draws, generator(seed))
    first = importance_correct(raw, estimator.model.bind(dataset), generator(seed + 1))
    again = generator(seed + 3)
    corrected = escalate(raw, first, lambda ids: estimator.model.bind(dataset.select(ids)), again)
    rows = []
    for i, subject in enumerate(dataset.subjects):
        a, b, c = raw.phi[i], exact[i], corrected.draws.phi[i]
        rows.append([
            subject.n_observed,
            r_hat[i].max(),
            classifier_two_sample(a, b, stream(9, i)),
            marginal_wasserstein(a, b).max(),
            faster_mass(a),
            faster_mass(b),
            first.ess[i] / n_draws,
            first.pareto_k[i],
            corrected.ess[i] / n_draws,
            corrected.pareto_k[i],
            classifier_two_sample(c, b, stream(9, i)),
            marginal_wasserstein(c, b).max(),
            faster_mass(c),
        ])  # fmt: skip
    return np.array(rows, dtype=float), raw, corrected


def verdicts(table):
    """What came out and what is asked, by name of the check."""
    out = {}
    for name, column, statistic, bar, more_is_better in CHECKS:
        found = float(statistic(table[:, COLUMNS.index(column)]))
        passed = found >= bar if more_is_better else found <= bar
        out[name] = {"found": round(found, 4), "bar": bar, "passed": bool(passed)}
    return out


def modes_figure(path, dataset, exact, raw, corrected):
    """The two rates of the first eight cells: exact draws, the network's draws, corrected draws."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.5, 5.8), layout="constrained")
    samples = ((exact, "exact", "0.75"), (raw.phi, "network", "C0"), (corrected.draws.phi, "corrected", "C3"))
    panels = figure.subplots(3, 8)
    for row, (phi, label, color) in zip(panels, samples, strict=True):
        for i, panel in enumerate(row[: dataset.n_subjects]):
            panel.plot(phi[i, :1000, DELTA], phi[i, :1000, GAMMA], ".", ms=1.5, color=color)
            low, high = exact[i][:, [DELTA, GAMMA]].min() - 0.5, exact[i][:, [DELTA, GAMMA]].max() + 0.5
            panel.set(xlim=(low, high), ylim=(low, high), aspect="equal")
            panel.set_title(f"cell {dataset.ids[i]}, {label}", fontsize=8)
            panel.tick_params(labelsize=7)
    figure.supxlabel("log delta (1/h)")
    figure.supylabel("log gamma (1/h)")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main():
    """Print the table and the verdicts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artefact")
    parser.add_argument("--cells", type=int, default=20)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--exact", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--store", action="store_true")
    options = parser.parse_args()
    model = load_model(MODEL)
    if options.data is None:
        dataset = simulated_cells(model, options.cells, options.seed)
    else:
        dataset = read_cells(options.data, options.cells)
    exact, r_hat = exact_draws(dataset, model.prior, options.seed + 2, options.exact)
    # Late, so that a missing reference is not found out after the network was compiled.
    from amortnlme.neural.artefact import store_calibration
    from amortnlme.neural.estimator import Estimator

    estimator = Estimator.load(options.artefact)
    table, raw, corrected = score(estimator, dataset, exact, r_hat, options.draws, options.seed)
    print("| cell | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 1))
    for label, row in zip((*dataset.ids, "median"), (*table, np.median(table, axis=0)), strict=True):
        print(f"| {label} | {row[0]:.0f} | {row[1]:.3f} | " + " | ".join(f"{v:.2f}" for v in row[2:]) + " |")
    outcome = verdicts(table)
    for name, row in outcome.items():
        print(f"{'passed' if row['passed'] else 'FAILED'}: {name} {row['found']:.3f} (bar {row['bar']})")
    print(f"wild draws redrawn: {int(raw.n_rejected.sum())} of {raw.phi[..., 0].size}")
    document = {
        "estimator": estimator.fingerprint,
        "dataset": dataset.fingerprint,
        "n_draws": options.draws,
        "columns": list(COLUMNS),
        "cells": dict(zip(dataset.ids, table.round(4).tolist(), strict=True)),
        "verdicts": outcome,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.figure is not None:
        modes_figure(options.figure, dataset, exact, raw, corrected)
    if options.store:
        checks = {name: row["passed"] for name, row in outcome.items()}
        record = dict(estimator.calibration or {})
        record["checks"] = record["checks"] | checks
        store_calibration(options.artefact, record | {"exact_posteriors": document})


if __name__ == "__main__":
    main()
