"""`amortnlme check`: the contract every individual model must keep."""

from __future__ import annotations

from typing import Annotated

import typer

from amortnlme.cli.options import JsonPath
from amortnlme.cli.reply import ExitCode, reply

ModelWord = Annotated[
    str, typer.Argument(metavar="MODEL", help="Model file (.py) or name of a shipped model.")
]


def run(model: ModelWord, json_path: JsonPath = None) -> int:
    """Check a model against the whole contract.

    Exit code 1 where a point is broken.
    """
    from amortnlme.cli.tables import say, show_table
    from amortnlme.model.contract import check_model
    from amortnlme.model.registry import load_model

    with reply("check", json_path) as answer:
        report = check_model(load_model(model))
        broken = [row.name for row in report.rows if not row.passed]
        answer.result = report.to_dict()
        show_table(
            ["point of the contract", "kept", "detail"],
            [[row.name, row.passed, row.detail] for row in report.rows],
        )
        if broken:
            answer.code = ExitCode.WRONG_INPUT
            say(f"{len(broken)} of {len(report.rows)} points are broken: {', '.join(broken)}.")
        else:
            say(f"All {len(report.rows)} points of the contract are kept.")
    return answer.code
