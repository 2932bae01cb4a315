"""Parameter spaces and priors: transforms, densities, configs."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from unit.model.example_models import PARAMETERS

from amortnlme.core.errors import ModelError
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior, prior_from_config

SPACE = ParameterSpace(PARAMETERS)


def test_space_transforms_each_column_by_its_own_transform():
    phi = np.random.default_rng(1).normal(size=(3, 4, 7))
    psi = SPACE.to_psi(phi)
    assert_allclose(psi[..., 0], np.exp(phi[..., 0]))
    assert_allclose(psi[..., 2], 1 / (1 + np.exp(-phi[..., 2])))
    assert_allclose(psi[..., 3], phi[..., 3])
    assert_allclose(SPACE.to_phi(psi), phi, atol=1e-12)
    h = 1e-6
    assert_allclose(
        SPACE.dpsi_dphi(phi), (SPACE.to_psi(phi + h) - SPACE.to_psi(phi - h)) / (2 * h), rtol=1e-8
    )
    assert_allclose(SPACE.log_abs_det(phi), np.log(SPACE.dpsi_dphi(phi)).sum(axis=-1), rtol=1e-12)


def test_space_knows_names_columns_and_typical_values():
    assert SPACE.d == 7 and SPACE.index("F") == 2 and SPACE.indices(["b", "ka"]) == (5, 0)
    assert_allclose(SPACE.to_psi(SPACE.typical_phi), [p.typical for p in PARAMETERS])
    assert ParameterSpace.from_config(SPACE.to_config()) == SPACE


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("E_MODEL_UNKNOWN_PARAMETER", lambda: SPACE.index("kA")),
        ("E_MODEL_PARAMETER_SHAPE", lambda: SPACE.to_psi(np.zeros(3))),
        ("E_MODEL_NO_PARAMETERS", lambda: ParameterSpace(())),
        ("E_MODEL_CONFIG", lambda: ParameterSpace.from_config([{"name": "k"}])),
        ("E_MODEL_DUPLICATE_PARAMETER", lambda: ParameterSpace((Parameter("k", "1", "log", 1.0),) * 2)),
    ],
)
def test_space_names_the_fault(code, fault):
    with pytest.raises(ModelError) as caught:
        fault()
    assert caught.value.code == code


COVARIANCE = np.array([[1.0, 0.3, 0.0], [0.3, 0.5, -0.2], [0.0, -0.2, 2.0]])


@pytest.mark.parametrize(
    "prior",
    [NormalPrior([1.0, 2.0, 3.0], [0.5, 1.0, 2.0]), NormalPrior([1.0, 2.0, 3.0], covariance=COVARIANCE)],
)
def test_normal_prior_has_the_density_and_the_moments_of_the_normal(prior):
    """Null: sample mean and covariance of n = 50 000 draws; 5 SE per entry (false alarm < 1e-5 in all)."""
    phi = prior.sample(50_000, np.random.default_rng(2))
    exact = stats.multivariate_normal(prior.mean, prior.covariance)
    assert_allclose(prior.log_prob(phi[:100].reshape(5, 20, 3)).ravel(), exact.logpdf(phi[:100]), rtol=1e-12)
    variance = np.diag(prior.covariance)
    assert (np.abs(phi.mean(axis=0) - prior.mean) < 5 * np.sqrt(variance / 50_000)).all()
    se = np.sqrt((prior.covariance**2 + np.outer(variance, variance)) / 50_000)
    assert (np.abs(np.cov(phi.T) - prior.covariance) < 5 * se).all()
    assert prior_from_config(prior.to_config()) == prior


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("E_PRIOR_SHAPE", lambda: NormalPrior([0.0, 1.0], [1.0])),
        ("E_PRIOR_SHAPE", lambda: NormalPrior([0.0])),
        ("E_PRIOR_SHAPE", lambda: NormalPrior([0.0], [1.0], covariance=[[1.0]])),
        ("E_PRIOR_NOT_POSITIVE", lambda: NormalPrior([0.0], [-1.0])),
        ("E_PRIOR_NOT_POSITIVE", lambda: NormalPrior([np.nan], [1.0])),
        ("E_PRIOR_NOT_POSITIVE", lambda: NormalPrior([0.0, 0.0], covariance=[[1.0, 2.0], [2.0, 1.0]])),
        ("E_PRIOR_CONFIG", lambda: prior_from_config({"kind": "normal", "mean": [0.0], "sd": [1.0], "x": 1})),
    ],
)
def test_prior_names_the_fault(code, fault):
    with pytest.raises(ModelError) as caught:
        fault()
    assert caught.value.code == code
