"""Inter-occasion variability against NONMEM 7.5.1, and all methods against each other on one scale.

`warfarin_occasions.csv`: ten simulated subjects with two occasions each, clearance varies between occasions;
data and listing of ferx-core (github.com/sn248/ferx-core, tests/nonmem/warfarin_iov.csv and
tests/warfarin_iov_nonmem.rs), NONMEM METHOD=1 INTERACTION with one ETA per occasion ($OMEGA BLOCK(1) SAME).
NONMEM ended on rounding errors at the values below; its objective leaves out n log 2 pi, n = 220.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from reference.warfarin import warfarin_model

from amortnlme.core.status import FitStatus
from amortnlme.data.event_table import read_csv
from amortnlme.methods.classical import Focei, Laplace, Quadrature
from amortnlme.methods.fit import fit
from amortnlme.methods.laplace_likelihood import LaplaceLikelihood
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.saem import Saem
from amortnlme.model.occasions import spell_out_occasions
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

MODEL = warfarin_model()
DATA = read_csv(Path(__file__).with_name("warfarin_occasions.csv"))
POPULATION = PopulationModel(
    random_effects=RandomEffects(("CL", "V", "ka")), occasion_effects=RandomEffects(("CL",))
)
# CL, V, ka, residual SD; variances of CL, V, ka between subjects, of CL between occasions.
NONMEM = (0.172776, 8.62821, 1.17856, 0.188116, 0.0399349, 0.0107782, 0.0254197, 0.0357084)
NONMEM_OFV = 308.8305 + 220 * np.log(2 * np.pi)
X = np.concatenate([np.log(NONMEM[:4]), np.sqrt(NONMEM[4:])])


@cache
def _fit(method) -> PopulationFit:
    result = fit(DATA, POPULATION, method, model=MODEL)
    assert result.status is FitStatus.CONVERGED, result.warnings
    return result


def test_focei_has_the_objective_of_nonmem_at_its_estimates():
    study = spell_out_occasions(MODEL, DATA, ("CL",))
    joined = POPULATION.bind(DATA.covariate_table(), study.model.parameters, study.n_occasions)
    value, scores = LaplaceLikelihood(study.model.bind(study.dataset), joined).value_and_scores(X)
    # Half a unit of the last printed digit of the objective, and of the parameters along the gradient.
    rounding = 5e-5 + 2.0 * np.abs(scores.sum(axis=0)) @ (5e-6 * np.abs(X) + 5e-7)
    assert rounding < 2e-4
    assert -2.0 * value.sum() == pytest.approx(NONMEM_OFV, abs=rounding)


def test_focei_ends_where_nonmem_ends():
    result = _fit(Focei())
    assert result.covariance is not None
    assert result.criterion <= NONMEM_OFV + 1e-4
    # NONMEM asked for three significant digits of its parameters.
    np.testing.assert_allclose(np.exp(result.x[:4]), NONMEM[:4], rtol=2e-3)
    assert (np.abs(result.x - X) < 0.01 * np.sqrt(np.diagonal(result.covariance))).all()


@pytest.mark.slow
def test_quadrature_and_saem_agree_with_each_other_and_laplace_is_as_good():
    """Refereed on one scale: within 0.3 in -2 log-likelihood, and 4.5 Monte-Carlo SEs of the difference."""
    best = _fit(Quadrature(n_nodes=4))
    for method in (Saem(), Laplace()):
        other = _fit(method)
        noise = 4.5 * np.hypot(best.ofv_se, other.ofv_se)
        assert noise < 0.2
        assert abs(other.ofv - best.ofv) < 0.3 + noise
        assert best.covariance is not None
        assert (np.abs(other.x - best.x)[:3] < 0.1 * np.sqrt(np.diagonal(best.covariance))[:3]).all()
