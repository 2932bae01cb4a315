"""Time and memory against the number of simulations and of threads: detailed mRNA, 180 outputs, rtol 1e-6.

    python benchmarks/simulation/scaling.py

Every line is a process of its own, so that its peak memory is its own. Predictions return their outputs (1440
bytes a simulation), which is subtracted; a training set goes to the disk shard by shard: all memory counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from measure import ONE_CORE, save

SIZES = (1_000, 10_000, 100_000, 1_000_000)
SET_SIZES = (10_000, 40_000, 160_000)
REPEATS = 5
CHILD = """
import json, resource, sys, tempfile, time
sys.path.insert(0, sys.argv[1])
work, n, repeats = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
from mrna_ode import ATOL, RTOL, model_at
from amortnlme.core.rng import generator
from amortnlme.data.design import Design
from amortnlme.training.training_set import TrainingSet
import numpy as np
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
model = model_at(RTOL, ATOL)
design = Design.from_doses([], np.arange(1, 181) / 6.0)
model.predict(model.prior.sample(100, generator(0)), design)
before = peak()
elapsed, busy = [], []
phi = model.prior.sample(n, generator(1))
for k in range(repeats):
    wall, cpu = time.perf_counter(), time.process_time()
    if work == "predict":
        f = model.predict(phi, design).f
        del f
    else:
        with tempfile.TemporaryDirectory() as folder:
            TrainingSet.create(folder + "/x.training", model, n, 1, progress=False)
    elapsed.append(time.perf_counter() - wall)
    busy.append(time.process_time() - cpu)
middle = repeats // 2
wall, cpu = sorted(elapsed)[middle], sorted(busy)[middle]
print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak() - before, "base": before}))
"""


def one_process(work: str, n: int, threads: int, repeats: int) -> dict[str, float]:
    """Seconds and bytes of one piece of work."""
    environment = {**os.environ, **ONE_CORE, "NUMBA_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), work, str(n), str(repeats)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    """Print the tables and write results/scaling.json."""
    figures: dict[str, object] = {}
    print("predict, one thread")
    for n in SIZES:
        found = one_process("predict", n, 1, 3 if n == SIZES[-1] else REPEATS)
        extra = found["peak"] - n * 180 * 8
        figures[f"predict {n}"] = {**found, "beyond_outputs": extra}
        rate = n / found["cpu"]
        print(
            f"  {n:9,d}: {rate:10,.0f} per CPU second, {extra / 1e6:8.1f} MB beyond the outputs", flush=True
        )
    print("a training set, one thread")
    for n in SET_SIZES:
        found = one_process("training", n, 1, 1)
        figures[f"training {n}"] = found
        rate = n / found["wall"]
        print(f"  {n:9,d}: {rate:10,.0f} per second, {found['peak'] / 1e6:8.1f} MB", flush=True)
    n, pairs = 200_000, []
    for _ in range(3):  # in turns, so that both meet the same neighbours
        one, two = (one_process("predict", n, threads, 3)["wall"] for threads in (1, 2))
        pairs.append((one, two, one / two))
    one, two, gain = sorted(pairs, key=lambda pair: pair[2])[1]
    figures["threads"] = {
        "n": n,
        "wall_1": one,
        "wall_2": two,
        "gain": gain,
        "all_gains": [g for *_, g in pairs],
    }
    print(f"two threads: {gain:.2f} times as fast ({n / one:,.0f} and {n / two:,.0f} per second)")
    save("scaling", figures)


if __name__ == "__main__":
    main()
