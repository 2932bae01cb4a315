"""Joint models with shared pharmacokinetics: likelihood, derivatives, refusals, and uses of a joint law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from amortnlme.core.errors import FitError
from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.subject import Subject
from amortnlme.methods.classical import Focei
from amortnlme.methods.fit import fit
from amortnlme.methods.join import JoinOptions, join
from amortnlme.methods.joint_model import Endpoint, JointModel
from amortnlme.methods.joint_use import (
    conditional_effects,
    information_in_data,
    predict_endpoint,
    virtual_patients,
)
from amortnlme.model.registry import load_model
from amortnlme.population.effects import RandomEffects
from amortnlme.population.laws import GaussianLaw
from amortnlme.population.population_model import PopulationModel

N = 40
PK_TIMES, ENZYME_TIMES = (1.0, 4.0, 12.0, 24.0), (0.0, 12.0, 24.0, 48.0, 72.0)
DESIGN = Design.from_doses((Dose(0.0, 100.0),), (*PK_TIMES, *ENZYME_TIMES), [1] * 4 + [2] * 5)
PK_DESIGN = Design.from_doses((Dose(0.0, 100.0),), PK_TIMES)
FIXED_PK = {"ka": 1.0, "CL": 5.0, "b_pk": 0.15}


def _data(rng, n=N):
    """Volume of the PK and baselines of two enzymes; the baselines have correlation 0.8."""
    model, pk = load_model("pkpd_enzyme"), load_model("pkpd_oral")
    eta_v = 0.3 * rng.standard_normal(n)
    first = rng.standard_normal(n)
    base = 0.3 * np.stack([first, 0.8 * first + 0.6 * rng.standard_normal(n)])
    phi = np.tile(pk.parameters.typical_phi, (n, 1))
    phi[:, 2] += eta_v
    concentration = pk.simulate(phi, PK_DESIGN, None, rng).y
    found = {"pk": (PK_DESIGN, concentration)}
    for name, eta in zip(("ast", "alt"), base, strict=True):
        phi = np.tile(model.parameters.typical_phi, (n, 1))
        phi[:, 2] += eta_v
        phi[:, 3] += eta
        y = model.simulate(phi, DESIGN, None, rng).y
        y[:, DESIGN.observation_outputs == 1] = concentration
        found[name] = (DESIGN, y)
    return {
        name: Dataset(
            subjects=tuple(Subject.from_observations(str(i), design, row) for i, row in enumerate(y))
        )
        for name, (design, y) in found.items()
    }


@pytest.fixture(scope="module")
def parts():
    data = _data(np.random.default_rng(5))
    method = Focei(standard_errors="scores", referee_points=0)
    found = []
    pk_population = PopulationModel(random_effects=RandomEffects(on=("V",)), fixed=FIXED_PK)
    pk = fit(data["pk"], pk_population, method, model=load_model("pkpd_oral"))
    found.append(Endpoint("pk", load_model("pkpd_oral"), pk, data["pk"]))
    V = float(np.exp(pk.theta[2]))
    for name in ("ast", "alt"):
        population = PopulationModel(
            random_effects=RandomEffects(on=("V", "baseline")),
            fixed={**FIXED_PK, "V": V, "s": 1.5, "k": 0.04, "s_enzyme": 0.1},
        )
        model = load_model("pkpd_enzyme")
        found.append(
            Endpoint(name, model, fit(data[name], population, method, model=model), data[name], ("enzyme",))
        )
    return tuple(found)


@pytest.fixture(scope="module")
def joint(parts):
    return JointModel(parts, shared=("V",))


@pytest.fixture(scope="module")
def joined(joint):
    return join(joint, JoinOptions(family="gaussian", n_nodes=128), seed=1)


def test_joint_model_names_shared_effects_once(joint):
    assert joint.names == ("V", "ast.baseline", "alt.baseline")
    assert joint.learned == ("ast.baseline", "alt.baseline")
    assert joint.effects_of("pk") == ()
    sd = np.sqrt(np.diagonal(joint.independent.covariance))
    assert sd[0] == pytest.approx(np.sqrt(joint.endpoints[0].fit.omega[2, 2]))


def test_joint_likelihood_is_the_sum_over_endpoints_with_concentrations_counted_once(joint):
    eta = 0.2 * np.random.default_rng(1).standard_normal((N, 2, 3))
    total = np.zeros((N, 2))
    for endpoint, columns in zip(joint.endpoints, ([0], [0, 1], [0, 2]), strict=True):
        phi = np.tile(endpoint.fit.theta, (N, 2, 1))
        where = [endpoint.fit.parameter_names.index(name) for name in endpoint.fit.random_effects]
        phi[..., where] += eta[..., columns]
        total += endpoint.model.bind(endpoint.counted(endpoint.dataset)).log_likelihood(phi)
    np.testing.assert_allclose(joint.bind().log_likelihood(eta), total, rtol=1e-12)
    assert sum(p.bound.observed.sum() for p in joint.bind().parts) == N * (4 + 5 + 5)


def test_joint_gradient_is_the_derivative_of_the_likelihood(joint):
    target, eta, h = joint.bind(), 0.2 * np.random.default_rng(1).standard_normal((N, 1, 3)), 1e-5
    _, gradient = target.log_likelihood_and_gradient(eta)
    for k in range(3):
        step = h * np.eye(3)[k]
        slope = (target.log_likelihood(eta + step) - target.log_likelihood(eta - step)) / (2 * h)
        # Central differences: h^2 times a third derivative of some 1e3, and rounding 1e-16 x 1e3 / h.
        np.testing.assert_allclose(gradient[..., k], slope, rtol=1e-5, atol=1e-5)
    value, same, information = target.gauss_newton(eta[:, 0])
    np.testing.assert_allclose(same, gradient[:, 0], rtol=1e-9)
    np.testing.assert_allclose(value, target.log_likelihood(eta)[:, 0], rtol=1e-12)
    assert np.abs(information[:, 1, 2]).max() == 0.0
    assert np.abs(information[:, 0, 1]).min() > 0.0


def test_subject_without_an_endpoint_keeps_its_place(joint):
    data = {e.name: e.dataset for e in joint.endpoints}
    data["alt"] = data["alt"].select(["3", "1"])
    target, eta = joint.bind(data), np.zeros((N, 1, 3))
    full = joint.bind().log_likelihood(eta)
    part = joint.bind().without("alt").log_likelihood(eta)
    found = target.log_likelihood(eta)
    np.testing.assert_allclose(found[[1, 3]], full[[1, 3]], rtol=1e-12)
    np.testing.assert_allclose(found[[0, 2]], part[[0, 2]], rtol=1e-12)


def test_joining_finds_the_correlation_and_serves_new_subjects(joint, joined):
    correlation = joined.law.moments()[1]
    correlation = correlation / np.sqrt(np.outer(np.diagonal(correlation), np.diagonal(correlation)))
    # Sampling SD of a correlation of 0.8 with 40 subjects: (1 - 0.64) / sqrt(40) = 0.06; 4.5 of them.
    assert abs(correlation[0, 1] - 0.8) < 0.26
    new = _data(np.random.default_rng(6), 30)
    effects = conditional_effects(joint, joined, {k: new[k] for k in ("pk", "ast")}, stream(3), n_nodes=256)
    assert effects.ids == tuple(str(i) for i in range(30))
    assert effects.score.ess.min() > 20
    own = conditional_effects(joint, joined, {"alt": new["alt"]}, stream(4), n_nodes=256)
    # ALT of subjects whose ALT was hidden follows what their own ALT says.
    assert np.corrcoef(effects.mean[:, 2], own.mean[:, 2])[0, 1] > 0.5
    design = Design.from_doses((Dose(0.0, 100.0),), (12.0, 48.0), [2, 2])
    bands = predict_endpoint(joint, effects, "alt", design)
    assert bands.quantiles.shape == (30, 3, 2)
    assert (np.diff(bands.quantiles, axis=1) > 0).all()


def test_virtual_patients_depend_on_each_other_as_learned(joint, joined):
    design = Design.from_doses((Dose(0.0, 100.0),), (0.0,), [2])
    effects, y = virtual_patients(joint, joined, {"ast": design, "alt": design}, 4000, stream(2))
    assert effects.shape == (4000, 3)
    expected = joined.law.moments()[1][0, 1] / np.sqrt(np.prod(np.diagonal(joined.law.moments()[1])))
    # log y adds independent noise of SD 0.1 to baselines of SD 0.3.
    sd2 = np.diagonal(joined.law.moments()[1])
    expected *= np.prod(np.sqrt(sd2 / (sd2 + 0.01)))
    found = np.corrcoef(np.log(y["ast"][:, 0]), np.log(y["alt"][:, 0]))[0, 1]
    assert abs(found - expected) < 4.5 / np.sqrt(4000)


def test_information_in_the_data_is_symmetric_and_positive_for_correlated_endpoints(joint, joined):
    found = information_in_data(joint, joined, stream(9), n_nodes=128)
    assert found[0, 1] == found[1, 0]
    assert found[0, 1] > 0.1


def test_joint_model_refuses_what_would_count_twice(parts):
    twice = replace(parts[1], outputs=None)
    with pytest.raises(FitError, match="E_JOIN_OUTPUT"):
        JointModel((parts[0], twice), shared=("V",))
    with pytest.raises(FitError, match="E_JOIN_OUTPUT"):
        replace(parts[1], outputs=("nothing",))


def test_joint_model_refuses_shared_effects_around_different_typical_values(parts):
    moved = replace(
        parts[1].fit,
        population=replace(
            parts[1].fit.population, fixed={**FIXED_PK, "V": 90.0, "s": 1.5, "k": 0.04, "s_enzyme": 0.1}
        ),
    )
    joint = JointModel((parts[0], replace(parts[1], fit=moved)), shared=("V",))
    with pytest.raises(FitError, match="E_JOIN_SHARED"):
        joint.bind()


def test_endpoint_refuses_a_fit_that_failed_and_another_model(parts):
    with pytest.raises(FitError, match="E_JOIN_STATUS"):
        replace(parts[0], fit=replace(parts[0].fit, status=FitStatus.NOT_CONVERGED))
    with pytest.raises(FitError, match="E_JOIN_MODEL"):
        replace(parts[0], model=load_model("pkpd_enzyme"))


def test_joint_fit_refuses_other_models(parts, joined):
    with pytest.raises(FitError, match="E_JOIN_OTHER_MODEL"):
        joined.check_belongs(JointModel(parts[1:], shared=("V",)))
    other = replace(joined, law=GaussianLaw(("a", "b"), np.zeros(2), np.eye(2)))
    with pytest.raises(FitError, match="E_JOIN_OTHER_MODEL"):
        other.check_belongs(JointModel(parts, shared=("V",)))
