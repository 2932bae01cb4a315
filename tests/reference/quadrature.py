"""Exact marginal likelihood of the theophylline models by adaptive Gauss-Hermite quadrature.

Written independently of the package: its own closed form, its own mode search, its own table of data read
with the standard library. One-compartment model with first-order absorption (ka, ke, V log-normal), additive
error of SD a: f(t) = dose ka / (V (ka - ke)) (exp(-ke t) - exp(-ka t)).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from scipy.optimize import minimize

#: Columns of V and ka that depend on log(weight / mean weight), by population model.
COVARIATE_COLUMNS = {"none": (), "v_weight": (2,), "ka_v_weight": (0, 2), "full": ()}


@dataclass(frozen=True)
class Theophylline:
    """Twelve subjects, ten concentrations each."""

    dose: np.ndarray  # (12,) mg
    time: np.ndarray  # (12, 10) h
    y: np.ndarray  # (12, 10) mg/L
    weight: np.ndarray  # (12,) kg

    @property
    def log_weight(self) -> np.ndarray:
        return np.log(self.weight / self.weight.mean())


def read_theophylline() -> Theophylline:
    table = files("amortnlme.data").joinpath("tables", "theophylline.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(line for line in table.splitlines() if not line.startswith("#")))
    subjects: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        subjects.setdefault(row["ID"], []).append(row)
    dose, time, y, weight = [], [], [], []
    for records in subjects.values():
        doses = [r for r in records if r["EVID"] == "1"]
        observed = [r for r in records if r["EVID"] == "0"]
        assert len(doses) == 1 and float(doses[0]["TIME"]) == 0.0 and len(observed) == 10
        dose.append(float(doses[0]["AMT"]))
        weight.append(float(doses[0]["weight"]))
        time.append([float(r["TIME"]) for r in observed])
        y.append([float(r["DV"]) for r in observed])
    return Theophylline(*(np.array(v) for v in (dose, time, y, weight)))


def concentration(log_parameters: np.ndarray, dose: np.ndarray, time: np.ndarray) -> np.ndarray:
    ka, ke, volume = np.moveaxis(np.exp(log_parameters), -1, 0)[..., None]
    # (exp(-ke t) - exp(-ka t)) / (ka - ke), symmetric in ka and ke: no cancellation, no overflow.
    gap = np.abs(ka - ke)
    safe = np.where(gap * time < 1e-8, 1.0, gap)
    ratio = np.where(gap * time < 1e-8, time, -np.expm1(-gap * time) / safe)
    return dose[..., None] * ka / volume * np.exp(-np.minimum(ka, ke) * time) * ratio


def minus_two_log_likelihood(
    data: Theophylline, mu: np.ndarray, factor: np.ndarray, a: float, nodes: int = 9
) -> float:
    """-2LL with phi_i = mu_i + factor u; mu (12, 3) logs of ka, ke, V; factor (3, 3) lower triangular."""
    n, r = mu.shape[0], factor.shape[1]
    u = np.zeros((n, r))
    for _ in range(100):
        slope = _slope(data, mu + u @ factor.T) @ factor
        residual = data.y - concentration(mu + u @ factor.T, data.dose, data.time)
        gradient = np.einsum("imk,im->ik", slope, residual) / a**2 - u
        curvature = np.einsum("imk,iml->ikl", slope, slope) / a**2 + np.eye(r)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        step *= np.minimum(1.0, 1.0 / np.maximum(np.abs(step).max(axis=1), 1e-12))[:, None]
        u = u + step
        if np.abs(step).max() < 1e-9:
            break
    slope = _slope(data, mu + u @ factor.T) @ factor
    root = np.linalg.cholesky(np.einsum("imk,iml->ikl", slope, slope) / a**2 + np.eye(r))
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.stack(np.meshgrid(*[x] * r, indexing="ij"), axis=-1).reshape(-1, r)
    log_w = sum(np.meshgrid(*[np.log(w / np.sqrt(2 * np.pi))] * r, indexing="ij")).ravel()
    points = u[:, None] + grid @ np.linalg.inv(root)
    f = concentration(mu[:, None] + points @ factor.T, data.dose[:, None], data.time[:, None])
    log_density = -0.5 * (((data.y[:, None] - f) / a) ** 2).sum(axis=-1)
    log_density -= data.y.shape[1] * (np.log(a) + 0.5 * np.log(2 * np.pi))
    # Standard normal of u over standard normal of the grid: the constants cancel.
    value = log_density - 0.5 * (points**2).sum(axis=-1) + 0.5 * (grid**2).sum(axis=-1) + log_w
    top = value.max(axis=1)
    log_l = top + np.log(np.exp(value - top[:, None]).sum(axis=1))
    log_l -= np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    return float(-2.0 * log_l.sum())


def _slope(data: Theophylline, phi: np.ndarray, h: float = 1e-5) -> np.ndarray:
    columns = []
    for k in range(3):
        shift = np.zeros(3)
        shift[k] = h
        ahead = concentration(phi + shift, data.dose, data.time)
        columns.append((ahead - concentration(phi - shift, data.dose, data.time)) / (2 * h))
    return np.stack(columns, axis=-1)


def objective(data: Theophylline, name: str, x: np.ndarray, nodes: int = 9) -> float:
    """-2LL at x = (log ka, log ke, log V, betas, entries of the factor, log a).

    Entries of the factor: its diagonal for diagonal models, its lower triangle by rows for "full".
    """
    columns = COVARIATE_COLUMNS[name]
    mu = np.tile(x[:3], (12, 1))
    for k, column in enumerate(columns):
        mu[:, column] += x[3 + k] * data.log_weight
    entries = x[3 + len(columns) : -1]
    factor = np.zeros((3, 3))
    if name == "full":
        factor[np.tril_indices(3)] = entries
    else:
        np.fill_diagonal(factor, entries)
    return minus_two_log_likelihood(data, mu, factor, float(np.exp(x[-1])), nodes)


def exact_mle(data: Theophylline, name: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Maximum-likelihood estimates x, their standard errors, and the minimum of -2LL (15 nodes)."""
    start = [np.log(1.6), np.log(0.087), np.log(32.0), *[0.5] * len(COVARIATE_COLUMNS[name])]
    start += [0.6, 0.05, 0.13, 0.05, 0.1, 0.03] if name == "full" else [0.6, 0.13, 0.15]
    best = minimize(
        lambda x: objective(data, name, x),
        np.array([*start, np.log(0.7)]),
        method="BFGS",
        options={"gtol": 1e-4},
    )
    x, p, h = best.x, len(best.x), 1e-3
    hessian = np.empty((p, p))
    step = np.eye(p) * h
    for i in range(p):
        for j in range(i + 1):
            corners = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
            terms = [a * b * objective(data, name, x + a * step[i] + b * step[j]) for a, b in corners]
            hessian[i, j] = hessian[j, i] = sum(terms) / (4 * h * h)
    return x, np.sqrt(np.diagonal(np.linalg.inv(hessian / 2))), objective(data, name, x, nodes=15)
