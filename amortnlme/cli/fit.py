"""`amortnlme fit`: a population model fitted to posterior draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amortnlme.cli.options import JsonPath, Seed
from amortnlme.cli.reply import ExitCode, reply
from amortnlme.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from amortnlme.data.dataset import Dataset
    from amortnlme.methods.population_fit import PopulationFit


def run(
    draws: Annotated[Path, typer.Argument(metavar="DRAWS", help="HDF5 file written by `amortnlme sample`.")],
    population: Annotated[
        str, typer.Option("--population", "-p", help="TOML file, or the name of a shipped population model.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data", "-d", help="The data the draws were made from: covariates and the exact likelihood."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model file or name, where the draws do not name a shipped one."),
    ] = None,
    correction: Annotated[
        str,
        typer.Option("--correction", help="auto, likelihood, density or none: how network error is removed."),
    ] = "auto",
    estimator: Annotated[
        str | None, typer.Option("--estimator", help="Estimator of the draws; --correction density needs it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HDF5 file for the fit.")] = None,
    seed: Seed = 0,
    json_path: JsonPath = None,
) -> int:
    """Fit a population model to posterior draws.

    Exit code 2 where the fit did not succeed.
    """
    from amortnlme.cli.inputs import read_dataset, read_population_model
    from amortnlme.methods.amortized import Amortized
    from amortnlme.methods.fit import fit
    from amortnlme.population.posterior_draws import PosteriorDraws

    with reply("fit", json_path, outputs=[out]) as answer:
        dataset = None if data is None else read_dataset(data)
        result = fit(
            PosteriorDraws.load(draws),
            read_population_model(population),
            Amortized(correction=correction, log_density=_log_density(estimator, dataset)),
            dataset=dataset,
            model=model,
            seed=seed,
        )
        if out is not None:
            result.save(out)
        answer.result = result.to_dict()
        answer.code = ExitCode.FINE if result.status.is_success else ExitCode.FIT_NOT_SUCCESSFUL
        show_fit(result)
    return answer.code


def _log_density(estimator: str | None, dataset: Dataset | None) -> Callable[[np.ndarray], np.ndarray] | None:
    if estimator is None:
        return None
    if dataset is None:
        raise UsageError(
            "E_FIT_NEEDS_DATASET",
            "--estimator needs --data: its densities are those of subjects. Name the data file.",
        )
    from amortnlme.neural.estimator import Estimator

    network = Estimator.load(estimator)
    return lambda phi: network.log_prob(dataset, phi)


def show_fit(result: PopulationFit) -> None:
    """Print one fit: its estimates, objective value, criteria, shrinkage, status and warnings.

    Parameters
    ----------
    result : PopulationFit
    """
    from amortnlme.cli.tables import cell_text, say, show_table

    show_table(
        ["estimate", "value", "SE", "RSE %", "95 % CI", "unit"],
        [
            [row.name, row.value, row.se, row.rse_percent, _interval(row.ci_low, row.ci_high), row.unit]
            for row in result.estimates
        ],
        title=f"{result.model_name}, {result.population.name} ({result.method})",
    )
    say(
        f"-2LL {result.ofv:.2f}, Monte-Carlo SE {cell_text(result.ofv_se)} ({result.ofv_kind}); "
        f"AIC {result.aic:.2f}, BIC {result.bic:.2f}, BICc {result.bicc:.2f}"
    )
    shrinkage = ", ".join(
        f"{name} {100 * value:.1f} %"
        for name, value in zip(result.random_effects, result.eta_shrinkage, strict=True)
    )
    say(f"eta shrinkage: {shrinkage}; {result.n_subjects} subjects, {result.n_observations} observations")
    say(f"{result.status.value}: {result.status.sentence}")
    for warning in result.warnings:
        say(warning)


def _interval(low: float | None, high: float | None) -> str:
    from amortnlme.cli.tables import cell_text

    return "-" if low is None or high is None else f"{cell_text(low)} .. {cell_text(high)}"
