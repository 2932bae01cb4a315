"""The words of the summary: who is preferred, and what is said against it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from unit.diagnostics.linear_study import make_fit, make_study

from amortnlme.core.status import FitStatus
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.report.verdict import judge


@pytest.fixture(scope="module")
def fits():
    fit, _, dataset = make_study(np.random.default_rng(1), n_subjects=12)
    plain = PopulationModel(name="plain", random_effects=RandomEffects(("b0", "b1")))
    return make_fit(plain, dataset, np.array([5.0, -0.3, np.log(0.4), 1.0, 0.1])), fit


def _said(verdict):
    return " ".join((*verdict.sentences, *verdict.caveats))


@pytest.mark.parametrize(
    ("gap", "words"),
    [(1.0, "nearly as good"), (4.0, "somewhat worse"), (8.0, "clearly worse"), (30.0, "far worse")],
)
def test_verdict_says_how_much_a_difference_means(fits, gap, words):
    base, fit = fits
    better = replace(fit, ofv=fit.ofv + (base.bicc - gap - fit.bicc))
    verdict = judge([base, better], ["plain", "with weight"])
    assert verdict.preferred == 1
    assert f"“plain” {'is ' + words}" in verdict.sentences[1]
    assert ("do not decide between" in _said(verdict)) == (gap < 2.0)


def test_verdict_warns_when_monte_carlo_noise_is_as_large_as_the_difference(fits):
    base, fit = fits
    better = replace(fit, ofv=fit.ofv + (base.bicc - 3.0 - fit.bicc), ofv_se=2.0)
    assert "within the Monte-Carlo error" in _said(judge([base, better], ["a", "b"]))
    assert "within the Monte-Carlo error" not in _said(
        judge([base, replace(better, ofv_se=0.02)], ["a", "b"])
    )


def test_verdict_prefers_no_failed_fit(fits):
    base, fit = fits
    failed = replace(fit, ofv=-1e6, status=FitStatus.FAILED)
    verdict = judge([failed, base], ["failed", "plain"])
    assert verdict.preferred == 1
    assert "“failed” did not succeed" in _said(verdict)


def test_verdict_names_no_model_when_all_failed(fits):
    verdict = judge([replace(fit, status=FitStatus.NOT_CONVERGED) for fit in fits], ["a", "b"])
    assert verdict.preferred is None
    assert "none of the fits succeeded" in _said(verdict)


def test_verdict_mentions_shrinkage_weak_effects_and_few_subjects(fits):
    _, fit = fits
    weak = tuple(
        replace(e, ci_low=-0.1, ci_high=1.0, rse_percent=55.0) if e.kind == "beta" else e
        for e in fit.estimates
    )
    verdict = judge([replace(fit, estimates=weak, eta_shrinkage=np.array([0.1, 0.6]))], ["with weight"])
    said = _said(verdict)
    assert "η-shrinkage of b1 is 60 %" in said
    assert "interval of beta_b0_weight in “with weight” includes zero" in said
    assert "poorly determined (RSE 55 %)" in said
    assert "12 subjects" in said
