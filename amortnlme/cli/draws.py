"""Where the draws of a fit come from: a file, or an estimator that is shown the data first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amortnlme.core.errors import UsageError

if TYPE_CHECKING:
    from amortnlme.data.dataset import Dataset
    from amortnlme.neural.estimator import Estimator
    from amortnlme.population.posterior_draws import PosteriorDraws

DEFAULT_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class DrawSource:
    """Draws with what is known about them.

    Attributes
    ----------
    draws : PosteriorDraws
    dataset : Dataset or None
        The data they were made from, where it was given.
    estimator : Estimator or None
        Who made them, where it was given.
    """

    draws: PosteriorDraws
    dataset: Dataset | None
    estimator: Estimator | None


def is_draws_file(word: str) -> bool:
    """Whether a word names a file of draws.

    Parameters
    ----------
    word : str

    Returns
    -------
    bool
        True for HDF5 by content or by name: a damaged file of draws is still meant to be one.
    """
    from amortnlme.core.h5 import is_hdf5

    path = Path(word)
    return path.suffix in (".h5", ".hdf5") or (path.is_file() and is_hdf5(path))


def obtain_draws(
    source: str,
    dataset: Dataset | None,
    estimator: str | None,
    n_draws: int | None,
    seed: int,
) -> DrawSource:
    """Load draws, or make them.

    Parameters
    ----------
    source : str
        What the user named, for messages; a file of draws where `dataset` was not read from it.
    dataset : Dataset or None
    estimator : str or None
        Folder or name of an estimator.
    n_draws : int or None
        Draws per subject that are made; None: 1000. Refused for draws from a file.
    seed : int

    Returns
    -------
    DrawSource

    Raises
    ------
    UsageError
        E_USAGE_OPTION, E_USAGE_ESTIMATOR, E_FIT_NEEDS_DATASET.
    """
    from amortnlme.core.rng import generator
    from amortnlme.population.posterior_draws import PosteriorDraws

    if is_draws_file(source):
        if n_draws is not None:
            raise UsageError(
                "E_USAGE_OPTION", f"--draws makes draws, but '{source}' holds some. Leave it out."
            )
        if estimator is not None and dataset is None:
            raise UsageError(
                "E_FIT_NEEDS_DATASET",
                "--estimator needs --data: its densities are those of subjects. Name the data file.",
            )
        loaded = PosteriorDraws.load(Path(source))
        return DrawSource(loaded, dataset, None if estimator is None else _load(estimator))
    if estimator is None:
        from amortnlme.cli.inputs import shipped_estimators

        raise UsageError(
            "E_USAGE_ESTIMATOR",
            f"'{source}' holds data, not draws: name the --estimator that makes draws from them. Shipped: "
            f"{', '.join(shipped_estimators())}. Or fit by a classical --method.",
        )
    assert dataset is not None
    network = _load(estimator)
    draws = network.sample(dataset, DEFAULT_DRAWS if n_draws is None else n_draws, generator(seed))
    return DrawSource(draws, dataset, network)


def _load(word: str) -> Estimator:
    # Only now: the neural backend takes seconds to start.
    from amortnlme.neural.estimator import Estimator

    return Estimator.load(word)
