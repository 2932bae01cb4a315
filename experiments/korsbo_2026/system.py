"""The four-endpoint system: simulated studies with a known joint law of the random effects, and their fits.

Parameters: reference values of the models `pkpd_oral`, `pkpd_response` and `pkpd_enzyme`; the abstract of
Korsbo, Contento & Tarek (PAGE 34, 2026, abstract 11880) prints none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from amortnlme.core.rng import stream
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.subject import Subject
from amortnlme.methods.classical import Focei
from amortnlme.methods.fit import fit
from amortnlme.methods.joint_model import Endpoint, JointModel
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.model.dynamics import Ode
from amortnlme.model.individual import IndividualModel
from amortnlme.model.registry import load_model
from amortnlme.population.effects import RandomEffects
from amortnlme.population.laws import log_normal_density
from amortnlme.population.population_model import PopulationModel

ENDPOINTS = {"pk": "pkpd_oral", "response": "pkpd_response", "ast": "pkpd_enzyme", "alt": "pkpd_enzyme"}
OWN = {"pk": (), "response": ("R0", "IC50"), "ast": ("baseline", "s"), "alt": ("baseline", "s")}
PK = ("ka", "CL", "V")
OMEGA_PK = np.array([0.3, 0.3, 0.2])
# R0, IC50, AST baseline, AST s, ALT baseline, ALT s
OMEGA = np.array([0.25, 0.5, 0.3, 0.5, 0.3, 0.5])
TYPICAL = {
    "pk": {},
    "response": {},
    "ast": {"baseline": 25.0, "k": float(np.log(2) / 17)},
    "alt": {"baseline": 22.0, "k": float(np.log(2) / 47)},
}
FIXED = {name: {"k": TYPICAL[name]["k"]} for name in ("ast", "alt")}
PK_TIMES = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 312.5, 314.0, 316.0, 320.0, 336.0)
RESPONSE_TIMES = (0.0, 12.0, 24.0, 48.0, 72.0, 120.0, 168.0, 240.0, 312.0, 336.0, 384.0, 432.0)
ENZYME_TIMES = (0.0, 24.0, 72.0, 168.0, 240.0, 336.0, 384.0, 480.0)
DOSES = (Dose(0.0, 100.0, ii=24.0, addl=13),)
# Strength of the non-linear dependence.
NON_LINEAR = 0.9


@cache
def model_of(endpoint: str) -> IndividualModel:
    """Model of an endpoint; an ODE with looser tolerances.

    They make errors of 5e-5 in a response of 100 with a residual SD of 8, in a third of the time.
    """
    model = load_model(ENDPOINTS[endpoint])
    if not isinstance(model.dynamics, Ode):
        return model
    return replace(model, dynamics=replace(model.dynamics, rtol=1e-6, atol=1e-8))


def correlation(r: float = 0.27, c: float = 0.8) -> np.ndarray:
    """Correlation matrix of the six effects."""
    R = np.eye(6)
    for a, b, v in ((2, 4, c), (3, 5, c), (0, 2, r), (0, 4, r), (1, 3, r), (1, 5, r)):
        R[a, b] = R[b, a] = v
    return R


@dataclass(frozen=True, slots=True)
class Truth:
    """The generating law of the six effects, in units of given standard deviations.

    `linear`: normal with the correlations above. Else the same margins, but R0 follows the common factor of
    the baselines with a random sign, and IC50 that of the stimulations with the sign of the baselines'.
    """

    linear: bool

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Effects (n, 6) in SDs."""
        root = np.linalg.cholesky(correlation() if self.linear else correlation(r=0.0))
        z = rng.standard_normal((n, 6)) @ root.T
        if not self.linear:
            base, slope = (z[:, 2] + z[:, 4]) / np.sqrt(3.6), (z[:, 3] + z[:, 5]) / np.sqrt(3.6)
            rest = np.sqrt(1 - NON_LINEAR**2)
            z[:, 0] = NON_LINEAR * base * rng.choice([-1.0, 1.0], n) + rest * rng.standard_normal(n)
            z[:, 1] = NON_LINEAR * slope * np.sign(base) + rest * rng.standard_normal(n)
        return z

    def log_density(self, eta: np.ndarray, sd: np.ndarray) -> np.ndarray:
        """Log density of effects (..., 6) whose standard deviations are sd."""
        z, volume = eta / sd, np.log(sd).sum()
        if self.linear:
            return log_normal_density(z, np.zeros(6), correlation()) - volume
        base, slope = (z[..., 2] + z[..., 4]) / np.sqrt(3.6), (z[..., 3] + z[..., 5]) / np.sqrt(3.6)
        v = 1 - NON_LINEAR**2
        constant = -0.5 * np.log(2 * np.pi * v)
        biomarkers = log_normal_density(z[..., 2:], np.zeros(4), correlation(r=0.0)[2:, 2:])
        up, down = (-0.5 * (z[..., 0] - s * NON_LINEAR * base) ** 2 / v for s in (1.0, -1.0))
        first = constant + np.logaddexp(up, down) - np.log(2)
        second = constant - 0.5 * (z[..., 1] - NON_LINEAR * slope * np.sign(base)) ** 2 / v
        return biomarkers + first + second - volume


def simulate(truth: Truth, n: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, Dataset]]:
    """Effects (n, 6) and the data of n subjects by endpoint; PD endpoints hold the concentrations too."""
    eta = truth.sample(n, rng) * OMEGA
    eta_pk = rng.standard_normal((n, 3)) * OMEGA_PK
    concentrations: np.ndarray | None = None
    found = {}
    for name, own in OWN.items():
        model = model_of(name)
        psi = np.array([TYPICAL[name].get(p.name, p.typical) for p in model.parameters.parameters])
        phi = np.tile(model.parameters.to_phi(psi[None]), (n, 1))
        phi[:, [model.parameters.index(p) for p in PK]] += eta_pk
        offset = {"pk": 0, "response": 0, "ast": 2, "alt": 4}[name]
        for k, parameter in enumerate(own):
            phi[:, model.parameters.index(parameter)] += eta[:, offset + k]
        times = {"pk": (), "response": RESPONSE_TIMES}.get(name, ENZYME_TIMES)
        design = Design.from_doses(DOSES, (*PK_TIMES, *times), [1] * len(PK_TIMES) + [2] * len(times))
        y = model.simulate(phi, design, None, rng).y
        is_pk = design.observation_outputs == 1
        if concentrations is None:
            concentrations = y
        y[:, is_pk] = concentrations
        found[name] = Dataset(
            subjects=tuple(Subject.from_observations(f"{i + 1}", design, row) for i, row in enumerate(y)),
            name=name,
        )
    return eta, found


def fit_endpoints(data: dict[str, Dataset], seed: int) -> dict[str, PopulationFit]:
    """Fit the PK, then every PD endpoint with the PK population parameters fixed and PK effects random."""
    method = Focei(standard_errors="scores", referee_points=0)
    fits: dict[str, PopulationFit] = {}
    given: dict[str, float] = {}
    for name, own in OWN.items():
        model = model_of(name)
        population = PopulationModel(
            random_effects=RandomEffects(on=(*PK, *own)),
            fixed={**given, **FIXED.get(name, {})},
            name=name,
        )
        fits[name] = fit(data[name], population, method, model=model, seed=seed)
        if name == "pk":
            psi = model.parameters.to_psi(fits[name].theta[None])[0]
            given = dict(zip(model.parameters.names, psi.tolist(), strict=True))
    return fits


def at_the_truth(fits: dict[str, PopulationFit], data: dict[str, Dataset]) -> dict[str, PopulationFit]:
    """The same fits with the generating parameters put in: the control without estimation error."""
    out = {}
    for name, found in fits.items():
        model = model_of(name)
        psi = np.array([TYPICAL[name].get(p.name, p.typical) for p in model.parameters.parameters])
        theta = model.parameters.to_phi(psi[None])[0]
        given = {p: v for p, v in zip(model.parameters.names, psi.tolist(), strict=True)}
        fixed = {p: given[p] for p in found.population.fixed}
        population = replace(found.population, fixed=fixed)
        bound = population.bind(data[name].covariate_table(), model.parameters)
        offset = {"pk": 0, "response": 0, "ast": 2, "alt": 4}[name]
        sd = np.concatenate([OMEGA_PK, OMEGA[offset : offset + len(OWN[name])]])
        x = np.zeros(bound.n_x)
        x[bound.theta_slice] = theta[bound.theta_index]
        x[bound.chol_diagonal] = sd
        out[name] = replace(
            found, population=population, x=x, theta=theta, omega=bound.omega(x), x_names=bound.names
        )
    return out


def joint_model(fits: dict[str, PopulationFit], data: dict[str, Dataset]) -> JointModel:
    """All four endpoints; concentrations count once, with the PK."""
    counted = {"pk": ("concentration",), "response": ("response",), "ast": ("enzyme",), "alt": ("enzyme",)}
    return JointModel(
        endpoints=tuple(
            Endpoint(name, model_of(name), fits[name], data[name], counted[name])
            for name in ENDPOINTS
        ),
        shared=PK,
    )


def study(linear: bool, n_train: int, replicate: int) -> dict[str, tuple[np.ndarray, dict[str, Dataset]]]:
    """Training, tuning and test subjects of one replicate."""
    truth = Truth(linear)
    sizes = {"train": n_train, "tune": 50, "test": 500}
    return {
        part: simulate(truth, n, stream(2026, replicate, k, int(linear)))
        for k, (part, n) in enumerate(sizes.items())
    }
