"""A linear mixed model as an individual model: every approximation of its likelihood is exact.

y_ij = m_i + s_i t_ij + a e_ij with (m_i, s_i) normal: y_i ~ N(X mu, X omega X' + a^2 I).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.data.subject import Subject
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Additive
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter
from amortnlme.model.prior import NormalPrior


def line() -> IndividualModel:
    return IndividualModel(
        name="line",
        version="1",
        text="A straight line.",
        source="Laird & Ware (1982).",
        parameters=(
            Parameter("m", "1", "identity", 1.0, "intercept"),
            Parameter("s", "1/h", "identity", 0.5, "slope"),
            Parameter("a", "1", "log", 0.5, "residual standard deviation", role="error"),
        ),
        states=("x",),
        dynamics=LinearCompartments(lambda t, y, p: (0.0 * y.x,), dose_state="x"),
        outputs=(Output("y", "1", lambda t, y, p: p.m + p.s * t, Additive("a")),),
        prior=NormalPrior([0.0, 0.0, 0.0], [3.0, 2.0, 1.0]),
        design_sampler=RandomDesignSampler(),
        units={"time": "h", "amount": "mg"},
    )


@dataclass(frozen=True)
class LinearStudy:
    """Data drawn from the model, unbalanced, with a covariate on the slope."""

    dataset: Dataset
    times: list[np.ndarray]
    y: list[np.ndarray]
    weight: np.ndarray


def linear_study(n: int = 30, seed: int = 1) -> LinearStudy:
    rng = np.random.default_rng(seed)
    times, values, subjects = [], [], []
    weight = np.exp(0.3 * rng.standard_normal(n))
    for i in range(n):
        t = np.sort(rng.uniform(0, 4, size=rng.integers(3, 8)))
        eta = np.array([[0.8, 0.0], [0.3, 0.5]]) @ rng.standard_normal(2)
        y = 1.0 + eta[0] + (0.5 + 0.7 * np.log(weight[i] / weight.mean()) + eta[1]) * t
        y = y + 0.4 * rng.standard_normal(len(t))
        subjects.append(
            Subject.from_observations(f"{i + 1}", Design.from_doses((), t), y, {"w": float(weight[i])})
        )
        times.append(t)
        values.append(y)
    return LinearStudy(Dataset(subjects=tuple(subjects)), times, values, weight)


def exact_log_likelihood(
    study: LinearStudy, mu: np.ndarray, beta: float, omega: np.ndarray, a: float
) -> np.ndarray:
    """log p(y_i), shape (n,)."""
    result = []
    for i, (t, y) in enumerate(zip(study.times, study.y, strict=True)):
        X = np.column_stack([np.ones_like(t), t])
        center = mu + np.array([0.0, beta * np.log(study.weight[i] / study.weight.mean())])
        V = X @ omega @ X.T + a**2 * np.eye(len(t))
        e = y - X @ center
        result.append(
            -0.5 * (len(t) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + e @ np.linalg.solve(V, e))
        )
    return np.array(result)
