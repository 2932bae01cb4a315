"""Two endpoints that are straight measurements of two random effects each: everything about joining is exact.

y_ij = m_i + s_i t_j + a e_ij for each endpoint; subject i has the four effects (m, s) x (one, two) from
N(0, Omega). With common times the measurements of a subject are sufficient through their least-squares
coefficients c_i ~ N(mu, Omega + R), whose likelihood has a closed form and a closed-form maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from contract.linear_mixed_model import line

from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.subject import Subject
from amortnlme.methods.classical import Quadrature
from amortnlme.methods.fit import fit
from amortnlme.methods.joint_model import Endpoint, JointModel
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

SD = np.array([0.8, 0.5, 0.8, 0.5])
CORRELATION = np.array(
    [[1.0, 0.0, 0.7, 0.0], [0.0, 1.0, 0.0, 0.4], [0.7, 0.0, 1.0, 0.0], [0.0, 0.4, 0.0, 1.0]]
)
MU, A = np.array([1.0, 0.5]), 0.4
TIMES = np.array([0.0, 1.0, 2.0, 3.0, 4.0])


@dataclass(frozen=True)
class LinearEndpoints:
    """Simulated data of n subjects."""

    n: int
    seed: int

    def effects(self):
        root = np.linalg.cholesky(CORRELATION * np.outer(SD, SD))
        return np.random.default_rng([self.seed, 1]).standard_normal((self.n, 4)) @ root.T

    def y(self):
        """Measurements, shape (2, n, m)."""
        noise = np.random.default_rng([self.seed, 2]).standard_normal((2, self.n, len(TIMES)))
        eta = self.effects()
        coefficients = np.stack([MU + eta[:, :2], MU + eta[:, 2:]])
        return coefficients @ self.design().T + A * noise

    @staticmethod
    def design():
        return np.column_stack([np.ones_like(TIMES), TIMES])

    def datasets(self, names=("one", "two")):
        return {
            name: Dataset(
                subjects=tuple(
                    Subject.from_observations(f"{i + 1}", Design.from_doses((), TIMES), row)
                    for i, row in enumerate(y)
                )
            )
            for name, y in zip(names, self.y(), strict=True)
        }

    def joint(self):
        """Both endpoints fitted apart, by maximum likelihood, with the residual SD known."""
        model = line()
        population = PopulationModel(random_effects=RandomEffects(on=("m", "s")), fixed={"a": A})
        return JointModel(
            endpoints=tuple(
                Endpoint(name, model, fit(data, population, Quadrature(), model=model), data)
                for name, data in self.datasets().items()
            )
        )

    def log_likelihood(self, mu, omega):
        """Exact joint log-likelihood of every subject; mu (4,), omega (4, 4)."""
        X = np.kron(np.eye(2), self.design())
        V = X @ omega @ X.T + A**2 * np.eye(len(X))
        gap = np.concatenate(list(self.y()), axis=1) - X @ mu
        constant = len(X) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1]
        return -0.5 * (constant + np.einsum("ni,ij,nj->n", gap, np.linalg.inv(V), gap))

    def best_omega(self, mu):
        """Maximum-likelihood covariance of the effects around mu: closed form, as R is known."""
        design = self.design()
        R = A**2 * np.kron(np.eye(2), np.linalg.inv(design.T @ design))
        coefficients = np.concatenate(list(self.y() @ np.linalg.pinv(design).T), axis=1) - mu
        omega = coefficients.T @ coefficients / self.n - R
        assert np.linalg.eigvalsh(omega).min() > 0
        return omega
