"""`amortnlme quickstart`: the theophylline study from the shipped estimator to a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amortnlme.cli.options import Draws, JsonPath, Seed
from amortnlme.cli.reply import ExitCode, reply


def run(
    out: Annotated[Path, typer.Option("--out", "-o", help="Existing folder for report.html.")] = Path("."),
    draws: Draws = 1000,
    seed: Seed = 0,
    json_path: JsonPath = None,
) -> int:
    """Run the theophylline study and write a report.

    Draws every patient's posterior from the shipped estimator, then fits four population models to the draws.
    """
    with reply("quickstart", json_path, outputs=[out / "report.html"]) as answer:
        from amortnlme.cli.comparison import comparison_document, show_comparison
        from amortnlme.cli.tables import say, stages
        from amortnlme.report.quickstart import quickstart

        with stages() as announce:
            result = quickstart(out, n_draws=draws, seed=seed, announce=announce)
        answer.result = {
            "comparison": comparison_document(result.comparison),
            "fits": [fit.to_dict() for fit in result.fits],
            "report": str(result.report),
            "seconds": dict(result.seconds),
        }
        show_comparison(result.comparison)
        for fit in result.fits:
            if not fit.status.is_success:
                answer.code = ExitCode.FIT_NOT_SUCCESSFUL
            for note in (f"{fit.status.value}: {fit.status.sentence}", *fit.warnings):
                say(f"{fit.population.name} - {note}")
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in result.seconds.items())
        say(f"seconds: {stages}; {sum(result.seconds.values()):.2f} in all")
        say(f"Report: {result.report.resolve()}")
    return answer.code
