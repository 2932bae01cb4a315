"""Where the chains of SAEM end, and the modes that are searched from there."""

from types import SimpleNamespace

import numpy as np
from contract.linear_mixed_model import line, linear_study
from numpy.testing import assert_allclose
from scipy import stats

from amortnlme.core.rng import stream
from amortnlme.methods import saem
from amortnlme.methods.saem_search import run_saem
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

SD = 0.02


class Wavy:
    """y = phi + sin(9 phi) / 2 + noise: nearly every observation has many separate modes, one of them high.

    The slope of the curve changes its sign every 0.35, so a search from far away ends in the nearest trough.
    """

    y = np.array([0.3, 7.1, -6.4])

    def expansions(self, phi):
        f = phi[..., 0] + 0.5 * np.sin(9.0 * phi[..., 0])
        slope = (1.0 + 4.5 * np.cos(9.0 * phi[..., 0])) / SD
        residual = (self.y.reshape(-1, *(1,) * (f.ndim - 1)) - f) / SD
        ll = -0.5 * residual**2 + stats.norm.logpdf(0.0, 0.0, SD)
        return ll, (residual * slope)[..., None], (slope**2)[..., None, None]

    def log_likelihood(self, phi):
        return self.expansions(phi)[0]

    def gauss_newton(self, phi):
        return self.expansions(phi)


def _grid():
    """Joint log density of every individual on a grid 1/30 of the narrowest width apart, and its points."""
    grid = np.linspace(-9.0, 9.0, 600_001)
    log_likelihood = Wavy().log_likelihood(np.broadcast_to(grid[None, :, None], (3, len(grid), 1)))
    return grid, log_likelihood + stats.norm.logpdf(grid)


def test_modes_are_those_around_the_ends_of_the_chains_when_the_typical_subject_is_far_from_them():
    grid, log_joint = _grid()
    best = grid[log_joint.argmax(axis=1)][:, None]
    population = SimpleNamespace(unpack=lambda x: (np.zeros((3, 1)), np.eye(1)))
    path = SimpleNamespace(x=np.zeros(2), place=best + 0.01)
    modes = saem._modes(Wavy(), population, path, stream(1))
    # Gauss-Newton ends at a step of 1e-6 conditional SDs; the grid is 3e-5 wide.
    assert_allclose(modes.phi, best, atol=3e-5)
    # From the typical subject alone the modes of the two unusual ones are not met.
    path = SimpleNamespace(x=np.zeros(2), place=np.zeros((3, 1)))
    assert (np.abs(saem._modes(Wavy(), population, path, stream(1)).phi - best)[1:] > 0.1).any()


def test_chains_end_within_the_individual_laws_when_these_are_known_in_closed_form():
    study, model = linear_study(), line()
    population = PopulationModel(random_effects=RandomEffects(("m", "s"), "full"))
    joined = population.bind(study.dataset.covariate_table(), model.parameters)
    start = np.array([1.1, 0.4, np.log(0.45), 0.9, 0.2, 0.6])
    path = run_saem(model.bind(study.dataset), joined, start, stream(2), 50, 50, 20, 4)
    mu, factor = joined.unpack(path.iterates[-1])
    random = joined.random_index
    omega = (factor @ factor.T)[np.ix_(random, random)]
    variance = np.exp(2.0 * mu[0, 2])
    for i, t in enumerate(study.times):
        X = np.column_stack([np.ones_like(t), t])
        precision = np.linalg.inv(omega) + X.T @ X / variance
        y = study.y[i]
        mean = np.linalg.solve(precision, X.T @ y / variance + np.linalg.solve(omega, mu[i, random]))
        away = path.place[i, random] - mean
        # The best of four draws; chi-square of 2 df, one of 1e6 for a single draw.
        assert away @ precision @ away < 27.6
    assert_allclose(path.place[:, 2], mu[:, 2])
