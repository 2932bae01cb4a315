"""Learned covariates against the maximum of the observed-data likelihood and closed-form conditionals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from amortnlme.core.errors import DataError
from amortnlme.data.covariate_model import impute, learn_covariates, normal_law
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.imputation import fill_covariate
from amortnlme.data.subject import Subject


def _normal(n: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    z = rng.standard_normal((n, 2)) @ np.array([[1.0, 0.7], [0.0, 0.6]])
    # Missing at random: the second is missing mostly where the first is large.
    z[(z[:, 0] > 0.2) & (rng.random(n) < 0.8), 1] = np.nan
    return z


def test_normal_law_is_the_maximum_of_the_observed_likelihood():
    z = _normal(120)
    whole = ~np.isnan(z[:, 1])

    def value(p: np.ndarray) -> float:
        root = np.array([[np.exp(p[2]), 0.0], [p[3], np.exp(p[4])]])
        covariance = root @ root.T
        both = multivariate_normal(p[:2], covariance).logpdf(z[whole]).sum()
        alone = multivariate_normal(p[0], covariance[0, 0]).logpdf(z[~whole, 0]).sum()
        return -(both + alone)

    best = minimize(value, np.zeros(5), method="BFGS").x
    root = np.array([[np.exp(best[2]), 0.0], [best[3], np.exp(best[4])]])
    mean, covariance = normal_law(z)
    # Expectation-maximization stops at changes of 1e-6, a few times that from its limit.
    np.testing.assert_allclose(mean, best[:2], atol=2e-4)
    np.testing.assert_allclose(covariance, root @ root.T, atol=2e-4)


def test_draws_have_the_conditional_law_of_the_copula():
    z = _normal(400)
    table = pd.DataFrame({"a": np.exp(z[:, 0]), "b": z[:, 1]})
    model = learn_covariates(table)
    one = pd.DataFrame({"a": np.full(4000, 2.0), "b": np.nan})
    drawn = model.complete(one, np.random.default_rng(4))["b"].to_numpy()
    score = np.interp(2.0, model.values[0], model.scores[0])
    slope = model.covariance[0, 1] / model.covariance[0, 0]
    mean = model.mean[1] + slope * (score - model.mean[0])
    sd = np.sqrt(model.covariance[1, 1] - slope * model.covariance[0, 1])
    # Quantiles pass through the monotone map of b: 4.5 standard errors of an empirical quantile, in scores.
    for q, at in ((0.25, -0.6745), (0.5, 0.0), (0.75, 0.6745)):
        back = np.interp(np.quantile(drawn, q), model.values[1], model.scores[1])
        density = np.exp(-0.5 * at**2) / np.sqrt(2 * np.pi)
        assert abs(back - (mean + sd * at)) < 4.5 * sd * np.sqrt(q * (1 - q) / 4000) / density
    assert model.complete(one[:1], None)["b"][0] == pytest.approx(
        np.interp(mean, model.scores[1], model.values[1])
    )


def test_a_covariate_of_two_values_is_drawn_as_one_of_them():
    rng = np.random.default_rng(5)
    a = rng.standard_normal(60)
    b = (a > 0).astype(float)
    b[::4] = np.nan
    drawn = learn_covariates(table := pd.DataFrame({"a": a, "b": b})).complete(table, rng)
    assert set(drawn["b"]) == {0.0, 1.0}
    assert (drawn["a"] == a).all()


def _dataset(values: np.ndarray) -> Dataset:
    design = Design.from_doses((), (1.0,))
    rows = enumerate(zip(np.linspace(1, 2, len(values)), values, strict=True))
    return Dataset(
        tuple(Subject.from_observations(str(i), design, np.ones(1), {"w": w, "v": v}) for i, (w, v) in rows)
    )


def test_imputed_data_keep_what_was_recorded_and_differ_where_it_was_not():
    values = np.linspace(10, 20, 30)
    values[::3] = np.nan
    first, second = impute(_dataset(values), 2, np.random.default_rng(6))
    one, other = (d.covariate_table()["v"].to_numpy() for d in (first, second))
    known = np.isfinite(values)
    assert (one[known] == values[known]).all() and (other[known] == values[known]).all()
    assert np.isfinite(one).all() and (one[~known] != other[~known]).any()
    # Nearly a function of w: imputed values follow it.
    assert np.corrcoef(one[~known], np.linspace(1, 2, 30)[~known])[0, 1] > 0.8


def test_auxiliary_columns_inform_the_imputation():
    rng = np.random.default_rng(7)
    truth = rng.uniform(10, 20, 80)
    values = np.where(rng.random(80) < 0.5, np.nan, truth)
    helper = pd.DataFrame({"eta": np.log(truth)}, index=[str(i) for i in range(80)])
    (made,) = impute(_dataset(values), 1, rng, helper)
    gap = np.isnan(values)
    assert np.corrcoef(made.covariate_table()["v"][gap], truth[gap])[0, 1] > 0.9
    assert list(made.covariate_names) == ["w", "v"]


def test_nothing_missing_and_nothing_to_learn_from_are_refused():
    with pytest.raises(DataError, match="E_DATA_IMPUTATION"):
        impute(_dataset(np.linspace(1, 2, 9)), 2, np.random.default_rng(1))
    with pytest.raises(DataError, match="E_DATA_IMPUTATION"):
        learn_covariates(pd.DataFrame({"v": [1.0, 2.0, np.nan, np.nan, np.nan, np.nan]}))


@pytest.mark.parametrize(("word", "expected"), [("median", 3.0), ("mode", 2.0)])
def test_typical_values_fill_what_is_missing(word, expected):
    values = np.array([2.0, 2.0, 3.0, 7.0, 9.0, np.nan])
    filled = fill_covariate(_dataset(values), "v", word).covariate_table()["v"]
    assert filled.iloc[-1] == expected


def test_an_unknown_word_for_typical_values_is_refused():
    with pytest.raises(DataError, match="E_DATA_IMPUTATION"):
        fill_covariate(_dataset(np.array([1.0, np.nan])), "v", "mean")
