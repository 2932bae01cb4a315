"""Guided importance sampling, modes, information and the referee, on problems with known answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from contract.linear_gaussian import LinearGaussian

from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.guided_likelihood import GuidedLikelihood, guide_closely
from amortnlme.methods.guides import place_guide
from amortnlme.methods.information import invert_information, observed_information, whitening
from amortnlme.methods.other_modes import starts_at_modes
from amortnlme.methods.proposals import BaseNumbers, Proposal, base_numbers, freeze, log_standard_t
from amortnlme.methods.referee import referee


@dataclass(frozen=True)
class Curved:
    """A likelihood far from quadratic: means exp(phi_0) + phi_1^2 and phi_0 - phi_1, SD 0.3."""

    y: np.ndarray  # (n, 2)

    def _f(self, phi):
        a, b = phi[..., 0], phi[..., 1]
        f = np.stack([np.exp(a) + b**2, a - b], axis=-1)
        slope = np.stack(
            [np.stack([np.exp(a), 2 * b], -1), np.stack([np.ones_like(a), -np.ones_like(b)], -1)], -2
        )
        return f, slope

    def log_likelihood(self, phi):
        return self.log_likelihood_and_gradient(phi)[0]

    def log_likelihood_and_gradient(self, phi):
        f, slope = self._f(phi)
        z = (self.y[:, None] - f) / 0.3
        return -0.5 * (z**2).sum(-1) - 2 * np.log(0.3) - np.log(2 * np.pi), (z[..., None] / 0.3 * slope).sum(
            -2
        )

    def gauss_newton(self, phi):
        value, gradient = self.log_likelihood_and_gradient(phi[:, None])
        _, slope = self._f(phi)
        return value[:, 0], gradient[:, 0], np.swapaxes(slope, 1, 2) @ slope / 0.09


@pytest.fixture
def curved():
    rng = np.random.default_rng(0)
    study = LinearGaussian(n=7, relative_sd=(1.0,), seed=0)
    problem = study.problem(study.draws(60, rng))
    return Curved(1.5 + 0.5 * rng.normal(size=(7, 2))), problem.bound_population


def test_gradient_includes_the_motion_of_the_nodes(curved):
    target, population = curved
    x = np.array([0.2, 0.4, 0.6])
    guide, _ = place_guide(target, *population.unpack(x), None)
    base = base_numbers(7, 64, 1, np.random.default_rng(1), defensive=False)
    objective = GuidedLikelihood(target, population, guide, base)
    for point in (x, x + np.array([0.1, -0.05, 0.15])):
        _, scores = objective.value_and_scores(point)
        steps = 1e-6 * np.eye(3)
        numeric = [
            (objective.value_and_scores(point + h)[0] - objective.value_and_scores(point - h)[0]) / 2e-6
            for h in steps
        ]
        np.testing.assert_allclose(scores, np.transpose(numeric), atol=1e-6)


def test_guided_value_agrees_with_quadrature_also_at_zero_variance(curved):
    target, population = curved
    node = np.linspace(-10.0, 10.0, 8001)
    weight = np.exp(-0.5 * node**2) / np.sqrt(2 * np.pi) * (node[1] - node[0])
    for sd in (0.6, 0.05, 0.0):
        x = np.array([0.2, 0.4, sd])
        phi = np.stack([x[0] + sd * node, np.full(8001, x[1])], axis=-1)
        density = np.exp(target.log_likelihood(np.tile(phi, (7, 1, 1))))
        exact = np.log((density * weight).sum(axis=1))
        guide, _ = place_guide(target, *population.unpack(x), None)
        base = base_numbers(7, 1024, 1, np.random.default_rng(1), defensive=False)
        value = GuidedLikelihood(target, population, guide, base).value_and_scores(x)[0]
        np.testing.assert_allclose(value, exact, atol=5e-3)


def test_a_node_where_the_model_fails_has_no_weight(curved):
    target, population = curved

    class Failing:
        def log_likelihood_and_gradient(self, phi):
            value, gradient = target.log_likelihood_and_gradient(phi)
            bad = phi[..., 0] > 0.9
            return np.where(bad, -np.inf, value), np.where(bad[..., None], np.nan, gradient)

        def log_likelihood(self, phi):
            return self.log_likelihood_and_gradient(phi)[0]

        def gauss_newton(self, phi):
            return target.gauss_newton(phi)

    x = np.array([0.2, 0.4, 0.6])
    guide, _ = place_guide(target, *population.unpack(x), None)
    base = base_numbers(7, 128, 1, np.random.default_rng(1), defensive=False)
    value, scores = GuidedLikelihood(Failing(), population, guide, base).value_and_scores(x)
    assert np.isfinite(value).all() and np.isfinite(scores).all()


@dataclass(frozen=True)
class Mirrored:
    """Only the square of phi_0 is seen, with SD 0.3, and phi_0 - phi_1 a little, with SD 3: two modes."""

    y: np.ndarray  # (n, 2)

    def log_likelihood(self, phi):
        return self.log_likelihood_and_gradient(phi)[0]

    def log_likelihood_and_gradient(self, phi):
        a, b = phi[..., 0], phi[..., 1]
        first, second = (self.y[:, None, 0] - a**2) / 0.3, (self.y[:, None, 1] - a + b) / 3.0
        slope = np.stack([2 * a * first / 0.3 + second / 3.0, -second / 3.0], axis=-1)
        return -0.5 * (first**2 + second**2) - np.log(0.9) - np.log(2 * np.pi), slope

    def gauss_newton(self, phi):
        value, slope = self.log_likelihood_and_gradient(phi[:, None])
        a, zero = phi[:, 0], np.zeros(len(phi))
        jacobian = np.stack(
            [np.stack([2 * a / 0.3, zero], -1), np.stack([zero + 1.0 / 3.0, zero - 1.0 / 3.0], -1)], axis=1
        )
        return value[:, 0], slope[:, 0], np.swapaxes(jacobian, 1, 2) @ jacobian


@pytest.fixture
def mirrored(curved):
    return Mirrored(np.random.default_rng(4).normal(2.0, 0.5, size=(7, 2))), curved[1]


def _two_guides(target, population, x, n_points):
    mu, factor = population.unpack(x)
    starts = starts_at_modes(target, mu, factor, None, 4, np.random.default_rng(2))
    guide, u = place_guide(target, mu, factor, starts)
    base = base_numbers(7, n_points, 1, np.random.default_rng(1), defensive=False)
    return GuidedLikelihood(target, population, guide, base), u


def test_two_modes_are_both_integrated_also_away_from_the_reference_point(mirrored):
    """Arbiter: a fine grid. One guide loses the other mode, which is the control that this case is hard."""
    target, population = mirrored
    reference = np.array([0.3, 0.4, 1.2])
    objective, u = _two_guides(target, population, reference, 1024)
    assert u.shape == (7, 2, 1) and (u[:, 0] * u[:, 1] < 0).all()
    node = np.linspace(-10.0, 10.0, 20001)
    weight = np.exp(-0.5 * node**2) / np.sqrt(2 * np.pi) * (node[1] - node[0])
    for x in (reference, reference + np.array([-0.3, 0.3, 0.2]), reference + np.array([0.2, 0.0, -0.4])):
        phi = np.stack([x[0] + x[2] * node, np.full(20001, x[1])], axis=-1)
        density = np.exp(target.log_likelihood(np.tile(phi, (7, 1, 1))))
        exact = np.log((density * weight).sum(axis=1))
        np.testing.assert_allclose(objective.value_and_scores(x)[0], exact, atol=5e-3)
    one, _ = place_guide(target, *population.unpack(reference), None)
    alone = GuidedLikelihood(target, population, one, objective.base).value_and_scores(reference)[0]
    assert np.median(objective.value_and_scores(reference)[0] - alone) > 0.1


def test_gradient_of_two_guides_includes_the_motion_of_the_nodes_and_their_shares(mirrored):
    target, population = mirrored
    x = np.array([0.3, 0.4, 1.2])
    objective, _ = _two_guides(target, population, x, 64)
    for point in (x, x + np.array([0.2, -0.1, -0.3])):
        _, scores = objective.value_and_scores(point)
        numeric = [
            (objective.value_and_scores(point + h)[0] - objective.value_and_scores(point - h)[0]) / 2e-6
            for h in 1e-6 * np.eye(3)
        ]
        np.testing.assert_allclose(scores, np.transpose(numeric), atol=1e-5)


@dataclass(frozen=True)
class Vanishing:
    """Mean exp(phi_0) with SD 0.3, and phi_1 with SD 0.3: a small exp(phi_0) might be anything smaller."""

    y: np.ndarray  # (n, 2)

    def log_likelihood(self, phi):
        return self.log_likelihood_and_gradient(phi)[0]

    def log_likelihood_and_gradient(self, phi):
        z = (self.y[:, None] - np.stack([np.exp(phi[..., 0]), phi[..., 1]], axis=-1)) / 0.3
        slope = np.stack([z[..., 0] * np.exp(phi[..., 0]), z[..., 1]], axis=-1) / 0.3
        return -0.5 * (z**2).sum(-1) - 2 * np.log(0.3) - np.log(2 * np.pi), slope

    def gauss_newton(self, phi):
        value, slope = self.log_likelihood_and_gradient(phi[:, None])
        root = np.stack([np.exp(phi[:, 0]), np.ones(len(phi))], axis=1) / 0.3
        return value[:, 0], slope[:, 0], root[:, :, None] * root[:, None, :] * np.eye(2)


@pytest.fixture
def half_flat(curved):
    first = np.array([0.55, 0.9, 1.3, 0.5, 4.0, 6.0, 0.7])
    return Vanishing(np.stack([first, np.full(7, 0.1)], axis=1)), curved[1]


FLAT = np.array([-1.0, 0.1, 3.0])


def _bent(target, population, x, n_points):
    starts = place_guide(target, *population.unpack(x), None)[1]
    base = base_numbers(7, n_points, 1, np.random.default_rng(1), defensive=False)
    return guide_closely(target, population, x, starts, base, np.random.default_rng(0))[0]


def test_mixtures_of_guides_find_what_the_mode_does_not_show(half_flat):
    """Arbiter: a fine grid; SE at most 0.06 (a fifth of the nodes effective). Control: at the modes."""
    target, population = half_flat
    objective = _bent(target, population, FLAT, 1024)
    node = np.linspace(-10.0, 10.0, 40001)
    weight = np.exp(-0.5 * node**2) / np.sqrt(2 * np.pi) * (node[1] - node[0])
    alone, _ = place_guide(target, *population.unpack(FLAT), None)
    errors = []
    for x in (FLAT, FLAT + np.array([-0.3, 0.1, 0.4]), FLAT + np.array([0.4, 0.0, -0.5])):
        phi = np.stack([x[0] + x[2] * node, np.full(40001, x[1])], axis=-1)
        density = np.exp(target.log_likelihood(np.tile(phi, (7, 1, 1))))
        exact = np.log((density * weight).sum(axis=1))
        np.testing.assert_allclose(objective.value_and_scores(x)[0], exact, atol=6e-2)
        control = GuidedLikelihood(target, population, alone, objective.base)
        errors.append(control.value_and_scores(x)[0] - exact)
    assert np.abs(errors).max() > 0.1


def test_gradient_of_mixtures_of_guides_is_that_of_the_value(half_flat):
    target, population = half_flat
    objective = _bent(target, population, FLAT, 64)
    assert objective.guide.is_refined
    for point in (FLAT, FLAT + np.array([0.2, -0.1, -0.3])):
        _, scores = objective.value_and_scores(point)
        numeric = [
            (objective.value_and_scores(point + h)[0] - objective.value_and_scores(point - h)[0]) / 2e-6
            for h in 1e-6 * np.eye(3)
        ]
        np.testing.assert_allclose(scores, np.transpose(numeric), atol=1e-5)


def test_only_subjects_whose_law_is_bent_are_given_mixtures(half_flat):
    """Sharp modes at y of 4 and 6, far above the SD of 0.3. ESS alone would pass the subject with y = 0.7."""
    target, population = half_flat
    objective = _bent(target, population, FLAT, 256)
    guide, _ = place_guide(target, *population.unpack(FLAT), None)
    few = GuidedLikelihood(target, population, guide, objective.base).ess(FLAT) < 0.3 * 256
    refined = np.ptp(objective.guide.eta[..., 0], axis=1) > 0
    assert refined.tolist() == [True, True, False, True, False, False, True]
    assert not few[6]


def test_noise_of_two_guides_is_that_of_independent_nodes(mirrored):
    """Variances of 200 runs have a relative SE of 10 %, the delta method an error of that order."""
    target, population = mirrored
    x = np.array([0.3, 0.4, 1.2])
    guide = _two_guides(target, population, x, 64)[0].guide
    rng = np.random.default_rng(3)
    scores, noise = [], []
    for _ in range(200):
        normal = rng.normal(size=(7, 64, 1))
        scaled = normal * np.sqrt(8.0 / rng.chisquare(8.0, size=normal.shape))
        base = BaseNumbers(normal, scaled, log_standard_t(scaled[..., 0] ** 2, 1), 0)
        objective = GuidedLikelihood(target, population, guide, base)
        scores.append(objective.value_and_scores(x)[1].sum(axis=0))
        noise.append(np.diagonal(objective.noise_moments(x)[0]))
    np.testing.assert_allclose(np.mean(noise, axis=0), np.var(scores, axis=0, ddof=1), rtol=0.4)


def test_modes_are_stationary_and_do_not_depend_on_the_start(curved):
    target, population = curved
    mu, factor = population.unpack(np.array([0.2, 0.4, 0.6]))
    modes = find_ebe(target, mu, factor)
    assert modes.converged.all()
    gradient = target.log_likelihood_and_gradient(modes.phi[:, None])[1][:, 0] @ factor - modes.u
    np.testing.assert_allclose(gradient, 0.0, atol=1e-4)
    other = find_ebe(target, mu, factor, start=np.full((7, 1), 2.0))
    np.testing.assert_allclose(other.u, modes.u, atol=1e-5)


def test_modes_of_the_linear_gaussian_model_are_the_closed_form():
    study = LinearGaussian(n=9, relative_sd=(1.0, 0.5), seed=3)
    population = study.problem(study.draws(60, np.random.default_rng(0))).bound_population
    mu, factor = population.unpack(np.array([0.1, 0.0, -0.2, 0.3, 0.15]))
    precision = np.linalg.inv(study.noise)
    conditional = np.linalg.inv(np.eye(2) + factor.T @ precision @ factor)
    expected = (study.y() - mu) @ precision @ factor @ conditional
    np.testing.assert_allclose(find_ebe(study.target(), mu, factor).u, expected, atol=1e-8)


def test_referee_is_exact_within_its_error_on_the_linear_gaussian_model():
    """Null: the referee is unbiased. False-alarm rate 1e-4 for a t with 7 degrees of freedom: 7.6 SE."""
    study = LinearGaussian(n=20, relative_sd=(1.0, 0.5), seed=3)
    population = study.problem(study.draws(60, np.random.default_rng(0))).bound_population
    x = np.array([0.1, 0.0, -0.2, 0.3, 0.15])
    mu, factor = population.unpack(x)
    verdict = referee(
        study.target(), mu, factor, find_ebe(study.target(), mu, factor), np.random.default_rng(5)
    )
    assert abs(verdict.ofv - study.minus_two_log_likelihood(x)) < 7.6 * verdict.ofv_se
    assert verdict.ofv_se < 0.1
    assert verdict.pareto_k.max() < 0.7
    assert verdict.ess.min() > 0.5 * verdict.n_points


def test_base_numbers_differ_between_subjects_and_have_the_right_moments():
    base = base_numbers(50, 256, 2, np.random.default_rng(0))
    assert base.n_defensive == 32 and base.n_points == 288
    assert not np.allclose(base.normal[0], base.normal[1])
    np.testing.assert_allclose(base.normal.mean(axis=(0, 1)), 0.0, atol=0.01)
    np.testing.assert_allclose(base.normal.std(axis=(0, 1)), 1.0, atol=0.02)


def test_defensive_nodes_bound_the_weights_of_a_bad_proposal():
    base = base_numbers(1, 256, 1, np.random.default_rng(0))
    nodes = freeze(Proposal(np.array([[5.0]]), np.array([[[1e-4]]])), base)
    # N(u; 0, I) / g <= 1 / share of the defensive part.
    assert nodes.log_weight.max() <= np.log(9.0) + 1e-12


def test_information_of_a_quadratic_is_its_matrix():
    matrix = np.array([[4.0, 1.0], [1.0, 9.0]])
    found = observed_information(lambda x: matrix @ x, np.array([0.3, -0.2]), np.array([0.1, 0.1]))
    np.testing.assert_allclose(found, matrix)
    np.testing.assert_allclose(invert_information(matrix), np.linalg.inv(matrix))
    root = whitening(matrix)
    np.testing.assert_allclose(root.T @ matrix @ root, np.eye(2), atol=1e-12)
    assert invert_information(np.array([[1.0, 1.0], [1.0, 1.0]])) is None
    assert invert_information(np.array([[1.0, 0.0], [0.0, -1.0]])) is None
    assert invert_information(np.array([[1.0, np.nan], [np.nan, 1.0]])) is None


@dataclass(frozen=True)
class Underrated:
    """A normal likelihood whose expected information is a fifth of its curvature, plus a large constant."""

    constant: float

    def gauss_newton(self, phi):
        gap = phi - 1.0
        information = np.broadcast_to(10.0 * np.eye(2), (len(phi), 2, 2))
        return self.constant - 25.0 * (gap**2).sum(axis=1), -50.0 * gap, information


def test_modes_are_found_where_steps_overshoot_and_rounding_ends_the_search():
    modes = find_ebe(Underrated(-1e4), np.zeros((3, 2)), np.eye(2))
    assert modes.converged.all()
    np.testing.assert_allclose(modes.u, 50.0 / 51.0, atol=1e-4)
    started = find_ebe(Underrated(-1e4), np.zeros((3, 2)), np.eye(2), max_iterations=1)
    assert not started.converged.any()
