"""`amortnlme ensemble`: one estimator of several that were trained from different seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amortnlme.cli.options import JsonPath
from amortnlme.cli.reply import reply


def run(
    members: Annotated[
        list[str],
        typer.Argument(metavar="ESTIMATORS", help="Folders of estimators that differ in their seed only."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the ensemble.")],
    json_path: JsonPath = None,
) -> int:
    """Combine estimators into their equal mixture.

    Train the members by `train --seed 1`, `--seed 2`, ... from one training set and one file of options.
    """
    from amortnlme.cli.tables import say

    with reply("ensemble", json_path) as answer:
        from amortnlme.neural.ensemble import combine
        from amortnlme.neural.estimator import Estimator

        made = combine([Estimator.load(member) for member in members])
        made.save(out)
        seeds = [made.record.seed, *made.record.other_seeds]
        answer.result = {
            "path": str(out),
            "model": made.model.name,
            "fingerprint": made.fingerprint,
            "seeds": seeds,
        }
        say(f"{len(seeds)} members, seeds {', '.join(map(str, seeds))}: {out}. Calibrate it before use.")
    return answer.code
