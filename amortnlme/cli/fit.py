"""`amortnlme fit`: a population model fitted to posterior draws or to data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amortnlme.cli.draws import DrawSource, is_draws_file, obtain_draws
from amortnlme.cli.inputs import read_dataset
from amortnlme.cli.options import (
    Correction,
    DrawsEstimator,
    DrawsOfFit,
    JsonPath,
    LogValues,
    Nodes,
    PooledVariance,
    Seed,
    StandardErrors,
    Starts,
    TimeFactor,
)
from amortnlme.cli.reply import ExitCode, reply
from amortnlme.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from amortnlme.data.dataset import Dataset
    from amortnlme.methods.base import AbstractMethod
    from amortnlme.methods.population_fit import PopulationFit

METHODS = ("amortized", "monte-carlo", "fo", "foce", "focei", "laplace", "agq", "vi", "saem", "pooled")


def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DRAWS|DATA",
            help="Posterior draws (HDF5, from `amortnlme sample`); or data: an event table or a wide table "
            "(CSV) or a bundled dataset, for amortized together with --estimator.",
        ),
    ],
    population: Annotated[
        str,
        typer.Option(
            "--population",
            "-p",
            help="TOML file, formula (ka + V ~ (1 | id)), or the name of a shipped population model.",
        ),
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
    correction: Correction = None,
    estimator: DrawsEstimator = None,
    draws: DrawsOfFit = None,
    starts: Starts = None,
    nodes: Nodes = None,
    standard_errors: StandardErrors = None,
    pooled_variance: PooledVariance = None,
    time_factor: TimeFactor = None,
    log_values: LogValues = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HDF5 file for the fit.")] = None,
    seed: Seed = 0,
    json_path: JsonPath = None,
) -> int:
    """Fit a population model to posterior draws, or to data by a classical method.

    Exit code 2 where the fit did not succeed.
    """
    with reply("fit", json_path, outputs=[out]) as answer:
        options = _Options(
            method, correction, estimator, draws, data, starts, nodes, standard_errors, pooled_variance,
            time_factor, log_values,
        )  # fmt: skip
        result = _fit(source, population, model, seed, options)
        if out is not None:
            result.save(out)
        answer.result = result.to_dict()
        answer.code = ExitCode.FINE if result.status.is_success else ExitCode.FIT_NOT_SUCCESSFUL
        show_fit(result)
    return answer.code


@dataclass(frozen=True, slots=True)
class _Options:
    """The method and what was said about it."""

    method: str
    correction: str | None
    estimator: str | None
    draws: int | None
    data: str | None
    starts: int | None
    nodes: int | None
    standard_errors: str | None
    pooled_variance: float | None
    time_factor: float | None
    log_values: bool

    def __post_init__(self) -> None:
        """Refuse an unknown method, and options it would ignore."""
        if self.method not in METHODS:
            raise UsageError(
                "E_USAGE_METHOD", f"method {self.method!r} is unknown. Allowed: {', '.join(METHODS)}."
            )
        classical = ("fo", "foce", "focei", "laplace", "agq", "vi", "saem")
        for flag, value, owners in (
            ("--correction", self.correction, ("amortized",)),
            ("--estimator", self.estimator, ("amortized", "monte-carlo")),
            ("--draws", self.draws, ("amortized", "monte-carlo")),
            ("--data", self.data, ("amortized", "monte-carlo")),
            ("--pooled-variance", self.pooled_variance, ("monte-carlo",)),
            ("--nodes", self.nodes, ("agq", "vi")),
            ("--standard-errors", self.standard_errors, classical),
        ):
            if value is not None and self.method not in owners:
                raise UsageError(
                    "E_USAGE_OPTION",
                    f"{flag} belongs to method {' or '.join(owners)}, but --method is {self.method!r}. Leave "
                    "it out.",
                )


def _fit(source: str, population: str, model: str | None, seed: int, options: _Options) -> PopulationFit:
    from amortnlme.cli.inputs import read_population_model
    from amortnlme.methods.fit import fit

    if options.method in ("amortized", "monte-carlo"):
        found = obtain_draws(source, _dataset(source, options), options.estimator, options.draws, seed)
        chosen = _monte_carlo(options) if options.method == "monte-carlo" else _amortized(options, found)
        described = read_population_model(population)
        return fit(found.draws, described, chosen, dataset=found.dataset, model=model, seed=seed)
    if model is None:
        raise UsageError(
            "E_USAGE_MODEL",
            f"--method {options.method} fits data, so it needs --model: a model file or a name.",
        )
    dataset = read_dataset(source, options.time_factor, log=options.log_values)
    return fit(dataset, read_population_model(population), _classical(options), model=model, seed=seed)


def _dataset(source: str, options: _Options) -> Dataset | None:
    """Read the data beside draws, or those that draws will be made from."""
    if not is_draws_file(source):
        if options.data is not None:
            raise UsageError("E_USAGE_OPTION", f"--data goes with draws, but '{source}' holds data itself.")
        if options.estimator is None:
            return None
        return read_dataset(source, options.time_factor, log=options.log_values)
    if options.data is None:
        return None
    return read_dataset(options.data, options.time_factor, log=options.log_values)


def _amortized(options: _Options, found: DrawSource) -> AbstractMethod:
    from amortnlme.methods.amortized import Amortized

    log_density: Callable[[np.ndarray], np.ndarray] | None = None
    network, dataset = found.estimator, found.dataset
    if network is not None and dataset is not None:
        log_density = partial(network.log_prob, dataset)
    starts = Amortized().starts if options.starts is None else options.starts
    return Amortized(correction=options.correction or "auto", starts=starts, log_density=log_density)


def _monte_carlo(options: _Options) -> AbstractMethod:
    from amortnlme.methods.monte_carlo import MonteCarlo

    starts = MonteCarlo().starts if options.starts is None else options.starts
    return MonteCarlo(pooled_variance=options.pooled_variance, starts=starts)


def _classical(options: _Options) -> AbstractMethod:
    from amortnlme.methods.classical import Fo, Foce, Focei, Laplace, Quadrature
    from amortnlme.methods.pooled import Pooled
    from amortnlme.methods.saem import Saem
    from amortnlme.methods.vi import Vi

    starts = 1 if options.starts is None else options.starts
    if options.method == "saem":
        return Saem(starts=starts, standard_errors=options.standard_errors or Saem().standard_errors)
    if options.method == "pooled":
        return Pooled(starts=starts)
    errors = options.standard_errors or "hessian"
    if options.method == "agq":
        nodes = Quadrature().n_nodes if options.nodes is None else options.nodes
        return Quadrature(n_nodes=nodes, starts=starts, standard_errors=errors)
    if options.method == "vi":
        return Vi(n_nodes=options.nodes, starts=starts, standard_errors=errors)
    kinds = {"fo": Fo, "foce": Foce, "focei": Focei, "laplace": Laplace}
    return kinds[options.method](starts=starts, standard_errors=errors)


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
            [
                row.name,
                row.value,
                "fixed" if row.is_fixed else row.se,
                row.rse_percent,
                _interval(row.ci_low, row.ci_high),
                row.unit,
            ]
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
    if result.covariance is not None:
        say(f"condition number of the correlation matrix of the estimates: {result.condition_number:.1f}")
    say(f"{result.status.value}: {result.status.sentence}")
    for warning in result.warnings:
        say(warning)


def _interval(low: float | None, high: float | None) -> str:
    from amortnlme.cli.tables import cell_text

    return "-" if low is None or high is None else f"{cell_text(low)} .. {cell_text(high)}"
