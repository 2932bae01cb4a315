"""The public example `theo_sd` (R's Theoph with its samples at t = 0), fitted by FOCEI as nlmixr2 does.

Reference (nlmixr2 documentation, FOCEI): ln ka 0.4655, ln CL 1.012, ln V 3.460, additive SD 0.6947, IIV CV
70.5 / 26.8 / 13.9 %, eta shrinkage 1.9 / 3.9 / 10.3 %, objective 116.8036 without the constant n log 2 pi.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from amortnlme.core.status import FitStatus
from amortnlme.data.bundled import load_bundled
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.subject import Subject
from amortnlme.methods.classical import Focei, Quadrature
from amortnlme.methods.fit import fit
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Additive
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter
from amortnlme.model.prior import NormalPrior
from amortnlme.model.registry import load_model
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

# Concentrations at t = 0 [mg/L], which the bundled table leaves out (Boeckmann, Sheiner & Beal 1994).
AT_ZERO = {"1": 0.74, "7": 0.15, "10": 0.24}


def _dataset() -> Dataset:
    subjects = []
    for subject in load_bundled("theophylline").subjects:
        times = np.concatenate([[0.0], subject.design.observation_times])
        design = Design.from_doses((Dose(0.0, subject.design.first_dose_amount),), times)
        y = np.concatenate([[AT_ZERO.get(subject.id, 0.0)], subject.y])
        subjects.append(Subject.from_observations(subject.id, design, y, dict(subject.covariates)))
    return Dataset(subjects=tuple(subjects))


def _model() -> IndividualModel:
    def rhs(t, y, p):
        absorbed = p.ka * y.depot
        return (-absorbed, absorbed - p.CL / p.V * y.central)

    return replace(
        load_model("one_compartment_oral"),
        name="one_compartment_oral_clearance",
        states=("depot", "central"),
        dynamics=LinearCompartments(rhs, dose_state="depot"),
        parameters=(
            Parameter("ka", "1/h", "log", 1.6, "absorption rate"),
            Parameter("CL", "L/h", "log", 2.7, "clearance"),
            Parameter("V", "L", "log", 32.0, "volume"),
            Parameter("a", "mg/L", "log", 0.7, "additive residual SD", role="error"),
        ),
        outputs=(Output("concentration", "mg/L", lambda t, y, p: y.central / p.V, Additive("a")),),
        prior=NormalPrior(np.log([1.5, 2.7, 32.0, 0.7]), [1.0, 1.0, 1.0, 1.0]),
    )


@cache
def _fit() -> PopulationFit:
    population = PopulationModel(random_effects=RandomEffects(("ka", "CL", "V")))
    return fit(_dataset(), population, Focei(), model=_model())


def test_focei_reproduces_the_published_objective_and_estimates():
    result = _fit()
    assert result.n_observations == 132
    assert result.status is FitStatus.CONVERGED
    constant = result.n_observations * np.log(2 * np.pi)
    # The published digits; two public runs differ by 0.2 between versions.
    assert result.criterion - constant == pytest.approx(116.8036, abs=0.01)
    np.testing.assert_allclose(result.theta[:3], [0.4655, 1.012, 3.460], atol=2e-3)
    assert result.sigma["a"] == pytest.approx(0.6947, abs=1e-3)
    cv = 100.0 * np.sqrt(np.expm1(np.diagonal(result.omega)[:3]))
    np.testing.assert_allclose(cv, [70.5, 26.8, 13.9], atol=0.3)
    np.testing.assert_allclose(100.0 * result.eta_shrinkage, [1.9, 3.9, 10.3], atol=0.3)


def test_the_exact_likelihood_is_higher_by_what_focei_neglects():
    """Quadrature says by how much the published objective is off: an approximation has no -2LL to compare."""
    population = PopulationModel(random_effects=RandomEffects(("ka", "CL", "V")))
    exact = fit(_dataset(), population, Quadrature(n_nodes=7, referee_points=0), model=_model())
    constant = exact.n_observations * np.log(2 * np.pi)
    assert exact.criterion - constant == pytest.approx(118.10, abs=0.01)
