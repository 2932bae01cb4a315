"""Comparison of fits and the trust grades."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from unit.diagnostics.linear_study import make_draws, make_fit, make_study

from amortnlme.core.errors import FitError, UsageError
from amortnlme.diagnostics.compare import compare, fit_labels
from amortnlme.diagnostics.importance_table import check_draws, importance_table
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


def test_importance_table_shows_the_checks_of_every_subject():
    _, model, dataset = make_study(np.random.default_rng(1), n_subjects=4)
    draws = make_draws(dataset, np.random.default_rng(2))
    checks = check_draws(draws, model, dataset, seed=0)
    table = importance_table(checks, draws.parameters.names)
    assert list(table.index) == list(dataset.ids)
    assert table.loc["S2", "trust"] == "amber"
    assert "25 observations" in table.loc["S2", "remarks"]
    assert table.loc["S1", "rejected_share"] == pytest.approx(12 / 412)
    assert (table[["shift_b0", "shift_b1", "shift_a"]] >= 0.0).all(axis=None)


def test_draws_that_are_too_wide_are_seen_by_their_effective_share():
    """Draws with twice the posterior SD, and their true density.

    For c = 2 in two normal coordinates E[w^2] = (c^2 / sqrt(2 c^2 - 1))^2 = 16 / 7, and ESS / M = 7 / 16.
    With E[w^4] = (c^3 / sqrt(4 - 3 / c^2))^2 = 19.7 the relative SDs of mean w^2 and of (mean w)^2 at
    M = 40,000 are 0.0083 and 0.0113; their sum times 4.2 (false-alarm rate 1e-4 over four subjects) is the
    tolerance.
    """
    _, model, dataset = make_study(np.random.default_rng(1), n_subjects=4)
    exact = make_draws(dataset, np.random.default_rng(2), n_draws=40_000)
    phi = np.array(exact.phi)
    log_a = phi[..., 2] - np.log(0.4)
    log_q = exact.log_q + 0.5 * (log_a / 0.2) ** 2 + np.log(0.2) + 0.5 * np.log(2 * np.pi)
    phi[..., 2] = np.log(0.4)
    right = _with_phi(exact, phi, log_q)
    assert [s.ess_share for s in check_draws(right, model, dataset, seed=0).subjects] == pytest.approx(
        [1.0] * 4
    )
    center = phi[..., :2].mean(axis=1, keepdims=True)
    phi[..., :2] = center + 2.0 * (phi[..., :2] - center)
    # The density of a stretched draw is that of the draw it was stretched from, over the factor of area.
    wide = check_draws(_with_phi(exact, phi, log_q - np.log(4.0)), model, dataset, seed=0)
    share = np.array([s.ess_share for s in wide.subjects])
    np.testing.assert_allclose(share, 7.0 / 16.0, rtol=4.2 * (0.0083 + 0.0113))


def _with_phi(draws, phi, log_q):
    log_prior = draws.prior.log_prob(phi.reshape(-1, 3)).reshape(log_q.shape)
    return replace(draws, phi=phi, log_q=log_q, log_prior=log_prior)
