"""All 64 covariate models of the theophylline study by adaptive quadrature: the arbiter of every selection.

    python experiments/rohleff_2025/theophylline_exact.py

Three parameters times two covariates. Nine nodes per random effect: with more, no -2LL moves by 1e-3.
"""

from __future__ import annotations

import itertools

from selection_runs import Runs

import amortnlme
from amortnlme.population.candidates import parse_candidates

NODES = 9


def main() -> None:
    """Fit what is not stored yet, and print the table."""
    dataset = amortnlme.load_bundled("theophylline")
    base = amortnlme.PopulationModel(random_effects=amortnlme.RandomEffects(("ka", "ke", "V")))
    candidates = parse_candidates(["ka, ke, V ~ weight, sex"], dataset.covariate_table())
    runs = Runs("theophylline_exact")

    def work(chosen: tuple[str, ...]) -> dict:
        method = amortnlme.Quadrature(n_nodes=NODES, referee_points=32, referee_replicates=2)
        population = candidates.population(base, chosen)
        fit = amortnlme.fit(dataset, population, method, model="one_compartment_oral")
        # The quadrature value itself, not the importance-sampled one beside it.
        bicc = fit.bicc - fit.ofv + fit.criterion
        estimates = {row.name: row.value for row in fit.estimates}
        return {
            "chosen": list(chosen),
            "ofv": fit.criterion,
            "bicc": bicc,
            "status": fit.status,
            "estimates": estimates,
        }

    rows = []
    for size in range(len(candidates.names) + 1):
        for chosen in itertools.combinations(candidates.names, size):
            rows.append(runs.run(" ".join(chosen) or "none", lambda chosen=chosen: work(chosen)))
    rows.sort(key=lambda row: row["bicc"])
    for row in rows[:12]:
        names = ", ".join(row["chosen"]) or "none"
        print(f"{row['bicc']:8.2f} {row['ofv']:8.2f} {row['status']:14s} {names}")


if __name__ == "__main__":
    main()
