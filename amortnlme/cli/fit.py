"""`amortnlme fit`: a population model fitted to posterior draws or to data."""

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
    from amortnlme.methods.base import AbstractMethod
    from amortnlme.methods.population_fit import PopulationFit

METHODS = ("amortized", "fo", "foce", "focei", "laplace", "agq", "saem")


def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DRAWS|DATA",
            help="Posterior draws (HDF5, from `amortnlme sample`) for amortized; or an event table (CSV) "
            "or a bundled dataset.",
        ),
    ],
    population: Annotated[
        str, typer.Option("--population", "-p", help="TOML file, or the name of a shipped population model.")
    ],
    method: Annotated[str, typer.Option("--method", "-m", help=", ".join(METHODS) + ".")] = "amortized",
    data: Annotated[
        str | None,
        typer.Option(
            "--data", "-d", help="The data the draws were made from: covariates and the exact likelihood."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model file or name; needed unless the draws name a shipped one."),
    ] = None,
    correction: Annotated[
        str | None,
        typer.Option("--correction", help="auto, likelihood, density or none: how network error is removed."),
    ] = None,
    estimator: Annotated[
        str | None, typer.Option("--estimator", help="Estimator of the draws; --correction density needs it.")
    ] = None,
    starts: Annotated[
        int | None, typer.Option("--starts", help="Starting points (the best end is returned).")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", help="Quadrature nodes per random effect (agq).")
    ] = None,
    standard_errors: Annotated[
        str | None,
        typer.Option("--standard-errors", help="hessian, scores or sandwich (fo to agq)."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HDF5 file for the fit.")] = None,
    seed: Seed = 0,
    json_path: JsonPath = None,
) -> int:
    """Fit a population model to posterior draws, or to data by a classical method.

    Exit code 2 where the fit did not succeed.
    """
    from amortnlme.cli.inputs import read_dataset, read_population_model
    from amortnlme.methods.fit import fit
    from amortnlme.population.posterior_draws import PosteriorDraws

    with reply("fit", json_path, outputs=[out]) as answer:
        amortized = method == "amortized"
        _refuse_foreign_options(
            method,
            {
                "--correction": (correction, ("amortized",)),
                "--estimator": (estimator, ("amortized",)),
                "--data": (data, ("amortized",)),
                "--nodes": (nodes, ("agq",)),
                "--standard-errors": (standard_errors, ("fo", "foce", "focei", "laplace", "agq")),
            },
        )
        if not amortized and model is None:
            raise UsageError(
                "E_USAGE_MODEL", f"--method {method} fits data, so it needs --model: a model file or name."
            )
        dataset = read_dataset(source) if not amortized else None if data is None else read_dataset(data)
        chosen = (
            _amortized(correction, starts, _log_density(estimator, dataset))
            if amortized
            else _classical(method, starts, nodes, standard_errors)
        )
        first = PosteriorDraws.load(Path(source)) if amortized else dataset
        assert first is not None
        result = fit(
            first,
            read_population_model(population),
            chosen,
            dataset=dataset if amortized else None,
            model=model,
            seed=seed,
        )
        if out is not None:
            result.save(out)
        answer.result = result.to_dict()
        answer.code = ExitCode.FINE if result.status.is_success else ExitCode.FIT_NOT_SUCCESSFUL
        show_fit(result)
    return answer.code


def _refuse_foreign_options(method: str, options: dict[str, tuple[object, tuple[str, ...]]]) -> None:
    """Refuse an option that the chosen method would ignore."""
    if method not in METHODS:
        raise UsageError("E_USAGE_METHOD", f"method {method!r} is unknown. Allowed: {', '.join(METHODS)}.")
    for flag, (value, owners) in options.items():
        if value is not None and method not in owners:
            raise UsageError(
                "E_USAGE_OPTION",
                f"{flag} belongs to method {' or '.join(owners)}, but --method is {method!r}. Leave it out.",
            )


def _amortized(
    correction: str | None, starts: int | None, log_density: Callable[[np.ndarray], np.ndarray] | None
) -> AbstractMethod:
    from amortnlme.methods.amortized import Amortized

    return Amortized(correction=correction or "auto", starts=starts or 5, log_density=log_density)


def _classical(
    method: str, starts: int | None, nodes: int | None, standard_errors: str | None
) -> AbstractMethod:
    from amortnlme.methods.classical import Fo, Foce, Focei, Laplace, Quadrature
    from amortnlme.methods.saem import Saem

    n_starts, errors = starts or 1, standard_errors or "hessian"
    if method == "saem":
        return Saem(starts=n_starts)
    if method == "agq":
        return Quadrature(n_nodes=nodes or 5, starts=n_starts, standard_errors=errors)
    kinds = {"fo": Fo, "foce": Foce, "focei": Focei, "laplace": Laplace}
    return kinds[method](starts=n_starts, standard_errors=errors)


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
    if result.criterion_kind and result.criterion_kind != result.ofv_kind:
        say(
            f"maximized criterion: {result.criterion:.2f} ({result.criterion_kind}), not comparable with -2LL"
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
