"""Simulations per second into HDF5 shards of 10 000 rows with 180 float32 columns, synchronized to the disk.

    python benchmarks/simulation/shards.py [FOLDER]

1. writing alone: one finished shard, packed, checksummed, synchronized and renamed, again and again;
2. the whole way of a training set: prior draws, solving, measurement errors, writing;
3. solving alone, for comparison.
FOLDER decides which disk is measured; a temporary folder by default.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import cpu_seconds, save, use_one_core, wall_seconds

MODEL, ROWS, N_SHARDS, SEED = "mrna_transfection_detailed", 10_000, 8, 1


def main(folder: Path) -> None:
    """Print the figures and write results/shards.json."""
    from mrna_ode import ATOL, RTOL, model_at

    from amortnlme.training.shard import read_shard, shard_path, simulate_shard, write_shard
    from amortnlme.training.training_set import TrainingSet

    model = model_at(RTOL, ATOL)
    shard = simulate_shard(model, SEED, 0, ROWS)

    def write() -> None:
        write_shard(folder, 0, shard, "benchmark")

    write()
    size = shard_path(folder, 0).stat().st_size
    raw = shard.y.tobytes()

    def plain() -> None:
        with (folder / "raw").open("wb") as handle:
            handle.write(raw)
            os.fsync(handle.fileno())

    stages = {
        "write a shard": write,
        "read and verify a shard": lambda: read_shard(folder, 0, "benchmark"),
        "write the same columns as one plain file": plain,
        "simulate a shard": lambda: simulate_shard(model, SEED, 0, ROWS),
        "measurement errors alone": lambda: np.random.default_rng(1).standard_normal(shard.y.shape),
    }
    figures: dict[str, object] = {"rows": ROWS, "columns": shard.y.shape[1], "bytes_of_a_shard": size}
    for name, work in stages.items():
        elapsed, busy = ROWS / wall_seconds(work, 9), ROWS / cpu_seconds(work, 9)
        figures[name] = {"per_second": elapsed, "per_cpu_second": busy}
        print(f"{name:42s} {elapsed:12,.0f} per second {busy:12,.0f} per CPU second", flush=True)
    times = []
    for k in range(3):
        begin, busy = time.perf_counter(), time.process_time()
        TrainingSet.create(folder / f"{k}.training", model, N_SHARDS * ROWS, SEED, progress=False)
        times.append((time.perf_counter() - begin, time.process_time() - busy))
    elapsed, busy = (N_SHARDS * ROWS / float(np.median(column)) for column in zip(*times, strict=True))
    figures["a training set"] = {"per_second": elapsed, "per_cpu_second": busy}
    name = f"a training set of {N_SHARDS} shards"
    print(f"{name:42s} {elapsed:12,.0f} per second {busy:12,.0f} per CPU second")
    print(f"a shard takes {size / 1e6:.2f} MB; its outputs alone are {shard.y.nbytes / 1e6:.2f} MB unpacked")
    save("shards", figures)


if __name__ == "__main__":
    use_one_core()
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as made:
        main(Path(made))
