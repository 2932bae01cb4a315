"""`amortnlme sample`: every subject's posterior draws from a trained estimator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amortnlme.cli.options import Draws, JsonPath, LogValues, Seed, TimeFactor
from amortnlme.cli.reply import reply

EstimatorWord = Annotated[
    str, typer.Argument(metavar="ESTIMATOR", help="Folder of an estimator, or the name of a shipped one.")
]


def run(
    estimator: EstimatorWord,
    file: Annotated[str, typer.Argument(metavar="DATA", help="CSV file, or the name of a bundled dataset.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="HDF5 file for the draws.")],
    draws: Draws = 1000,
    time_factor: TimeFactor = None,
    log_values: LogValues = False,
    seed: Seed = 0,
    json_path: JsonPath = None,
) -> int:
    """Draw from every subject's posterior.

    Subjects outside what the estimator was trained on are named.
    """
    from amortnlme.cli.inputs import read_dataset
    from amortnlme.cli.tables import say
    from amortnlme.core.rng import generator

    with reply("sample", json_path, outputs=[out]) as answer:
        dataset = read_dataset(file, time_factor, log=log_values)
        # After the data is known to be readable: the neural backend takes seconds to start.
        from amortnlme.neural.estimator import Estimator

        posterior = Estimator.load(estimator).sample(dataset, draws, generator(seed))
        posterior.save(out)
        outside = {
            name: reasons
            for name, reasons in zip(dataset.ids, posterior.out_of_domain, strict=True)
            if reasons
        }
        answer.result = {
            "path": str(out),
            "model": posterior.model_name,
            "estimator_fingerprint": posterior.estimator_fingerprint,
            "dataset_fingerprint": posterior.dataset_fingerprint,
            "seed": seed,
            "n_draws": draws,
            "n_rejected": posterior.n_rejected,
            "subjects": dataset.ids,
            "out_of_domain": outside,
        }
        say(f"{draws} draws for each of {dataset.n_subjects} subjects in {out}.")
        for name, reasons in outside.items():
            say(f"subject {name} lies outside what the estimator was trained on: {'; '.join(reasons)}")
    return answer.code
