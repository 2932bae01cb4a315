"""`amortnlme calibrate`: simulation-based calibration of an estimator, kept in its artefact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amortnlme.cli.options import JsonPath, Seed
from amortnlme.cli.reply import reply
from amortnlme.cli.sample import EstimatorWord


def run(
    estimator: EstimatorWord,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Simulated subjects.")] = 1000,
    seed: Seed = 0,
    json_path: JsonPath = None,
) -> int:
    """Calibrate an estimator on fresh simulations.

    The result is kept in the estimator's folder; a shipped estimator called by its name is only looked at.
    """
    with reply("calibrate", json_path) as answer:
        from amortnlme.cli.tables import say, show_table
        from amortnlme.neural.artefact import store_calibration
        from amortnlme.neural.calibrate import calibrate
        from amortnlme.neural.estimator import Estimator

        loaded = Estimator.load(estimator)
        document = calibrate(loaded, n, seed).to_dict()
        if Path(estimator).is_dir():
            from amortnlme.report.calibration_picture import calibration_png

            store_calibration(estimator, document, calibration_png(document))
        answer.result = document
        show_table(
            ["parameter", "coverage 50 %", "80 %", "95 %", "contraction", "recovery", "p of uniform ranks"],
            [
                [name, *row["coverage"].values(), row["contraction"], row["recovery"], row["rank_p_value"]]
                for name, row in document["parameters"].items()
            ],
        )
        for name, passed in document["checks"].items():
            say(f"{'passed' if passed else 'FAILED'}: {name.replace('_', ' ')}")
    return answer.code
