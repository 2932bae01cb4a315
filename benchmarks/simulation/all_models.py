"""Every shipped model: rates on one core, and seconds of the first call with and without kernels on disk.

    python benchmarks/simulation/all_models.py

Prior draws under designs of the model's own sampler; tolerances as shipped (ODEs: rtol 1e-8).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from measure import ONE_CORE, save

CHILD = """
import json, sys, time
begin = time.perf_counter()
import numpy, scipy.linalg, numba, sympy
from amortnlme.core.rng import generator
from amortnlme.data.design import FIELDS, Design
from amortnlme.model.registry import load_model
imported = time.perf_counter()
model = load_model(sys.argv[1])
n = int(sys.argv[2])
phi = model.prior.sample(n, generator(1))
batch = model.design_sampler.sample(n, generator(2))
few = batch.take(numpy.arange(8))
started = time.perf_counter() - imported
found = model.simulate_batch(phi[:8], few, generator(3))
out = {"start": time.perf_counter() - imported}
if n > 8:
    def per_second(work, count):
        seconds = []
        for _ in range(3):
            cpu = time.process_time()
            result = work()
            seconds.append(time.process_time() - cpu)
        return result, count / sorted(seconds)[1]
    simulated, out["simulations"] = per_second(lambda: model.simulate_batch(phi, batch, generator(3)), n)
    out["failed"] = int((simulated.status != 0).sum())
    out["observations"] = float(batch.n_observations.mean())
    if "sensitivity" in model.capabilities:
        length = int(batch.n_records[0])
        design = Design(**{f: getattr(batch, f)[0, :length] for f in FIELDS})
        covariates = {c: v[0, :length] for c, v in batch.covariates.items()}
        rows = phi[: max(n // 4, 8)]
        model.predict_with_sensitivity(rows[:8], design, covariates)
        work = lambda: model.predict_with_sensitivity(rows, design, covariates)
        _, out["sensitivities"] = per_second(work, len(rows))
print(json.dumps(out))
"""


def one_process(name: str, n: int, caches: str) -> dict[str, float]:
    """Figures of one model in a process of its own."""
    environment = {
        **os.environ,
        **ONE_CORE,
        "AMORTNLME_CACHE_DIR": f"{caches}/kernels",
        "NUMBA_CACHE_DIR": f"{caches}/numba",
    }
    command = [sys.executable, "-c", CHILD, name, str(n)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{name}: {run.stderr[-800:]}")
    return json.loads(run.stdout.splitlines()[-1])


def main(names: tuple[str, ...], n: int = 4000) -> None:
    """Print a line for each model and write results/all_models.json."""
    figures: dict[str, object] = {}
    print(
        f"{'model':30s} {'simulations/s':>14s} {'sensitivities/s':>16s} "
        f"{'failed':>7s} {'first':>7s} {'warm':>6s}"
    )
    for name in names:
        with tempfile.TemporaryDirectory() as caches:
            cold = one_process(name, 8, caches)
            warm = sorted(one_process(name, 8, caches)["start"] for _ in range(3))[1]
            found = one_process(name, n, caches)
        sensitivities = f"{found['sensitivities']:,.0f}" if "sensitivities" in found else "-"
        print(
            f"{name:30s} {found['simulations']:14,.0f} {sensitivities:>16s} {found['failed']:7.0f} "
            f"{cold['start']:7.1f} {warm:6.2f}",
            flush=True,
        )
        figures[name] = {**found, "cold_start": cold["start"], "warm_start": warm}
    save("all_models", figures)


if __name__ == "__main__":
    from amortnlme.model.registry import model_names

    main(tuple(sys.argv[1:]) or model_names())
