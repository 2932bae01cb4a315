"""The search for the corrected optimum: plateaus, limits of the prior, failures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from amortnlme.core.status import FitStatus
from amortnlme.methods.amortized import Amortized
from amortnlme.methods.base import FitProblem
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.posterior_draws import PosteriorDraws

KNOWN_SD = 0.1
SPACE = ParameterSpace(
    (
        Parameter("level", "1", "identity", 0.0, "mean of a subject", "structural"),
        Parameter("extra", "1", "log", 0.5, "residual SD beyond the known one", "error"),
    )
)
PRIOR = NormalPrior(np.array([0.0, np.log(0.5)]), np.array([2.0, 0.8]))


@dataclass(frozen=True)
class ExtraNoise:
    """Records ~ N(level, extra^2 + 0.1^2): flat in log extra once extra is far below 0.1."""

    y: np.ndarray  # (n, m)

    def log_likelihood(self, phi):
        return self.log_likelihood_and_gradient(phi)[0]

    def log_likelihood_and_gradient(self, phi):
        extra = np.exp(2 * np.minimum(phi[..., 1:], 50.0))
        variance = extra + KNOWN_SD**2
        gap = self.y[:, None] - phi[..., :1]
        value = (-0.5 * gap**2 / variance - 0.5 * np.log(2 * np.pi * variance)).sum(axis=-1)
        by_level = (gap / variance).sum(axis=-1)
        by_extra = ((gap**2 / variance - 1) * extra / variance).sum(axis=-1)
        return value, np.stack([by_level, by_extra], axis=-1)

    def gauss_newton(self, phi):
        value, gradient = self.log_likelihood_and_gradient(phi[:, None])
        extra = np.exp(2 * phi[:, 1])
        variance = extra + KNOWN_SD**2
        information = np.zeros((len(phi), 2, 2))
        information[:, 0, 0] = self.y.shape[1] / variance
        information[:, 1, 1] = 2 * self.y.shape[1] * (extra / variance) ** 2
        return value[:, 0], gradient[:, 0], information


def _problem(extra, draws_at, seed=0):
    rng = np.random.default_rng(seed)
    n, m = 20, 6
    noise = np.sqrt(extra**2 + KNOWN_SD**2)
    y = 1.0 + 0.4 * rng.normal(size=(n, 1)) + noise * rng.normal(size=(n, m))
    phi = np.stack(
        [
            y.mean(axis=1)[:, None] + noise / np.sqrt(m) * rng.normal(size=(n, 200)),
            draws_at + 0.3 * rng.normal(size=(n, 200)),
        ],
        axis=-1,
    )
    ids = tuple(str(i) for i in range(n))
    draws = PosteriorDraws(
        phi=phi,
        log_q=np.zeros((n, 200)),
        log_prior=PRIOR.log_prob(phi.reshape(-1, 2)).reshape(n, 200),
        subject_ids=ids,
        parameters=SPACE,
        prior=PRIOR,
    )
    population = PopulationModel(random_effects=RandomEffects(("level",)))
    bound = population.bind(pd.DataFrame(index=pd.Index(ids)), SPACE)
    return FitProblem(population, bound, draws, None, None, ExtraNoise(y), 0)


@pytest.mark.parametrize("draws_at", [np.log(0.3), np.log(0.3) - 3.0, np.log(0.3) + 2.0])
def test_search_leaves_the_plateau_on_which_bad_draws_start_it(draws_at):
    result = Amortized(referee_points=64).run(_problem(0.3, draws_at))
    assert result.status is FitStatus.CONVERGED, result.warnings
    reference = Amortized(referee_points=64).run(_problem(0.3, np.log(0.3)))
    # Within a hundredth of a standard error of the fit that had a fair start.
    se = np.sqrt(np.diagonal(reference.covariance))
    np.testing.assert_allclose((result.x - reference.x) / se, 0.0, atol=0.02)


def test_residual_sd_that_goes_to_zero_is_reported_at_the_limit_of_the_prior():
    vanishing = next(
        result
        for seed in range(20)
        if (result := Amortized(referee_points=64).run(_problem(0.0, np.log(0.05), seed))).x[1] < np.log(0.02)
    )
    assert vanishing.status is FitStatus.BOUNDARY
    assert vanishing.covariance is None
    assert vanishing.x[1] == pytest.approx(np.log(0.5) - 5 * 0.8)
    assert any(text.startswith("[W_FIT_AT_LIMIT]") and "extra" in text for text in vanishing.warnings)


def test_likelihood_that_is_zero_everywhere_ends_as_failed():
    class Nowhere(ExtraNoise):
        def log_likelihood_and_gradient(self, phi):
            return np.full(phi.shape[:2], -np.inf), np.zeros(phi.shape)

    problem = _problem(0.3, np.log(0.3))
    lost = FitProblem(
        problem.population,
        problem.bound_population,
        problem.draws,
        None,
        None,
        Nowhere(problem.bound_model.y),
        0,
    )
    result = Amortized(referee_points=64).run(lost)
    assert result.status is FitStatus.FAILED
    assert any(text.startswith("[W_FIT_NO_SUPPORT]") for text in result.warnings)
    assert result.to_dict()["ofv"]["value"] is None
