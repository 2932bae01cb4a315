"""Finished runs of a study, one JSON file renewed after each of them; tables of z-scores."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amortnlme.core.files import make_folder, write_json_atomic
from amortnlme.core.json_values import json_values

HERE = Path(__file__).parent
Row = dict[str, Any]


class Runs:
    """Runs by key; a rerun of the script skips those that are stored."""

    def __init__(self, name: str, settings: Row, folder: Path | None = None, again: bool = False) -> None:
        self.path = make_folder(folder or HERE / "results") / f"{name}.json"
        self.settings, self.rows = settings, dict[str, Row]()
        if self.path.is_file() and not again:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            if stored["settings"] != json.loads(json.dumps(settings)):
                raise SystemExit(f"{self.path} holds runs with other settings. Pass --again to replace them.")
            self.rows = stored["runs"]

    def run(self, key: str, work: Callable[[], Row]) -> Row:
        """The row of one run, made now where it is not stored."""
        if key not in self.rows:
            cpu = time.process_time()
            row = work() | {"cpu_s": time.process_time() - cpu}
            self.rows[key] = json_values(row)
            write_json_atomic(self.path, json_values({"settings": self.settings, "runs": self.rows}))
            print(f"{key}: {row['cpu_s']:.1f} CPU s", flush=True)
        return self.rows[key]


def rms_table(rows: Sequence[tuple[str, Sequence[Row]]], names: Sequence[str]) -> str:
    """Markdown table: root mean square z of every parameter over the data sets, the largest, CPU seconds."""
    lines = ["| method | " + " | ".join(names) + " | largest | CPU s |", "|---" * (len(names) + 3) + "|"]
    for label, runs in rows:
        z = np.sqrt((np.array([run["z"] for run in runs]) ** 2).mean(axis=0))
        seconds = float(np.median([run["cpu_s"] for run in runs]))
        numbers = " | ".join(f"{v:.2f}" for v in [*z, z.max()])
        lines.append(f"| {label} | {numbers} | {seconds:.1f} |")
    return "\n".join(lines)
