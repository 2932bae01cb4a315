"""Diagnostics of a FOCEI and a SAEM fit of the theophylline study against slow code written for this test.

Own closed form (`reference.quadrature`), SciPy's minimizer for the modes, loops over subjects and records.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from reference.quadrature import concentration, read_theophylline
from scipy.linalg import sqrtm
from scipy.optimize import minimize
from scipy.special import ndtr

from amortnlme.data.bundled import load_bundled
from amortnlme.diagnostics.compare import compare
from amortnlme.diagnostics.tables import FitDiagnostics, diagnose, row_table
from amortnlme.methods.classical import Focei
from amortnlme.methods.fit import fit
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.saem import Saem
from amortnlme.model.registry import load_shipped_model
from amortnlme.population.bundled import load_bundled_population

DATA, KINDS, N_REPLICATES = read_theophylline(), ("focei", "saem"), 4000


@cache
def _fit(kind: str) -> PopulationFit:
    method = {"focei": Focei(), "saem": Saem()}[kind]
    population = load_bundled_population("theophylline_none")
    return fit(load_bundled("theophylline"), population, method, model="one_compartment_oral", seed=1)


@cache
def _diagnosed(kind: str) -> FitDiagnostics:
    model = load_shipped_model("one_compartment_oral")
    return diagnose(_fit(kind), model, load_bundled("theophylline"), n_replicates=N_REPLICATES)


def _prediction(i: int, eta: np.ndarray, result: PopulationFit) -> np.ndarray:
    return concentration(result.theta[:3] + eta, DATA.dose[i : i + 1], DATA.time[i : i + 1])[0]


@cache
def _modes(kind: str) -> np.ndarray:
    result = _fit(kind)
    a, omega = result.sigma["a"], result.omega[:3, :3]

    def joint(eta: np.ndarray, i: int) -> float:
        residual = (DATA.y[i] - _prediction(i, eta, result)) / a
        return float(residual @ residual + eta @ np.linalg.solve(omega, eta))

    modes = []
    for i in range(12):
        near = minimize(joint, np.zeros(3), args=(i,), method="Nelder-Mead", options={"xatol": 1e-5}).x
        modes.append(minimize(joint, near, args=(i,), method="BFGS", options={"gtol": 1e-7}).x)
    return np.array(modes)


def _gradient(i: int, eta: np.ndarray, result: PopulationFit) -> np.ndarray:
    h = 1e-4
    ends = [(_prediction(i, eta + h * e, result), _prediction(i, eta - h * e, result)) for e in np.eye(3)]
    return np.stack([(up - down) / (2 * h) for up, down in ends], axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_modes_residuals_and_shrinkage_are_those_of_slow_code(kind):
    """Modes are right to 1e-5 (BFGS ends at a gradient of 1e-7), residuals to 1e-5 f'/a < 1e-4."""
    result, modes = _fit(kind), _modes(kind)
    np.testing.assert_allclose(result.individuals.ebe_eta, modes, atol=1e-5)
    iwres = np.array([(DATA.y[i] - _prediction(i, modes[i], result)) / result.sigma["a"] for i in range(12)])
    np.testing.assert_allclose(_diagnosed(kind).iwres, iwres, atol=1e-4)
    sd = np.sqrt(np.diagonal(result.omega)[:3])
    np.testing.assert_allclose(result.eta_shrinkage, 1.0 - modes.std(axis=0, ddof=1) / sd, atol=1e-4)
    assert result.eps_shrinkage == pytest.approx(1.0 - iwres.std(ddof=1), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_cwres_are_those_of_slow_code(kind):
    """(y - f + G eta) whitened by the symmetric root of G omega G' + a^2 I, one subject at a time."""
    result = _fit(kind)
    for i, eta in enumerate(_modes(kind)):
        G = _gradient(i, eta, result)
        covariance = G @ result.omega[:3, :3] @ G.T + result.sigma["a"] ** 2 * np.eye(10)
        residual = DATA.y[i] - _prediction(i, eta, result) + G @ eta
        expected = np.linalg.solve(np.real(sqrtm(covariance)), residual)
        np.testing.assert_allclose(_diagnosed(kind).cwres[i], expected, atol=5e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_npde_are_those_of_slow_code_with_its_own_simulations(kind):
    """Null: both estimate one probability p from 4000 simulations each.

    SD of the difference sqrt(2 p q / 4000), and more for the whitening.
    Mean and covariance of 4000 simulations whiten the observation itself; a Cholesky root of 10 records adds
    to z an error of about sqrt((10 + z^2) / 4000) < 0.07, in p at most 0.07 / sqrt(2 pi). 120 comparisons at
    1e-4 altogether: 4.9 SD.
    """
    result, rng = _fit(kind), np.random.default_rng(5)
    root = np.linalg.cholesky(result.omega[:3, :3])
    pde = _diagnosed(kind).pde
    for i in range(12):
        eta = rng.standard_normal((N_REPLICATES, 3)) @ root.T
        simulated = concentration(result.theta[:3] + eta, DATA.dose[i : i + 1], DATA.time[i : i + 1])
        simulated = simulated + result.sigma["a"] * rng.standard_normal(simulated.shape)
        mean, chol = simulated.mean(axis=0), np.linalg.cholesky(np.cov(simulated.T))
        white = np.linalg.solve(chol, (simulated - mean).T).T
        observed = np.linalg.solve(chol, DATA.y[i] - mean)
        for j in range(10):
            p = float((white[:, j] < observed[j]).mean())
            whitening = np.sqrt((10.0 + observed[j] ** 2) / N_REPLICATES) / np.sqrt(2.0 * np.pi)
            sd = np.sqrt(2.0 * (max(p * (1.0 - p), 1.0 / N_REPLICATES) / N_REPLICATES + whitening**2))
            assert abs(pde[i, j] - p) < 4.9 * sd, (i, j)
    np.testing.assert_allclose(ndtr(_diagnosed(kind).npde), pde, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_of_a_classical_fit_hold_every_estimate_and_residual(kind):
    result = _fit(kind)
    table = result.table()
    assert list(table.index) == ["ka", "ke", "V", "omega_ka", "omega_ke", "omega_V", "a"]
    np.testing.assert_allclose(table["rse_percent"], 100.0 * table["se"] / table["value"])
    assert table.notna().all(axis=None)
    # Delta method: SE of exp(theta) is exp(theta) times that of theta.
    assert result.covariance is not None
    np.testing.assert_allclose(
        table["se"][:3], np.exp(result.x[:3]) * np.sqrt(np.diag(result.covariance)[:3])
    )
    rows = row_table(_diagnosed(kind))
    assert len(rows) == 120
    assert rows[["PRED", "IPRED", "RES", "IWRES", "CWRES", "NPDE"]].notna().all(axis=None)


def test_classical_fits_compare_on_one_scale():
    fits = [_fit(kind) for kind in KINDS]
    table = compare(fits)
    for column, result in enumerate(fits):
        assert table.loc[("ofv", "value")].iloc[column] == result.ofv
        assert table.loc[("ka", "se")].iloc[column] == result.estimate("ka").se
    delta = table.loc[("ofv", "delta")].astype(float)
    # FOCEI maximizes something else, and SAEM stops near the maximum: both within 0.3 of it.
    assert delta.min() == 0.0
    assert delta.max() < 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_condition_number_is_that_of_the_correlation_matrix_and_harmless_here(kind):
    result = _fit(kind)
    assert result.covariance is not None
    se = np.sqrt(np.diag(result.covariance))
    values = np.linalg.eigvalsh(result.covariance / np.outer(se, se))
    assert result.condition_number == pytest.approx(values[-1] / values[0], rel=1e-9)
    assert result.condition_number < 1000.0
    assert not any("W_FIT_CONDITION" in text for text in result.warnings)
    document = result.to_dict()["x"]
    assert document["condition_number"] == result.condition_number
    np.testing.assert_array_equal(document["correlation"], result.correlation)
