"""`amortnlme train`: an estimator from a training set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amortnlme.cli.options import JsonPath, Seed
from amortnlme.cli.reply import reply


def run(
    training_set: Annotated[
        Path, typer.Argument(metavar="TRAINING_SET", help="Folder from `amortnlme simulate`.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the estimator.")],
    spec: Annotated[
        Path | None, typer.Option("--spec", help="TOML file with tables [network] and [training].")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model file, where the model is not shipped.")
    ] = None,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on from a checkpoint of this run.")
    ] = True,
    json_path: JsonPath = None,
) -> int:
    """Train an estimator on a training set.

    Repeat the command to resume an interrupted run.
    """
    from amortnlme.cli.inputs import read_specs
    from amortnlme.cli.tables import say
    from amortnlme.model.registry import load_model
    from amortnlme.training.training_set import TrainingSet

    with reply("train", json_path) as answer:
        simulated = TrainingSet.open(training_set)
        individual = None if model is None else load_model(model)
        network, training = read_specs(spec)
        from amortnlme.neural.train import train

        estimator = train(simulated, network, training, out, seed, model=individual, resume=resume)
        last = estimator.history[-1]
        answer.result = {
            "path": str(out),
            "model": estimator.model.name,
            "fingerprint": estimator.fingerprint,
            "network": network.to_config(),
            "training": training.to_config(),
            "history": list(estimator.history),
        }
        say(f"{len(estimator.history)} epochs, validation loss {last['validation_nll']:.3f}: {out}")
    return answer.code
