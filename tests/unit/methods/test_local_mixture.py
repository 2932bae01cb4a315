"""Individual laws with several or bent modes: searches, mixtures and the referee against quadrature."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from amortnlme.core.rng import stream
from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.local_mixture import LocalMixture, freeze_mixture
from amortnlme.methods.other_modes import other_modes
from amortnlme.methods.proposals import base_numbers
from amortnlme.methods.referee import referee

SD = 0.05
Y = np.array([1.0, 0.3, 2.0])


class Symmetric:
    """y_1 = phi_1 phi_2 + noise and y_2 = phi_1 + phi_2 + noise: the parameters can swap roles."""

    def expansions(self, phi):
        a, b = phi[..., 0], phi[..., 1]
        shape = (-1, *(1,) * (a.ndim - 1))
        residual = np.stack([Y.reshape(shape) - a * b, 3.0 - a - b], axis=-1) / SD
        slope = np.stack([np.stack([b, a], axis=-1), np.ones_like(phi)], axis=-2) / SD
        ll = (-0.5 * residual**2).sum(axis=-1) + 2.0 * stats.norm.logpdf(0.0, 0.0, SD)
        gradient = (residual[..., None] * slope).sum(axis=-2)
        return ll, gradient, np.swapaxes(slope, -1, -2) @ slope

    def log_likelihood(self, phi):
        return self.expansions(phi)[0]

    def log_likelihood_and_gradient(self, phi):
        return self.expansions(phi)[:2]

    def gauss_newton(self, phi):
        return self.expansions(phi)


class Sum(Symmetric):
    """y_2 alone, which is linear."""

    def expansions(self, phi):
        residual = (3.0 - phi.sum(axis=-1)) / SD
        slope = np.full_like(phi, 1.0 / SD)
        ll = -0.5 * residual**2 + stats.norm.logpdf(0.0, 0.0, SD)
        return ll, residual[..., None] * slope, slope[..., :, None] * slope[..., None, :]


MU, FACTOR = np.tile([1.8, 1.2], (3, 1)), np.diag([0.8, 0.8])


def exact_ofv():
    """-2 log-likelihood of every subject by a fine grid, 1/20 of the narrowest width apart."""
    grid = np.linspace(-2.5, 5.5, 3201)
    a, b = np.meshgrid(grid, grid, indexing="ij")
    log_prior = stats.norm.logpdf(a, MU[0, 0], 0.8) + stats.norm.logpdf(b, MU[0, 1], 0.8)
    cell = 2.0 * np.log(grid[1] - grid[0])
    values = []
    for y in Y:
        log_density = log_prior + stats.norm.logpdf(y, a * b, SD) + stats.norm.logpdf(3.0, a + b, SD)
        top = log_density.max()
        values.append(-2.0 * (top + np.log(np.exp(log_density - top).sum()) + cell))
    return np.array(values)


def test_other_modes_finds_the_mirror_image_when_parameters_can_swap():
    target = Symmetric()
    found = find_ebe(target, MU, FACTOR)
    second, exists = other_modes(target, MU, FACTOR, found, 4, stream(1))
    assert exists.all()
    # The prior, whose width is ten times that of the likelihood, moves modes by its square, about 1 %.
    assert_allclose(second.phi, found.phi[:, ::-1], atol=0.05)


def test_other_modes_meets_the_mirror_image_by_exchanging_two_parameters_without_any_random_start():
    target = Symmetric()
    found = find_ebe(target, MU, FACTOR)
    second, exists = other_modes(target, MU, FACTOR, found, 0, stream(1))
    assert exists.all()
    assert_allclose(second.phi, found.phi[:, ::-1], atol=0.05)
    # On the ridge of a sum the exchanged point leads back to the one mode.
    found = find_ebe(Sum(), MU, FACTOR)
    assert not other_modes(Sum(), MU, FACTOR, found, 0, stream(1))[1].any()


def test_other_modes_returns_the_known_mode_when_there_is_one_only():
    target = Sum()
    found = find_ebe(target, MU, FACTOR)
    second, exists = other_modes(target, MU, FACTOR, found, 4, stream(1))
    assert not exists.any()
    assert_allclose(second.phi, found.phi)


@pytest.mark.parametrize("seed", range(4))
def test_referee_counts_both_modes_when_parameters_can_swap(seed):
    target = Symmetric()
    verdict = referee(target, MU, FACTOR, find_ebe(target, MU, FACTOR), stream(seed), 512, 8)
    # 4.5 SE of 7 degrees of freedom: false alarm below 3e-3 per normal error, whose SE is itself estimated;
    # a missed mode would cost up to 2 log 2 = 1.39 per subject.
    assert abs(verdict.ofv - exact_ofv().sum()) < max(4.5 * verdict.ofv_se, 0.02)
    assert verdict.ofv_se < 0.1


@pytest.mark.parametrize("defensive", [True, False])
def test_freeze_mixture_gives_weights_that_average_to_one_when_nodes_cover_the_prior(defensive):
    rng = stream(4)
    mean = rng.normal(0.0, 0.5, (2, 16, 2))
    root = np.tile(np.eye(2) * 1.2, (2, 16, 1, 1))
    nodes = freeze_mixture(LocalMixture(mean, root), base_numbers(2, 4096, 2, rng, defensive=defensive))
    weights = np.exp(nodes.log_weight)
    se = weights.std(axis=1) / np.sqrt(weights.shape[1])  # an upper bound: quasi-random nodes do better
    assert (np.abs(weights.mean(axis=1) - 1.0) < 4.0 * se).all()
