"""How much the surrogate's estimates depend on the draws: a jackknife over two halves of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from amortnlme.methods.information import whitening
from amortnlme.methods.local_search import minimize_whitened
from amortnlme.methods.refine import Optimum
from amortnlme.methods.surrogate import Surrogate, SurrogateLikelihood
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.posterior_draws import PosteriorDraws

#: Draws in a half, beyond the number of parameters, below which a half says nothing.
FEWEST = 10


def with_halves_error(
    best: Optimum,
    draws: PosteriorDraws,
    population: BoundPopulation,
    build: Callable[[PosteriorDraws], Surrogate],
) -> Optimum:
    """Add the Monte-Carlo error of the draws to the optimum of a surrogate.

    Parameters
    ----------
    best : Optimum
        Of the surrogate of all draws.
    draws : PosteriorDraws
        Over the parameters of the model.
    population : BoundPopulation
    build : callable
        Makes a surrogate of draws.

    Returns
    -------
    Optimum
        As it was where there are no standard errors to measure by, or too few draws.

    Notes
    -----
    With a the estimates from every second draw and b those from the others, Var(a - b) = 4 Var(x) and, for a
    bias that falls like 1 / M, E[(a + b) / 2 - x] is the bias of x. One pair of halves is a rough measure,
    for an alarm.
    """
    if best.covariance is None or draws.n_draws // 2 < draws.d + FEWEST:
        return best
    free = np.arange(population.n_x)
    transform = whitening(np.linalg.inv(best.covariance))
    found = []
    for first in (0, 1):
        half = replace(
            draws,
            phi=draws.phi[:, first::2],
            log_q=draws.log_q[:, first::2],
            log_prior=draws.log_prior[:, first::2],
        )
        objective = SurrogateLikelihood(build(half), population)
        found.append(population.fold_signs(minimize_whitened(objective, best.x, transform, free).x))
    a, b = found
    return replace(best, mc_se=0.5 * np.abs(a - b), mc_bias=0.5 * (a + b) - best.x)
