"""Random numbers that depend on the seed and on what they are for, never on workers, threads or restarts."""

import numpy as np

from amortnlme.core.errors import UsageError


def generator(seed: int) -> np.random.Generator:
    """Return the generator that belongs to a seed.

    Parameters
    ----------
    seed : int
        Non-negative, below 2**63.

    Returns
    -------
    numpy.random.Generator
        Counter-based (Philox).

    Raises
    ------
    UsageError
        If the seed is not a non-negative integer.
    """
    return stream(seed)


def stream(seed: int, *keys: int) -> np.random.Generator:
    """Return an independent generator for (seed, keys), the same in whatever order streams are made.

    Parameters
    ----------
    seed : int
        Non-negative, below 2**63.
    *keys : int
        Non-negative; for instance (purpose, shard index).

    Returns
    -------
    numpy.random.Generator
        Philox, seeded through `numpy.random.SeedSequence(seed, spawn_key=keys)`.

    Raises
    ------
    UsageError
        If the seed or a key is not a non-negative integer.
    """
    for value in (seed, *keys):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 2**63:
            raise UsageError(
                "E_SEED",
                f"A seed must be a whole number from 0 to 2**63 - 1; {value!r} was given. Pass for instance "
                "seed=1.",
            )
    sequence = np.random.SeedSequence(int(seed), spawn_key=tuple(int(key) for key in keys))
    return np.random.Generator(np.random.Philox(sequence))
