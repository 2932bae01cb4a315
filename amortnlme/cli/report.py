"""`amortnlme report`: a self-contained page about fits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amortnlme.cli.compare import FitPaths
from amortnlme.cli.options import DataOption, JsonPath, LogValues, Seed, TimeFactor
from amortnlme.cli.reply import reply


def run(
    fits: FitPaths,
    data: DataOption,
    draws: Annotated[
        Path | None, typer.Option("--draws", help="The draws the fits were made from, for the trust page.")
    ] = None,
    estimator: Annotated[
        str | None, typer.Option("--estimator", help="The estimator of the draws, for its calibration.")
    ] = None,
    uncorrected: Annotated[
        list[Path] | None,
        typer.Option("--uncorrected", help="Fit with --correction none, to stand beside; may be repeated."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model file, where it is not shipped.")] = None,
    time_factor: TimeFactor = None,
    log_values: LogValues = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file.")] = Path("report.html"),
    seed: Seed = 0,
    json_path: JsonPath = None,
) -> int:
    """Write one page about one or more fits.

    Goodness of fit, individual fits, ETA plots, VPC, parameter table, calibration and trust.
    """
    from amortnlme.cli.inputs import read_dataset
    from amortnlme.cli.tables import say
    from amortnlme.diagnostics.compare import fit_labels
    from amortnlme.methods.population_fit import PopulationFit
    from amortnlme.model.registry import load_model, load_shipped_model
    from amortnlme.population.posterior_draws import PosteriorDraws
    from amortnlme.report.page import ReportOptions, write_report

    with reply("report", json_path, outputs=[out]) as answer:
        loaded = [PopulationFit.load(path) for path in fits]
        dataset = read_dataset(data, time_factor, log=log_values)
        card = None
        if estimator is not None:
            from amortnlme.neural.estimator import Estimator
            from amortnlme.report.estimator_card import estimator_card

            card = estimator_card(Estimator.load(estimator), estimator)
        write_report(
            loaded,
            None if draws is None else PosteriorDraws.load(draws),
            dataset,
            load_shipped_model(loaded[0].model_name) if model is None else load_model(model),
            out,
            card,
            uncorrected=[PopulationFit.load(path) for path in uncorrected or []],
            options=ReportOptions(seed=seed),
        )
        answer.result = {"path": str(out), "fits": fit_labels(loaded)}
        say(f"Report: {out.resolve()}")
    return answer.code
