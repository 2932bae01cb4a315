"""Seconds until the first predictions in a fresh process: nothing compiled, then everything on disk.

    python benchmarks/simulation/first_call.py [MODEL ...]

Each line is a process of its own: importing, loading the model, and the first results; all kernels, those of
the package included, are compiled from nothing in the first one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from measure import ONE_CORE, save

MODELS = ("mrna_transfection_detailed", "sunitinib", "mrna_transfection_sde")
N_WARM = 5
CHILD = """
import json, sys, time
name = sys.argv[1]
begin = time.perf_counter()
import numpy, scipy.linalg, numba, sympy
libraries = time.perf_counter()
from amortnlme.core.rng import generator
from amortnlme.model.registry import load_model
imported = time.perf_counter()
model = load_model(name)
loaded = time.perf_counter()
phi = model.prior.sample(8, generator(1))
batch = model.design_sampler.sample(8, generator(2))
model.simulate_batch(phi, batch, generator(3))
first = time.perf_counter()
seconds = {"libraries": libraries - begin, "amortnlme": imported - libraries, "load_model": loaded - imported,
           "first results": first - loaded}
if "sensitivity" in model.capabilities:
    index = int(numpy.argmax(batch.n_records))
    from amortnlme.data.design import FIELDS, Design
    length = int(batch.n_records[index])
    design = Design(**{f: getattr(batch, f)[index, :length] for f in FIELDS})
    covariates = {c: v[index, :length] for c, v in batch.covariates.items()}
    model.predict_with_sensitivity(phi, design, covariates)
    seconds["first sensitivities"] = time.perf_counter() - first
print(json.dumps(seconds))
"""


def one_process(name: str, caches: str) -> dict[str, float]:
    """Seconds of each stage in a process of its own."""
    environment = {
        **os.environ,
        **ONE_CORE,
        "AMORTNLME_CACHE_DIR": f"{caches}/kernels",
        "NUMBA_CACHE_DIR": f"{caches}/numba",
    }
    command = [sys.executable, "-c", CHILD, name]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def show(label: str, seconds: dict[str, float]) -> None:
    """Print one process."""
    stages = ", ".join(f"{stage} {value:.2f}" for stage, value in seconds.items())
    without = seconds["load_model"] + seconds["first results"]
    print(f"  {label}: {stages}; model to first results {without:.2f} s", flush=True)


def main(names: tuple[str, ...]) -> None:
    """Print every process and write results/first_call.json."""
    figures: dict[str, object] = {}
    for name in names:
        print(name)
        with tempfile.TemporaryDirectory() as caches:
            cold = one_process(name, caches)
            show("nothing compiled", cold)
            warm = [one_process(name, caches) for _ in range(N_WARM)]
        middle = {stage: sorted(run[stage] for run in warm)[N_WARM // 2] for stage in cold}
        show(f"compiled before (median of {N_WARM})", middle)
        figures[name] = {"cold": cold, "warm": middle}
    save("first_call", figures)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or MODELS)
