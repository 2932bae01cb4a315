"""The variational autoencoder on the studies of Rohleff et al. (2025): seeds, settings, exact likelihoods.

    PYTHONPATH=tests python experiments/rohleff_2025/vae.py theophylline --seeds 20
    python experiments/rohleff_2025/vae.py multiple --data FOLDER
    python experiments/rohleff_2025/vae.py neonates --data FOLDER

FOLDER holds the simulated tables of the authors (janrohleff/vae_nlme). Every run is stored in
results/vae_<study>.json; a script that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from selection_runs import Row, Runs
from vae_studies import Study, neonates, theophylline, theophylline_multiple

from amortnlme.core.rng import stream
from amortnlme.methods.classical import Focei
from amortnlme.methods.fit import problem_of
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.quadrature_likelihood import QuadratureLikelihood
from amortnlme.methods.vae import Vae
from amortnlme.methods.vae_search import VaeSchedule
from amortnlme.methods.vae_selection import VaeSelection
from amortnlme.model.bound import BoundModel
from amortnlme.neural.backend import backend_name

NEONATES = VaeSchedule(20, 20, 60, 20, n_steps=4)


def exact_value(study: Study, fit: PopulationFit) -> float | None:
    """-2LL at the estimates by quadrature; for theophylline by that of the tests, which shares no code."""
    if study.name == "neonates":
        return None
    if study.name == "theophylline":
        from reference.quadrature import minus_two_log_likelihood, read_theophylline

        population = problem_of(study.dataset, fit.population, study.model, 0).bound_population
        mu, factor = population.unpack(fit.x)
        return minus_two_log_likelihood(read_theophylline(), mu[:, :3], factor[:3], fit.sigma["a"], 15)
    problem = problem_of(study.dataset, fit.population, study.model, 0)
    assert isinstance(problem.bound_model, BoundModel)
    objective = QuadratureLikelihood(problem.bound_model, problem.bound_population, 9)
    return -2.0 * float(objective.value_and_scores(fit.x)[0].sum())


def row_of(study: Study, fit: PopulationFit, chosen: tuple[str, ...]) -> Row:
    """What is kept of a run."""
    exact = exact_value(study, fit)
    return {
        "chosen": list(chosen),
        "status": fit.status.value,
        "minus_two_elbo": fit.criterion,
        "ofv": fit.ofv,
        "ofv_se": fit.ofv_se,
        "exact": exact,
        "bicc": fit.bicc,
        "estimates": {row.name: row.value for row in fit.estimates},
        "seconds": dict(fit.seconds),
        "warnings": list(fit.warnings),
    }


def select(study: Study, method: Vae, seed: int) -> Row:
    """One search, refined or not as the method says."""
    result, fit = VaeSelection(method).search_and_fit(study.problem(seed))
    steps = [[step.action, list(step.chosen)] for step in result.steps]
    return row_of(study, fit, result.chosen) | {"steps": steps}


def per_step(study: Study) -> Row:
    """Milliseconds of a gradient step: the compiled pass of the network, and the simulator with gradient."""
    from amortnlme.neural.gaussian_head import GaussianHead
    from amortnlme.neural.recognition_model import RecognitionModel
    from amortnlme.neural.recognition_step import RecognitionTrainer

    bound, r = study.model.bind(study.dataset), len(study.base.random_effects.on)
    head = GaussianHead(np.zeros(r), np.ones(r), np.zeros(r))
    encoder = RecognitionModel.untrained(
        study.model, study.dataset, study.base.random_effects.on, (), head, kind="lstm", width=25, seed=0
    )
    given = encoder.input(study.model, study.dataset)
    trainer = RecognitionTrainer(encoder.network, encoder.shape, given.tokens, given.mask, given.conditions)
    rng = stream(0, 0)
    shape = (study.dataset.n_subjects, 4, study.model.d)
    phi = study.model.parameters.typical_phi + 0.1 * rng.standard_normal(shape)
    times = {}
    for name, work in (
        ("network_ms", lambda: trainer.step(np.ones_like(trainer.numbers), 1e-3)),
        ("simulator_ms", lambda: bound.log_likelihood_and_gradient(phi)),
    ):
        work()
        start = time.process_time()
        for _ in range(300):
            work()
        times[name] = (time.process_time() - start) / 300 * 1e3
    return times


def by_focei(study: Study, chosen: list[str]) -> Row:
    """The same covariates by FOCEI: what the encoder's laws cost in -2LL."""
    fit = study.problem(0).fit(chosen, Focei())
    return row_of(study, fit, tuple(chosen))


def main() -> None:
    """Run what is not stored yet, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", choices=("theophylline", "multiple", "neonates"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--published", type=int, default=0, help="seeds of the published settings")
    given = parser.parse_args()
    makers = {
        "theophylline": theophylline,
        "multiple": lambda: theophylline_multiple(given.data),
        "neonates": lambda: neonates(given.data),
    }
    study = makers[given.study]()
    runs = Runs(f"vae_{study.name}_{backend_name()}")
    ours = Vae(width=study.width)
    if study.name == "neonates":
        # Refining five random effects of 189 subjects takes a hundred times what the encoder takes.
        ours = Vae(width=study.width, schedule=NEONATES, finish="none")
    published = replace(ours, schedule=study.published, finish="none")
    runs.run("step", lambda: per_step(study))
    # The first run compiles.
    if study.name != "neonates":
        runs.run("cold", lambda: select(study, ours, 10_000))
    for seed in range(given.seeds):
        runs.run(f"ours {seed}", lambda seed=seed: select(study, ours, seed))
    for seed in range(given.published):
        runs.run(f"published {seed}", lambda seed=seed: select(study, published, seed))
    if study.name == "neonates":
        chosen = runs.rows["ours 0"]["chosen"]
        runs.run("focei", lambda: by_focei(study, chosen))
    for kind in ("ours", "published", "focei"):
        rows = [row for key, row in runs.rows.items() if key.startswith(kind)]
        for row in rows:
            exact = "" if row["exact"] is None else f" exact {row['exact']:.3f}"
            print(f"{kind} {row['bicc']:.2f} {row['ofv']:.2f}{exact} {row['cpu_s']:.1f} s {row['chosen']}")


if __name__ == "__main__":
    main()
