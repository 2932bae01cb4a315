"""Tables of README.md from the JSON files of all replicates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

FAMILIES = (
    "one-pass", "one-pass-flow", "gaussian", "shrunken", "sparse", "split", "mixture", "conditional-mixture",
    "flow", "stacked",
)  # fmt: skip


def _spread(values: list[float], decimals: int = 1) -> str:
    if not values:
        return "-"
    mean = f"{np.mean(values):.{decimals}f}"
    return mean if len(values) < 2 else f"{mean} +- {np.std(values, ddof=1):.{decimals}f}"


def study_table(records: list[dict[str, Any]]) -> str:
    """One row per family: shares of the oracle, agreement of effects, gain over the Gaussian."""
    rows = [r["families"] for r in records]
    oracle = [r["oracle"] for r in rows]
    lines = [
        "| prior | data sets | total, % of oracle | [AST, ALT] % | [primary given biomarkers] % "
        "| EBE R2, R0 / IC50 | nats over EM Gaussian | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        mine = [r for r in rows if family in r]
        if not mine:
            continue
        found = [r[family] for r in mine]
        pairs = [(r[family], r["oracle"]) for r in mine]
        primary = 100 * np.sum([f["primary"] for f in found]) / np.sum([o["primary"] for _, o in pairs])
        over = [r[family]["total"] - r["gaussian"]["total"] for r in mine]
        r_squared = " / ".join(_spread([f["r_squared"][k] for f in found], 2) for k in range(2))
        cells = [
            family,
            str(len(mine)),
            _spread([100 * f["total"] / o["total"] for f, o in pairs]),
            _spread([100 * f["biomarkers"] / o["biomarkers"] for f, o in pairs]),
            f"{primary:.0f}",
            r_squared,
            _spread(over),
            _spread([f["cpu"] for f in found]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    truth = [_spread([100 * o["r_squared_truth"][k] for o in oracle]) for k in range(2)]
    error = max(o["total_se"] for o in oracle)
    ess = min(o["ess"][0] for o in oracle)
    lines += [
        "",
        f"{len(records)} replicates; oracle {_spread([o['total'] for o in oracle])} nats per 500, of which "
        f"[primary given biomarkers] {_spread([o['primary'] for o in oracle])}; largest Monte-Carlo SE of an "
        f"oracle gain {error:.2f} nats, smallest ESS of a test subject {ess:.0f}; R2 of true primary effects "
        f"with the oracle's EBEs from biomarkers {truth[0]} % / {truth[1]} %; CPU s: fits "
        f"{_spread([r['cpu_fits'] for r in records], 0)}, banks "
        f"{_spread([r['cpu_banks'] for r in records], 0)}.",
    ]
    return "\n".join(lines)


def scaling_table(records: list[dict[str, Any]]) -> str:
    """One row per number of endpoints and family."""
    lines = [
        "| endpoints (effects) | replicates | prior | total % | [primary] % | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for n in sorted({r["endpoints"] for r in records}):
        mine = [r for r in records if r["endpoints"] == n]
        for family in mine[0]["families"]:
            rows = [r["families"][family] for r in mine]
            cells = [
                f"{n} ({mine[0]['effects']})",
                str(len(mine)),
                family,
                _spread([r["total"] for r in rows]),
                _spread([r["primary"] for r in rows], 0),
                _spread([r["cpu"][family] for r in mine]),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Replace the tables below their markers in README.md."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    for marker in [line for line in text.splitlines() if line.startswith("<!-- table: ")]:
        name = marker.removeprefix("<!-- table: ").removesuffix(" -->")
        paths = [
            p for p in sorted((folder / "results").glob("*.json")) if p.stem.rsplit("_", 1)[0] == name
            or (name == "scaling" and p.stem.startswith("scaling_"))
        ]  # fmt: skip
        records = [json.loads(p.read_text(encoding="utf-8")) for p in paths]
        if not records:
            table = "Not run yet."
        else:
            table = scaling_table(records) if name == "scaling" else study_table(records)
        before, after = text.split(marker)
        rest = after.split("<!-- end -->", 1)[1]
        text = f"{before}{marker}\n\n{table}\n\n<!-- end -->{rest}"
    (folder / "README.md").write_text(text, encoding="utf-8")
