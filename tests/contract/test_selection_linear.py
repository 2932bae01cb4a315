"""Every selection on problems whose BICc is known for all covariate models: the best one must come back."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from contract.linear_gaussian import LinearGaussian
from contract.linear_mixed_model import exact_log_likelihood, line, linear_study
from scipy.optimize import minimize

from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.subject import Subject
from amortnlme.methods.amortized_selection import AmortizedSelection
from amortnlme.methods.saem_selection import SaemSelection
from amortnlme.methods.select import associated_covariates, neighbors, select
from amortnlme.methods.selection import SelectionProblem
from amortnlme.methods.stepwise_selection import Cossac, Samba, Scm
from amortnlme.population.candidates import parse_candidates
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

LINE = PopulationModel(random_effects=RandomEffects(("m", "s")))


@pytest.fixture(scope="module")
def study():
    return linear_study(n=30, seed=1)


@pytest.fixture(scope="module")
def exact_line(study):
    """BICc of all four models of the lines, by the closed-form likelihood and a general optimizer."""
    n, n_total = 30, sum(len(y) for y in study.y)
    w = np.log(study.weight / study.weight.mean())
    bicc = {}
    for chosen in (frozenset(), frozenset({"m~w"}), frozenset({"s~w"}), frozenset({"m~w", "s~w"})):

        def objective(x, chosen=chosen):
            beta_m = x[5] if "m~w" in chosen else 0.0
            beta_s = x[6] if "s~w" in chosen else 0.0
            shifted = replace(
                study, y=[y - beta_m * w[i] for i, y in enumerate(study.y)]
            )
            omega, a = np.diag(np.exp(2.0 * x[2:4])), np.exp(x[4])
            return -2.0 * exact_log_likelihood(shifted, x[:2], beta_s, omega, a).sum()

        start = np.array([1.0, 0.5, -0.3, -0.5, -0.9, 0.0, 0.5])
        best = minimize(objective, start, method="BFGS", options={"gtol": 1e-6})
        bicc[chosen] = best.fun + (2 + len(chosen)) * np.log(n) + 3 * np.log(n_total)
    return bicc


@pytest.mark.parametrize(
    "method",
    [
        SaemSelection(n_exploration=60, n_averaging=20, burn_in=30),
        # The better model wins by p = 0.03: usual levels would take it in and drop it again.
        Scm(backward=0.05),
        Scm(criterion="bicc"),
        Cossac(),
        Samba(),
    ],
    ids=["saem", "scm p-value", "scm bicc", "cossac", "samba"],
)
def test_selection_returns_the_exact_optimum_of_a_linear_mixed_model(study, exact_line, method):
    candidates = parse_candidates(["m, s ~ w"], study.dataset.covariate_table())
    found = select(study.dataset, LINE, candidates, method, model=line(), most_models=0)
    assert frozenset(found.found) == min(exact_line, key=lambda chosen: exact_line[chosen])
    assert found.runs >= 1
    assert found.steps


def test_select_ranks_models_by_their_exact_bicc(study, exact_line):
    candidates = parse_candidates(["m, s ~ w"], study.dataset.covariate_table())
    found = select(study.dataset, LINE, candidates, Samba(), model=line(), seeds=2)
    assert len(found.scores) == 4
    for score in found.scores:
        # Linear models: FOCEI estimates are exact to its tolerance, importance sampling to its own error.
        expected = exact_line[frozenset(score.chosen)]
        assert score.bicc == pytest.approx(expected, abs=5.0 * score.ofv_se + 1e-3)
    assert found.scores[0].chosen == found.chosen == ("s~w",)
    assert found.fit is not None
    assert found.frequencies["seeds"] == {"m~w": 0.0, "s~w": 1.0}
    limit = exact_line[frozenset({"s~w"})] + 2.0
    assert {s.chosen for s in found.ties} == {
        s.chosen for s in found.scores if exact_line[frozenset(s.chosen)] < limit
    }


def _gaussian_problem(seed: int):
    """Direct measurements with known noise, exact posterior draws, and the exact BICc of all 64 models."""
    study = LinearGaussian(n=60, relative_sd=(2.0, 1.0, 0.7), seed=seed)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((60, 2))
    shift = 0.25 * x[:, :1] * np.array([1.0, 0.0, 0.6, 0.0]) + 0.2 * x[:, 1:] * np.array([0.0, 1.0, 0.0, 0.0])
    y = study.y() + shift
    precision, d = np.linalg.inv(study.noise), study.d
    covariance = np.linalg.inv(precision + np.eye(d))
    noise = rng.standard_normal((60, 4000, d))
    # Draws with the moments of the law itself: what is left is the search, not Monte-Carlo error.
    noise -= noise.mean(axis=1, keepdims=True)
    root = np.linalg.cholesky(np.swapaxes(noise, 1, 2) @ noise / 4000)
    noise = np.swapaxes(np.linalg.solve(root, np.swapaxes(noise, 1, 2)), 1, 2)
    phi = (y @ precision @ covariance)[:, None] + noise @ np.linalg.cholesky(covariance).T
    draws = replace(study.draws(4000, rng), phi=phi)
    subjects = [
        Subject.from_observations(str(i), Design.from_doses((), np.zeros(1)), y[i, :1], {"u": u, "v": v})
        for i, (u, v) in enumerate(x)
    ]
    dataset = Dataset(subjects=tuple(subjects))
    candidates = parse_candidates(["p0, p1, p2 ~ linear(u), linear(v)"], dataset.covariate_table())
    model = SimpleNamespace(parameters=study.space(), name="direct", capabilities=frozenset())
    problem = SelectionProblem.of(dataset, study.population(), candidates, model, draws, 0)
    return study, y, x - x.mean(axis=0), problem


def _exact_bicc(study, y, x, names, chosen, penalty):
    d = study.d

    def objective(v):
        mu = np.tile(v[:d], (len(y), 1))
        for value, name in zip(v[2 * d - 1 :], chosen, strict=True):
            parameter, covariate = name.split("~")
            mu[:, int(parameter[1])] += value * x[:, "uv".index(covariate)]
        total = study.noise + np.diag([*np.exp(2.0 * v[d : 2 * d - 1]), 0.0])
        gap = y - mu
        return float(
            ((gap @ np.linalg.inv(total)) * gap).sum() + len(y) * np.linalg.slogdet(total)[1]
        )

    start = np.concatenate([y.mean(axis=0), np.log(0.3) * np.ones(d - 1), np.zeros(len(chosen))])
    return minimize(objective, start, method="BFGS").fun + penalty * len(chosen)


def test_amortized_selection_finds_the_exact_optimum_from_gaussian_posteriors():
    study, y, x, problem = _gaussian_problem(seed=3)
    exact = {}
    for size in range(7):
        for chosen in itertools.combinations(problem.free, size):
            exact[chosen] = _exact_bicc(study, y, x, problem.free, chosen, problem.penalty)
    found = AmortizedSelection(n_components=1).search(problem)
    assert exact[found.chosen] == pytest.approx(min(exact.values()), abs=1e-6)
    assert found.runs == 1
    gaps = np.array([step.criterion - exact[step.chosen] for step in found.steps])
    # The same constant for all models; debiasing widens the draws by (d + 1) / 4000, which moves the -2
    # log-likelihoods of 60 subjects, and those of different models nearly alike, by at most 60 d / 800.
    np.testing.assert_allclose(gaps, gaps.mean(), atol=0.05)


def test_selection_copes_with_a_covariate_that_is_given_twice(study):
    """Weight in two units: no model holds both, and either may be returned."""
    subjects = [replace(s, covariates={"w": s.covariates["w"], "w_lb": 2.2 * s.covariates["w"]})
                for s in study.dataset.subjects]  # fmt: skip
    dataset = Dataset(subjects=tuple(subjects))
    candidates = parse_candidates(["s ~ w, w_lb"], dataset.covariate_table())
    found = select(dataset, LINE, candidates, Samba(), model=line())
    assert found.chosen in (("s~w",), ("s~w_lb",))
    assert found.associated == (("w", "w_lb"),)
    assert {score.chosen for score in found.scores} == {(), ("s~w",), ("s~w_lb",)}
    first, second = (s for s in found.scores if s.chosen)
    assert first.bicc == pytest.approx(second.bicc, abs=5.0 * np.hypot(first.ofv_se, second.ofv_se))


def test_neighbors_are_one_relation_away():
    assert set(neighbors(("a",), ("a", "b", "c"))) == {(), ("a", "b"), ("a", "c"), ("b",), ("c",)}


def test_covariates_that_separate_each_other_are_reported_together():
    rng = np.random.default_rng(1)
    weight = np.concatenate([rng.uniform(50, 64, 6), rng.uniform(70, 90, 6)])
    subjects = [
        Subject.from_observations(
            str(i),
            Design.from_doses((), np.ones(1)),
            np.ones(1),
            {"weight": weight[i], "sex": float(i >= 6), "age": rng.uniform(20, 60)},
        )
        for i in range(12)
    ]
    dataset = Dataset(subjects=tuple(subjects))
    candidates = parse_candidates(["m ~ weight, sex, age"], dataset.covariate_table())
    bound = candidates.bind(LINE, dataset.covariate_table(), line().parameters)
    assert associated_covariates(bound) == (("weight", "sex"),)
