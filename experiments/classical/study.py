"""What the classical studies share: runs stored one by one, tables, and rows made of fits."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from amortnlme.core.files import make_folder, write_json_atomic, write_text_atomic
from amortnlme.core.json_values import json_values
from amortnlme.methods.population_fit import PopulationFit

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LOG_2PI = float(np.log(2.0 * np.pi))
Row = dict[str, Any]


class Study:
    """Finished runs of one study in a JSON file that is renewed after each run; a rerun skips them."""

    def __init__(self, name: str, folder: Path, settings: Row, again: bool = False) -> None:
        self.name, self.path, self.settings = name, make_folder(folder) / f"{name}.json", settings
        self.runs: dict[str, Row] = {}
        if self.path.is_file() and not again:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            if stored["settings"] != json.loads(json.dumps(settings)):
                raise SystemExit(
                    f"{self.path} holds runs with settings {stored['settings']}, not {settings}. "
                    "Pass --again to replace them, or --out for another folder."
                )
            self.runs = stored["runs"]

    def run(self, key: str, work: Callable[[], Row]) -> Row:
        """The row of one run, made now where it is not stored."""
        if key not in self.runs:
            wall, cpu = time.perf_counter(), time.process_time()
            row = work()
            row |= {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
            self.runs[key] = json_values(row)
            document = {"study": self.name, "settings": self.settings, "runs": self.runs}
            write_json_atomic(self.path, json_values(document))
            print(f"{key}: {row['wall_s']:.1f} s", flush=True)
        return self.runs[key]


def options(name: str, text: str) -> argparse.ArgumentParser:
    """The options all studies have."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a check of the script in a minute or two")
    parser.add_argument("--again", action="store_true", help="replace stored runs")
    parser.add_argument("--out", type=Path, help=f"folder of {name}.json (default results/; small: runs/)")
    return parser


def open_study(name: str, args: argparse.Namespace, settings: Row) -> Study:
    """The study of the given options; small ones never touch the results that are kept."""
    folder = args.out or (ROOT / "runs" / "classical_small" if args.small else HERE / "results")
    return Study(name, folder, settings, args.again)


def fit_row(fit: PopulationFit) -> Row:
    """What a table needs of a fit."""
    errors = None if fit.covariance is None else np.sqrt(np.diagonal(fit.covariance))
    return {
        "method": fit.method,
        "status": fit.status.value,
        "warnings": [text[: text.find("]") + 1] for text in fit.warnings],
        "ofv": fit.ofv,
        "ofv_se": fit.ofv_se,
        "ofv_kind": fit.ofv_kind,
        "criterion": fit.criterion,
        "x_names": fit.x_names,
        "x": fit.x,
        "x_se": errors,
        "omega": fit.omega,
        "estimates": {row.name: [row.value, row.se] for row in fit.estimates},
        "eta_shrinkage": fit.eta_shrinkage,
        "lowest_ess": float(np.min(fit.quality.ess)),
        "highest_pareto_k": float(np.max(fit.quality.pareto_k)),
        "n_observations": fit.n_observations,
        "n_censored": fit.n_censored,
        "seconds": dict(fit.seconds),
    }


def markdown(titles: tuple[str, ...], rows: list[list[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def show(args: argparse.Namespace, marker: str, table: str) -> None:
    """Print a table; of a full study, put it below its marker in README.md."""
    print(f"\n{marker}\n\n{table}\n", flush=True)
    if args.small or args.out:
        return
    path, line = HERE / "README.md", f"<!-- table: {marker} -->"
    before, after = path.read_text(encoding="utf-8").split(line)
    rest = after.lstrip("\n").split("\n")
    while rest and rest[0].startswith("|"):
        rest.pop(0)
    tail = "\n".join(rest).lstrip("\n")
    write_text_atomic(path, f"{before}{line}\n\n{table}\n\n{tail}")
