"""From packed population parameters to the table a pharmacometrician reads (delta method)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amortnlme.population.estimates import Estimate

if TYPE_CHECKING:
    from amortnlme.population.bound_population import BoundPopulation

NORMAL_975 = 1.959963984540054


def describe_estimates(
    population: BoundPopulation, x: np.ndarray, covariance: np.ndarray | None
) -> tuple[Estimate, ...]:
    """Return every estimate with SE, RSE and 95 % interval on its natural scale.

    Parameters
    ----------
    population : BoundPopulation
    x : ndarray, shape (n_x,)
    covariance : ndarray, shape (n_x, n_x), or None

    Returns
    -------
    tuple of Estimate
        Order: typical values, covariate coefficients, omega SDs, omega correlations, error parameters.
    """
    x = np.asarray(x, dtype=np.float64)
    rows = _typical_values(population, x, covariance)
    thetas = [row for row in rows if row.kind == "theta"]
    sigmas = [row for row in rows if row.kind == "sigma"]
    betas = []
    for c, effect in enumerate(population.covariates):
        position = population.d + c
        se = None if covariance is None else float(np.sqrt(covariance[position, position]))
        value = float(x[position])
        low, high = (None, None) if se is None else (value - NORMAL_975 * se, value + NORMAL_975 * se)
        betas.append(Estimate(effect.name, "beta", "phi", "", value, se, _rse(value, se), low, high))
    return (*thetas, *betas, *_omega_rows(population, x, covariance), *sigmas)


def _typical_values(
    population: BoundPopulation, x: np.ndarray, covariance: np.ndarray | None
) -> list[Estimate]:
    space = population.parameters
    theta = x[: population.d]
    psi = space.to_psi(theta)
    slope = np.abs(space.dpsi_dphi(theta))
    rows = []
    for p, parameter in enumerate(space.parameters):
        kind = "sigma" if parameter.role == "error" else "theta"
        value, se, low, high = float(psi[p]), None, None, None
        if covariance is not None:
            phi_se = float(np.sqrt(covariance[p, p]))
            se = float(slope[p]) * phi_se
            ends = []
            for sign in (-1.0, 1.0):
                moved = theta.copy()
                moved[p] += sign * NORMAL_975 * phi_se
                ends.append(float(space.to_psi(moved)[p]))
            low, high = min(ends), max(ends)
        rows.append(
            Estimate(parameter.name, kind, "natural", parameter.unit, value, se, _rse(value, se), low, high)
        )
    return rows


def omega_sd_corr_jacobian(
    population: BoundPopulation, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]], np.ndarray, np.ndarray]:
    """Return SDs and correlations of the random effects and their derivatives by the packed entries of L.

    Parameters
    ----------
    population : BoundPopulation
    x : ndarray, shape (n_x,)

    Returns
    -------
    sd : ndarray, shape (r,)
    corr : ndarray, shape (n_pairs,)
        Correlations within blocks; 0 where an SD is zero.
    pairs : list of (int, int)
        Random-effect indices (row, column) of each correlation.
    dsd : ndarray, shape (r, n_chol)
    dcorr : ndarray, shape (n_pairs, n_chol)
    """
    _, factor = population.unpack(x)
    factor = factor[population.random_index]
    sd = np.sqrt((factor**2).sum(axis=1))
    safe = np.where(sd > 0, sd, 1.0)
    effect_of_row = {int(p): j for j, p in enumerate(population.random_index)}
    rows = np.array([effect_of_row[int(p)] for p in population.chol_row])
    columns = population.chol_column
    n_chol = len(rows)
    dsd = np.zeros((population.r, n_chol))
    dsd[rows, np.arange(n_chol)] = factor[rows, columns] / safe[rows]
    pairs = [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if i != j]
    corr = np.zeros(len(pairs))
    dcorr = np.zeros((len(pairs), n_chol))
    for k, (i, j) in enumerate(pairs):
        scale = safe[i] * safe[j]
        corr[k] = factor[i] @ factor[j] / scale
        for e in range(n_chol):
            if rows[e] == i:
                dcorr[k, e] += factor[j, columns[e]] / scale - corr[k] * factor[i, columns[e]] / safe[i] ** 2
            if rows[e] == j:
                dcorr[k, e] += factor[i, columns[e]] / scale - corr[k] * factor[j, columns[e]] / safe[j] ** 2
    return sd, corr, pairs, dsd, dcorr


def _omega_rows(population: BoundPopulation, x: np.ndarray, covariance: np.ndarray | None) -> list[Estimate]:
    sd, corr, pairs, dsd, dcorr = omega_sd_corr_jacobian(population, x)
    on = population.random_effects.on
    block = None if covariance is None else covariance[population.chol_slice, population.chol_slice]
    rows = []
    for j, name in enumerate(on):
        value, se, low, high = float(sd[j]), None, None, None
        if block is not None:
            se = float(np.sqrt(dsd[j] @ block @ dsd[j]))
            if value > 0:
                # Interval on the log scale: an SD is positive and its uncertainty is nearly a factor.
                factor = float(np.exp(min(NORMAL_975 * se / value, 700.0)))
                low, high = value / factor, value * factor
        rows.append(Estimate(f"omega_{name}", "omega_sd", "phi", "", value, se, _rse(value, se), low, high))
    for k, (i, j) in enumerate(pairs):
        value, se, low, high = float(np.clip(corr[k], -1.0, 1.0)), None, None, None
        if block is not None:
            se = float(np.sqrt(dcorr[k] @ block @ dcorr[k]))
            inside = max(1.0 - value**2, 1e-12)
            z, width = float(np.arctanh(np.clip(value, -1 + 1e-12, 1 - 1e-12))), NORMAL_975 * se / inside
            low, high = float(np.tanh(z - width)), float(np.tanh(z + width))
        name = f"corr_{on[j]}_{on[i]}"
        rows.append(Estimate(name, "omega_corr", "correlation", "", value, se, _rse(value, se), low, high))
    return rows


def _rse(value: float, se: float | None) -> float | None:
    if se is None or value == 0:
        return None
    return 100.0 * se / abs(value)


def correlation_of(covariance: np.ndarray) -> np.ndarray:
    """Correlation matrix; unit diagonal and zero off-diagonal entries where a variance is zero.

    Parameters
    ----------
    covariance : ndarray, shape (r, r)

    Returns
    -------
    ndarray, shape (r, r)
    """
    sd = np.sqrt(np.diagonal(covariance))
    safe = np.where(sd > 0, sd, 1.0)
    correlation = np.clip(covariance / np.outer(safe, safe), -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    return correlation
