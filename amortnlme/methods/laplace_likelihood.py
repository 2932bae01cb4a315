"""Laplace-type approximations of the population likelihood, with the total gradient through the modes.

Symbols. phi = mu + L u, u ~ N(0, I_r); l(phi) = log p(y_i | phi), g its gradient, A = -d2l/dphi2 its observed
and J its expected information. At the conditional mode u^ (the minimum of h(u) = -l(phi) + u'u / 2)

    -2 log L_i ~ 2 h(u^) + log|G|,   G = I + L'J L  (FOCEI)   or   G = I + L'A L  (Laplace).

With J the sum of dh dh' / s^2 + 2 ds ds' / s^2 over the observations the first form is NONMEM's FOCE with
INTERACTION (Almquist et al. 2015, equation 17; Wang 2007); the second is its LAPLACE.

The gradient is total: the mode moves with mu and L by the implicit-function theorem,
du^ = H^-1 (dL'g - L'A (dmu + dL u^)), H = I + L'A L. With v = d log|G| / dphi at fixed L and w = H^-1 L'v

    d/dmu = -2 g + v - A L w,   d/dL = (d/dmu) u^' + g w' + 2 M L G^-1,   M = J or A,

whose part -2 g is that of 2 h alone (the envelope theorem). v and A are differences of exact derivatives of
one subject's likelihood; the population objective itself is never differenced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from amortnlme.methods.ebe import EmpiricalBayes, IndividualTarget, find_ebe
from amortnlme.population.bound_population import BoundPopulation

CURVATURES = ("expected", "observed")
#: Half width of the differences of individual derivatives, on the phi scale. Third derivatives taken with it
#: are right to about 1e-6 of their own size; gradients must be smooth to about 1e-9 for it.
PROBE_STEP = 1e-3
#: The determinant feels an error of the mode in first order, unlike the joint density.
MODE_TOLERANCE = 1e-9
#: Newton steps before the damped search takes over.
MAX_NEWTON = 8
#: Furthest a predicted mode may lie from the last one, in prior SDs: a first-order step means nothing there.
MAX_PREDICTED = 1.0


class ExpandableTarget(IndividualTarget, Protocol):
    """A likelihood of individuals that is expanded at many points at once (`BoundModel` provides it)."""

    def expansions(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-likelihood, gradient and expected information at phi of shape (n_subjects, n_points, d)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LocalShape:
    """Derivatives of every subject's log-likelihood at one point, as the Laplace family needs them.

    Attributes
    ----------
    log_likelihood : ndarray, shape (n_subjects,)   [nats]
    gradient : ndarray, shape (n_subjects, d)
    observed : ndarray, shape (n_subjects, d, d)
        -d2l/dphi2.
    around : ndarray, shape (n_subjects, 2 d + 1, d, d)
        Expected information at the point itself, then one step ahead and one behind in every direction.
    """

    log_likelihood: np.ndarray
    gradient: np.ndarray
    observed: np.ndarray
    around: np.ndarray


def local_shape(target: ExpandableTarget, phi: np.ndarray) -> LocalShape:
    """Probe every subject's log-likelihood around phi.

    Parameters
    ----------
    target : ExpandableTarget
    phi : ndarray, shape (n_subjects, d)

    Returns
    -------
    LocalShape
    """
    d = phi.shape[1]
    shifts = PROBE_STEP * np.concatenate([np.zeros((1, d)), np.eye(d), -np.eye(d)])
    ll, gradient, information = target.expansions(phi[:, None] + shifts)
    observed = _symmetric((gradient[:, d + 1 :] - gradient[:, 1 : d + 1]) / (2.0 * PROBE_STEP))
    return LocalShape(ll[:, 0], gradient[:, 0], observed, information)


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """Conditional modes with the shape of the likelihood there."""

    modes: EmpiricalBayes
    shape: LocalShape


def settle(target: ExpandableTarget, mu: np.ndarray, factor: np.ndarray, start: np.ndarray | None) -> Settled:
    """Find conditional modes to full precision: Newton steps from a good start, else the damped search first.

    Parameters
    ----------
    target : ExpandableTarget
    mu : ndarray, shape (n_subjects, d)
    factor : ndarray, shape (d, r)
    start : ndarray or None, shape (n_subjects, r)
        Modes at a nearby point.

    Returns
    -------
    Settled
    """
    if start is not None:
        settled = _newton(target, mu, factor, start)
        if settled is not None:
            return settled
    coarse = find_ebe(target, mu, factor, start=start, tolerance=1e-3)
    settled = _newton(target, mu, factor, coarse.u)
    if settled is not None:
        return settled
    fine = find_ebe(target, mu, factor, start=coarse.u, tolerance=MODE_TOLERANCE)
    return Settled(fine, local_shape(target, fine.phi))


def _newton(target: ExpandableTarget, mu: np.ndarray, factor: np.ndarray, u: np.ndarray) -> Settled | None:
    """Newton's method on all subjects at once; None as soon as one of them does not converge quickly."""
    eye, previous = np.eye(factor.shape[1]), np.inf
    for _ in range(MAX_NEWTON):
        phi = mu + u @ factor.T
        shape = local_shape(target, phi)
        if not np.isfinite(shape.log_likelihood).all():
            return None
        gradient = shape.gradient @ factor - u
        hessian = eye + factor.T @ shape.observed @ factor
        expected = eye + factor.T @ shape.around[:, 0] @ factor
        if (np.linalg.eigvalsh(hessian)[:, 0] <= 0.0).any():
            return None
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        length = float(np.sqrt((step * gradient).sum(axis=1).max()))
        if length < MODE_TOLERANCE:
            joint = shape.log_likelihood - 0.5 * (u**2).sum(axis=1)
            modes = EmpiricalBayes(u, phi, expected, joint, np.ones(len(u), dtype=bool))
            return Settled(modes, shape)
        if length > min(1.0, 0.5 * previous):
            return None
        previous, u = length, u + step
    return None


def _observed_around(target: ExpandableTarget, phi: np.ndarray, shape: LocalShape) -> np.ndarray:
    """-d2l/dphi2 at phi, then one step ahead and one behind in every direction: as `LocalShape.around`.

    At phi itself, where it enters the likelihood, of fourth order in the step (Richardson): with residual SDs
    of 1 % a step is a tenth of an SD, and the curvature of a censored record changes visibly along it.
    """
    n, d = phi.shape
    arms = PROBE_STEP * np.concatenate([np.eye(d), -np.eye(d)])
    points = (phi[:, None, None] + arms[:, None] + arms[None]).reshape(n, 4 * d * d, d)
    gradient = target.log_likelihood_and_gradient(points)[1].reshape(n, 2 * d, 2 * d, d)
    moved = _symmetric((gradient[:, :, d:] - gradient[:, :, :d]) / (2.0 * PROBE_STEP))
    ahead, behind = np.arange(d), np.arange(d, 2 * d)
    wide = _symmetric((gradient[:, behind, behind] - gradient[:, ahead, ahead]) / (4.0 * PROBE_STEP))
    center = (4.0 * shape.observed - wide) / 3.0
    return np.concatenate([center[:, None], moved], axis=1)


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return 0.5 * (matrix + np.swapaxes(matrix, -1, -2))


@dataclass(frozen=True, slots=True, eq=False)
class Determinant:
    """log|I + L'M L| of every subject, with its derivative by phi at fixed L.

    Attributes
    ----------
    curvature : ndarray, shape (n_subjects, d, d)
        M.
    log_det : ndarray, shape (n_subjects,)
        NaN where the matrix is not positive definite.
    slope : ndarray, shape (n_subjects, d)
    """

    curvature: np.ndarray
    log_det: np.ndarray
    slope: np.ndarray


def determinant(around: np.ndarray, factor: np.ndarray) -> Determinant:
    """Evaluate the determinant term from curvatures at the probes.

    Parameters
    ----------
    around : ndarray, shape (n_subjects, 2 d + 1, d, d)
    factor : ndarray, shape (d, r)

    Returns
    -------
    Determinant
    """
    d = factor.shape[0]
    with np.errstate(invalid="ignore"):
        sign, value = np.linalg.slogdet(np.eye(factor.shape[1]) + factor.T @ around @ factor)
    value = np.where(sign > 0, value, np.nan)
    slope = (value[:, 1 : d + 1] - value[:, d + 1 :]) / (2.0 * PROBE_STEP)
    return Determinant(around[:, 0], value[:, 0], slope)


@dataclass(frozen=True, slots=True, eq=False)
class _Memory:
    """Modes with the population at which they were found."""

    mu: np.ndarray
    factor: np.ndarray
    settled: Settled


def _predicted(last: _Memory, mu: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Modes at a nearby population, to first order in the change (the implicit-function theorem)."""
    u, shape = last.settled.modes.u, last.settled.shape
    turned = factor - last.factor
    hessian = np.eye(factor.shape[1]) + last.factor.T @ shape.observed @ last.factor
    if (np.linalg.eigvalsh(hessian)[:, 0] <= 0.0).any():
        return u
    moved = mu - last.mu + u @ turned.T
    push = shape.gradient @ turned - (shape.observed @ moved[..., None])[..., 0] @ last.factor
    step = np.linalg.solve(hessian, push[..., None])[..., 0]
    return u + np.clip(step, -MAX_PREDICTED, MAX_PREDICTED)


@dataclass(frozen=True, slots=True, eq=False)
class LaplaceLikelihood:
    """Approximate population log-likelihood by an expansion around every subject's mode.

    Attributes
    ----------
    target : ExpandableTarget
    population : BoundPopulation
    curvature : {"expected", "observed"}
        "expected": FOCEI; "observed": Laplace.
    """

    target: ExpandableTarget
    population: BoundPopulation
    curvature: str = "expected"
    # The last modes, from which the next ones are predicted.
    _memory: dict[str, _Memory] = field(default_factory=dict, repr=False)

    def modes(self, x: np.ndarray) -> EmpiricalBayes:
        """Conditional modes of every subject, searched from the last ones.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        EmpiricalBayes
        """
        return self._settle(x).modes

    def _settle(self, x: np.ndarray) -> Settled:
        mu, factor = self.population.unpack(x)
        last = self._memory.get("last")
        start = None if last is None else _predicted(last, mu, factor)
        settled = settle(self.target, mu, factor, start)
        if np.isfinite(settled.modes.log_joint).all():
            self._memory["last"] = _Memory(mu, factor, settled)
        return settled

    def value_and_scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood of every subject and its total gradient.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        value : ndarray, shape (n_subjects,)   [nats]
            -inf for a subject whose model cannot be solved, or whose curvature is not positive definite.
        scores : ndarray, shape (n_subjects, n_x)
        """
        _, factor = self.population.unpack(x)
        settled = self._settle(x)
        shape = settled.shape
        around = shape.around
        if self.curvature == "observed":
            around = _observed_around(self.target, settled.modes.phi, shape)
        term = determinant(around, factor)
        value = settled.modes.log_joint - 0.5 * term.log_det
        lost = ~np.isfinite(value)
        dmu, dfactor, _ = total_gradient(shape, term, factor, settled.modes.u)
        scores = -0.5 * self.population.pullback(dmu, dfactor, x)
        return np.where(lost, -np.inf, value), np.where(lost[:, None], 0.0, scores)


def total_gradient(
    shape: LocalShape, term: Determinant, factor: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differentiate -2 log L_i by mu_i and L, the motion of the mode included.

    Parameters
    ----------
    shape : LocalShape
        At the modes.
    term : Determinant
    factor : ndarray, shape (d, r)
    u : ndarray, shape (n_subjects, r)
        The modes.

    Returns
    -------
    dmu : ndarray, shape (n_subjects, d)
    dfactor : ndarray, shape (n_subjects, d, r)
    response : ndarray, shape (n_subjects, r)
        w = H^-1 L'v: how the determinant answers to a push on the gradient of the individual objective.
    """
    gradient, slope = np.nan_to_num(shape.gradient), np.nan_to_num(term.slope)
    observed, curvature = np.nan_to_num(shape.observed), np.nan_to_num(term.curvature)
    eye = np.eye(factor.shape[1])
    hessian = eye + factor.T @ observed @ factor
    response = np.linalg.solve(hessian, (slope @ factor)[..., None])[..., 0]
    dmu = -2.0 * gradient + slope - (observed @ (response @ factor.T)[..., None])[..., 0]
    inverse = np.linalg.inv(eye + factor.T @ curvature @ factor)
    dfactor = (
        dmu[:, :, None] * u[:, None, :]
        + gradient[:, :, None] * response[:, None, :]
        + 2.0 * curvature @ factor @ inverse
    )
    return dmu, dfactor, response
