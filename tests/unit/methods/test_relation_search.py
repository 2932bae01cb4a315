"""Best subsets and relations are the true optimum: checked against every model, and against an optimizer."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from amortnlme.methods import best_subset
from amortnlme.methods.best_subset import cheapest_subset, columns_of, profiled_subset
from amortnlme.methods.relation_search import RelationSearch
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.population.candidates import Candidates, parse_candidates
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel

# The trees stop at a gap of 1e-7 prices; sums of squares cancel to about 1e-11 of themselves.
SLACK = 1e-5


def _regression(seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Products of a small random regression: groups, nearly and exactly dependent columns among them."""
    rng = np.random.default_rng(seed)
    n_groups = int(rng.integers(2, 8))
    width = rng.integers(1, 4, size=n_groups) if seed % 2 else np.ones(n_groups, dtype=int)
    first = np.concatenate([[0], np.cumsum(width)])
    n = int(rng.integers(8, 40))
    x = rng.normal(size=(n, first[-1]))
    if seed % 3 == 0:
        x = x @ rng.normal(size=(first[-1], first[-1]))
    if seed % 5 == 0:
        x[:, 1] = 2.0 * x[:, 0]
    if seed % 7 == 0:
        x[:, -1] = x[:, 0] + 0.01 * rng.normal(size=n)
    y = x[:, :2] @ rng.normal(size=2) + rng.normal(size=n)
    centered = np.column_stack([x, y]) - np.column_stack([x, y]).mean(axis=0)
    return centered.T @ centered, first, n


def _every_rss(products: np.ndarray, first: np.ndarray) -> list[tuple[float, int]]:
    ends = []
    for members in itertools.product([False, True], repeat=len(first) - 1):
        columns = columns_of(np.flatnonzero(members), first)
        gram, cross = products[np.ix_(columns, columns)], products[columns, -1]
        scale = np.sqrt(np.diagonal(gram))
        beta = np.linalg.lstsq(gram / np.outer(scale, scale), cross / scale, rcond=1e-10)[0]
        ends.append((float(products[-1, -1] - (cross / scale) @ beta), len(columns)))
    return ends


@pytest.mark.parametrize("walk", [1, 14], ids=["tree", "walk"])
@pytest.mark.parametrize("seed", range(70))
def test_best_subset_is_the_best_of_all_models(seed, walk, monkeypatch):
    monkeypatch.setattr(best_subset, "WALK", walk)
    products, first, n = _regression(seed)
    rng = np.random.default_rng(1000 + seed)
    price, extra = rng.uniform(0.5, 6.0), rng.uniform(0.1, n)
    ends = _every_rss(products, first)
    cheap = cheapest_subset(products, first, price)
    assert cheap.proven
    assert cheap.rss + price * cheap.size == pytest.approx(min(r + price * k for r, k in ends), abs=SLACK)
    profiled = profiled_subset(products, first, n, extra, price)
    assert profiled.proven
    value = n * np.log((profiled.rss + extra) / n) + price * profiled.size
    assert value == pytest.approx(min(n * np.log((r + extra) / n) + price * k for r, k in ends), abs=SLACK)


def test_profiled_subset_is_proven_when_there_are_a_hundred_columns():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1500, 100))
    y = x[:, :4] @ np.array([0.3, -0.2, 0.15, 0.25]) + rng.normal(size=1500)
    centered = np.column_stack([x, y]) - np.column_stack([x, y]).mean(axis=0)
    found = profiled_subset(centered.T @ centered, np.arange(101), 1500, 300.0, np.log(1500))
    assert found.proven
    assert found.members[:4].all()


PARAMETERS = ParameterSpace(tuple(Parameter(name, "1", "log", 1.0, name) for name in ("ka", "ke", "V")))


def _study(seed: int, structure: str, n: int = 30) -> tuple[Candidates, PopulationModel, pd.DataFrame, tuple]:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "weight": np.exp(rng.normal(4.2, 0.3, n)),
            "sex": (rng.random(n) < 0.5).astype(float),
            "race": rng.integers(1, 4, n).astype(float),
        },
        index=[str(i) for i in range(n)],
    )
    candidates = parse_candidates(["ka, V ~ weight, sex", "ke ~ race, weight"], table)
    population = PopulationModel(random_effects=RandomEffects(("ka", "ke", "V"), structure))
    root = np.array([[0.5, 0.0, 0.0], [0.1, 0.3, 0.0], [0.1, 0.2, 0.2]])
    mean = rng.normal(size=(n, 3)) @ root.T
    mean[:, 2] += 0.8 * np.log(table["weight"].to_numpy()) - 3.0
    mean[:, 1] += 0.3 * (table["race"].to_numpy() == 3.0)
    noise = 0.05 * rng.normal(size=(3, 3))
    return candidates, population, table, (mean, n * noise @ noise.T)


def _value(candidates, bound, mean, spread, chosen, structure):
    """Minimum over coefficients of n log det, by a general optimizer."""
    n = len(mean)
    columns = columns_of(np.flatnonzero(chosen), bound.first)
    owner = np.repeat(bound.owner, bound.width)[columns]

    def objective(v):
        fitted = np.tile(v[:3], (n, 1))
        for value, c, k in zip(v[3:], columns, owner, strict=True):
            fitted[:, k] += value * bound.regressors[:, c]
        total = ((mean - fitted).T @ (mean - fitted) + spread) / n
        if structure == "diagonal":
            return n * np.log(np.diagonal(total)).sum()
        return n * np.linalg.slogdet(total)[1]

    start = np.concatenate([mean.mean(axis=0), np.zeros(len(columns))])
    return minimize(objective, start, method="BFGS", options={"gtol": 1e-7}).fun


@pytest.mark.parametrize(("seed", "structure"), [(0, "diagonal"), (1, "full")])
def test_relation_search_finds_the_joint_optimum_over_relations_coefficients_and_omega(seed, structure):
    candidates, population, table, (mean, spread) = _study(seed, structure)
    bound = candidates.bind(population, table, PARAMETERS)
    penalty = np.log(len(mean))
    found = RelationSearch(bound).select(mean, spread, penalty)
    assert found.proven
    values = []
    for members in itertools.product([False, True], repeat=len(bound.relations)):
        chosen = np.array(members)
        values.append(
            _value(candidates, bound, mean, spread, chosen, structure) + penalty * bound.width[chosen].sum()
        )
    # BFGS stops at a gradient of 1e-7; its value is accurate far beyond this.
    assert found.objective == pytest.approx(min(values), abs=1e-4)
    residual = mean - found.mean
    expected = (residual.T @ residual + spread) / len(mean)
    if structure == "diagonal":
        expected = np.diag(np.diagonal(expected))
    np.testing.assert_allclose(found.omega, expected)


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_relation_search_keeps_a_given_omega_as_weight(structure):
    candidates, population, table, (mean, spread) = _study(5, structure)
    bound = candidates.bind(population, table, PARAMETERS)
    omega = np.diag([0.3, 0.1, 0.05])
    if structure == "full":
        omega[1, 2] = omega[2, 1] = 0.04
    found = RelationSearch(bound).select(mean, spread, 2.0, omega)
    inverse, best = np.linalg.inv(omega), np.inf
    for members in itertools.product([False, True], repeat=len(bound.relations)):
        chosen = np.array(members)
        columns = columns_of(np.flatnonzero(chosen), bound.first)
        owner = np.repeat(bound.owner, bound.width)[columns]
        design = np.zeros((len(mean), 3, 3 + len(columns)))
        design[:, np.arange(3), np.arange(3)] = 1.0
        design[:, owner, 3 + np.arange(len(columns))] = bound.regressors[:, columns]
        gram = np.einsum("nka,kl,nlb->ab", design, inverse, design)
        beta = np.linalg.solve(gram, np.einsum("nka,kl,nl->a", design, inverse, mean))
        residual = mean - design @ beta
        square = float(np.einsum("nk,kl,nl->", residual, inverse, residual))
        best = min(best, square + 2.0 * bound.width[chosen].sum())
    constant = len(mean) * (np.linalg.slogdet(omega)[1] - 3) + np.trace(inverse @ spread)
    assert found.objective == pytest.approx(best + constant, rel=1e-10)


def test_relation_search_respects_forced_and_forbidden_relations_and_given_values():
    candidates, population, table, (mean, spread) = _study(1, "diagonal")
    candidates = Candidates(candidates.relations, frozenset({"ka~sex"})).without({"V~weight"})
    base = PopulationModel(
        random_effects=population.random_effects,
        covariates=(CovariateEffect("V", "weight"),),
        fixed={"ke": 0.7},
    )
    bound = candidates.bind(base, table, PARAMETERS)
    found = RelationSearch(bound).select(mean, spread, 1e6)
    inside = {name for name, chosen in zip(bound.names, found.chosen, strict=True) if chosen}
    assert inside == {"ka~sex", "V~weight"}
    assert found.intercept[1] == pytest.approx(np.log(0.7))
    model = candidates.population(base, inside - {"V~weight"})
    assert [effect.name for effect in model.covariates] == ["beta_V_weight", "beta_ka_sex_1"]
