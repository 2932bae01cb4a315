"""The main job in one call: the theophylline study from the shipped estimator to a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amortnlme.methods.stopwatch import Stopwatch

if TYPE_CHECKING:
    import pandas as pd

    from amortnlme.methods.population_fit import PopulationFit
    from amortnlme.population.posterior_draws import PosteriorDraws

ESTIMATOR = "one_compartment_oral"
DATASET = "theophylline"
POPULATIONS = ("theophylline_none", "theophylline_v_weight", "theophylline_ka_v_weight", "theophylline_full")


@dataclass(frozen=True, slots=True, eq=False)
class QuickstartResult:
    """What the main job leaves behind.

    Attributes
    ----------
    draws : PosteriorDraws
        Every patient's posterior draws; further population models can be fitted to them.
    fits : tuple of PopulationFit
        One per population model, in the order of `POPULATIONS`.
    comparison : pandas.DataFrame
        The fits side by side.
    report : Path
        The page that was written.
    seconds : mapping of str to float
        Wall time of each stage.
    """

    draws: PosteriorDraws
    fits: tuple[PopulationFit, ...]
    comparison: pd.DataFrame
    report: Path
    seconds: Mapping[str, float]


def quickstart(
    out_dir: str | Path = ".",
    *,
    n_draws: int = 1000,
    seed: int = 0,
    announce: Callable[[str], None] | None = None,
) -> QuickstartResult:
    """Sample every theophylline patient, fit four population models without retraining, write a report.

    Parameters
    ----------
    out_dir : str or Path
        Existing folder; `report.html` is written into it.
    n_draws : int
        Posterior draws per patient.
    seed : int
        Every random number follows from it.
    announce : callable, optional
        Called with the name of each stage as it begins.

    Returns
    -------
    QuickstartResult

    Raises
    ------
    ArtefactError
        If the shipped estimator is damaged, or the report cannot be written.
    """
    watch = Stopwatch()

    @contextmanager
    def clock(stage: str) -> Iterator[None]:
        if announce is not None:
            announce(stage)
        with watch(stage):
            yield

    with clock("libraries"):
        from amortnlme.core.rng import generator
        from amortnlme.data.bundled import load_bundled
        from amortnlme.diagnostics.compare import compare
        from amortnlme.methods.amortized import Amortized
        from amortnlme.methods.fit import fit
        from amortnlme.neural.estimator import Estimator
        from amortnlme.population.bundled import load_bundled_population
        from amortnlme.report.estimator_card import estimator_card
        from amortnlme.report.page import ReportOptions, write_report
    with clock("load estimator and data"):
        estimator = Estimator.load(ESTIMATOR)
        dataset = load_bundled(DATASET)
    with clock("draw posteriors"):
        draws = estimator.sample(dataset, n_draws, generator(seed))
    populations = [load_bundled_population(name) for name in POPULATIONS]
    fits = []
    for population in populations:
        with clock(f"fit {population.name}"):
            fits.append(fit(draws, population, dataset=dataset, model=estimator.model, seed=seed))
    with clock("uncorrected fits"):
        raw = Amortized(correction="none")
        uncorrected = [
            fit(draws, p, raw, dataset=dataset, model=estimator.model, seed=seed) for p in populations
        ]
    with clock("report"):
        comparison = compare(fits)
        report = write_report(
            fits,
            draws,
            dataset,
            estimator.model,
            Path(out_dir) / "report.html",
            estimator_card(estimator, ESTIMATOR),
            uncorrected=uncorrected,
            options=ReportOptions(seed=seed, commands=("amortnlme quickstart",)),
        )
    return QuickstartResult(draws, tuple(fits), comparison, report, watch.seconds)
