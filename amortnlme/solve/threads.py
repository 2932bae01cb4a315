"""Rows of a batch spread over threads in fixed chunks: results do not depend on how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context

from numba import config

CHUNK_ROWS = 4096
_THREADS: ContextVar[int | None] = ContextVar("threads", default=None)


@contextmanager
def using_threads(n: int) -> Iterator[None]:
    """Use another number of threads within a block.

    Parameters
    ----------
    n : int
    """
    token = _THREADS.set(n)
    try:
        yield
    finally:
        _THREADS.reset(token)


def for_each_chunk(n_rows: int, task: Callable[[int, int], None], chunk_rows: int = CHUNK_ROWS) -> None:
    """Call task(first, last) for consecutive chunks of rows; kernels release the interpreter lock meanwhile.

    The number of threads is NUMBA_NUM_THREADS (by default all cores). The pool lives only during the call: a
    process may fork afterwards, which it may not after OpenMP or a persistent pool.

    Parameters
    ----------
    n_rows : int
    task : callable
        Must write disjoint rows only.
    chunk_rows : int
        Rows per call.
    """
    chunks = [(first, min(first + chunk_rows, n_rows)) for first in range(0, n_rows, chunk_rows)]
    threads = _THREADS.get() or int(config.NUMBA_NUM_THREADS)  # pyright: ignore[reportAttributeAccessIssue]
    workers = min(threads, len(chunks))
    if workers <= 1:
        for first, last in chunks:
            task(first, last)
        return
    with ThreadPoolExecutor(workers) as pool:
        # Every thread sees the caller's settings (NumPy keeps its error state there) and starts no others.
        waiting = [pool.submit(copy_context().run, _alone, task, *chunk) for chunk in chunks]
        for future in waiting:
            future.result()


def _alone(task: Callable[[int, int], None], first: int, last: int) -> None:
    with using_threads(1):
        task(first, last)
