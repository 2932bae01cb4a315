"""Runs of a selection study, stored one by one, so that a script that was stopped goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amortnlme.core.files import make_folder, write_json_atomic
from amortnlme.core.json_values import json_values

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


class Runs:
    """Finished runs of one study in `results/<name>.json`, renewed after each run."""

    def __init__(self, name: str, folder: Path = RESULTS) -> None:
        self.path = make_folder(folder) / f"{name}.json"
        self.rows: dict[str, Row] = {}
        if self.path.is_file():
            self.rows = json.loads(self.path.read_text(encoding="utf-8"))

    def run(self, key: str, work: Callable[[], Row]) -> Row:
        """The row of one run, made now where it is not stored."""
        if key not in self.rows:
            wall, cpu = time.perf_counter(), time.process_time()
            row = work()
            row |= {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
            self.rows[key] = json_values(row)
            write_json_atomic(self.path, self.rows)
            print(f"{key}: {row['cpu_s']:.1f} CPU s", flush=True)
        return self.rows[key]
