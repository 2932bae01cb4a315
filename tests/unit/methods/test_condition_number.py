"""Condition number of the correlation matrix of the estimates: value, warning, and where it is shown."""

import numpy as np
import pytest
from contract.linear_mixed_model import line

from amortnlme.cli.fit import show_fit
from amortnlme.core.status import FitStatus
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.subject import Subject
from amortnlme.methods.classical import Focei
from amortnlme.methods.fit import fit
from amortnlme.methods.information import condition_number, correlation_of_estimates, weak_entries
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.report.estimate_tables import comparison_table


def _fit(origin: float):
    """A line observed around t = origin: the further away, the less the data tell m and s apart."""
    rng, subjects = np.random.default_rng(2), []
    times = origin + np.linspace(0.0, 4.0, 6)
    for i in range(12):
        y = 1.0 + 0.8 * rng.standard_normal() + 0.5 * times + 0.3 * rng.standard_normal(6)
        subjects.append(Subject.from_observations(f"{i}", Design.from_doses((), times), y, {}))
    population = PopulationModel(random_effects=RandomEffects(("m",)))
    return fit(Dataset(tuple(subjects)), population, Focei(referee_points=0), model=line())


def test_condition_number_is_the_ratio_of_extreme_eigenvalues_of_the_correlations():
    """Two estimates of correlation r: eigenvalues 1 + r and 1 - r, whatever their variances."""
    covariance = np.array([[4.0, 2.0 * 0.1 * 0.9], [2.0 * 0.1 * 0.9, 0.01]])
    np.testing.assert_allclose(correlation_of_estimates(covariance), [[1.0, 0.9], [0.9, 1.0]])
    assert condition_number(covariance) == pytest.approx(1.9 / 0.1)
    assert condition_number(np.ones((2, 2))) > 1e15


def test_weak_entries_name_the_confounded_pair_and_the_empty_entry():
    matrix = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert weak_entries(matrix, 1e-9).tolist() == [0, 1]
    assert weak_entries(np.diag([1.0, 0.0]), 1e-9).tolist() == [1]
    assert weak_entries(np.eye(2), 1e-9).tolist() == []
    assert weak_entries(np.full((2, 2), np.nan), 1e-9).tolist() == []


def test_a_fit_warns_when_its_estimates_are_nearly_confounded():
    """Intercept and slope seen from t = 200 to 204: correlation -sqrt(1 - var(t) / E[t^2]), condition 1e4."""
    near, far = _fit(0.0), _fit(200.0)
    assert near.condition_number < 1000.0 < far.condition_number
    assert not any("W_FIT_CONDITION" in text for text in near.warnings)
    (text,) = (text for text in far.warnings if text.startswith("[W_FIT_CONDITION]"))
    assert "tell m, s apart" in text
    assert far.status is FitStatus.CONVERGED


def test_the_condition_number_is_shown_on_the_command_line_and_on_the_page(capsys):
    result = _fit(0.0)
    show_fit(result)
    assert f"condition number of the correlation matrix of the estimates: {result.condition_number:.1f}" in (
        capsys.readouterr().out
    )
    table = comparison_table([result], ["one"], None, with_deltas=True)
    (row,) = (r for r in table.rows if r.cells and r.cells[0].text == "Condition number")
    assert row.cells[1].text not in ("", "–")
