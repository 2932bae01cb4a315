"""`amortnlme uncertainty`: profiles, bootstrap and posterior of the population parameters of a fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amortnlme.cli.options import DataOption, JsonPath, LogValues, Seed, TimeFactor
from amortnlme.cli.reply import reply
from amortnlme.core.errors import UsageError

if TYPE_CHECKING:
    from amortnlme.methods.near_optimum import NearOptimum
    from amortnlme.methods.profiles import Profile

#: Purposes of the random streams.
BOOTSTRAP_STREAM, CHAIN_STREAM = 1, 2
#: Above it chains have not mixed (Vehtari et al. 2021).
R_HAT = 1.01


def run(
    fit: Annotated[Path, typer.Argument(metavar="FIT", help="HDF5 file written by `amortnlme fit`.")],
    data: DataOption,
    model: Annotated[
        str | None, typer.Option("--model", help="Model file or name, where it is no shipped one.")
    ] = None,
    parameters: Annotated[
        str | None, typer.Option("--parameters", help="Profile these only: names, separated by commas.")
    ] = None,
    levels: Annotated[
        str, typer.Option("--levels", help="Confidence levels of the profiles, separated by commas.")
    ] = "0.95",
    profile: Annotated[bool, typer.Option("--profiles/--no-profiles", help="Profile likelihoods.")] = True,
    replicates: Annotated[
        int | None, typer.Option("--bootstrap", min=2, help="Refits to resampled subjects.")
    ] = None,
    draws: Annotated[
        int | None, typer.Option("--posterior", min=1, help="Posterior draws in each of four chains.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="PNG", help="Picture of the profiles.")
    ] = None,
    time_factor: TimeFactor = None,
    log_values: LogValues = False,
    seed: Seed = 0,
    json_path: JsonPath = None,
) -> int:
    """Say how uncertain the estimates of a fit are, from the exact likelihood around them.

    Profile intervals, case bootstrap, posterior under flat priors: none of them assumes a normal law.
    """
    from amortnlme.cli.inputs import read_dataset
    from amortnlme.core.rng import stream
    from amortnlme.methods.near_optimum import near_optimum
    from amortnlme.methods.population_fit import PopulationFit

    with reply("uncertainty", json_path, outputs=[figure]) as answer:
        if not profile and replicates is None and draws is None:
            raise UsageError(
                "E_USAGE_OPTION", "--no-profiles leaves nothing to do. Ask for --bootstrap or --posterior."
            )
        if not profile and (parameters is not None or figure is not None):
            raise UsageError(
                "E_USAGE_OPTION", "--parameters and --figure belong to profiles. Leave them out."
            )
        dataset = read_dataset(data, time_factor, log=log_values)
        near = near_optimum(PopulationFit.load(fit), dataset, model=model, seed=seed)
        found: dict[str, Any] = {
            "minus_two_log_likelihood": 2.0 * near.value,
            "last_move": near.last_move,
            "warnings": _settled(near),
        }
        if profile:
            found["profiles"] = _profiles(near, parameters, levels, figure)
        if replicates is not None:
            found["bootstrap"] = _bootstrap(near, replicates, stream(seed, BOOTSTRAP_STREAM))
        if draws is not None:
            found["posterior"], mixing = _posterior(near, draws, stream(seed, CHAIN_STREAM))
            found["warnings"] += mixing
        answer.result = found
    return answer.code


def _settled(near: NearOptimum) -> list[str]:
    from amortnlme.cli.tables import say
    from amortnlme.methods.near_optimum import SETTLED

    if near.last_move < SETTLED:
        return []
    warning = (
        f"[W_UNCERTAINTY_NODES] another placement of the nodes moves the maximum by {near.last_move:.2g} "
        "standard errors: trust intervals no further than that. In Python, near_optimum(..., n_points=) "
        "takes more nodes."
    )
    say(warning)
    return [warning]


def _profiles(near: NearOptimum, parameters: str | None, levels: str, figure: Path | None) -> list[Any]:
    from amortnlme.cli.tables import show_table
    from amortnlme.core.files import write_bytes_atomic
    from amortnlme.methods.profiles import profiles
    from amortnlme.report.figures import to_png
    from amortnlme.report.profile_figure import draw_profiles

    wanted = None if parameters is None else [name.strip() for name in parameters.split(",")]
    found = profiles(near, wanted, _levels(levels), progress=True)
    heads = [f"{100 * level:g} %" for level in found[0].intervals]
    rows = [[p.name, p.estimate, *(_interval(ends) for ends in p.intervals.values())] for p in found]
    show_table(["estimate", "value", *heads], rows, title="profile likelihood")
    if figure is not None:
        write_bytes_atomic(figure, to_png(draw_profiles(found)))
    return [_document(p) for p in found]


def _levels(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as cause:
        raise UsageError(
            "E_PROFILE_LEVEL", f"--levels {text!r} is no list of numbers. Write them as 0.8,0.95."
        ) from cause


def _document(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "estimate": profile.estimate,
        "value": profile.value.tolist(),
        "loss": profile.loss.tolist(),
        "intervals": [
            {"level": level, "ci_low": low, "ci_high": high}
            for level, (low, high) in profile.intervals.items()
        ],
    }


def _interval(ends: tuple[float, float]) -> str:
    from amortnlme.cli.tables import cell_text

    return " .. ".join(cell_text(end) for end in ends)


def _bootstrap(near: NearOptimum, n: int, rng: Any) -> list[dict[str, Any]]:
    from amortnlme.diagnostics.uncertainty_tables import bootstrap_table
    from amortnlme.methods.resampling import bootstrap

    table = bootstrap_table(near.population, bootstrap(near, n, rng, progress=True))
    return _show(table, f"bootstrap, {n} replicates")


def _posterior(near: NearOptimum, n: int, rng: Any) -> tuple[list[dict[str, Any]], list[str]]:
    from amortnlme.cli.tables import say
    from amortnlme.diagnostics.uncertainty_tables import chain_table
    from amortnlme.methods.resampling import sample_population

    table = chain_table(near.population, sample_population(near, n, rng, progress=True))
    rows = _show(table, f"posterior under flat priors, 4 chains of {n}")
    apart = [row["name"] for row in rows if row["r_hat"] > R_HAT]
    warnings = []
    if apart:
        warnings.append(
            f"[W_POSTERIOR_R_HAT] R-hat exceeds {R_HAT} for {', '.join(apart)}: the chains have not mixed. "
            "Raise --posterior."
        )
        say(warnings[0])
    return rows, warnings


def _show(table: Any, title: str) -> list[dict[str, Any]]:
    from amortnlme.cli.tables import show_table

    rows = [[name, *row] for name, row in zip(table.index, table.to_numpy().tolist(), strict=True)]
    show_table(["estimate", *table.columns], rows, title=title)
    return table.reset_index().to_dict(orient="records")
