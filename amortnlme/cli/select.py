"""`amortnlme select`: covariates of a population model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amortnlme.cli.draws import is_draws_file, obtain_draws
from amortnlme.cli.inputs import read_dataset
from amortnlme.cli.options import DrawsEstimator, DrawsOfFit, JsonPath, LogValues, Seed, TimeFactor
from amortnlme.cli.reply import ExitCode, reply
from amortnlme.core.errors import UsageError

if TYPE_CHECKING:
    from amortnlme.data.dataset import Dataset
    from amortnlme.methods.base import AbstractMethod
    from amortnlme.methods.selection import AbstractSelection, Selection
    from amortnlme.population.candidates import Candidates
    from amortnlme.population.population_model import PopulationModel
    from amortnlme.population.posterior_draws import PosteriorDraws

METHODS = ("amortized", "vae", "saem", "scm", "cossac", "samba")
STEPWISE = ("scm", "cossac", "samba")
JUDGES = ("amortized", "focei", "laplace", "agq", "saem")


_Data = Annotated[str, typer.Argument(metavar="DATA", help="CSV file, or the name of a bundled dataset.")]
_Model = Annotated[str, typer.Option("--model", help="Model file or name.")]
_Population = Annotated[
    str, typer.Option("--population", "-p", help="TOML file or shipped name, without the candidates.")
]
_Candidates = Annotated[
    list[str],
    typer.Option(
        "--candidates",
        "-c",
        help="'ka, V ~ weight, level(race)'; log(x), linear(x), level(x) say how x acts; repeatable.",
    ),
]
_Method = Annotated[str, typer.Option("--method", "-m", help=", ".join(METHODS) + ".")]
_Force = Annotated[
    list[str] | None, typer.Option("--force", help="Relation in every model, V~weight; repeatable.")
]
_Forbid = Annotated[list[str] | None, typer.Option("--forbid", help="Relation in no model; repeatable.")]
_DrawsFile = Annotated[
    str | None, typer.Option("--draws-file", help="Posterior draws of the data (HDF5), for amortized.")
]
_Criterion = Annotated[str | None, typer.Option("--criterion", help="bicc or p-value (scm, cossac).")]
_Fitter = Annotated[
    str | None, typer.Option("--fitter", help="focei, laplace, agq or saem (scm, cossac, samba).")
]
_Judge = Annotated[
    str | None, typer.Option("--judge", help=f"Fits the models that are ranked: {', '.join(JUDGES)}.")
]
_Rank = Annotated[
    int, typer.Option("--rank", min=0, help="Models judged by exact BICc at most; 0 switches it off.")
]
_Bootstrap = Annotated[int, typer.Option("--bootstrap", min=0, help="Searches on resampled subjects.")]
_Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Searches with other seeds.")]
_Out = Annotated[Path | None, typer.Option("--out", "-o", help="HDF5 file for the chosen fit.")]
_PopulationOut = Annotated[
    Path | None, typer.Option("--population-out", help="TOML file for the chosen population model.")
]
_Page = Annotated[Path | None, typer.Option("--report", help="HTML page about the selection.")]


def run(
    data: _Data,
    model: _Model,
    population: _Population,
    candidates: _Candidates,
    method: _Method = "amortized",
    force: _Force = None,
    forbid: _Forbid = None,
    draws_file: _DrawsFile = None,
    estimator: DrawsEstimator = None,
    draws: DrawsOfFit = None,
    criterion: _Criterion = None,
    fitter: _Fitter = None,
    judge: _Judge = None,
    most_models: _Rank = 30,
    bootstrap: _Bootstrap = 0,
    seeds: _Seeds = 1,
    time_factor: TimeFactor = None,
    log_values: LogValues = False,
    out: _Out = None,
    chosen_population: _PopulationOut = None,
    page: _Page = None,
    seed: Seed = 0,
    json_path: JsonPath = None,
) -> int:
    """Select covariates: search, then rank the answer and its neighbors by the exact likelihood.

    Exit code 2 where the fit of the chosen model did not succeed.
    """
    with reply("select", json_path, outputs=[out, chosen_population, page]) as answer:
        if out is not None and not most_models:
            raise UsageError("E_USAGE_OPTION", "--out needs the fits of the ranking. Leave out --rank 0.")
        chooser = _method(method, criterion, fitter)
        names = _Names(tuple(candidates), tuple(force or ()), tuple(forbid or ()))
        study = _study(data, population, names, time_factor, log_values)
        found_draws = _draws(data, study.dataset, method, draws_file, estimator, draws, seed)
        from amortnlme.cli.tables import stages
        from amortnlme.methods.select import select

        with stages() as say:
            found = select(
                study.dataset,
                study.base,
                study.candidates,
                chooser,
                model=model,
                draws=found_draws,
                judge=None if judge is None else _fit_method(judge, "--judge", JUDGES),
                most_models=most_models,
                bootstrap=bootstrap,
                seeds=seeds,
                seed=seed,
                say=say,
            )
        _write(found, study, out, chosen_population, page)
        answer.result = found.to_dict()
        if found.fit is not None and not found.fit.status.is_success:
            answer.code = ExitCode.FIT_NOT_SUCCESSFUL
        show_selection(found)
    return answer.code


@dataclass(frozen=True, slots=True)
class _Names:
    """Candidates as they were typed."""

    candidates: tuple[str, ...]
    forced: tuple[str, ...]
    forbidden: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Study:
    """Data, population model and candidates."""

    dataset: Dataset
    base: PopulationModel
    candidates: Candidates


def _study(
    data: str, population: str, names: _Names, time_factor: float | None, log_values: bool
) -> _Study:
    from amortnlme.cli.inputs import read_population_model
    from amortnlme.population.candidates import parse_candidates

    dataset = read_dataset(data, time_factor, log=log_values)
    candidates = parse_candidates(
        names.candidates, dataset.covariate_table(), names.forced, names.forbidden
    )
    return _Study(dataset, read_population_model(population), candidates)


def _draws(
    data: str,
    dataset: Dataset,
    method: str,
    draws_file: str | None,
    estimator: str | None,
    n_draws: int | None,
    seed: int,
) -> PosteriorDraws | None:
    """Posterior draws for the methods that eat them: from a file, or made by an estimator."""
    if method != "amortized":
        for flag, value in (("--draws-file", draws_file), ("--estimator", estimator), ("--draws", n_draws)):
            if value is not None:
                raise UsageError(
                    "E_USAGE_OPTION",
                    f"{flag} belongs to method amortized, but --method is {method!r}. Leave it out.",
                )
        return None
    if draws_file is None:
        return obtain_draws(data, dataset, estimator, n_draws, seed).draws
    if not is_draws_file(draws_file):
        raise UsageError(
            "E_USAGE_OPTION", f"--draws-file '{draws_file}' is no HDF5 file, as `amortnlme sample` writes."
        )
    if estimator is not None:
        raise UsageError("E_USAGE_OPTION", "--estimator and --draws-file both give draws. Keep one.")
    return obtain_draws(draws_file, dataset, None, n_draws, seed).draws


def _method(method: str, criterion: str | None, fitter: str | None) -> AbstractSelection:
    if method not in METHODS:
        raise UsageError(
            "E_USAGE_METHOD", f"method {method!r} is unknown. Allowed: {', '.join(METHODS)}."
        )
    belonging = (("--criterion", criterion, ("scm", "cossac")), ("--fitter", fitter, STEPWISE))
    for flag, value, owners in belonging:
        if value is not None and method not in owners:
            raise UsageError(
                "E_USAGE_OPTION",
                f"{flag} belongs to method {' or '.join(owners)}, but --method is {method!r}. Leave it out.",
            )
    from amortnlme.methods.amortized_selection import AmortizedSelection
    from amortnlme.methods.saem_selection import SaemSelection
    from amortnlme.methods.stepwise_selection import QUICK, Cossac, Samba, Scm
    from amortnlme.methods.vae_selection import VaeSelection

    if method == "amortized":
        return AmortizedSelection()
    if method == "vae":
        return VaeSelection()
    if method == "saem":
        return SaemSelection()
    fits = QUICK if fitter is None else _fit_method(fitter, "--fitter", JUDGES[1:])
    if method == "samba":
        return Samba(fitter=fits)
    kind = {"scm": Scm, "cossac": Cossac}[method]
    return kind(fitter=fits) if criterion is None else kind(fitter=fits, criterion=criterion)


def _fit_method(name: str, flag: str, allowed: tuple[str, ...]) -> AbstractMethod:
    from amortnlme.methods.amortized import Amortized
    from amortnlme.methods.classical import Focei, Laplace, Quadrature
    from amortnlme.methods.saem import Saem

    if name not in allowed:
        raise UsageError("E_USAGE_METHOD", f"{flag} {name!r} is unknown. Allowed: {', '.join(allowed)}.")
    kinds = {"amortized": Amortized, "focei": Focei, "laplace": Laplace, "agq": Quadrature, "saem": Saem}
    return kinds[name]()


def _write(
    found: Selection, study: _Study, out: Path | None, population: Path | None, page: Path | None
) -> None:
    if out is not None and found.fit is not None:
        found.fit.save(out)
    if population is not None:
        from amortnlme.core.files import write_text_atomic
        from amortnlme.population.toml import to_toml

        chosen = set(found.chosen) & set(study.candidates.names)
        write_text_atomic(population, to_toml(study.candidates.population(study.base, chosen)))
    if page is not None:
        from amortnlme.report.selection_page import write_selection_report

        write_selection_report(found, page)


def show_selection(found: Selection) -> None:
    """Print a selection: what was chosen, the models judged, how often searches agreed, warnings.

    Parameters
    ----------
    found : Selection
    """
    from amortnlme.cli.tables import say, show_table

    if found.scores:
        show_table(
            ["relations", "-2LL", "MC SE", "parameters", "BICc", "delta", "tie", "status"],
            found.table()
            .reindex(
                columns=["relations", "ofv", "ofv_se", "n_parameters", "bicc", "delta", "tie", "status"]
            )
            .to_numpy()
            .tolist(),
            title=f"{found.model_name}: models judged after selection by {found.method}",
        )
    for kind, shares in found.frequencies.items():
        show_table(["relation", "share"], [[n, s] for n, s in shares.items()], title=f"inclusion over {kind}")
    say(f"search: {', '.join(found.found) or 'no covariates'} ({found.runs} fits)")
    say(f"chosen: {', '.join(found.chosen) or 'no covariates'}")
    if found.forced:
        say(f"in every model: {', '.join(found.forced)}")
    say("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in found.seconds.items()))
    for warning in found.warnings:
        say(warning)
