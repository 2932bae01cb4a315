"""Every selection method on theophylline against the 64 exact models, over seeds where it draws numbers.

    python experiments/rohleff_2025/theophylline_selection.py --methods amortized --seeds 20
    python experiments/rohleff_2025/theophylline_selection.py --methods saem --seeds 5
    python experiments/rohleff_2025/theophylline_selection.py --methods scm scm-lrt cossac samba

Needs `results/theophylline_exact.json` (theophylline_exact.py). Seconds are CPU seconds of the search on one
thread. The first amortized search of a process loads compiled code, and is thrown away.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from selection_runs import RESULTS, Row, Runs

import amortnlme
from amortnlme.methods.amortized_selection import AmortizedSelection
from amortnlme.methods.saem_selection import SaemSelection
from amortnlme.methods.selection import TIE, SelectionProblem
from amortnlme.methods.stepwise_selection import Cossac, Samba, Scm
from amortnlme.population.candidates import parse_candidates

METHODS = {
    "amortized": AmortizedSelection(),
    "saem": SaemSelection(),
    "scm": Scm(criterion="bicc"),
    "scm-lrt": Scm(criterion="p-value"),
    "cossac": Cossac(),
    "samba": Samba(),
}
N_DRAWS = 1000


def main() -> None:
    """Run what is not stored yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    dataset = amortnlme.load_bundled("theophylline")
    base = amortnlme.PopulationModel(random_effects=amortnlme.RandomEffects(("ka", "ke", "V")))
    candidates = parse_candidates(["ka, ke, V ~ weight, sex"], dataset.covariate_table())
    model = amortnlme.load_model("one_compartment_oral")
    runs, is_warm = Runs("theophylline_selection"), set[str]()
    estimators: list[amortnlme.Estimator] = []

    def work(name: str, seed: int) -> Row:
        draws = None
        if METHODS[name].needs_draws:
            if not estimators:
                estimators.append(amortnlme.Estimator.load("one_compartment_oral"))
            draws = estimators[0].sample(dataset, N_DRAWS, np.random.default_rng([7, seed]))
        problem = SelectionProblem.of(dataset, base, candidates, model, draws, seed)
        if METHODS[name].needs_draws and name not in is_warm:
            METHODS[name].search(problem)
            is_warm.add(name)
        before = time.process_time()
        found = METHODS[name].search(problem)
        seconds = time.process_time() - before
        return {"found": list(found.chosen), "runs": found.runs, "search_cpu_s": seconds}

    for name in options.methods:
        for seed in range(options.seeds):
            runs.run(f"{name} {seed}", lambda name=name, seed=seed: work(name, seed))
    _table(runs)


def _table(runs: Runs) -> None:
    exact = json.loads((RESULTS / "theophylline_exact.json").read_text(encoding="utf-8"))
    bicc = {frozenset(row["chosen"]): row["bicc"] for row in exact.values()}
    best = min(bicc.values())
    print(f"exact optimum: {sorted(min(bicc, key=lambda k: bicc[k]))}, BICc {best:.2f} ({len(bicc)} models)")
    print("| method | seeds | optimum | tie (< 2 units) | other | worst gap | runs | CPU s |")
    for name in METHODS:
        rows = [row for key, row in runs.rows.items() if key.rsplit(" ", 1)[0] == name]
        if not rows:
            continue
        gaps = np.array([bicc[frozenset(row["found"])] - best for row in rows])
        optimum, tie = int((gaps < 1e-6).sum()), int(((gaps >= 1e-6) & (gaps < TIE)).sum())
        seconds = np.median([row["search_cpu_s"] for row in rows])
        print(
            f"| {name} | {len(rows)} | {optimum} | {tie} | {len(rows) - optimum - tie} | {gaps.max():.2f} "
            f"| {rows[0]['runs']} | {seconds:.2f} |"
        )


if __name__ == "__main__":
    main()
