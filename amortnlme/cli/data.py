"""`amortnlme data`: what an event table holds, as amortnlme reads it."""

from __future__ import annotations

from typing import Annotated

import typer

from amortnlme.cli.options import JsonPath, LogValues, TimeFactor
from amortnlme.cli.reply import reply

app = typer.Typer(help="Look at event tables.", no_args_is_help=False)


@app.callback()
def _data() -> None:
    """Look at event tables."""
    # Without a callback typer drops the name of a group's only command.


@app.command("check")
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV file, or the name of a bundled dataset.")],
    time_factor: TimeFactor = None,
    log_values: LogValues = False,
    json_path: JsonPath = None,
) -> int:
    """Read an event table or a wide table and say what was read.

    Subjects, doses, observations, covariates with ranges, and every exclusion with its reason.
    """
    from amortnlme.cli.inputs import read_dataset
    from amortnlme.cli.tables import say

    with reply("data check", json_path) as answer:
        dataset = read_dataset(file, time_factor, log=log_values)
        summary = dataset.summary()
        answer.result = {**summary.to_dict(), "fingerprint": dataset.fingerprint}
        for line in summary.lines():
            say(line)
    return answer.code
