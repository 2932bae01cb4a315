"""`amortnlme compare`: fits of one dataset side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amortnlme.cli.options import JsonPath
from amortnlme.cli.reply import reply

FitPaths = Annotated[
    list[Path], typer.Argument(metavar="FIT...", help="HDF5 files written by `amortnlme fit`.")
]


def run(fits: FitPaths, json_path: JsonPath = None) -> int:
    """Compare fits side by side.

    Estimates with SE and RSE, shrinkage, -2LL with its method and Monte-Carlo SE, AIC, BIC, BICc, seconds.
    """
    from amortnlme.cli.comparison import comparison_document, show_comparison
    from amortnlme.diagnostics.compare import compare
    from amortnlme.methods.population_fit import PopulationFit

    with reply("compare", json_path) as answer:
        table = compare([PopulationFit.load(path) for path in fits])
        answer.result = comparison_document(table)
        show_comparison(table)
    return answer.code
