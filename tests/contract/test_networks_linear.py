"""Networks of covariates in a linear mixed model, whose penalized likelihood is a closed form.

y_i ~ N(X_i mu_i, X_i omega X_i' + a^2 I) with mu_i = theta + N(w_i; weights): FO, FOCE, FOCEI, Laplace,
quadrature and VI are all exact, so that they share one penalized optimum.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from contract.linear_mixed_model import LinearStudy, line, linear_study

from amortnlme.core.errors import CapabilityError, PopulationError, UsageError
from amortnlme.core.status import FitStatus
from amortnlme.methods.classical import Fo, Foce, Focei, Laplace, Quadrature
from amortnlme.methods.fit import fit
from amortnlme.methods.pooled import Pooled
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.saem import Saem
from amortnlme.methods.sampled_vi import SampledVi
from amortnlme.methods.validation import choose_ridge, score_new_subjects
from amortnlme.methods.vi import Vi
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.groups import GroupEffect
from amortnlme.population.networks import NetworkEffect, NetworkInput
from amortnlme.population.population_model import PopulationModel

STUDY, MODEL = linear_study(40), line()
NETWORK = NetworkEffect(("s",), (NetworkInput("w", "log"),), hidden=(3,), activation="tanh", ridge=0.2)
POPULATION = PopulationModel(
    random_effects=RandomEffects(("m", "s"), "full"),
    covariates=(CovariateEffect("s", "w"),),
    networks=(NETWORK,),
)
JOINED = POPULATION.bind(STUDY.dataset.covariate_table(), MODEL.parameters)
METHODS = {
    "fo": Fo(),
    "foce": Foce(),
    "focei": Focei(),
    "laplace": Laplace(),
    "quadrature": Quadrature(n_nodes=3),
    "vi": Vi(),
}


def _minus_two_log_likelihood(x: np.ndarray, study: LinearStudy = STUDY) -> float:
    mu, factor = JOINED.unpack(x)
    total = 0.0
    for i, (t, y) in enumerate(zip(study.times, study.y, strict=True)):
        X = np.column_stack([np.ones_like(t), t])
        V = X @ factor[:2] @ factor[:2].T @ X.T + np.exp(2 * mu[i, 2]) * np.eye(len(t))
        e = y - X @ mu[i, :2]
        total += len(t) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + e @ np.linalg.solve(V, e)
    return total


def _penalized(x: np.ndarray) -> float:
    return _minus_two_log_likelihood(x) + float(JOINED.penalty @ x**2)


@cache
def _fit(kind: str) -> PopulationFit:
    return fit(STUDY.dataset, POPULATION, METHODS[kind], model=MODEL, seed=1)


@pytest.mark.parametrize("kind", METHODS)
def test_every_method_ends_at_a_stationary_point_of_the_penalized_likelihood(kind):
    result = _fit(kind)
    assert result.status is FitStatus.CONVERGED, result.warnings
    assert result.criterion == pytest.approx(_minus_two_log_likelihood(result.x), abs=1e-5)
    h = 1e-4
    slope = [
        (_penalized(result.x + h * e) - _penalized(result.x - h * e)) / (2 * h) for e in np.eye(JOINED.n_x)
    ]
    # 2e-3 of a unit of information is what a search leaves; curvatures reach a few hundred.
    np.testing.assert_allclose(slope, 0.0, atol=0.1)


@pytest.mark.parametrize("kind", ["foce", "focei", "laplace", "vi"])
def test_methods_that_start_alike_share_the_optimum(kind):
    """Quadrature searches in shorter rounds, which can lead to another of the optima of a network."""
    assert _penalized(_fit(kind).x) == pytest.approx(_penalized(_fit("fo").x), abs=1e-3)


def test_a_penalized_fit_gives_no_standard_errors_and_says_so():
    result = _fit("fo")
    assert result.covariance is None
    assert any(text.startswith("[W_FIT_PENALIZED]") for text in result.warnings)
    assert result.ofv_kind == "importance_sampling"
    assert abs(result.ofv - result.criterion) < 7.9 * result.ofv_se


def test_fit_with_a_network_survives_the_file(tmp_path):
    result = _fit("fo")
    result.save(tmp_path / "fit.h5")
    loaded = PopulationFit.load(tmp_path / "fit.h5")
    assert loaded.population == POPULATION
    assert loaded.x_names == JOINED.names
    np.testing.assert_array_equal(JOINED.unpack(loaded.x)[0], JOINED.unpack(result.x)[0])


def test_naive_pooling_is_least_squares():
    plain = PopulationModel(random_effects=RandomEffects(("m", "s")), covariates=(CovariateEffect("s", "w"),))
    result = fit(STUDY.dataset, plain, Pooled(), model=MODEL)
    log_w = np.log(STUDY.weight / STUDY.weight.mean())
    X = np.concatenate(
        [np.column_stack([np.ones_like(t), t, log_w[i] * t]) for i, t in enumerate(STUDY.times)]
    )
    y = np.concatenate(STUDY.y)
    best, squares, *_ = np.linalg.lstsq(X, y, rcond=None)
    np.testing.assert_allclose(result.x[[0, 1, 3]], best, atol=1e-4)
    assert result.sigma["a"] == pytest.approx(np.sqrt(squares[0] / len(y)), rel=1e-4)
    assert (result.omega == 0).all()
    assert abs(result.ofv - result.criterion) < 7.9 * result.ofv_se


def test_sampled_vi_comes_near_the_optimum():
    """The path derivative leaves little noise: within a unit of -2 log-likelihood."""
    plain = PopulationModel(random_effects=POPULATION.random_effects, covariates=POPULATION.covariates)
    result = fit(STUDY.dataset, plain, SampledVi(n_steps=1500, n_samples=10), model=MODEL, seed=1)
    exact = fit(STUDY.dataset, plain, Fo(), model=MODEL)
    assert result.status is FitStatus.CONVERGED, result.warnings
    assert -0.1 < result.ofv - exact.criterion < 1.0
    assert result.criterion_kind == "elbo"
    # A bound: never below -2 log-likelihood, but for the Monte-Carlo error of the latter.
    assert result.criterion - result.ofv > -7.9 * result.ofv_se


def test_unseen_subjects_are_scored_by_the_closed_form():
    result = _fit("fo")
    scored = score_new_subjects(result, STUDY.dataset, STUDY.dataset, MODEL)
    assert scored.sum() == pytest.approx(_minus_two_log_likelihood(result.x), abs=1e-6)


def test_the_ridge_is_the_one_that_does_best_on_unseen_subjects():
    validation = linear_study(30, seed=5).dataset
    choice = choose_ridge(
        STUDY.dataset, validation, POPULATION, Fo(referee_points=0), MODEL, ridges=(0.01, 30.0), seed=1
    )
    scores = [score_new_subjects(one, STUDY.dataset, validation, MODEL).sum() for one in choice.fits]
    np.testing.assert_allclose(choice.validation, scores)
    assert choice.best is choice.fits[int(np.argmin(scores))]
    # The truth is linear: weights that cost nothing chase the noise of 40 subjects.
    assert choice.ridge == 30.0
    with pytest.raises(UsageError, match="E_FIT_ARGUMENT"):
        choose_ridge(STUDY.dataset, validation, POPULATION, Fo(), MODEL, ridges=())


def test_methods_that_do_not_know_networks_refuse_them():
    with pytest.raises(CapabilityError, match="E_FIT_NETWORKS"):
        fit(STUDY.dataset, POPULATION, Saem(), model=MODEL)


def test_a_grouped_parameter_cannot_have_a_network():
    with pytest.raises(PopulationError, match="E_POP_GROUP"):
        PopulationModel(
            random_effects=RandomEffects(("m",)), networks=(NETWORK,), groups=(GroupEffect("s", "arm"),)
        )
