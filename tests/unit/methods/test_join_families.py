"""Families of joint laws on banks whose likelihood is known in closed form."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from amortnlme.core.errors import ArtefactError, FitError, UsageError
from amortnlme.methods.covariance_graph import constrained_covariance, rescaled, sparse_graph
from amortnlme.methods.gaussian_join import GaussianRule, fit_gaussian, fit_shrunken, fit_split
from amortnlme.methods.join import JoinOptions
from amortnlme.methods.joint_fit import FamilyResult, JointFit
from amortnlme.methods.joint_use import information
from amortnlme.methods.likelihood_bank import LikelihoodBank, score
from amortnlme.methods.mixture_join import fit_mixture_law, stack
from amortnlme.population.flow_law import ConditionalMixtureLaw, FlowLaw
from amortnlme.population.laws import GaussianLaw, MixtureLaw

NAMES = ("p.a", "p.b", "q.a", "q.b")
NOISE = 0.2  # variance of y around eta
TRUE = np.array([[1.0, 0.0, 0.3, 0.0], [0.0, 1.0, 0.0, 0.0], [0.3, 0.0, 1.0, 0.7], [0.0, 0.0, 0.7, 1.0]])
INDEPENDENT = GaussianLaw(NAMES, np.zeros(4), np.eye(4))


def exact_bank(y, rng, n_nodes=400):
    """Nodes from the exact posterior under N(0, I), for y = eta + N(0, NOISE)."""
    n, d = y.shape
    variance = 1.0 / (1.0 + 1.0 / NOISE)
    eta = (y * variance / NOISE)[:, None] + np.sqrt(variance) * rng.standard_normal((n, n_nodes, d))
    gap = eta - (y * variance / NOISE)[:, None]
    log_q = -0.5 * (gap**2).sum(-1) / variance - 0.5 * d * np.log(2 * np.pi * variance)
    log_p = -0.5 * ((y[:, None] - eta) ** 2).sum(-1) / NOISE - 0.5 * d * np.log(2 * np.pi * NOISE)
    ids = tuple(str(i) for i in range(n))
    return LikelihoodBank(ids, NAMES, eta, log_p - log_q, (), np.zeros((n, n_nodes, 0)), 4)


def study(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((n, 4)) @ np.linalg.cholesky(TRUE + NOISE * np.eye(4)).T
    return y, exact_bank(y, rng)


@pytest.fixture(scope="module")
def made():
    return study(300, 1)


def test_score_gives_the_exact_likelihood_within_its_error(made):
    y, bank = made
    law = GaussianLaw(NAMES, np.zeros(4), TRUE)
    exact = multivariate_normal(np.zeros(4), TRUE + NOISE * np.eye(4)).logpdf(y)
    found = score(bank, law)
    assert abs(found.total - exact.sum()) < 4.5 * found.se
    gain, se = found.gain_over(score(bank, INDEPENDENT))
    independent = multivariate_normal(np.zeros(4), (1 + NOISE) * np.eye(4)).logpdf(y)
    assert abs(gain - (exact - independent).sum()) < 4.5 * se


def test_em_reaches_the_closed_form_maximum_when_margins_are_free(made):
    y, bank = made
    law, _ = fit_gaussian(bank, INDEPENDENT, GaussianRule(free=True))
    best = y.T @ y / len(y) - NOISE * np.eye(4)
    # Monte-Carlo error of a moment: posterior SD 0.41 / sqrt(300 x 400) times the weights' inflation.
    assert np.abs(law.covariance - best).max() < 0.02


def test_resampled_bank_keeps_the_likelihoods(made):
    _, bank = made
    law = GaussianLaw(NAMES, np.zeros(4), TRUE)
    small = bank.resampled(law, 64, np.random.default_rng(0))
    np.testing.assert_allclose(score(small, law).log_likelihood, score(bank, law).log_likelihood, atol=1e-9)


def test_constrained_covariance_keeps_moments_on_edges_and_zeros_elsewhere():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40, 5)) @ rng.standard_normal((5, 5))
    scatter = x.T @ x / 40
    graph = np.eye(5, dtype=bool)
    for i, j in ((0, 1), (1, 2), (2, 3), (3, 4), (0, 4)):
        graph[i, j] = graph[j, i] = True
    fitted = constrained_covariance(scatter, graph)
    np.testing.assert_allclose(fitted[graph], scatter[graph], rtol=1e-6)
    assert np.abs(np.linalg.inv(fitted)[~graph]).max() < 1e-6 * np.abs(np.linalg.inv(fitted)).max()


def test_sparse_graph_finds_the_edges_when_moments_are_exact():
    graph = sparse_graph(TRUE, 200, 0.5 * np.log(200))
    assert np.array_equal(graph, np.abs(np.linalg.inv(TRUE)) > 1e-9)


def test_sparse_graph_leaves_no_edge_whose_change_alone_would_improve_the_criterion():
    """Two edges that stand in for each other: elimination alone drops both in a third of such data sets."""
    truth = np.eye(4)
    truth[0, 1] = truth[1, 0] = 0.8
    truth[2, :2] = truth[:2, 2] = 0.27
    root, price = np.linalg.cholesky(truth), 0.5 * np.log(200)

    def criterion(scatter, graph):
        fitted = constrained_covariance(scatter, graph)
        return -100.0 * np.linalg.slogdet(fitted)[1] - price * np.tril(graph, -1).sum()

    for seed in range(12):
        x = np.random.default_rng(seed).standard_normal((200, 4)) @ root.T
        scatter = np.corrcoef(x.T)
        graph = sparse_graph(scatter, 200, price)
        best = criterion(scatter, graph)
        for i, j in zip(*np.tril_indices(4, -1), strict=True):
            other = graph.copy()
            other[i, j] = other[j, i] = not graph[i, j]
            assert criterion(scatter, other) < best + 1e-5


def test_shrinkage_keeps_margins_and_pulls_correlations_in(made):
    _, bank = made
    plain, _ = fit_gaussian(bank, INDEPENDENT, GaussianRule())
    pulled, _ = fit_gaussian(bank, INDEPENDENT, GaussianRule(weight=300.0), plain)
    np.testing.assert_allclose(np.diagonal(pulled.covariance), 1.0)
    assert abs(pulled.covariance[2, 3]) < abs(plain.covariance[2, 3])
    law, weight = fit_shrunken(bank, INDEPENDENT, plain, np.random.default_rng(1))
    assert weight < 320.0
    assert law.covariance[2, 3] > 0.5


def test_split_keeps_the_sparse_block_of_the_biomarkers(made):
    _, bank = made
    start, _ = fit_gaussian(bank, INDEPENDENT, GaussianRule())
    law, _ = fit_split(bank, INDEPENDENT, ("p.a", "p.b"), start, np.random.default_rng(1))
    sparse, _ = fit_gaussian(bank, INDEPENDENT, GaussianRule(penalty=0.5 * np.log(300)), start)
    np.testing.assert_allclose(law.covariance[2:, 2:], sparse.covariance[2:, 2:], rtol=1e-9)
    np.testing.assert_allclose(np.diagonal(law.covariance), 1.0)
    with pytest.raises(FitError, match="E_JOIN_PRIMARY"):
        fit_split(bank, INDEPENDENT, ("z",), start, np.random.default_rng(1))


def test_mixture_and_stack_do_not_lose_to_a_normal_law_when_the_truth_is_two_clouds():
    rng = np.random.default_rng(5)
    sign = rng.choice([-1.0, 1.0], size=(400, 1))
    eta = np.concatenate([sign * rng.normal(1.0, 0.3, (400, 1)), rng.standard_normal((400, 3))], axis=1)
    eta[:, 2:3] = sign * rng.normal(1.0, 0.3, (400, 1))
    bank = exact_bank(eta + np.sqrt(NOISE) * rng.standard_normal((400, 4)), rng)
    train, tuning = bank.select(np.arange(300)), bank.select(np.arange(300, 400))
    normal, _ = fit_gaussian(train, INDEPENDENT, GaussianRule(free=True))
    mixture = fit_mixture_law(train.resampled(normal, 96, rng), normal, 2, rng)
    assert score(tuning, mixture).total > score(tuning, normal).total + 10.0
    stacked = stack((normal, mixture), tuning)
    assert stacked.weights[1] > 0.7
    given, ess = stacked.sample_given(("p.a",), np.array([1.0]), 500, rng)
    assert ess > 100
    assert given[:, 2].mean() > 0.6


def _layers(rng, sizes, scale=0.3):
    return tuple(
        (scale * rng.standard_normal((a, b)), scale * rng.standard_normal(b)) for a, b in pairwise(sizes)
    )


def flow(rng):
    return FlowLaw(
        NAMES, GaussianLaw(NAMES, np.zeros(4), TRUE), (_layers(rng, (2, 8, 4)), _layers(rng, (2, 8, 4)))
    )


def conditional(rng):
    order = ("q.a", "q.b", "p.a", "p.b")
    base = GaussianLaw(NAMES, np.zeros(4), TRUE).marginal(order)
    return ConditionalMixtureLaw(NAMES, base, 2, _layers(rng, (2, 8, 12)))


@pytest.mark.parametrize("make", [flow, conditional])
def test_law_with_networks_integrates_to_one_and_samples_what_it_says(make):
    law, rng = make(np.random.default_rng(7)), np.random.default_rng(8)
    eta = law.sample(40_000, rng)
    # E_p[q / p] = 1 for a normal q inside the support of p: 4.5 standard errors.
    narrow = GaussianLaw(NAMES, eta.mean(axis=0), 0.6 * np.cov(eta.T))
    ratio = np.exp(narrow.log_density(eta) - law.log_density(eta))
    assert abs(ratio.mean() - 1.0) < 4.5 * ratio.std() / 200.0
    given, ess = law.sample_given(("q.a", "q.b"), np.array([0.5, 0.2]), 200, rng)
    assert ess > 50
    np.testing.assert_array_equal(given[:, 2:], np.tile([0.5, 0.2], (200, 1)))


def _joint_fit(law):
    return JointFit(
        family="test",
        law=law,
        held=GaussianLaw(("ka",), np.zeros(1), np.eye(1)),
        independent=INDEPENDENT,
        endpoints=(
            {"name": "p", "model": "m", "fingerprint": "x", "effects": ["p.a", "p.b"]},
            {"name": "q", "model": "m", "fingerprint": "x", "effects": ["q.a", "q.b"]},
        ),
        results=(
            FamilyResult("test", 1.0, 0.1, float("nan"), float("nan"), float("nan"), float("nan"), 9.0),
        ),
        n_subjects=3,
        n_held_out=0,
    )


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "flow", "conditional", "stacked"])
def test_joint_fit_saves_and_loads_every_kind_of_law(tmp_path, kind):
    rng = np.random.default_rng(9)
    normal = GaussianLaw(NAMES, np.zeros(4), TRUE)
    laws = {
        "gaussian": normal,
        "mixture": MixtureLaw(NAMES, [0.3, 0.7], rng.standard_normal((2, 4)), [TRUE, np.eye(4)]),
        "flow": flow(rng),
        "conditional": conditional(rng),
    }
    tuning = study(20, 4)[1]
    law = stack(tuple(laws.values()), tuning) if kind == "stacked" else laws[kind]
    path = tmp_path / "joint.h5"
    _joint_fit(law).save(path)
    again = JointFit.load(path)
    eta = rng.standard_normal((50, 4))
    np.testing.assert_allclose(again.law.log_density(eta), law.log_density(eta), rtol=1e-12)
    assert again.held is not None
    assert again.held.names == ("ka",)
    assert np.isnan(again.results[0].held_out_gain)
    assert again.to_dict()["effects"] == list(NAMES)


def test_joint_fit_is_refused_when_bytes_were_changed(tmp_path):
    path = tmp_path / "joint.h5"
    _joint_fit(GaussianLaw(NAMES, np.zeros(4), TRUE)).save(path)
    content = bytearray(path.read_bytes())
    needle = np.array([0.7]).tobytes()
    at = bytes(content).index(needle)
    content[at : at + 8] = np.array([0.2]).tobytes()
    path.write_bytes(bytes(content))
    with pytest.raises(ArtefactError, match="E_H5_CHECKSUM"):
        JointFit.load(path)
    path.write_bytes(bytes(content[: len(content) // 2]))
    with pytest.raises(ArtefactError, match="E_H5_TRUNCATED"):
        JointFit.load(path)


def test_information_is_that_of_the_correlations():
    found = information(_joint_fit(GaussianLaw(NAMES, np.zeros(4), TRUE)))
    assert found.endpoints == ("p", "q")
    slope = np.linalg.solve(TRUE[2:, 2:], TRUE[2:, 0])
    assert found.r_squared[0, 1] == pytest.approx(TRUE[0, 2:] @ slope)
    joint = np.linalg.slogdet(TRUE)[1] - np.linalg.slogdet(TRUE[2:, 2:])[1]
    assert found.nats[0, 1] == pytest.approx(-0.5 * joint)
    assert found.nats[0, 1] == pytest.approx(found.nats[1, 0])


def test_options_are_refused_when_a_family_lacks_what_it_needs():
    with pytest.raises(UsageError, match="E_JOIN_PRIMARY"):
        JoinOptions(family="split")
    with pytest.raises(UsageError, match="E_JOIN_HELD_OUT"):
        JoinOptions(family="mixture", held_out=0.0)
    with pytest.raises(UsageError, match="E_JOIN_OPTION"):
        JoinOptions(family="copula")
    assert JoinOptions().chosen == "sparse"
    assert JoinOptions(primary="response").chosen == "split"


def test_rescaled_covariance_has_the_margins_asked_for():
    found = rescaled(TRUE, np.array([2.0, 1.0, 0.5, 1.0]))
    np.testing.assert_allclose(np.sqrt(np.diagonal(found)), [2.0, 1.0, 0.5, 1.0])
    assert found[2, 3] == pytest.approx(0.7 * 0.5)
