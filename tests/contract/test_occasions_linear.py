"""Inter-occasion variability on a linear mixed model, where every method is exact.

y_i ~ N(X mu_i, X omega X' + sum_k X_k gamma X_k' + a^2 I) with X_k the rows of X in occasion k.
"""

from functools import cache

import numpy as np
import pytest
from contract.linear_mixed_model import line
from scipy.optimize import minimize

from amortnlme.core.errors import PopulationError
from amortnlme.core.status import FitStatus
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.subject import Subject
from amortnlme.diagnostics.predictions import predict_study, simulate_study
from amortnlme.methods.classical import Fo, Foce, Focei, Laplace, Quadrature
from amortnlme.methods.first_order_likelihood import ConditionalFirstOrderLikelihood, FirstOrderLikelihood
from amortnlme.methods.fit import fit
from amortnlme.methods.laplace_likelihood import LaplaceLikelihood
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.quadrature_likelihood import QuadratureLikelihood
from amortnlme.methods.saem import Saem
from amortnlme.methods.variational_likelihood import VariationalLikelihood
from amortnlme.methods.variational_posterior import expectation_nodes
from amortnlme.methods.vi import Vi
from amortnlme.model.occasions import spell_out_occasions
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

MODEL = line()
BETWEEN = RandomEffects(("m", "s"), "full")
WITHIN = RandomEffects(("m", "s"), "full")
POPULATION = PopulationModel(random_effects=BETWEEN, occasion_effects=WITHIN)
# theta m, s, a; L of omega; L of gamma
X = np.array([1.1, 0.4, np.log(0.45), 0.6, 0.2, 0.5, 0.5, -0.1, 0.3])


@cache
def study(n: int = 40, seed: int = 1) -> Dataset:
    """Subjects with one to three occasions of four to six observations; labels alternate."""
    rng = np.random.default_rng(seed)
    omega, gamma = _covariance(X[3:6]), _covariance(X[6:9])
    subjects = []
    for i in range(n):
        count = 1 + i % 3
        sizes = rng.integers(4, 7, size=count)
        label = rng.permutation(np.repeat(7 + np.arange(count), sizes))
        t = np.sort(rng.uniform(0.0, 4.0, size=sizes.sum()))
        b = X[:2] + rng.multivariate_normal(np.zeros(2), omega)
        kappa = rng.multivariate_normal(np.zeros(2), gamma, size=count)
        own = b + kappa[label - 7]
        y = own[:, 0] + own[:, 1] * t + np.exp(X[2]) * rng.standard_normal(len(t))
        made = Subject.from_observations(f"{i + 1}", Design.from_doses((), t), y)
        subjects.append(
            Subject(made.id, made.design, made.y, made.observed, made.censoring, made.limit, label)
        )
    return Dataset(subjects=tuple(subjects))


def _covariance(entries: np.ndarray) -> np.ndarray:
    root = np.array([[entries[0], 0.0], [entries[1], entries[2]]])
    return root @ root.T


def exact(x: np.ndarray, data: Dataset) -> np.ndarray:
    """log p(y_i), shape (n,)."""
    omega, gamma, a = _covariance(x[3:6]), _covariance(x[6:9]), np.exp(x[2])
    result = []
    for subject in data.subjects:
        rows = np.column_stack([np.ones(len(subject.y)), subject.design.observation_times])
        same = subject.occasion[:, None] == subject.occasion[None, :]
        V = rows @ omega @ rows.T + same * (rows @ gamma @ rows.T) + a**2 * np.eye(len(rows))
        e = subject.y - rows @ x[:2]
        log_det = np.linalg.slogdet(V)[1]
        result.append(-0.5 * (len(e) * np.log(2 * np.pi) + log_det + e @ np.linalg.solve(V, e)))
    return np.array(result)


def _bound():
    spelled = spell_out_occasions(MODEL, study(), WITHIN.on)
    joined = POPULATION.bind(
        study().covariate_table(), spelled.model.parameters, n_occasions=spelled.n_occasions
    )
    return spelled.model.bind(spelled.dataset), joined


OBJECTIVES = {
    "fo": FirstOrderLikelihood,
    "foce": ConditionalFirstOrderLikelihood,
    "focei": LaplaceLikelihood,
    "laplace": lambda bound, joined: LaplaceLikelihood(bound, joined, "observed"),
    # Eight random effects: a sparse grid, exact for the polynomials that a normal law leaves.
    "quadrature": lambda bound, joined: QuadratureLikelihood(bound, joined, 2),
    # Mirrored and whitened quasi-random nodes: exact for quadratic functions too.
    "vi": lambda bound, joined: VariationalLikelihood(
        bound, joined, expectation_nodes(8, None, 64, np.random.default_rng(1))
    ),
}


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_every_approximation_is_the_closed_form_with_occasions(kind):
    bound, joined = _bound()
    assert joined.names == (
        *("theta_m", "theta_s", "theta_a", "chol_m", "chol_s_m", "chol_s"),
        *("chol_iov_m", "chol_iov_s_m", "chol_iov_s"),
    )
    value, scores = OBJECTIVES[kind](bound, joined).value_and_scores(X)
    np.testing.assert_allclose(value, exact(X, study()), atol=1e-6)
    h = 1e-5
    slopes = [(exact(X + h * e, study()) - exact(X - h * e, study())) / (2 * h) for e in np.eye(len(X))]
    # Differences of the closed form: rounding 1e-16 * 20 / h plus h^2 times the third derivative.
    np.testing.assert_allclose(scores, np.transpose(slopes), atol=2e-5)


@cache
def _fits() -> dict[str, PopulationFit]:
    return {"focei": fit(study(), POPULATION, Focei(), model=MODEL)}


@cache
def _mle() -> np.ndarray:
    return minimize(lambda x: -exact(x, study()).sum(), X, method="BFGS", options={"gtol": 1e-5}).x


def test_a_fit_is_the_exact_maximum_with_occasions():
    result = _fits()["focei"]
    assert result.status is FitStatus.CONVERGED, result.warnings
    assert result.covariance is not None
    se = np.sqrt(np.diagonal(result.covariance))
    # The search ends at a gradient of 2e-3 SE.
    np.testing.assert_allclose(result.x / se, _mle() / se, atol=0.01)
    gamma = _covariance(_mle()[6:9])
    assert result.estimate("iov_m").value == pytest.approx(np.sqrt(gamma[0, 0]), abs=1e-3)
    correlation = gamma[0, 1] / np.sqrt(gamma[0, 0] * gamma[1, 1])
    assert result.estimate("iov_corr_m_s").value == pytest.approx(correlation, abs=0.01)
    assert result.n_parameters == 9 and result.n_parameters_random == 6
    assert result.random_effects[:4] == ("m", "s", "kappa_m_1", "kappa_s_1")


def test_saem_reaches_the_exact_maximum_with_occasions():
    """Bar as without occasions: fixed effects within 0.1 SE; variances, learnt slowly, within 0.3."""
    result = fit(study(), POPULATION, Saem(), model=MODEL)
    focei = _fits()["focei"]
    assert focei.covariance is not None
    distance = np.abs(result.x - _mle()) / np.sqrt(np.diagonal(focei.covariance))
    assert result.status is FitStatus.CONVERGED, result.warnings
    assert distance[:2].max() < 0.1
    assert distance[2:].max() < 0.3


def test_effects_of_occasions_a_subject_lacks_stay_at_zero_and_do_not_count_as_shrinkage():
    result = _fits()["focei"]
    eta = dict(zip(result.random_effects, np.transpose(result.individuals.ebe_eta), strict=True))
    lacks_third = np.array([i % 3 < 2 for i in range(40)])
    np.testing.assert_allclose(eta["kappa_m_3"][lacks_third], 0.0, atol=1e-9)
    third = eta["kappa_m_3"][~lacks_third]
    shrinkage = dict(zip(result.random_effects, result.eta_shrinkage, strict=True))["kappa_m_3"]
    assert shrinkage == pytest.approx(1.0 - third.std(ddof=1) / result.estimate("iov_m").value, abs=1e-9)


def test_diagnostics_predict_every_occasion_with_its_own_effect():
    result = _fits()["focei"]
    p = predict_study(result, MODEL, study())
    phi = dict(zip(result.parameter_names, np.transpose(result.individuals.ebe_phi), strict=True))
    for i, subject in enumerate(study().subjects):
        k = subject.occasion_number + 1
        own = [phi[q][i] + np.array([phi[f"kappa_{q}_{j}"][i] for j in k]) for q in ("m", "s")]
        expected = own[0] + own[1] * subject.design.observation_times
        np.testing.assert_allclose(p.ipred[i, : len(k)], expected, rtol=1e-10)
    replicates = simulate_study(result, MODEL, study(), 4000, np.random.default_rng(3))
    # Null: the simulated variance of the first record of a subject with three occasions is that of the model;
    # a sample variance of n normal values has relative SD sqrt(2 / n); 4.5 SD for ten checks at 1e-4.
    omega, gamma, a = _covariance(result.x[3:6]), _covariance(result.x[6:9]), np.exp(result.x[2])
    row = np.array([1.0, study().subjects[2].design.observation_times[0]])
    variance = row @ (omega + gamma) @ row + a**2
    assert replicates[:, 2, 0].var() == pytest.approx(variance, rel=4.5 * np.sqrt(2 / 4000))


def test_a_fixed_typical_value_is_kept_and_the_others_are_its_conditional_maximum():
    population = PopulationModel(random_effects=BETWEEN, occasion_effects=WITHIN, fixed={"s": 0.4, "a": 0.45})
    result = fit(study(), population, Focei(), model=MODEL)
    assert result.x_names == ("theta_m", *_fits()["focei"].x_names[3:])
    assert result.estimate("s").value == 0.4 and result.estimate("s").se is None
    assert result.estimate("s").is_fixed and not result.estimate("m").is_fixed

    def function(free: np.ndarray) -> float:
        return -float(exact(np.concatenate([free[:1], [0.4, np.log(0.45)], free[1:]]), study()).sum())

    best = minimize(function, np.delete(X, [1, 2]), method="BFGS", options={"gtol": 1e-5})
    assert result.criterion == pytest.approx(2.0 * best.fun, abs=1e-4)


@pytest.mark.slow
def test_saem_keeps_a_fixed_typical_value():
    population = PopulationModel(random_effects=BETWEEN, occasion_effects=WITHIN, fixed={"s": 0.4, "a": 0.45})
    result, saem = (fit(study(), population, method, model=MODEL) for method in (Focei(), Saem()))
    assert result.covariance is not None
    assert (np.abs(saem.x - result.x) < 0.3 * np.sqrt(np.diagonal(result.covariance))).all()
    assert saem.estimate("s").value == 0.4


@pytest.mark.slow
@pytest.mark.parametrize("method", [Fo(), Foce(), Laplace(), Quadrature(n_nodes=2), Vi(n_samples=64)])
def test_the_other_methods_fit_occasions_too(method):
    result = fit(study(), POPULATION, method, model=MODEL)
    assert result.status is FitStatus.CONVERGED, result.warnings
    assert result.criterion == pytest.approx(-2.0 * exact(_mle(), study()).sum(), abs=1e-4)


def test_occasions_are_refused_where_there_are_none():
    data = study()
    single = Dataset(subjects=tuple(s for s in data.subjects if len(set(s.occasion)) == 1))
    with pytest.raises(PopulationError, match="E_POP_OCCASIONS"):
        fit(single, POPULATION, Focei(), model=MODEL)


def test_occasions_are_refused_on_residual_errors_and_unknown_parameters():
    for name, code in (("a", "E_POP_OCCASION_ERROR"), ("nothing", "E_POP_UNKNOWN_PARAMETER")):
        population = PopulationModel(random_effects=BETWEEN, occasion_effects=RandomEffects((name,)))
        with pytest.raises(PopulationError, match=code):
            fit(study(), population, Focei(), model=MODEL)
