"""Networks of covariates on posterior draws of the linear-Gaussian model, whose surrogate is exact.

y_i ~ N(mu_i, omega + V) with mu_i = theta + N(w_i; weights): the penalized likelihood is a closed form, and
the individual likelihoods N(y_i; phi, V) are surrogates of one component.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from contract.linear_gaussian import LinearGaussian
from scipy.optimize import minimize

from amortnlme.core.errors import CapabilityError
from amortnlme.core.rng import generator
from amortnlme.core.status import FitStatus
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.subject import Subject
from amortnlme.methods.amortized import Amortized
from amortnlme.methods.fit import fit
from amortnlme.methods.surrogate import Surrogate
from amortnlme.methods.surrogate_networks import ModalSurrogate, fit_networks_to_surrogate
from amortnlme.population.networks import NetworkEffect, NetworkInput
from amortnlme.population.population_model import PopulationModel

STUDY = LinearGaussian(80, (2.0, 1.5), seed=5)
NETWORK = NetworkEffect(("p0",), (NetworkInput("w"),), hidden=(3,), activation="tanh", ridge=0.2)
W = np.linspace(-2.0, 2.0, STUDY.n)


def _population() -> PopulationModel:
    return replace(STUDY.population("full"), networks=(NETWORK,))


def _y() -> np.ndarray:
    y = STUDY.y()
    y[:, 0] += np.tanh(2.0 * W)
    return y


@cache
def _parts():
    table = pd.DataFrame({"w": W}, index=pd.Index([str(i) for i in range(STUDY.n)]))
    joined = _population().bind(table, STUDY.space())
    precision = np.linalg.inv(STUDY.noise)
    lam = np.tile(precision, (STUDY.n, 1, 1, 1))
    eta = (_y() @ precision)[:, None]
    return joined, Surrogate(np.zeros((STUDY.n, 1)), eta, lam, 0)


def _penalized(x: np.ndarray) -> float:
    joined = _parts()[0]
    mu, factor = joined.unpack(x)
    covariance = factor @ factor.T + STUDY.noise
    gap = _y() - mu
    value = ((gap @ np.linalg.inv(covariance)) * gap).sum() + STUDY.n * np.linalg.slogdet(covariance)[1]
    return float(value + joined.penalty @ x**2)


def test_networks_on_an_exact_surrogate_reach_the_penalized_optimum():
    joined, surrogate = _parts()
    draws = STUDY.draws(100, np.random.default_rng(1))
    found = fit_networks_to_surrogate(surrogate, joined, draws, 2, generator(4))
    assert found.status is FitStatus.CONVERGED
    # The arbiter starts where the search ended, with numerical gradients: it finds nothing lower.
    best = minimize(_penalized, found.x, method="BFGS", options={"gtol": 1e-4})
    assert _penalized(found.x) - best.fun < 1e-4
    # ... and the network is worth having: it follows the hyperbolic tangent.
    is_weight = np.zeros(joined.n_x, dtype=bool)
    is_weight[joined.weight_slice] = True
    without = minimize(lambda part: _penalized(np.where(is_weight, 0.0, part)), found.x).fun
    assert _penalized(found.x) < without - 20.0


def test_modes_of_the_surrogate_are_those_of_the_normal_law():
    joined, surrogate = _parts()
    x = np.zeros(joined.n_x)
    x[joined.chol_diagonal] = (0.5, 0.4)
    modes = ModalSurrogate(surrogate, joined).modes(x)
    mu, factor = joined.unpack(x)
    precision = np.linalg.inv(STUDY.noise)
    exact = np.linalg.solve(np.eye(2) + factor.T @ precision @ factor, factor.T @ precision @ (_y() - mu).T).T
    np.testing.assert_allclose(modes.u, exact, atol=1e-6)


def _dataset() -> Dataset:
    design = Design.from_doses((), (1.0,))
    return Dataset(
        tuple(Subject.from_observations(str(i), design, np.ones(1), {"w": w}) for i, w in enumerate(W))
    )


def test_amortized_fits_networks_to_draws_alone():
    draws = STUDY.draws(1000, np.random.default_rng(2))
    result = fit(draws, _population(), Amortized(starts=1, n_components=1), dataset=_dataset())
    assert result.status is FitStatus.CONVERGED
    assert result.ofv_kind == "surrogate" and result.covariance is None
    # These data have no effect of w: the coordinate without a network is at its mean, but for the draws.
    assert abs(result.theta[1] - STUDY.y()[:, 1].mean()) < 0.3 * np.sqrt(result.omega[1, 1] / STUDY.n)


@pytest.mark.parametrize("correction", ["likelihood", "density"])
def test_amortized_refuses_networks_where_the_likelihood_would_come_back(correction):
    draws = STUDY.draws(100, np.random.default_rng(2))
    with pytest.raises(CapabilityError) as caught:
        fit(draws, _population(), Amortized(correction=correction), dataset=_dataset())
    assert caught.value.code == "E_FIT_NETWORKS"
