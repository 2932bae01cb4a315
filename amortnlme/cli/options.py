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
Correction = Annotated[
    str | None,
    typer.Option(
        "--correction", help="auto, likelihood, density, draws or none: how network error is removed."
    ),
]
DrawsEstimator = Annotated[
    str | None,
    typer.Option("--estimator", help="Makes draws from data; for draws, --correction density needs it."),
]
DrawsOfFit = Annotated[
    int | None, typer.Option("--draws", min=1, help="Draws per subject from --estimator (1000).")
]
Starts = Annotated[int | None, typer.Option("--starts", help="Starting points (the best end is returned).")]
Nodes = Annotated[
    int | None, typer.Option("--nodes", help="Quadrature nodes per random effect (agq, vi, vae).")
]
StandardErrors = Annotated[
    str | None,
    typer.Option(
        "--standard-errors",
        help="hessian, scores, sandwich or linearization (fo to vae); importance, louis or linearization "
        "(saem).",
    ),
]
EncoderFile = Annotated[
    Path | None, typer.Option("--encoder", help="HDF5 file the trained encoder is written to (vae).")
]
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
