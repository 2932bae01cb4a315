"""The evidence bound and its Gaussian posteriors, against closed forms, differences and quadrature."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from contract.linear_gaussian import LinearGaussianTarget

from amortnlme.core.errors import UsageError
from amortnlme.data.bundled import load_bundled
from amortnlme.methods.quadrature_likelihood import QuadratureLikelihood
from amortnlme.methods.quadrature_nodes import gauss_hermite
from amortnlme.methods.variational_likelihood import VariationalLikelihood
from amortnlme.methods.variational_posterior import VariationalProblem, expectation_nodes, find_posteriors
from amortnlme.methods.vi import Vi
from amortnlme.model.registry import load_shipped_model
from amortnlme.population.bundled import load_bundled_population

X = np.array([np.log(1.6), np.log(0.087), np.log(32.0), np.log(0.7), 0.6, 0.15, 0.15])


class _Expandable(LinearGaussianTarget):
    def expansions(self, phi):
        value, gradient = self.log_likelihood_and_gradient(phi)
        return value, gradient, np.broadcast_to(self.precision, (*phi.shape, phi.shape[-1]))


def _linear():
    rng = np.random.default_rng(2)
    root = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.3, 0.5, 0.7]])
    target = _Expandable(rng.standard_normal((5, 3)), root @ root.T + 0.5 * np.eye(3))
    factor = np.array([[0.9, 0.0], [0.4, 0.7], [0.0, 0.0]])
    return target, rng.standard_normal((5, 3)), factor


@cache
def _theophylline():
    model, data = load_shipped_model("one_compartment_oral"), load_bundled("theophylline")
    joined = load_bundled_population("theophylline_none").bind(data.covariate_table(), model.parameters)
    return model.bind(data), joined


def test_posterior_is_the_exact_one_on_a_linear_model():
    target, mu, factor = _linear()
    found = find_posteriors(VariationalProblem(target, mu, factor, gauss_hermite(2, 2)))
    precision = np.eye(2) + factor.T @ target.precision @ factor
    mean = (target.y - mu) @ target.precision @ factor @ np.linalg.inv(precision)
    assert found.converged.all()
    np.testing.assert_allclose(found.covariance, np.tile(np.linalg.inv(precision), (5, 1, 1)), atol=1e-7)
    np.testing.assert_allclose(found.mean, mean, atol=1e-7)


def test_diagonal_posterior_has_the_conditional_precisions_on_a_linear_model():
    """The mean-field optimum of a normal law: its mean, and the inverse diagonal of its precision."""
    target, mu, factor = _linear()
    found = find_posteriors(VariationalProblem(target, mu, factor, gauss_hermite(2, 2), is_diagonal=True))
    precision = np.eye(2) + factor.T @ target.precision @ factor
    mean = (target.y - mu) @ target.precision @ factor @ np.linalg.inv(precision)
    np.testing.assert_allclose(found.mean, mean, atol=1e-7)
    np.testing.assert_allclose(
        np.diagonal(found.covariance, axis1=1, axis2=2), np.tile(1.0 / np.diag(precision), (5, 1)), atol=1e-7
    )
    # KL between the two laws: the gap of the bound.
    full = find_posteriors(VariationalProblem(target, mu, factor, gauss_hermite(2, 2)))
    gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    np.testing.assert_allclose(full.bound - found.bound, gap, atol=1e-10)


@pytest.mark.parametrize("is_diagonal", [False, True])
def test_scores_are_the_derivatives_of_the_profiled_bound(is_diagonal):
    bound, joined = _theophylline()
    objective = VariationalLikelihood(bound, joined, gauss_hermite(3, 3), is_diagonal)
    scores, h = objective.value_and_scores(X)[1], 3e-5
    slopes = [
        (objective.value_and_scores(X + h * e)[0] - objective.value_and_scores(X - h * e)[0]) / (2 * h)
        for e in np.eye(len(X))
    ]
    # h^2 times third derivatives of up to 1e4, and posteriors found to 1e-6.
    np.testing.assert_allclose(scores, np.transpose(slopes), atol=2e-5)


def test_bound_does_not_depend_on_the_path_there():
    bound, joined = _theophylline()
    walked = VariationalLikelihood(bound, joined, gauss_hermite(3, 3))
    away = np.array([0.3, 0.2, -0.1, 0.4, 0.3, 0.1, 0.2])
    for share in (0.0, 0.3, 0.6, 1.0):
        value = walked.value_and_scores(X + (1 - share) * away)[0]
    fresh = VariationalLikelihood(bound, joined, gauss_hermite(3, 3)).value_and_scores(X)[0]
    np.testing.assert_allclose(value, fresh, atol=1e-9)


def test_bounds_are_ordered_below_the_likelihood():
    bound, joined = _theophylline()
    nodes = gauss_hermite(3, 7)
    exact = QuadratureLikelihood(bound, joined, 13).value_and_scores(X)[0]
    full, diagonal = (
        VariationalLikelihood(bound, joined, nodes, flag).value_and_scores(X)[0] for flag in (0, 1)
    )
    # Rules of 7 and 13 nodes are right to about 1e-5 here.
    assert (full < exact + 1e-4).all() and (diagonal < full + 1e-8).all()
    assert 0 < (exact - full).sum() < 0.15
    assert (full - diagonal).sum() > 0.5


def test_nodes_are_exact_for_quadratic_functions_with_many_random_effects():
    nodes = expectation_nodes(7, None, 64, np.random.default_rng(0))
    assert nodes.z.shape == (64, 7)
    np.testing.assert_allclose(nodes.z.T @ nodes.z / 64, np.eye(7), atol=1e-12)
    np.testing.assert_allclose(nodes.z.mean(axis=0), 0.0, atol=1e-12)
    assert [len(expectation_nodes(r, None, 64, np.random.default_rng(0)).z) for r in (1, 2, 3, 4)] == [
        5, 25, 125, 81
    ]  # fmt: skip


@pytest.mark.parametrize("options", [{"family": "flow"}, {"n_nodes": 1}, {"n_samples": 33}, {"starts": 0}])
def test_vi_refuses_options_outside_their_range(options):
    with pytest.raises(UsageError, match="E_FIT_OPTION"):
        Vi(**options)
