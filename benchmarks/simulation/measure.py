"""What the benchmarks share: one core, CPU time, medians, results that say where they were made."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
ONE_CORE = {
    "NUMBA_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # JAX spreads even one operation over threads; CPU time counts them all, so this only steadies the figure.
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
PACKAGES = (
    "amortnlme",
    "numba",
    "llvmlite",
    "numpy",
    "scipy",
    "numbalsoda",
    "jax",
    "diffrax",
    "h5py",
    "hdf5plugin",
)


def use_one_core() -> None:
    """Start the script again with one thread where it has more: Numba reads this at its import."""
    if any(os.environ.get(name) != value for name, value in ONE_CORE.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_CORE})


@dataclass(frozen=True, slots=True)
class Row:
    """One engine in one benchmark."""

    name: str
    per_second: float
    n: int
    ratio: float
    failed: int = 0
    error_median: float | None = None
    error_q99: float | None = None
    error_worst: float | None = None


def cpu_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median CPU time of `work`, in seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def wall_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median elapsed time of `work`, in seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def race(
    engines: Sequence[tuple[str, Callable[[], np.ndarray], np.ndarray | None]], rounds: int = 5
) -> list[Row]:
    """Time engines in turns, so that all meet the same neighbors, and compare them with their references.

    An engine is its name, work that returns one row of outputs per simulation (NaN where it failed), and its
    reference, or None. Ratios are medians over the rounds.
    """
    found = [work() for _, work, _ in engines]  # compiles
    seconds = np.array([[cpu_seconds(work, 1) for _, work, _ in engines] for _ in range(rounds)])
    each = seconds / np.array([len(values) for values in found])
    per_second, ratio = np.median(1.0 / each, axis=0), np.median(each / each[:, :1], axis=0)
    rows = []
    for i, (name, _, reference) in enumerate(engines):
        values = found[i]
        failed = int(np.isnan(values).any(axis=1).sum())
        errors: list[float | None] = [None, None, None]
        if reference is not None:
            difference = np.abs(values - reference[: len(values)])
            worst = np.nanmax(difference, axis=1, where=~np.isnan(difference), initial=0.0)
            errors = np.quantile(worst, [0.5, 0.99, 1.0]).tolist()
        rows.append(Row(name, float(per_second[i]), len(values), float(ratio[i]), failed, *errors))
    return rows


def show(rows: list[Row]) -> None:
    """Print rates, ratios to the first row, and errors."""
    print(
        f"{'engine':48s} {'1/s/core':>12s} {'first/this':>10s} {'n':>7s} {'failed':>6s}   "
        "error median    q99    worst"
    )
    for row in rows:
        errors = (row.error_median, row.error_q99, row.error_worst)
        shown = "  ".join("-" if e is None else f"{e:.1e}" for e in errors)
        print(
            f"{row.name:48s} {row.per_second:12,.0f} {row.ratio:10.2f} {row.n:7d} {row.failed:6d}   {shown}",
            flush=True,
        )


def save(name: str, figures: Mapping[str, Any], rows: list[Row] | None = None) -> None:
    """Write results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine(), **figures}
    if rows is not None:
        document["rows"] = [asdict(row) for row in rows]
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Processor, cores, load and versions."""
    processor = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in information.read_text().splitlines()
            if "model name" in line
        ]
        processor = names[0] if names else processor
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "load_1_min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
    }
