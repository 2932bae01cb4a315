"""`amortnlme join`: one joint law for the random effects of separately fitted models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amortnlme.cli.options import JsonPath, Seed
from amortnlme.cli.reply import reply
from amortnlme.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amortnlme.methods.joint_fit import JointFit
    from amortnlme.methods.joint_model import JointModel


EndpointFits = Annotated[
    list[str], typer.Argument(metavar="NAME=FIT...", help="Endpoints: a name and the HDF5 file of its fit.")
]
EndpointData = Annotated[
    list[str],
    typer.Option("--data", "-d", help="NAME=CSV for each endpoint, or one CSV (or bundled dataset) for all."),
]
EndpointModels = Annotated[
    list[str] | None, typer.Option("--model", help="NAME=FILE where the model is no shipped one.")
]
Shared = Annotated[
    str | None, typer.Option("--shared", help="Parameters whose effects endpoints share, such as ka,CL,V.")
]
Counted = Annotated[
    list[str] | None,
    typer.Option("--outputs", help="NAME=OUTPUT,OUTPUT: the outputs that count for an endpoint."),
]
Family = Annotated[
    str,
    typer.Option(
        "--family",
        "-f",
        help="auto, independent, one-pass, gaussian, shrunken, sparse, split, mixture, "
        "conditional-mixture, flow, one-pass-flow or stacked.",
    ),
]
Also = Annotated[
    str | None, typer.Option("--also", help="Other families to report beside it, separated by commas.")
]
Primary = Annotated[
    str | None, typer.Option("--primary", help="Endpoint that is to be predicted from the others.")
]
HeldOut = Annotated[float, typer.Option("--held-out", help="Share of subjects that compare families.")]
NodesPerSubject = Annotated[int, typer.Option("--nodes", help="Importance nodes per subject.")]
Free = Annotated[bool, typer.Option("--free-variances", help="Learn the variances of normal laws too.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="HDF5 file for the joint law.")]
Page = Annotated[Path | None, typer.Option("--report", metavar="HTML", help="Report page.")]


def run(
    fits: EndpointFits,
    data: EndpointData,
    model: EndpointModels = None,
    shared: Shared = None,
    outputs: Counted = None,
    family: Family = "auto",
    also: Also = None,
    primary: Primary = None,
    held_out: HeldOut = 0.2,
    nodes: NodesPerSubject = 512,
    free: Free = False,
    out: Out = None,
    report: Page = None,
    seed: Seed = 0,
    json_path: JsonPath = None,
) -> int:
    """Join separately fitted models: learn how their random effects depend on each other.

    The fits stay as they are; every subject is recognized by its ID in the data of all endpoints.
    """
    from amortnlme.methods.join import JoinOptions, join

    with reply("join", json_path, outputs=[out, report]) as answer:
        options = JoinOptions(
            family=family,
            also=_words(also),
            primary=primary,
            held_out=held_out,
            n_nodes=nodes,
            free=free,
        )
        joint = _joint_model(fits, data, model or (), shared, outputs or ())
        found = join(joint, options, seed=seed)
        if out is not None:
            found.save(out)
        if report is not None:
            from amortnlme.report.joint_page import write_joint_report

            write_joint_report(found, report)
        answer.result = found.to_dict()
        _show(found)
    return answer.code


def _joint_model(
    fits: Sequence[str],
    data: Sequence[str],
    models: Sequence[str],
    shared: str | None,
    outputs: Sequence[str],
) -> JointModel:
    from amortnlme.cli.inputs import read_dataset
    from amortnlme.methods.joint_model import Endpoint, JointModel
    from amortnlme.methods.population_fit import PopulationFit
    from amortnlme.model.registry import load_model

    paths = _pairs("endpoints", fits)
    for_all = data[0] if len(data) == 1 and "=" not in data[0] else None
    tables = dict.fromkeys(paths, for_all) if for_all is not None else _pairs("--data", data)
    files, counted = _pairs("--model", models), _pairs("--outputs", outputs)
    for flag, given in (("--data", tables), ("--model", files), ("--outputs", counted)):
        unknown = [name for name in given if name not in paths]
        if unknown:
            raise UsageError(
                "E_USAGE_ENDPOINT",
                f"{flag} names {unknown[0]!r}, which is none of the endpoints {', '.join(paths)}.",
            )
    datasets = {word: read_dataset(word) for word in dict.fromkeys(tables.values()) if word is not None}
    endpoints = []
    for name, path in paths.items():
        table = tables.get(name)
        if table is None:
            raise UsageError("E_USAGE_ENDPOINT", f"endpoint {name!r} has no data. Add --data {name}=FILE.")
        fit = PopulationFit.load(path)
        individual = load_model(files.get(name, fit.model_name))
        endpoints.append(Endpoint(name, individual, fit, datasets[table], _words(counted.get(name)) or None))
    return JointModel(tuple(endpoints), _words(shared))


def _pairs(what: str, words: Sequence[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name or not value or name in found:
            raise UsageError(
                "E_USAGE_ENDPOINT", f"{what}: {word!r} is not NAME=VALUE with a name of its own."
            )
        found[name] = value
    return found


def _words(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def _show(found: JointFit) -> None:
    from amortnlme.cli.tables import cell_text, say, show_table

    rows = [
        [
            r.family,
            r.train_gain,
            r.train_se,
            r.held_out_gain,
            r.held_out_over_gaussian,
            r.held_out_over_gaussian_sd,
            r.minimum_ess,
        ]
        for r in found.results
    ]
    heads = ["family", "gain", "MC SE", "held out", "over Gaussian", "SE", "least ESS"]
    show_table(
        heads, rows, title=f"log-likelihood over independent endpoints [nats], {found.n_subjects} subjects"
    )
    document = found.to_dict()
    names = document["effects"]
    correlations = [
        [name, *(float(value) for value in row)]
        for name, row in zip(names, document["correlation"], strict=True)
    ]
    show_table(["correlation", *names], correlations, title=f"joint law: {found.family}")
    for key, value in found.notes.items():
        say(f"{key}: {cell_text(value) if isinstance(value, float) else value}")
