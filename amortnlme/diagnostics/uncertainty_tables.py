"""Tables of what bootstraps and posterior chains say about every estimate, on the scales of the estimates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amortnlme.methods.resampling import PopulationChains
from amortnlme.population.bound_population import BoundPopulation

if TYPE_CHECKING:
    import pandas as pd

#: Ends of the intervals of both tables.
QUANTILES = (0.025, 0.975)


def natural_estimates(population: BoundPopulation, x: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Estimates on the scale a reader expects, for many packed vectors.

    Parameters
    ----------
    population : BoundPopulation
    x : ndarray, shape (..., n_x)

    Returns
    -------
    names : tuple of str, length k
        Without fixed ones.
    values : ndarray, shape (..., k)
    """
    flat = x.reshape(-1, x.shape[-1])
    tables = [[row for row in population.describe(one, None) if not row.is_fixed] for one in flat]
    values = np.array([[row.value for row in rows] for rows in tables])
    return tuple(row.name for row in tables[0]), values.reshape(*x.shape[:-1], -1)


def bootstrap_table(population: BoundPopulation, replicates: np.ndarray) -> pd.DataFrame:
    """Summarize bootstrap replicates.

    Parameters
    ----------
    population : BoundPopulation
    replicates : ndarray, shape (n_replicates, n_x)

    Returns
    -------
    pandas.DataFrame
        `mean, se, ci_low, ci_high` by name of the estimate: SD and 95 % percentile interval of the
        replicates.
    """
    import pandas as pd

    names, values = natural_estimates(population, replicates)
    low, high = np.quantile(values, QUANTILES, axis=0)
    columns = {"mean": values.mean(axis=0), "se": values.std(axis=0, ddof=1), "ci_low": low, "ci_high": high}
    return pd.DataFrame(columns, index=pd.Index(names, name="name"))


def chain_table(population: BoundPopulation, chains: PopulationChains) -> pd.DataFrame:
    """Summarize posterior chains, with convergence diagnostics.

    Parameters
    ----------
    population : BoundPopulation
    chains : PopulationChains

    Returns
    -------
    pandas.DataFrame
        `mean, sd, ci_low, ci_high, r_hat, ess` by name of the estimate: 95 % equal-tailed interval, rank
        R-hat and effective number of draws (Vehtari et al. 2021); NaN for entries that never move.
    """
    import arviz
    import pandas as pd

    names, values = natural_estimates(population, chains.x)
    moving = np.ptp(values, axis=(0, 1)) > 0
    r_hat, ess = np.full(len(names), np.nan), np.full(len(names), np.nan)
    for k in np.flatnonzero(moving):
        r_hat[k] = float(arviz.rhat(values[:, :, k]))
        ess[k] = float(arviz.ess(values[:, :, k]))
    flat = values.reshape(-1, len(names))
    low, high = np.quantile(flat, QUANTILES, axis=0)
    columns = {"mean": flat.mean(axis=0), "sd": flat.std(axis=0, ddof=1), "ci_low": low, "ci_high": high}
    return pd.DataFrame(columns | {"r_hat": r_hat, "ess": ess}, index=pd.Index(names, name="name"))
