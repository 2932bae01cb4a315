"""`amortnlme models`: the individual models and estimators that are at hand."""

from __future__ import annotations

from amortnlme.cli.options import JsonPath
from amortnlme.cli.reply import reply


def run(json_path: JsonPath = None) -> int:
    """List individual models and shipped estimators."""
    from amortnlme.cli.inputs import shipped_estimators
    from amortnlme.cli.tables import show_table
    from amortnlme.model.registry import load_model, model_names

    with reply("models", json_path) as answer:
        estimators = shipped_estimators()
        rows = []
        for name in model_names():
            model = load_model(name)
            rows.append(
                {
                    "name": name,
                    "version": model.version,
                    "text": model.text,
                    "parameters": {p.name: p.unit for p in model.parameters.parameters},
                    "capabilities": sorted(model.capabilities),
                    "estimator": name in estimators,
                    "source": model.source,
                }
            )
        answer.result = {"models": rows, "estimators": sorted(estimators)}
        show_table(
            ["model", "what it is", "parameters", "shipped estimator"],
            [
                [
                    row["name"],
                    row["text"],
                    ", ".join(
                        f"{name} [{unit}]" if unit else name for name, unit in row["parameters"].items()
                    ),
                    row["estimator"],
                ]
                for row in rows
            ],
        )
    return answer.code
