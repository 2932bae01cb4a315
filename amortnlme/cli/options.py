"""Options that several verbs share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonPath = Annotated[
    Path | None,
    typer.Option("--json", metavar="PATH", help="Also write the result as JSON (see cli/schema.md)."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Every random number follows from it.")]
Draws = Annotated[int, typer.Option("--draws", "-m", min=1, help="Posterior draws per subject.")]
DataOption = Annotated[str, typer.Option("--data", "-d", help="CSV file, or the name of a bundled dataset.")]
TimeFactor = Annotated[
    float | None,
    typer.Option(
        "--time-factor",
        help="Multiplies the times of a wide table (0.000277778 turns seconds into hours).",
    ),
]
LogValues = Annotated[
    bool, typer.Option("--log-values", help="Take the natural logarithm of the values of a wide table.")
]
PooledVariance = Annotated[
    float | None,
    typer.Option(
        "--pooled-variance",
        help="Small variance of pooled parameters, phi scale (monte-carlo); 0.001 as published.",
    ),
]
