"""Tempered likelihoods, and the steps along differences they and SAEM take, against known laws."""

import numpy as np
from numpy.testing import assert_allclose
from scipy import stats
from unit.methods.test_referee import FACTOR, MU, SD, Bent

from amortnlme.core.rng import stream
from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.local_mixture import mixture_at_modes
from amortnlme.methods.saem_kernels import Chains, ConditionalLaw, difference_kernel
from amortnlme.methods.tempered import temper


def exact_bent() -> tuple[np.ndarray, np.ndarray]:
    """log p(y_i) and the mean of the first effect; b integrates in closed form, a on a fine grid."""
    grid = np.linspace(-12.0, 13.0, 8334)
    prior = stats.norm.pdf(grid, MU[0, 0], FACTOR[0, 0]) * (grid[1] - grid[0])
    scale = np.hypot(FACTOR[1, 1], SD)[:, None]
    joint = prior * stats.norm.pdf(1.0 + grid**2 - MU[0, 1], 0.0, scale)
    total = joint.sum(axis=1)
    return np.log(total), joint @ (grid - MU[0, 0]) / FACTOR[0, 0] / total


def test_temper_counts_laws_that_the_proposal_hardly_meets():
    modes = find_ebe(Bent(), MU, FACTOR)
    exact, mean = exact_bent()
    found = temper(Bent(), MU, FACTOR, mixture_at_modes(modes, modes), stream(3), 72, 16)
    likelihood = np.exp(found.log_mean - exact[:, None])
    se = likelihood.std(axis=1, ddof=1) / 4.0
    # Without bias: t with 15 degrees of freedom, eight subjects, at 1e-3 in all.
    assert (np.abs(likelihood.mean(axis=1) - 1.0) < 5.2 * se).all()
    # A single node at the mode alone would miss the bent laws by a third.
    assert se.max() < 0.1
    sd = np.sqrt(found.cov_u[:, 0, 0])
    # 1152 particles that are copies in part: worth a hundred at least; 4 SE of them.
    assert (np.abs(found.mean_u[:, 0] - mean) < 0.4 * sd).all()
    assert (found.ess > 100).all()


class Normal:
    """y = phi_1 + 0.99 phi_2 + noise of SD 0.1, twice."""

    slope = np.array([1.0, 0.99])

    def log_likelihood(self, phi):
        return -0.5 * ((np.array([0.5, -1.0])[:, None] - phi @ self.slope) / 0.1) ** 2


def test_difference_kernel_leaves_a_thin_normal_law_as_it_is():
    rng, n, C = stream(5), 2, 400
    precision = np.eye(2) + np.outer(Normal.slope, Normal.slope) / 0.01
    covariance = np.linalg.inv(precision)
    mean = np.array([0.5, -1.0])[:, None] * (covariance @ Normal.slope / 0.01)
    root = np.linalg.cholesky(covariance)
    draw = mean[:, None] + rng.standard_normal((n, C + 64, 2)) @ root.T
    law = ConditionalLaw(Normal(), np.zeros((n, 2)), np.arange(2), np.eye(2), np.eye(2))
    chains = Chains(draw[:, :C], law.log_likelihood(draw[:, :C]), np.zeros(n))
    archive, scale = draw[:, C:], np.zeros(n)
    for _ in range(60):
        chains, scale = difference_kernel(law, chains, archive, scale, rng)
    white = (chains.eta - mean[:, None]) @ np.linalg.inv(root).T
    # 400 independent chains: means within 4 / 20 SDs, variances within 4 sqrt(2 / 400).
    assert (np.abs(white.mean(axis=1)) < 0.2).all()
    assert_allclose(white.var(axis=1), 1.0, atol=0.29)
    # They have forgotten where they began: correlation of a difference of independent draws, within 4 / 20.
    began = (draw[:, :C] - mean[:, None]) @ np.linalg.inv(root).T
    assert (np.abs((white * began).mean(axis=1)) < 0.2).all()
