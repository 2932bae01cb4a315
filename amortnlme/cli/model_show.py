"""`amortnlme model`: one individual model in full, with the code that computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from amortnlme.cli.check import ModelWord
from amortnlme.cli.options import JsonPath
from amortnlme.cli.reply import reply

if TYPE_CHECKING:
    from amortnlme.model.individual import IndividualModel

app = typer.Typer(help="Look at one individual model.", no_args_is_help=False)


@app.callback()
def _model() -> None:
    """Look at one individual model."""
    # Without a callback typer drops the name of a group's only command.


@app.command("show")
def show(
    model: ModelWord,
    source: Annotated[
        bool, typer.Option("--source", help="Print the generated code, or the closed form's matrices.")
    ] = False,
    json_path: JsonPath = None,
) -> int:
    """Show parameters, equations, outputs and engine of a model."""
    from amortnlme.cli.model_code import code_of, engine_of
    from amortnlme.cli.tables import say, show_table
    from amortnlme.model.registry import load_model

    with reply("model show", json_path) as answer:
        shown = load_model(model)
        answer.result = {
            **_identity(shown),
            "engine": engine_of(shown),
            "parameters": _parameters(shown),
            **_equations(shown),
            "entry": _entry(shown),
            "prior": shown.prior.to_config(),
            "design_sampler": shown.design_sampler.to_config(),
            "code": code_of(shown) if source else None,
        }
        if source:
            say(str(answer.result["code"]))
        else:
            for line in _lines(answer.result):
                say(line)
            show_table(
                ["parameter", "unit", "transform", "typical", "prior mean", "prior SD", "role", "what it is"],
                [list(row.values()) for row in answer.result["parameters"]],
            )
            say("Prior mean and SD are those of the transformed parameter.")
    return answer.code


def _identity(model: IndividualModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "text": model.text,
        "source": model.source,
        "fingerprint": model.fingerprint,
        "units": dict(model.units),
        "states": list(model.states),
        "dose_state": model.dynamics.dose_state,
        "covariates": list(model.covariates),
        "capabilities": sorted(model.capabilities),
        "dynamics": model.dynamics.to_config()["kind"],
    }


def _parameters(model: IndividualModel) -> list[dict[str, Any]]:
    prior = model.prior.to_config()
    mean, sd = prior.get("mean"), prior.get("sd")
    return [
        {
            "name": p.name,
            "unit": p.unit,
            "transform": p.transform,
            "typical": p.typical,
            "prior_mean": mean[i] if mean else None,
            "prior_sd": sd[i] if sd else None,
            "role": p.role,
            "text": p.text,
        }
        for i, p in enumerate(model.parameters.parameters)
    ]


def _equations(model: IndividualModel) -> dict[str, Any]:
    texts = model.program.equation_texts
    return {
        "derivatives": dict(zip(model.states, texts["derivatives"], strict=True)),
        "outputs": [
            {"name": o.name, "unit": o.unit, "expression": text, "error_model": o.error_model.to_config()}
            for o, text in zip(model.outputs, texts["outputs"], strict=True)
        ],
    }


def _entry(model: IndividualModel) -> list[str]:
    """How states start, doses enter and noise acts, where that differs from zero states and plain doses."""
    texts, states = model.program.equation_texts.get("extra", []), model.states
    n = len(states)
    start = 1 if model.dynamics.entry.start is not None else 0
    kinds = (("{} at the start", 0.0), ("lag of doses to {}", 0.0), ("bioavailability of doses to {}", 1.0))
    lines = [
        f"{what.format(state)} = {text}"
        for i, (what, plain) in enumerate(kinds)
        for state, text in zip(states, texts[i * n : (i + 1) * n], strict=False)
        if not _is_number(text, plain)
    ]
    lines += [f"states move from t = {text}" for text in texts[3 * n : 3 * n + start]]
    rest = texts[3 * n + start :]
    if model.dynamics.to_config()["kind"] == "jump":
        changes = model.dynamics.to_config()["stoichiometry"]
        return lines + [f"reaction {c} at rate {text}" for c, text in zip(changes, rest, strict=True)]
    width = len(rest) // n
    return lines + [
        f"noise of {state}: {', '.join(rest[i * width : (i + 1) * width])}"
        for i, state in enumerate(states)
        if width
    ]


def _is_number(text: str, number: float) -> bool:
    return text.replace(".", "", 1).isdigit() and float(text) == number


def _lines(result: Any) -> list[str]:
    units = ", ".join(f"{kind} {unit}" for kind, unit in result["units"].items())
    outputs = [
        f"  {o['name']} [{o['unit']}] = {o['expression']}   ({o['error_model']['kind']} error)"
        for o in result["outputs"]
    ]
    return [
        f"{result['name']} (version {result['version']}, fingerprint {result['fingerprint'][:19]})",
        result["text"],
        f"Source: {result['source']}",
        f"Units: {units}. Covariates: {', '.join(result['covariates']) or 'none'}.",
        f"Can: {', '.join(result['capabilities'])}. Dynamics: {result['dynamics']}. "
        f"Engine: {result['engine']}.",
        f"States (doses go to {result['dose_state']} unless they say otherwise):",
        *(f"  d {state}/dt = {text}" for state, text in result["derivatives"].items()),
        *(f"  {line}" for line in result["entry"]),
        "Outputs:",
        *outputs,
    ]
