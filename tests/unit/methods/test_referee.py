"""The referee's Monte-Carlo error, and its second look at the subjects that dominate it."""

import numpy as np
from contract.linear_mixed_model import exact_log_likelihood, line, linear_study
from numpy.testing import assert_array_equal
from scipy import stats

from amortnlme.core.rng import stream
from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.referee import referee
from amortnlme.methods.some_subjects import SomeSubjects, modes_of
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

#: The first three individual laws are long, thin and bent; the others nearly normal.
SD = np.array([0.15, 0.3, 0.5, 1.0, 1.0, 2.0, 2.0, 2.0])
MU, FACTOR = np.tile([0.5, 2.0], (8, 1)), np.diag([1.5, 2.0])


class Bent:
    """1 = b - a^2 + noise."""

    def expansions(self, phi):
        a, b = phi[..., 0], phi[..., 1]
        sd = SD.reshape(-1, *(1,) * (a.ndim - 1))
        residual = (1.0 - b + a**2) / sd
        slope = np.stack([-2.0 * a, np.ones_like(a)], axis=-1) / sd[..., None]
        ll = stats.norm.logpdf(residual) - np.log(sd)
        return ll, residual[..., None] * slope, slope[..., :, None] * slope[..., None, :]

    def log_likelihood(self, phi):
        return self.expansions(phi)[0]

    def log_likelihood_and_gradient(self, phi):
        return self.expansions(phi)[:2]

    def gauss_newton(self, phi):
        return self.expansions(phi)


def _exact() -> float:
    """b integrates in closed form, a by a sum on a grid 1/500 of its prior SD apart."""
    grid = np.linspace(-12.0, 13.0, 8334)
    prior = stats.norm.pdf(grid, MU[0, 0], 1.5) * (grid[1] - grid[0])
    each = [(prior * stats.norm.pdf(1.0 + grid**2 - MU[0, 1], 0.0, np.hypot(2.0, sd))).sum() for sd in SD]
    return float(-2.0 * np.log(each).sum())


def test_referee_looks_again_at_bent_laws_until_its_error_is_small():
    found = find_ebe(Bent(), MU, FACTOR)
    verdicts = [referee(Bent(), MU, FACTOR, found, stream(seed), 64, 8) for seed in range(6)]
    errors = np.array([v.ofv - _exact() for v in verdicts])
    stated = np.array([v.ofv_se for v in verdicts])
    # t with 7 degrees of freedom at 0.003 in all; the first look alone scatters by 0.45.
    assert (np.abs(errors) < 4.5 * stated).all()
    assert np.sqrt((errors**2).mean()) < 0.25
    assert stated.max() < 0.3


def test_referee_states_an_error_that_is_the_scatter_of_its_values_when_laws_are_normal():
    """From the replicates of 30 subjects the error is known to 10 %, from those of the sum to 50 %."""
    study, model = linear_study(), line()
    population = PopulationModel(random_effects=RandomEffects(("m", "s"), "full"))
    joined = population.bind(study.dataset.covariate_table(), model.parameters)
    bound = model.bind(study.dataset)
    mu, factor = joined.unpack(np.array([1.1, 0.4, np.log(0.45), 0.9, 0.2, 0.6]))
    modes = find_ebe(bound, mu, factor)
    verdicts = [referee(bound, mu, factor, modes, stream(seed), 64, 8) for seed in range(40)]
    omega = np.array([[0.81, 0.18], [0.18, 0.40]])
    exact = -2.0 * exact_log_likelihood(study, mu[0, :2], 0.0, omega, 0.45).sum()
    stated = np.array([v.ofv_se for v in verdicts])
    z = (np.array([v.ofv for v in verdicts]) - exact) / stated
    assert stated.std() < 0.2 * stated.mean()
    # Quantiles of chi-square with 40 degrees of freedom at 1e-4 on either side, and the error of the errors.
    assert 14.0 < (z**2).sum() < 85.0


def test_some_subjects_answers_for_the_chosen_ones_only():
    rng, chosen = np.random.default_rng(1), np.array([1, 6])
    target, some = Bent(), SomeSubjects(Bent(), np.array([1, 6]), 8)
    phi = rng.standard_normal((8, 5, 2))
    assert_array_equal(some.log_likelihood(phi[chosen]), target.log_likelihood(phi)[chosen])
    part = some.gauss_newton(phi[chosen, 0])
    for of_some, of_all in zip(part, target.gauss_newton(phi[:, 0]), strict=True):
        assert_array_equal(of_some, of_all[chosen])
    part = some.log_likelihood_and_gradient(phi[chosen])
    for of_some, of_all in zip(part, target.log_likelihood_and_gradient(phi), strict=True):
        assert_array_equal(of_some, of_all[chosen])
    modes = find_ebe(target, MU, FACTOR)
    assert_array_equal(modes_of(modes, chosen).precision, modes.precision[chosen])
