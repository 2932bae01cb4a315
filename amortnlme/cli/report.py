"""`amortnlme report`: a self-contained page about fits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amortnlme.cli.compare import FitPaths
from amortnlme.cli.options import JsonPath, Seed
from amortnlme.cli.reply import reply


def run(
    fits: FitPaths,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file.")] = Path("report.html"),
    seed: Seed = 0,
    json_path: JsonPath = None,
) -> int:
    """Write one page about one or more fits.

    Goodness of fit, individual fits, ETA plots, VPC, parameter table, calibration and trust.
    """
    with reply("report", json_path, outputs=[out]) as answer:
        from amortnlme.cli.tables import say
        from amortnlme.methods.population_fit import PopulationFit
        from amortnlme.report.page import write_report

        write_report([PopulationFit.load(path) for path in fits], out)
        answer.result = {"path": str(out)}
        say(f"Report: {out.resolve()}")
    return answer.code
