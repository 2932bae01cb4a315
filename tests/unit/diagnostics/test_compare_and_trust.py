"""Comparison of fits and the trust grades."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from unit.diagnostics.linear_study import make_fit, make_study

from amortnlme.core.errors import FitError, UsageError
from amortnlme.diagnostics.compare import compare, fit_labels
from amortnlme.diagnostics.trust import TrustGrade, grade_subjects
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel


def _pair():
    fit, _, dataset = make_study(np.random.default_rng(1))
    plain = PopulationModel(name="no covariates", random_effects=RandomEffects(("b0", "b1")))
    return make_fit(plain, dataset, np.array([5.0, -0.3, np.log(0.4), 1.0, 0.1])), fit


def test_compare_puts_values_and_differences_side_by_side():
    base, fit = _pair()
    table = compare([base, fit])
    assert list(table.columns) == ["no covariates", "with weight"]
    assert table.loc[("b0", "value"), "no covariates"] == pytest.approx(5.0)
    assert table.loc[("beta_b0_weight", "value"), "no covariates"] is None
    assert table.loc[("ofv", "value"), "with weight"] == pytest.approx(fit.ofv)
    delta = table.loc[("bicc", "delta")].astype(float)
    assert delta.min() == 0.0
    assert delta.max() == pytest.approx(abs(base.bicc - fit.bicc))
    assert table.loc[("ofv", "method"), "with weight"] == "importance_sampling"
    assert table.loc[("seconds", "value"), "with weight"] == pytest.approx(0.3)


def test_compare_refuses_objective_values_of_different_kinds():
    base, fit = _pair()
    with pytest.raises(FitError, match="surrogate") as caught:
        compare([base, replace(fit, ofv_kind="surrogate")])
    assert caught.value.code == "E_COMPARE_OFV_KIND"


def test_compare_refuses_fits_of_different_datasets():
    base, fit = _pair()
    with pytest.raises(FitError) as caught:
        compare([base, replace(fit, provenance={"dataset_fingerprint": "sha256:other"})])
    assert caught.value.code == "E_COMPARE_DATASET"


def test_compare_refuses_nothing():
    with pytest.raises(FitError) as caught:
        compare([])
    assert caught.value.code == "E_COMPARE_EMPTY"


def test_fit_labels_are_unique_when_populations_share_a_name():
    _, fit = _pair()
    labels = fit_labels([fit, replace(fit, method="focei"), fit])
    assert len(set(labels)) == 3
    assert labels[1] == "with weight [focei]"


def _grade(**kwargs):
    return grade_subjects(["A"], **{key: [value] for key, value in kwargs.items()})[0]


@pytest.mark.parametrize(
    ("given", "grade"),
    [
        ({"ess_share": 0.8, "pareto_k": 0.2, "rejected_share": 0.002}, TrustGrade.GREEN),
        ({"ess_share": 0.3, "pareto_k": 0.7, "rejected_share": 0.01}, TrustGrade.GREEN),
        ({"ess_share": 0.29, "pareto_k": 0.2}, TrustGrade.AMBER),
        ({"ess_share": 0.04, "pareto_k": 0.2}, TrustGrade.RED),
        ({"ess_share": 0.8, "pareto_k": 0.71}, TrustGrade.AMBER),
        ({"ess_share": 0.8, "pareto_k": 1.01}, TrustGrade.RED),
        ({"ess_share": 0.8, "pareto_k": np.inf}, TrustGrade.RED),
        ({"rejected_share": 0.02}, TrustGrade.AMBER),
        ({"rejected_share": 0.06}, TrustGrade.RED),
        ({"out_of_domain": ("too late",), "ess_share": 0.8, "pareto_k": 0.2}, TrustGrade.AMBER),
        ({"out_of_domain": ("too late",), "ess_share": 0.01, "pareto_k": 0.2}, TrustGrade.RED),
        ({"out_of_domain": ("too late",)}, TrustGrade.RED),
        ({}, TrustGrade.GREEN),
    ],
)
def test_grade_is_decided_by_the_worst_single_check(given, grade):
    subject = _grade(**given)
    assert subject.grade is grade
    assert bool(subject.reasons) == (grade is not TrustGrade.GREEN)
    assert grade.sentence


def test_grades_refuse_inputs_of_another_length():
    with pytest.raises(UsageError) as caught:
        grade_subjects(["A", "B"], ess_share=[0.5])
    assert caught.value.code == "E_TRUST_SHAPE"
