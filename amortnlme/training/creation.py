"""Fill a training-set directory with the shards it lacks, in this process or in several."""

from __future__ import annotations

import multiprocessing
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from amortnlme.core.errors import AmortNlmeError, ArtefactError, TrainingError
from amortnlme.model.individual import IndividualModel
from amortnlme.model.registry import load_model
from amortnlme.training.shard import read_shard, shard_path, simulate_shard, write_shard

# Finished shards that may wait for the disk: a slow disk halts the simulation instead of filling the memory.
_MAX_WAITING = 2


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """Where shards go and what determines them."""

    folder: Path
    seed: int
    n: int
    shard_size: int
    header_fingerprint: str

    def rows(self, index: int) -> int:
        """Return the number of rows of shard `index`; the last shard may be shorter."""
        return min(self.shard_size, self.n - index * self.shard_size)

    def missing(self) -> list[int]:
        """Return the indices of shards that do not exist or cannot be read back completely."""
        count = -(-self.n // self.shard_size)
        return [index for index in range(count) if not self._intact(index)]

    def _intact(self, index: int) -> bool:
        if not shard_path(self.folder, index).exists():
            return False
        try:
            read_shard(self.folder, index, self.header_fingerprint)
        except ArtefactError as error:
            if error.code == "E_TRAINING_FOREIGN":
                raise
            # Damaged shards are exactly what resuming repairs.
            return False
        return True


def simulate_missing(plan: ShardPlan, model: IndividualModel, workers: int, progress: bool) -> None:
    """Simulate and write every missing shard.

    Parameters
    ----------
    plan : ShardPlan
        Where the shards go and what determines them.
    model : IndividualModel
        Model to simulate.
    workers : int
        Number of processes.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Raises
    ------
    TrainingError
        E_TRAINING_WORKERS when several workers are asked for a model they could not find again by name.
    ArtefactError
        E_IO_WRITE on a full disk, E_TRAINING_FOREIGN when a file of another training set is in the way.
    """
    todo = plan.missing()
    if workers > 1 and todo:
        _require_findable(model)
        done = _in_processes(plan, model.name, todo, min(workers, len(todo)))
    else:
        done = _in_this_process(plan, model, todo)
    quiet = not (progress and sys.stderr.isatty())
    for _ in tqdm(done, total=len(todo), desc="simulate", unit="shard", disable=quiet):
        pass


def _in_this_process(plan: ShardPlan, model: IndividualModel, todo: list[int]) -> Iterator[int]:
    """Simulate shard after shard while another thread packs and writes the one before."""
    waiting: deque[tuple[int, Future[None]]] = deque()
    with ThreadPoolExecutor(1) as writer:
        for index in todo:
            if len(waiting) == _MAX_WAITING:
                yield _written(*waiting.popleft())
            shard = simulate_shard(model, plan.seed, index, plan.rows(index))
            task = writer.submit(write_shard, plan.folder, index, shard, plan.header_fingerprint)
            waiting.append((index, task))
        while waiting:
            yield _written(*waiting.popleft())


def _written(index: int, task: Future[None]) -> int:
    task.result()
    return index


def _make(plan: ShardPlan, model: IndividualModel, index: int) -> int:
    shard = simulate_shard(model, plan.seed, index, plan.rows(index))
    write_shard(plan.folder, index, shard, plan.header_fingerprint)
    return index


def _make_by_name(plan: ShardPlan, name: str, index: int) -> int:
    return _make(plan, load_model(name), index)


def _in_processes(plan: ShardPlan, name: str, todo: list[int], workers: int) -> Iterator[int]:
    # Compile here what the workers share: filling one cache from several processes can mix up its files.
    simulate_shard(load_model(name), plan.seed, todo[0], 1)
    # Fresh interpreters: forking after a parallel kernel has run can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        tasks = [pool.submit(_make_by_name, plan, name, index) for index in todo]
        for task in tasks:
            yield task.result()


def _require_findable(model: IndividualModel) -> None:
    """Refuse workers for a model that a fresh process would not load, or would load differently."""
    try:
        found = load_model(model.name).fingerprint
    except AmortNlmeError:
        found = ""
    if found != model.fingerprint:
        raise TrainingError(
            "E_TRAINING_WORKERS",
            f"model {model.name!r} is not a registered model, so worker processes cannot load it. "
            "Use workers=1, or put the model file into `simulators/`.",
        )
