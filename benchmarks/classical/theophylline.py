"""Seconds of classical fits beside their peers, in one run on one machine.

    python benchmarks/classical/theophylline.py               medians of 5 warm repeats
    python benchmarks/classical/theophylline.py --repeats 1   a check of the script

Ours: FOCEI with standard errors, the same with the refereed -2LL, SAEM with standard errors and likelihood,
each in a fresh process (kernels already on disk), first call and warm. Peers: R's nlme and lme4 through
theophylline.R, where Rscript is installed. Tables: theo_sd, 12 subjects, 132 concentrations; the warfarin
fixture, 10 subjects, 110 concentrations. Published figures of other tools come from other machines and are
marked so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from amortnlme.core.files import make_folder, write_json_atomic
from amortnlme.core.json_values import json_values
from amortnlme.data.event_table import read_csv
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.classical import Focei
from amortnlme.methods.fit import fit
from amortnlme.methods.saem import Saem
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

HERE = Path(__file__).parent
CLASSICAL = HERE.parent.parent / "experiments" / "classical"
EFFECTS = PopulationModel(random_effects=RandomEffects(("ka", "CL", "V")))
#: What is timed: model and table of experiments/classical, method.
CASES: dict[str, tuple[str, str, AbstractMethod]] = {
    "theo_sd, FOCEI + SE": ("oral_clearance.py", "theo_sd.csv", Focei(referee_points=0)),
    "theo_sd, FOCEI + SE + refereed -2LL": ("oral_clearance.py", "theo_sd.csv", Focei()),
    "theo_sd, SAEM + SE + -2LL": ("oral_clearance.py", "theo_sd.csv", Saem()),
    "warfarin, FOCEI + SE": ("warfarin_cl.py", "warfarin_10.csv", Focei(referee_points=0)),
    "warfarin, FOCEI + SE + refereed -2LL": ("warfarin_cl.py", "warfarin_10.csv", Focei()),
}
PUBLISHED = (
    ("theo_sd, nlmixr2 FOCEI + covariance", "0.82 + 0.38", "nlmixr2 documentation"),
    ("warfarin, ferx FOCEI", "0.13 (12 threads), 0.27 (1 thread)", "ferx-core, one laptop"),
    ("warfarin, NONMEM 7.6 FOCEI", "0.25", "ferx-core, the same laptop"),
)


def child(case: str, repeats: int) -> None:
    """In a fresh process: the first fit and warm ones, printed as JSON."""
    model, table, method = CASES[case]
    dataset, wall, cpu, status, value = read_csv(CLASSICAL / "data" / table), [], [], "", 0.0
    for seed in range(repeats + 1):
        start, start_cpu = time.perf_counter(), time.process_time()
        result = fit(dataset, EFFECTS, method, model=str(CLASSICAL / "models" / model), seed=seed)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
        status, value = result.status.value, result.ofv
    row = {"first_s": wall[0], "wall_s": wall[1:], "cpu_s": cpu[1:], "status": status, "ofv": value}
    print(json.dumps(json_values(row)))


def ours(case: str, repeats: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", case, "--repeats", str(repeats)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def peers(repeats: int) -> dict[str, Any]:
    """R's answers by package; an empty one with a line where R is not there."""
    program = shutil.which("Rscript")
    if program is None:
        print("nlme, lme4: skipped, there is no Rscript (Debian: r-base-core r-cran-nlme r-cran-lme4)")
        return {}
    table = str(CLASSICAL / "data" / "theo_sd.csv")
    command = [program, str(HERE / "theophylline.R"), table, str(repeats)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"nlme, lme4: skipped, Rscript failed: {done.stderr.strip().splitlines()[-1:]}")
        return {}
    found = json.loads(done.stdout)
    for name in ("nlme", "lme4"):
        if name not in found:
            print(f"{name}: skipped, the R package is not installed (Debian: r-cran-{name})")
        elif "error" in found[name]:
            print(f"{name}: skipped, it failed: {found[name]['error']}")
    return found


def table(document: dict[str, Any]) -> str:
    lines = ["| fit | warm, s (median) | CPU s | first call, s | where |", "|---|---|---|---|---|"]
    for case, row in document["ours"].items():
        wall, cpu = statistics.median(row["wall_s"]), statistics.median(row["cpu_s"])
        lines.append(f"| **{case}** | {wall:.2f} | {cpu:.2f} | {row['first_s']:.1f} | this run |")
    for name, row in document["peers"].items():
        if "seconds" in row:
            wall = statistics.median(row["seconds"])
            who = f"theo_sd, R {name} {row['version']} (-2LL {-2 * row['log_likelihood']:.2f}, its own kind)"
            lines.append(f"| {who} | {wall:.2f} | | + {row['load_s']:.1f} to load | this run |")
    lines += [f"| {who} | {seconds} | | | published: {where} |" for who, seconds, where in PUBLISHED]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", choices=tuple(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--note", default="", help="state of the machine, for the record")
    args = parser.parse_args()
    if args.child:
        child(args.child, args.repeats)
        return
    document = {
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()},
        "note": args.note,
        "repeats": args.repeats,
        "ours": {case: ours(case, args.repeats) for case in CASES},
        "peers": peers(args.repeats),
    }
    write_json_atomic(make_folder(HERE / "results") / "theophylline.json", json_values(document))
    text = table(document)
    print(text)
    readme, marker = HERE / "README.md", "<!-- table -->"
    before, after = readme.read_text(encoding="utf-8").split(marker)
    rest = after.lstrip("\n").split("\n")
    while rest and rest[0].startswith("|"):
        rest.pop(0)
    readme.write_text(f"{before}{marker}\n\n{text}\n\n" + "\n".join(rest).lstrip("\n"), encoding="utf-8")


if __name__ == "__main__":
    main()
