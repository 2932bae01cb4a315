"""Best Gaussian approximation of every subject's conditional law, by Newton steps on the evidence bound.

Symbols. phi = mu + L u, u ~ N(0, I_r); q(u) = N(m, C C') with C lower triangular. With nodes z_j of weight
w_j for expectations under N(0, I), u_j = m + C z_j and l(phi) = log p(y_i | phi) the bound is

    B = sum_j w_j l(mu + L u_j) - KL,   KL = (m'm + tr CC' - r) / 2 - log|C|  >= 0,   B <= log p(y_i)

up to the error of the rule. u_j is linear in (m, C), so that the Hessian of the expectation by (m, C) is a
sum of (1, z_j)(1, z_j)' x L'A_j L with A_j = -d2l/dphi2. For A_j stands the expected information J_j, shifted
alike at all nodes so that the mean over q is right: E[L'A L] = -E[L'dl/dphi z'] inv(C) (Stein's identity)
costs nothing. Everything else is in closed form; on a linear-Gaussian model q is the exact posterior and B
the exact log-likelihood, after one step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, qmc

from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.laplace_likelihood import ExpandableTarget
from amortnlme.methods.quadrature_nodes import SPARSE_FROM, QuadratureNodes, gauss_hermite

#: Product rules have at most so many nodes where nobody asks for more.
MOST_NODES = 125
MOST_PER_EFFECT = 5
#: Newton decrement, in nats^(1/2), at which a posterior counts as found.
TOLERANCE = 1e-6
#: ... and at which one that ran out of iterations still does.
SETTLED = 1e-4
MAX_ITERATIONS = 50
#: Squared decrement, in nats, up to which a prediction is followed.
NEAR = 1.0
#: Keeps a Hessian of unit diagonal regular.
JITTER = 1e-13
#: No step takes a diagonal entry of C below this share of itself: log C has its barrier at zero.
SHRINK = 0.2


def expectation_nodes(
    r: int, n_nodes: int | None, n_samples: int, rng: np.random.Generator
) -> QuadratureNodes:
    """Nodes for expectations under N(0, I_r), all of positive weight.

    Parameters
    ----------
    r : int
    n_nodes : int or None
        Gauss-Hermite nodes per random effect; None chooses up to five, as long as there are few in all.
    n_samples : int
        Quasi-Monte Carlo nodes from five random effects on, mirrored: an even number.
    rng : numpy.random.Generator
        Randomizes these.

    Returns
    -------
    QuadratureNodes
        Exact for quadratic functions in either case.
    """
    if r < SPARSE_FROM:
        if n_nodes is None:
            n_nodes = max(n for n in range(2, MOST_PER_EFFECT + 1) if n == 2 or n**r <= MOST_NODES)
        return gauss_hermite(r, n_nodes)
    half = norm.ppf(qmc.Sobol(r, rng=rng).random(n_samples // 2))
    z = np.concatenate([half, -half])
    z = np.linalg.solve(np.linalg.cholesky(z.T @ z / len(z)), z.T).T
    return QuadratureNodes(z, np.full(len(z), 1.0 / len(z)))


@dataclass(frozen=True, slots=True, eq=False)
class GaussianPosteriors:
    """Gaussian approximations of the conditional laws of u.

    Attributes
    ----------
    mean : ndarray, shape (n_subjects, r)
    root : ndarray, shape (n_subjects, r, r)
        C, lower triangular with a positive diagonal.
    bound : ndarray, shape (n_subjects,)   [nats]
        B; -inf where the model cannot be solved at a node.
    gradient : ndarray, shape (n_subjects, n_nodes, d)
        Of the log-likelihood at the nodes.
    information : ndarray, shape (n_subjects, n_nodes, d, d)
    converged : ndarray of bool, shape (n_subjects,)
    """

    mean: np.ndarray
    root: np.ndarray
    bound: np.ndarray
    gradient: np.ndarray
    information: np.ndarray
    converged: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """C C', shape (n_subjects, r, r)."""
        return self.root @ np.swapaxes(self.root, 1, 2)

    def at(self, nodes: QuadratureNodes) -> np.ndarray:
        """Place the nodes u_j.

        Parameters
        ----------
        nodes : QuadratureNodes

        Returns
        -------
        ndarray, shape (n_subjects, n_nodes, r)
        """
        return _spread(self.mean, self.root, nodes)


@dataclass(frozen=True, slots=True, eq=False)
class VariationalProblem:
    """The bound of every subject as a function of its (m, C), packed.

    Attributes
    ----------
    target : ExpandableTarget
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)
    nodes : QuadratureNodes
    is_diagonal : bool
        Mean field: C is diagonal.
    """

    target: ExpandableTarget
    mu: np.ndarray
    factor: np.ndarray
    nodes: QuadratureNodes
    is_diagonal: bool = False

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column in (m, C), shape (r, r + 1), of every free entry: m first.

        Returns
        -------
        rows, columns : ndarray of int, shape (n_free,)
        """
        r = self.factor.shape[1]
        rows, columns = np.diag_indices(r) if self.is_diagonal else np.tril_indices(r)
        return np.concatenate([np.arange(r), rows]), np.concatenate([np.zeros(r, dtype=int), columns + 1])

    def expand(self, mean: np.ndarray, root: np.ndarray, active: np.ndarray) -> GaussianPosteriors:
        """Evaluate the bound with the derivatives at the nodes.

        Parameters
        ----------
        mean : ndarray, shape (n_subjects, r)
        root : ndarray, shape (n_subjects, r, r)
        active : ndarray of bool, shape (n_subjects,)
            Nobody looks at the others.

        Returns
        -------
        GaussianPosteriors
        """
        u = _spread(mean, root, self.nodes)
        phi = self.mu[:, None] + u @ self.factor.T
        phi[~active] = np.nan
        value, gradient, information = self.target.expansions(phi)
        with np.errstate(invalid="ignore", divide="ignore"):
            fit = np.where(np.isfinite(value), value, -np.inf) @ self.nodes.weight
            bound = fit - _divergence(mean, root)
        lost = ~np.isfinite(bound)
        return GaussianPosteriors(
            mean, root, np.where(lost, -np.inf, bound), gradient, information, np.zeros(len(mean), dtype=bool)
        )

    def slope_and_curvature(self, at: GaussianPosteriors) -> tuple[np.ndarray, np.ndarray]:
        """Differentiate -B, with a positive definite stand-in for the Hessian.

        Parameters
        ----------
        at : GaussianPosteriors

        Returns
        -------
        slope : ndarray, shape (n_subjects, n_free)
        curvature : ndarray, shape (n_subjects, n_free, n_free)
        """
        rows, columns = self.places()
        n, r = at.mean.shape
        w, hat = self.nodes.weight, _with_one(self.nodes.z)
        push = np.swapaxes(at.gradient @ self.factor, 1, 2) @ (w[:, None] * hat)  # (n, r, r + 1)
        joined = np.concatenate([at.mean[:, :, None], at.root], axis=2)
        slope = (joined - push)[:, rows, columns]
        curved = self.factor.T @ at.information @ self.factor
        pairs = (w[:, None, None] * hat[:, :, None] * hat[:, None, :]).reshape(len(w), -1)
        blocks = (np.swapaxes(curved.reshape(n, len(w), r * r), 1, 2) @ pairs).reshape(n, r, r, r + 1, r + 1)
        hessian = blocks[:, rows[:, None], rows[None], columns[:, None], columns[None]]
        entry = np.arange(len(rows))
        hessian[:, entry, entry] += 1.0
        on_diagonal = np.flatnonzero(rows + 1 == columns)
        diagonal = at.root[:, rows[on_diagonal], rows[on_diagonal]]
        slope[:, on_diagonal] -= 1.0 / diagonal
        hessian[:, on_diagonal, on_diagonal] += 1.0 / diagonal**2
        same = columns[:, None] == columns[None]
        shift = self._mean_curvature(at, push) - blocks[:, :, :, 0, 0]
        shifted = hessian + shift[:, rows[:, None], rows[None]] * same
        usable = np.isfinite(shifted).all(axis=(1, 2)) & np.isfinite(hessian).all(axis=(1, 2))
        shifted[~usable] = np.eye(len(rows))
        positive = usable & (np.linalg.eigvalsh(shifted)[:, 0] > 0.1)
        hessian[positive] = shifted[positive]
        hessian[~usable] = np.eye(len(rows))
        return np.where(usable[:, None], slope, 0.0), hessian

    @staticmethod
    def _mean_curvature(at: GaussianPosteriors, push: np.ndarray) -> np.ndarray:
        """E[L'A L] under q by Stein's identity, shape (n, r, r)."""
        with np.errstate(all="ignore"):
            curvature = -np.swapaxes(
                np.linalg.solve(np.swapaxes(at.root, 1, 2), np.swapaxes(push[:, :, 1:], 1, 2)), 1, 2
            )
        return 0.5 * (curvature + np.swapaxes(curvature, 1, 2))

    def moved(self, at: GaussianPosteriors, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take a step, shortened where a diagonal entry would vanish.

        Parameters
        ----------
        at : GaussianPosteriors
        step : ndarray, shape (n_subjects, n_free)

        Returns
        -------
        mean : ndarray, shape (n_subjects, r)
        root : ndarray, shape (n_subjects, r, r)
        """
        rows, columns = self.places()
        r = at.mean.shape[1]
        on_diagonal = np.flatnonzero(rows + 1 == columns)
        share = -step[:, on_diagonal] / at.root[:, rows[on_diagonal], rows[on_diagonal]]
        length = np.minimum(1.0, (1.0 - SHRINK) / np.maximum(share.max(axis=1), 1e-300))
        whole = np.zeros((len(step), r, r + 1))
        whole[:, rows, columns] = length[:, None] * step
        return at.mean + whole[:, :, 0], at.root + whole[:, :, 1:]


def find_posteriors(
    problem: VariationalProblem, start: tuple[np.ndarray, np.ndarray] | None = None
) -> GaussianPosteriors:
    """Maximize every subject's bound by damped Newton steps.

    Parameters
    ----------
    problem : VariationalProblem
    start : tuple of ndarray, optional
        Mean (n_subjects, r) and root (n_subjects, r, r) near the solution; the conditional mode and its
        curvature where not given, or where the model fails.

    Returns
    -------
    GaussianPosteriors
        Every subject has its own damping; one that did not converge is marked and never raises.
    """
    n = len(problem.mu)
    everyone = np.ones(n, dtype=bool)
    now = _copy(problem.expand(*(start or _at_modes(problem)), everyone))
    if start is not None and not _is_near(problem, now):
        other = problem.expand(*_at_modes(problem), everyone)
        _take(now, other, other.bound > now.bound)
    now = _inside_support(problem, now)
    damping, done = np.zeros(n), ~np.isfinite(now.bound)
    decrement = np.full(n, np.inf)
    for _ in range(MAX_ITERATIONS):
        slope, hessian = problem.slope_and_curvature(now)
        step = -_solved(hessian, slope, damping)
        decrement = np.sqrt(np.maximum(-(step * slope).sum(axis=1), 0.0))
        done |= (decrement < TOLERANCE) & (damping < 1.0)
        if done.all():
            break
        mean, root = problem.moved(now, step)
        trial = problem.expand(mean, root, ~done)
        better = (trial.bound >= now.bound - 1e-12 * np.abs(now.bound)) & ~done
        _take(now, trial, better)
        damping = np.where(better, np.where(damping < 1e-3, 0.0, 0.2 * damping), 6.0 * damping + 1e-2)
        done |= ~better & (damping > 1e12)
    now.converged[:] = np.isfinite(now.bound) & (decrement < SETTLED)
    return now


def predicted_start(
    last: GaussianPosteriors, before: VariationalProblem, after: VariationalProblem
) -> tuple[np.ndarray, np.ndarray]:
    """Posteriors at a nearby population, to first order in the change (the implicit-function theorem).

    Parameters
    ----------
    last : GaussianPosteriors
        Solution of `before`.
    before, after : VariationalProblem

    Returns
    -------
    mean, root : ndarray, shape (n_subjects, r) and (n_subjects, r, r)
    """
    rows, columns = before.places()
    turned, u = after.factor - before.factor, last.at(before.nodes)
    moved = (after.mu - before.mu)[:, None] + u @ turned.T
    force = last.gradient @ turned - (last.information @ moved[..., None])[..., 0] @ before.factor
    push = np.swapaxes(force, 1, 2) @ (before.nodes.weight[:, None] * _with_one(before.nodes.z))
    _, hessian = before.slope_and_curvature(last)
    step = _solved(hessian, push[:, rows, columns], np.zeros(len(push)))
    # A first-order step of more than a prior SD means nothing.
    step *= np.minimum(1.0, 1.0 / np.maximum(np.abs(step).max(axis=1), 1e-300))[:, None]
    return before.moved(last, step)


def _solved(hessian: np.ndarray, right: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Solve at unit diagonal: far from the solution the information can drown the identity of the prior."""
    scale = np.diagonal(hessian, axis1=1, axis2=2) ** -0.5
    scaled = hessian * scale[:, :, None] * scale[:, None, :]
    entry = np.arange(right.shape[1])
    scaled[:, entry, entry] += damping[:, None] + JITTER
    return scale * np.linalg.solve(scaled, (scale * right)[..., None])[..., 0]


def _at_modes(problem: VariationalProblem) -> tuple[np.ndarray, np.ndarray]:
    modes = find_ebe(problem.target, problem.mu, problem.factor, tolerance=1e-3)
    if problem.is_diagonal:
        precision = np.diagonal(modes.precision, axis1=1, axis2=2)
        return modes.u, precision[:, :, None] ** -0.5 * np.eye(precision.shape[1])
    return modes.u, np.linalg.cholesky(np.linalg.inv(modes.precision))


def _inside_support(problem: VariationalProblem, now: GaussianPosteriors) -> GaussianPosteriors:
    """Draw the nodes together where the model fails at the outer ones."""
    for _ in range(10):
        lost = ~np.isfinite(now.bound)
        if not lost.any():
            break
        root = np.where(lost[:, None, None], 0.5 * now.root, now.root)
        _take(now, problem.expand(now.mean, root, lost), lost)
    return now


def _is_near(problem: VariationalProblem, at: GaussianPosteriors) -> bool:
    """Whether a prediction is one for all subjects: a population far away can lead to another optimum."""
    slope, hessian = problem.slope_and_curvature(at)
    decrement = (_solved(hessian, slope, np.zeros(len(slope))) * slope).sum(axis=1)
    return bool(np.isfinite(at.bound).all() and (decrement < NEAR).all())


def _take(now: GaussianPosteriors, other: GaussianPosteriors, which: np.ndarray) -> None:
    for name in ("mean", "root", "bound", "gradient", "information"):
        getattr(now, name)[which] = getattr(other, name)[which]


def _copy(at: GaussianPosteriors) -> GaussianPosteriors:
    return GaussianPosteriors(*(np.array(getattr(at, name)) for name in GaussianPosteriors.__slots__))


def _with_one(z: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(z), 1)), z], axis=1)


def _spread(mean: np.ndarray, root: np.ndarray, nodes: QuadratureNodes) -> np.ndarray:
    return mean[:, None] + nodes.z @ np.swapaxes(root, 1, 2)


def _divergence(mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    """KL(q || N(0, I)), shape (n,)."""
    log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    return 0.5 * ((mean**2).sum(axis=1) + (root**2).sum(axis=(1, 2)) - mean.shape[1]) - log_det
