"""`amortnlme simulate`: a training set of one individual model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amortnlme.cli.check import ModelWord
from amortnlme.cli.options import JsonPath, Seed
from amortnlme.cli.reply import reply


def run(
    model: ModelWord,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Number of simulated subjects.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the training set (NAME.training).")],
    seed: Seed = 0,
    shard_size: Annotated[int, typer.Option("--shard-size", min=1, help="Subjects per file.")] = 10_000,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes; the bytes do not depend on it.")
    ] = 1,
    json_path: JsonPath = None,
) -> int:
    """Simulate a training set of a model.

    Subjects come from the model's prior and design sampler. Repeat the command to resume.
    """
    from amortnlme.cli.tables import say
    from amortnlme.model.registry import load_model
    from amortnlme.training.training_set import TrainingSet

    with reply("simulate", json_path) as answer:
        training_set = TrainingSet.create(
            out, load_model(model), n, seed, shard_size=shard_size, workers=workers, progress=True
        )
        counted = training_set.verify()
        answer.result = {
            "path": str(out),
            "model": training_set.header["model"],
            "seed": seed,
            "n": counted.n_rows,
            "n_failed": counted.n_failed,
            "n_shards": training_set.n_shards,
            "fingerprint": training_set.fingerprint,
        }
        say(f"{counted.n_rows} subjects in {out}, {counted.n_failed} of them with a failed solve.")
    return answer.code
