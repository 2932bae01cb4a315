"""Score an estimator against the exact posteriors of single subjects.

Prints, for every subject, how far the raw and the importance-corrected draws are from the exact posterior
under the same prior: k-NN C2ST (k = 25, 1000 draws each), the largest first Wasserstein distance in posterior
SDs, the mass of one of two modes, ESS / M and Pareto k; then the verdicts. Subjects whose weights are bad are
corrected again by `escalate`: "corr." is after that.

The mode is delta > gamma in the simple transfection model, whose two rates can swap; elsewhere the larger of
two clusters of the exact draws, with how many SDs lie between them ("split": 2.65 when one normal law is cut
in half, clearly more where there are two modes).

    python score.py ARTEFACT [--subjects 20] [--data CELLS.csv.gz] [--exact FOLDER] [--out FILE.json]

Subjects are simulated from the estimator's own prior and designs, or read from a wide table (a row for each
cell, a column for each time). Exact posteriors take minutes; --exact keeps them, five subjects a file, and
goes on where an interrupted run stopped. --store puts the verdicts into the calibration record of the
artefact and into its card.
"""

from __future__ import annotations

import argparse
import json
from functools import cache, partial
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.cluster.vq import kmeans2
from simple_transfection import TransfectedCells
from tempering import Effort, exact_posterior

from amortnlme.core.rng import generator, stream
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.subject import Subject
from amortnlme.diagnostics.two_sample import classifier_two_sample, marginal_wasserstein
from amortnlme.methods.escalation import escalate
from amortnlme.methods.importance import importance_correct
from amortnlme.model.registry import load_model
from amortnlme.neural.sentinel import simulated_dataset

SIMPLE = "mrna_transfection_simple"
GROUP = 5
# Name of the check, column, statistic, bar and whether the statistic may exceed it.
CHECKS = (
    ("raw_draws_near_exact_posteriors", "C2ST", np.median, 0.62, False),
    ("corrected_draws_at_exact_posteriors", "corr. C2ST", np.median, 0.56, False),
    ("pareto_k_good_in_9_of_10", "corr. k-hat", lambda k: (k <= 0.7).mean(), 0.9, True),
)
COLUMNS = ("records", "R-hat", "split", "C2ST", "W1", "mass", "exact mass", "ESS/M", "k-hat",
           "corr. ESS/M", "corr. k-hat", "corr. C2ST", "corr. W1", "corr. mass")  # fmt: skip


def simulated_subjects(model, n, seed):
    """n subjects from prior and design sampler of the model."""
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


def solver_likelihood(model, dataset):
    """Log likelihood by the model's own solver (which is held against SciPy's in the tests)."""

    @cache
    def bound(rows):
        return model.bind(dataset.select([dataset.ids[row] for row in rows]))

    def log_likelihood(phi, subject):
        rows, first, count = np.unique(subject, return_index=True, return_counts=True)
        # A subject whose populations are at the posterior earlier has fewer left; it repeats its first one.
        place = np.arange(count.max())
        index = first[:, None] + np.where(place < count[:, None], place, 0)
        together = phi[index].reshape(len(rows), -1, phi.shape[-1])
        value = bound(tuple(rows.tolist())).log_likelihood(together).reshape(*index.shape, -1)
        return value[place < count[:, None]]

    return log_likelihood


def jump_between_modes(model):
    """A guess at how modes are related, for the sampler: mRNA and protein exchange their rates of decay.

    In the detailed model the mRNA decays at about delta1_m0 e0_m0.
    """
    names = list(model.parameters.names)
    swap = np.eye(len(names))
    if model.name == SIMPLE:
        mrna, protein, enzyme = names.index("delta"), names.index("gamma"), None
    elif model.name == "mrna_transfection_detailed":
        mrna, protein, enzyme = names.index("delta1_m0"), names.index("gamma"), names.index("e0_m0")
    else:
        return None
    swap[[mrna, protein]] = swap[[protein, mrna]]
    if enzyme is not None:
        swap[mrna, enzyme], swap[protein, enzyme] = -1.0, 1.0
    return swap


def exact_draws(model, dataset, seed, effort, folder):
    """Exact posterior draws (S, N, d) and R-hat (S, d), group by group, from `folder` where it has them."""
    normal = {name: np.array(model.prior.to_config()[name]) for name in ("mean", "sd")}
    phi, r_hat = [], []
    for first in range(0, dataset.n_subjects, GROUP):
        part = dataset.select(dataset.ids[first : first + GROUP])
        path = None if folder is None else folder / f"{part.fingerprint.removeprefix('sha256:')[:16]}.npz"
        if path is None or not path.exists():
            closed_form = TransfectedCells.of(part).log_likelihood if model.name == SIMPLE else None
            found = exact_posterior(
                closed_form or solver_likelihood(model, part),
                part.n_subjects,
                normal["mean"],
                normal["sd"],
                stream(seed, first),
                effort,
                jump_between_modes(model),
            )
            phi.append(found.phi)
            r_hat.append(found.r_hat)
            print(f"subjects {', '.join(part.ids)}: R-hat up to {found.r_hat.max():.3f}", flush=True)
            if path is not None:
                folder.mkdir(parents=True, exist_ok=True)
                np.savez(path, phi=found.phi, r_hat=found.r_hat)
        else:
            stored = np.load(path)
            phi.append(stored["phi"])
            r_hat.append(stored["r_hat"])
    return np.concatenate(phi), np.concatenate(r_hat)


def faster(phi):
    """Whether mRNA decays faster than protein."""
    return phi[:, 0] > phi[:, 1]


def larger_cluster(phi, center, spread, centers):
    """Whether draws lie nearer to the first of two centers, in posterior SDs."""
    z = (phi - center) / spread
    distance = ((z[:, None] - centers) ** 2).sum(axis=-1)
    return distance[:, 0] < distance[:, 1]


def modes_of(exact, model_name):
    """How to tell two modes apart, and how many SDs lie between them."""
    if model_name == SIMPLE:
        return faster, np.nan
    center, spread = exact.mean(axis=0), exact.std(axis=0)
    z = (exact - center) / spread
    found, label = kmeans2(z, 2, seed=generator(1), minit="++")
    order = np.argsort(-np.bincount(label, minlength=2))
    axis = found[0] - found[1]
    along = z @ (axis / np.linalg.norm(axis))
    sd = np.array([along[label == group].std() for group in (0, 1)])
    # Ashman's D; cutting one normal law in two halves gives 2.65.
    split = np.linalg.norm(axis) / np.sqrt((sd**2).mean())
    return partial(larger_cluster, center=center, spread=spread, centers=found[order]), float(split)


def score(estimator, dataset, exact, r_hat, n_draws, seed):
    """One row of COLUMNS for each subject, raw and corrected draws."""
    raw = estimator.sample(dataset, n_draws, generator(seed))
    first = importance_correct(raw, estimator.model.bind(dataset), generator(seed + 1))
    again = generator(seed + 3)
    corrected = escalate(raw, first, lambda ids: estimator.model.bind(dataset.select(ids)), again)
    rows = []
    for i, subject in enumerate(dataset.subjects):
        a, b, c = raw.phi[i], exact[i], corrected.draws.phi[i]
        in_mode, split = modes_of(b, estimator.model.name)
        rows.append([
            subject.n_observed,
            r_hat[i].max(),
            split,
            classifier_two_sample(a, b, stream(9, i)),
            marginal_wasserstein(a, b).max(),
            in_mode(a).mean(),
            in_mode(b).mean(),
            first.ess[i] / n_draws,
            first.pareto_k[i],
            corrected.ess[i] / n_draws,
            corrected.pareto_k[i],
            classifier_two_sample(c, b, stream(9, i)),
            marginal_wasserstein(c, b).max(),
            in_mode(c).mean(),
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


def modes_figure(path, dataset, parameters, columns, exact, raw, corrected):
    """Two parameters of the first eight subjects: exact draws, the network's draws, corrected draws."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.5, 5.8), layout="constrained")
    samples = ((exact, "exact", "0.75"), (raw.phi, "network", "C0"), (corrected.draws.phi, "corrected", "C3"))
    panels = figure.subplots(3, 8)
    i, j = columns
    for row, (phi, label, color) in zip(panels, samples, strict=True):
        for s, panel in enumerate(row[: dataset.n_subjects]):
            panel.plot(phi[s, :1000, i], phi[s, :1000, j], ".", ms=1.5, color=color)
            for limits, column in ((panel.set_xlim, i), (panel.set_ylim, j)):
                limits(exact[s][:, column].min() - 0.5, exact[s][:, column].max() + 0.5)
            panel.set_title(f"{dataset.ids[s]}, {label}", fontsize=8)
            panel.tick_params(labelsize=7)
    first, second = (parameters.parameters[column] for column in columns)
    figure.supxlabel(f"{first.transform} {first.name} ({first.unit})")
    figure.supylabel(f"{second.transform} {second.name} ({second.unit})")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def model_of(artefact):
    """Model that an artefact, a folder or a shipped name, belongs to."""
    folder = Path(artefact)
    if not folder.is_dir():
        folder = Path(str(resources.files("amortnlme.trained_models"))) / artefact
    return load_model(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model"]["name"])


def options_of_the_command():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artefact", help="folder or name of an estimator, or of a model with --exact-only")
    parser.add_argument("--subjects", type=int, default=20)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--exact", type=Path)
    parser.add_argument("--exact-only", action="store_true", help="sample the exact posteriors and stop")
    parser.add_argument("--particles", type=int, default=Effort().n)
    parser.add_argument("--moves", type=int, default=Effort().moves)
    parser.add_argument("--max-blocks", type=int, default=Effort().max_blocks)
    parser.add_argument("--r-hat", type=float, default=Effort().bar)
    parser.add_argument("--axes", type=int, nargs=2, default=(0, 1), help="columns of phi in the figure")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--store", action="store_true")
    return parser.parse_args()


def main():
    """Print the table and the verdicts."""
    options = options_of_the_command()
    model = load_model(options.artefact) if options.exact_only else model_of(options.artefact)
    if options.data is None:
        dataset = simulated_subjects(model, options.subjects, options.seed)
    else:
        dataset = read_cells(options.data, options.subjects)
    effort = Effort(
        n=options.particles, moves=options.moves, max_blocks=options.max_blocks, bar=options.r_hat
    )
    exact, r_hat = exact_draws(model, dataset, options.seed + 2, effort, options.exact)
    if options.exact_only:
        return
    # Late, so that a missing reference is not found out after the network was compiled.
    from amortnlme.neural.artefact import store_calibration
    from amortnlme.neural.estimator import Estimator

    estimator = Estimator.load(options.artefact)
    table, raw, corrected = score(estimator, dataset, exact, r_hat, options.draws, options.seed)
    print("| subject | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 1))
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
        "subjects": dict(zip(dataset.ids, table.round(4).tolist(), strict=True)),
        "verdicts": outcome,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.figure is not None:
        modes_figure(options.figure, dataset, model.parameters, options.axes, exact, raw, corrected)
    if options.store:
        checks = {name: row["passed"] for name, row in outcome.items()}
        record = dict(estimator.calibration or {})
        record["checks"] = record["checks"] | checks
        store_calibration(options.artefact, record | {"exact_posteriors": document})


if __name__ == "__main__":
    main()
