"""`amortnlme calibrate`: simulation-based calibration of an estimator, kept in its artefact."""

from __future__ import annotations

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

    Ranks, coverage and recovery are written into the estimator's folder.
    """
    with reply("calibrate", json_path) as answer:
        from amortnlme.neural.artefact import store_calibration
        from amortnlme.neural.calibrate import calibrate
        from amortnlme.neural.estimator import Estimator

        result = calibrate(Estimator.load(estimator), n, seed)
        answer.result = result.to_dict()
        store_calibration(estimator, answer.result)
    return answer.code
