"""Classical fits of the theophylline study against the exact maximum-likelihood estimates."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from reference.quadrature import COVARIATE_COLUMNS, objective, read_theophylline

from amortnlme.core.errors import CapabilityError
from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.data.bundled import load_bundled
from amortnlme.data.dataset import Dataset
from amortnlme.data.subject import Subject
from amortnlme.methods.classical import Fo, Foce, Focei, Laplace, Quadrature
from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.fit import fit
from amortnlme.methods.louis import louis_information
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.saem import Saem
from amortnlme.model.registry import load_shipped_model
from amortnlme.population.bundled import load_bundled_population

TRUTH = json.loads(Path(__file__).with_name("theophylline_exact.json").read_text(encoding="utf-8"))["models"]
DIAGONAL = ("none", "v_weight", "ka_v_weight")


@cache
def _fit(name: str, kind: str) -> PopulationFit:
    methods = {
        "fo": Fo(),
        "foce": Foce(),
        "focei": Focei(),
        "laplace": Laplace(),
        "quadrature": Quadrature(n_nodes=7),
        "saem": Saem(),
    }
    population = load_bundled_population(f"theophylline_{name}")
    return fit(load_bundled("theophylline"), population, methods[kind], model="one_compartment_oral", seed=1)


def _x(result: PopulationFit) -> np.ndarray:
    """The estimates in the order of the reference: log a last."""
    return np.array([*result.x[:3], *result.x[4:], result.x[3]])


def _excess(result: PopulationFit, name: str) -> float:
    exact = objective(read_theophylline(), name, _x(result), nodes=13)
    return exact - TRUTH[name]["minus_two_log_likelihood"]


@pytest.mark.parametrize("name", DIAGONAL)
def test_quadrature_finds_the_exact_estimates_and_standard_errors(name):
    result, truth = _fit(name, "quadrature"), TRUTH[name]
    assert result.status is FitStatus.CONVERGED, result.warnings
    assert abs(_excess(result, name)) < 1e-3
    np.testing.assert_allclose(_x(result) / truth["se"], np.array(truth["x"]) / truth["se"], atol=0.01)
    assert result.covariance is not None
    se = np.sqrt(np.diagonal(result.covariance))
    np.testing.assert_allclose([*se[:3], *se[4:], se[3]], truth["se"], rtol=0.03)
    assert result.criterion == pytest.approx(truth["minus_two_log_likelihood"], abs=2e-3)


def test_quadrature_reaches_the_boundary_of_the_full_omega():
    result = _fit("full", "quadrature")
    assert result.status is FitStatus.BOUNDARY
    assert result.covariance is None
    assert abs(_excess(result, "full")) < 0.01


@pytest.mark.parametrize("name", COVARIATE_COLUMNS)
def test_saem_comes_within_three_tenths_of_the_exact_maximum(name):
    result = _fit(name, "saem")
    assert result.status.is_success, result.warnings
    assert _excess(result, name) < 0.3
    if name in DIAGONAL:
        distance = np.abs(_x(result) - TRUTH[name]["x"]) / np.array(TRUTH[name]["se"])
        n_fixed = 3 + len(COVARIATE_COLUMNS[name])
        assert distance[:n_fixed].max() < 0.1
    assert abs(result.ofv - objective(read_theophylline(), name, _x(result), nodes=13)) < 7.9 * result.ofv_se


@pytest.mark.parametrize("kind", ["fo", "foce", "focei", "laplace"])
def test_approximations_are_refereed_on_the_exact_scale(kind):
    """Whatever a method maximizes, `ofv` is the importance-sampled -2LL at its estimates, within 7.9 SE."""
    result = _fit("ka_v_weight", kind)
    assert result.status is FitStatus.CONVERGED, result.warnings
    assert result.ofv_kind == "importance_sampling"
    assert result.criterion_kind == kind
    exact = objective(read_theophylline(), "ka_v_weight", _x(result), nodes=13)
    assert abs(result.ofv - exact) < 7.9 * result.ofv_se
    assert exact > TRUTH["ka_v_weight"]["minus_two_log_likelihood"] - 1e-3


def test_focei_and_laplace_are_nearly_exact_here_and_fo_is_not():
    assert _excess(_fit("ka_v_weight", "focei"), "ka_v_weight") < 0.05
    assert _excess(_fit("ka_v_weight", "laplace"), "ka_v_weight") < 0.05
    assert _excess(_fit("ka_v_weight", "fo"), "ka_v_weight") > 5.0


@pytest.mark.parametrize("starts", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_no_start_ends_in_the_flip_flop_optimum(starts):
    population = load_bundled_population("theophylline_none")
    result = fit(
        load_bundled("theophylline"),
        population,
        Focei(starts=starts, referee_points=0),
        model="one_compartment_oral",
        seed=2,
    )
    assert result.estimate("ka").value > 5 * result.estimate("ke").value
    assert result.ofv_kind == "focei"
    assert result.ofv == pytest.approx(_fit("none", "focei").criterion, abs=1e-3)


def test_standard_errors_of_other_kinds_are_of_the_same_size():
    data, population = load_bundled("theophylline"), load_bundled_population("theophylline_none")
    fits = [
        fit(
            data,
            population,
            Focei(standard_errors=kind, referee_points=0),
            model="one_compartment_oral",
        )
        for kind in ("hessian", "scores", "sandwich")
    ]
    se = np.array([np.sqrt(np.diagonal(f.covariance)) for f in fits])
    assert (se > 0).all()
    # Twelve subjects: the kinds agree to a factor, not to a percent.
    assert (se / se[0] < 4.0).all()
    assert (se / se[0] > 0.25).all()
    assert not np.allclose(se[0], se[1])


@pytest.mark.parametrize("name", DIAGONAL)
def test_louis_standard_errors_are_those_of_quadrature_within_their_error(name):
    """At the exact estimates. t with 7 degrees of freedom at 1e-4: 7.9 errors, from 8 batches of nodes.

    The reference differences -2LL over 1e-3, up to a fortieth of a standard error: right to 1e-3 of it.
    """
    truth, data = TRUTH[name], load_bundled("theophylline")
    bound = load_shipped_model("one_compartment_oral").bind(data)
    population = load_bundled_population(f"theophylline_{name}")
    joined = population.bind(data.covariate_table(), bound.model.parameters)
    x = np.array([*truth["x"][:3], truth["x"][-1], *truth["x"][3:-1]])
    exact = np.array([*truth["se"][:3], truth["se"][-1], *truth["se"][3:-1]])
    modes = find_ebe(bound, *joined.unpack(x))
    information = louis_information(bound, joined, x, modes, stream(3, 1), 512)
    covariance = np.linalg.inv(information.total)
    error = information.error_of_se(covariance)
    assert (error < 0.01 * exact).all()
    assert (np.abs(np.sqrt(np.diagonal(covariance)) - exact) < 7.9 * error + 1e-3 * exact).all()


def test_fo_refuses_censored_data_and_others_use_them():
    data = load_bundled("theophylline")
    first = data.subjects[0]
    censoring = np.zeros(first.design.n_observations, dtype=int)
    censoring[-1] = 1
    marked = Subject(
        id=first.id,
        design=first.design,
        y=first.y,
        observed=first.observed,
        censoring=censoring,
        limit=np.full(len(censoring), np.nan),
        occasion=first.occasion,
        covariates=first.covariates,
    )
    censored = Dataset(subjects=(marked, *data.subjects[1:]))
    population = load_bundled_population("theophylline_none")
    with pytest.raises(CapabilityError, match="censored"):
        fit(censored, population, Fo(), model="one_compartment_oral")
    for method in (Foce(referee_points=0), Laplace(referee_points=0)):
        result = fit(censored, population, method, model="one_compartment_oral")
        assert result.status.is_success
        assert result.n_censored == 1
