"""Observed information by Louis' method.

Symbols. The complete data of subject i are (y_i, phi_i), with

    l_c = log p(y_i | phi_i) + log N(phi_iR; mu_iR, omega),   omega = L_R L_R',

R the components of phi with random effects; the others, P, are functions of x alone. Louis (1982):

    I(x) = sum_i E[-d2 l_c | y_i] - Cov[d l_c | y_i].

With e = phi_R - mu_R, a = omega^-1 e and the derivatives D_k of omega, the normal part has first derivatives
dmu_k'a + (a'D_k a - tr(omega^-1 D_k)) / 2, and its second ones need E[a] and E[aa'] alone. Derivatives of
log p(y | phi) by phi_P are the exact gradient, and differences of it.

Given y, phi is drawn by importance sampling around the conditional modes, not by the chains of SAEM:
randomized quasi-Monte-Carlo nodes with exact weights need no burn-in, have far smaller errors than as many
correlated draws, and independent batches of them give an honest Monte-Carlo error of the standard errors.
Complete data (y, u) would allow a singular omega, but for informative data nearly all of their information is
missing, and the difference above would be noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.ebe import EmpiricalBayes, IndividualTarget
from amortnlme.methods.importance import normalized_weights
from amortnlme.methods.information import invert_information
from amortnlme.methods.packed_map import PackedMap, packed_map
from amortnlme.methods.proposals import base_numbers
from amortnlme.methods.referee import fitted_proposal
from amortnlme.population.bound_population import BoundPopulation

N_BATCHES = 8
#: Half width of the differences of the gradient by parameters without random effects, on the phi scale.
PROBE_STEP = 1e-3
#: Monte-Carlo error of a standard error, as a share of it, above which the fit warns.
NOISE_LIMIT = 0.1
#: Smallest eigenvalue of the correlation matrix of the random effects with which the method works.
SINGULAR = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class LouisInformation:
    """Observed information with its Monte-Carlo error.

    Attributes
    ----------
    total : ndarray, shape (n_x, n_x)
        From all nodes.
    batches : ndarray, shape (N_BATCHES, n_x, n_x)
        From each batch of nodes alone.
    """

    total: np.ndarray
    batches: np.ndarray

    def error_of_se(self, covariance: np.ndarray) -> np.ndarray:
        """Monte-Carlo error of every standard error, by the delta method over batches, bias included.

        Parameters
        ----------
        covariance : ndarray, shape (n_x, n_x)
            Inverse of `total`.

        Returns
        -------
        ndarray, shape (n_x,)

        d C = -C dI C,   d se = d C_kk / (2 se);   the bias falls as one over the number of nodes
        """
        moved = np.einsum("ka,bac,ck->bk", covariance, self.total - self.batches, covariance)
        moved /= 2.0 * np.sqrt(np.diagonal(covariance))
        n = len(self.batches)
        return np.sqrt(moved.var(axis=0, ddof=1) / n + (moved.mean(axis=0) / (n - 1)) ** 2)


def louis_covariance(
    target: IndividualTarget,
    population: BoundPopulation,
    x: np.ndarray,
    modes: EmpiricalBayes,
    rng: np.random.Generator,
    n_points: int,
) -> tuple[np.ndarray | None, list[str]]:
    """Covariance of the estimates by Louis' method, or why there is none.

    Parameters
    ----------
    target : IndividualTarget
    population : BoundPopulation
    x : ndarray, shape (n_x,)
        Estimates, at which omega must not be singular.
    modes : EmpiricalBayes
        Conditional modes at x.
    rng : numpy.random.Generator
    n_points : int
        Importance nodes per subject and batch.

    Returns
    -------
    covariance : ndarray, shape (n_x, n_x), or None
    warnings : list of str
        Also where the Monte-Carlo error of a standard error exceeds a tenth of it.
    """
    rows, factor = packed_map(population).random_rows, population.unpack(x)[1]
    omega = factor[rows] @ factor[rows].T
    sd = np.sqrt(np.diagonal(omega))
    if (sd == 0.0).any() or np.linalg.eigvalsh(omega / np.outer(sd, sd))[0] < SINGULAR:
        return None, [
            "[W_FIT_LOUIS] omega is singular, for which Louis' method has no complete-data likelihood: no "
            "standard errors are given. Simplify the random effects, or choose other standard errors."
        ]
    information = louis_information(target, population, x, modes, rng, n_points)
    covariance = invert_information(information.total)
    if covariance is None:
        return None, [
            "[W_FIT_LOUIS] the information by Louis' method is not positive definite: no standard errors are "
            "given. Raise n_points, or choose other standard errors."
        ]
    share = information.error_of_se(covariance) / np.sqrt(np.diagonal(covariance))
    worst = int(np.argmax(share))
    if share[worst] <= NOISE_LIMIT:
        return covariance, []
    return covariance, [
        f"[W_FIT_LOUIS] the Monte-Carlo error of the standard error of {population.names[worst]} is "
        f"{100 * share[worst]:.0f} % of it (up to {100 * NOISE_LIMIT:.0f} % is harmless). Raise n_points."
    ]


def louis_information(
    target: IndividualTarget,
    population: BoundPopulation,
    x: np.ndarray,
    modes: EmpiricalBayes,
    rng: np.random.Generator,
    n_points: int,
) -> LouisInformation:
    """Observed information by Louis' method; see `louis_covariance`.

    Parameters
    ----------
    target : IndividualTarget
    population : BoundPopulation
    x : ndarray, shape (n_x,)
    modes : EmpiricalBayes
    rng : numpy.random.Generator
    n_points : int

    Returns
    -------
    LouisInformation
    """
    jacobian = packed_map(population)
    mu, factor = population.unpack(x)
    n, r = modes.u.shape
    proposal = fitted_proposal(target, mu, factor, modes, rng, n_points)
    batches = [proposal.nodes(base_numbers(n, n_points, r, rng)) for _ in range(N_BATCHES)]
    pooled = np.setdiff1d(np.arange(population.d), jacobian.random_rows)
    parts = [_derivatives(target, mu[:, None] + b.u @ factor.T, pooled) for b in batches]
    log_likelihood, gradient, hessian = (np.concatenate(p, axis=1) for p in zip(*parts, strict=True))
    log_weight = log_likelihood + np.concatenate([b.log_weight for b in batches], axis=1)
    law = _NormalLaw.at(jacobian, factor)
    total = np.zeros((1 + N_BATCHES, population.n_x, population.n_x))
    moment = np.zeros((1 + N_BATCHES, len(law.rows), len(law.rows)))
    for i in range(n):
        weights = _batch_weights(log_weight[i])
        mu_slope, pooled_slope = jacobian.mu[i][law.rows], jacobian.mu[i][pooled]
        a = np.concatenate([b.u[i] for b in batches]) @ law.whitened.T
        scores = law.scores(a, mu_slope) + gradient[i] @ pooled_slope
        centered = scores - (weights @ scores)[:, None]
        total -= np.swapaxes(centered, 1, 2) @ (weights[..., None] * centered)
        total -= pooled_slope.T @ np.tensordot(weights, hessian[i], axes=1) @ pooled_slope
        total += law.mean_information(weights @ a, mu_slope)
        moment += np.swapaxes(a[None] * weights[..., None], 1, 2) @ a
    total += law.factor_information(moment, n)
    return LouisInformation(total[0], total[1:])


def _batch_weights(log_weight: np.ndarray) -> np.ndarray:
    """Weights of the nodes of one subject: all of them in the first row, then those of each batch alone."""
    weights = np.zeros((1 + N_BATCHES, len(log_weight)))
    weights[0] = normalized_weights(log_weight)
    for b, part in enumerate(np.array_split(np.arange(len(log_weight)), N_BATCHES)):
        weights[b + 1, part] = normalized_weights(log_weight[part])
    return weights


@dataclass(frozen=True, slots=True, eq=False)
class _NormalLaw:
    """N(phi_R; mu_R, omega) with the derivatives of omega by x."""

    rows: np.ndarray  # R
    factor: np.ndarray  # L_R, (R, r)
    slope: np.ndarray  # dL_R, (n_x, R, r)
    precision: np.ndarray  # omega^-1
    whitened: np.ndarray  # omega^-1 L_R, (R, r): a = omega^-1 L_R u
    by_omega: np.ndarray  # D_k, (n_x, R, R)

    @classmethod
    def at(cls, jacobian: PackedMap, factor: np.ndarray) -> _NormalLaw:
        rows = jacobian.random_rows
        part, slope = factor[rows], jacobian.factor[:, rows]
        half = slope @ part.T
        precision = np.linalg.inv(part @ part.T)
        return cls(rows, part, slope, precision, precision @ part, half + np.swapaxes(half, 1, 2))

    def scores(self, a: np.ndarray, mu_slope: np.ndarray) -> np.ndarray:
        """First derivatives at every node, shape (n_nodes, n_x)."""
        quadratic = np.einsum("na,kar,nr->nk", a, self.slope, a @ self.factor, optimize=True)
        trace = np.einsum("ab,kba->k", self.precision, self.by_omega)
        return a @ mu_slope + quadratic - 0.5 * trace

    def mean_information(self, first: np.ndarray, mu_slope: np.ndarray) -> np.ndarray:
        """Negative second derivatives in which mu takes part, given E[a] of shape (n_rows, R)."""
        bent = np.einsum("ab,kbc,sc->sak", self.precision, self.by_omega, first, optimize=True)
        mixed = mu_slope.T @ bent
        return mu_slope.T @ self.precision @ mu_slope + mixed + np.swapaxes(mixed, 1, 2)

    def factor_information(self, second: np.ndarray, n: int) -> np.ndarray:
        """Negative second derivatives by the factor alone, given the sum of E[aa'] over n subjects."""
        P, D = self.precision, self.by_omega
        twice = np.einsum("kar,lbr->klab", self.slope, self.slope, optimize=True)
        twice = twice + np.swapaxes(twice, 2, 3)
        curved = np.einsum("kab,lba->kl", P @ D, P @ D)
        bent = 0.5 * np.einsum("klab,sab->skl", twice, n * P - second, optimize=True)
        turned = np.einsum("kab,lbc,sca->skl", D @ P, D, second, optimize=True)
        return bent + turned - 0.5 * n * curved


def _derivatives(
    target: IndividualTarget, phi: np.ndarray, pooled: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihood (n, m), gradient (n, m, P) and Hessian (n, m, P, P) by the components `pooled`.

    A node with a neighbor at which the model fails counts as failed: its derivatives mean nothing.
    """
    log_likelihood, gradient = target.log_likelihood_and_gradient(phi)
    log_likelihood = np.where(np.isfinite(log_likelihood), log_likelihood, -np.inf)
    hessian = np.empty((*phi.shape[:2], len(pooled), len(pooled)))
    for k, p in enumerate(pooled):
        ends = []
        for sign in (1.0, -1.0):
            moved = phi.copy()
            moved[..., p] += sign * PROBE_STEP
            value, slope = target.log_likelihood_and_gradient(moved)
            log_likelihood = np.where(np.isfinite(value), log_likelihood, -np.inf)
            ends.append(slope[..., pooled])
        hessian[..., k] = (ends[0] - ends[1]) / (2.0 * PROBE_STEP)
    usable = np.isfinite(log_likelihood)
    hessian = np.where(usable[..., None, None], 0.5 * (hessian + np.swapaxes(hessian, -1, -2)), 0.0)
    return log_likelihood, np.where(usable[..., None], gradient[..., pooled], 0.0), hessian
