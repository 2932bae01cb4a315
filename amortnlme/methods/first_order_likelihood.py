"""FO and FOCE: population likelihoods of models linearized in the random effects.

Symbols. e residuals, F = df/dphi (log f for log-normal errors), s residual SDs, phi = mu + L u.

FO (Beal & Sheiner 1982; NONMEM METHOD=0): everything at u = 0, y_i ~ N(f(mu), V), V = F L L'F' + diag(s^2).

FOCE without interaction (Lindstrom & Bates 1990; NONMEM METHOD=1): the mode u^ minimizes
h(u) = sum (e^2 / s0^2 + 2 log s0) / 2 + u'u / 2 with s0 = s(mu) that of the *typical* subject, and
-2 log L_i ~ 2 h(u^) + log|I + L'F'diag(s0^-2) F L|, F at the mode. A censored record has the log
probability of its interval under N(f, s0^2) in place of the log density, and its curvature by f in place of
s0^-2 (method M3; `frozen_error.py`). FOCE with interaction is in `laplace_likelihood.py`.

Gradients are total; derivatives of F are differences of exact sensitivities.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from amortnlme.methods.ebe import EmpiricalBayes, find_ebe
from amortnlme.methods.frozen_error import FrozenErrorTarget, freeze_error
from amortnlme.methods.laplace_likelihood import (
    PROBE_STEP,
    Settled,
    determinant,
    settle,
    total_gradient,
)
from amortnlme.model.bound import BoundModel
from amortnlme.model.residuals import ResidualTerms, residual_terms
from amortnlme.population.bound_population import BoundPopulation

LOG_2PI = float(np.log(2.0 * np.pi))


def _probes(d: int) -> np.ndarray:
    return PROBE_STEP * np.concatenate([np.zeros((1, d)), np.eye(d), -np.eye(d)])


@dataclass(frozen=True, slots=True, eq=False)
class FirstOrderLikelihood:
    """Likelihood of the model linearized at the typical subject.

    Attributes
    ----------
    target : BoundModel
    population : BoundPopulation
    """

    target: BoundModel
    population: BoundPopulation

    def modes(self, x: np.ndarray) -> EmpiricalBayes:
        """Conditional modes under the full model (FO itself has none), as NONMEM's POSTHOC.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        EmpiricalBayes
        """
        return find_ebe(self.target, *self.population.unpack(x))

    def value_and_scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood of every subject and its gradient; see `LaplaceLikelihood.value_and_scores`.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        value : ndarray, shape (n_subjects,)   [nats]
        scores : ndarray, shape (n_subjects, n_x)
        """
        mu, factor = self.population.unpack(x)
        d = mu.shape[1]
        around = residual_terms(self.target, mu[:, None] + _probes(d))
        e, F, s = around.residual[:, 0], around.slope[:, 0], around.sd[:, 0]
        dF = (around.slope[:, 1 : d + 1] - around.slope[:, d + 1 :]) / (2.0 * PROBE_STEP)
        spread = F @ factor
        V = spread @ np.swapaxes(spread, 1, 2)
        diagonal = np.arange(V.shape[1])
        V[:, diagonal, diagonal] += s**2
        lost = ~np.isfinite(V).all(axis=(1, 2)) | ~np.isfinite(e).all(axis=1) | (around.status[:, 0] != 0)
        V[lost] = np.eye(V.shape[1])
        e, F, spread = (np.where(lost.reshape(-1, *[1] * (a.ndim - 1)), 0.0, a) for a in (e, F, spread))
        P = np.linalg.inv(V)
        a = (P @ e[..., None])[..., 0]
        value = -0.5 * (
            around.n_quantified * LOG_2PI
            + np.linalg.slogdet(V)[1]
            + (e * a).sum(axis=1)
            + 2.0 * around.log_jacobian
        )
        W = P - a[:, :, None] * a[:, None, :]
        dfactor = 2.0 * np.swapaxes(F, 1, 2) @ W @ spread
        by_slope = 2.0 * W @ spread @ factor.T  # d(-2 log L)/dF, (S, m, d)
        dmu = (np.nan_to_num(dF) * by_slope[:, None]).sum(axis=(2, 3)) - 2.0 * (a[..., None] * F).sum(axis=1)
        by_sd = 2.0 * s * np.diagonal(W, axis1=1, axis2=2)
        dmu += (by_sd[..., None] * around.sd_slope[:, 0]).sum(axis=1)
        scores = -0.5 * self.population.pullback(dmu, dfactor, x)
        return np.where(lost, -np.inf, value), np.where(lost[:, None], 0.0, scores)


@dataclass(frozen=True, slots=True, eq=False)
class ConditionalFirstOrderLikelihood:
    """FOCE without interaction.

    Attributes
    ----------
    target : BoundModel
    population : BoundPopulation
    """

    target: BoundModel
    population: BoundPopulation
    _memory: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def modes(self, x: np.ndarray) -> EmpiricalBayes:
        """Conditional modes with the residual SDs of the typical subject.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        EmpiricalBayes
        """
        mu = self.population.unpack(x)[0]
        return self._settle(x, freeze_error(self.target, _typical(self.target, mu).sd[:, 0])).modes

    def _settle(self, x: np.ndarray, frozen: FrozenErrorTarget) -> Settled:
        settled = settle(frozen, *self.population.unpack(x), self._memory.get("u"))
        if np.isfinite(settled.modes.log_joint).all():
            self._memory["u"] = settled.modes.u
        return settled

    def value_and_scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood of every subject and its total gradient; see `LaplaceLikelihood`.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        value : ndarray, shape (n_subjects,)   [nats]
        scores : ndarray, shape (n_subjects, n_x)
        """
        mu, factor = self.population.unpack(x)
        typical = _typical(self.target, mu)
        sd, sd_slope = typical.sd[:, 0], typical.sd_slope[:, 0]
        frozen = freeze_error(self.target, sd)
        settled = self._settle(x, frozen)
        found, shape = settled.modes, settled.shape
        term = determinant(shape.around, factor)
        value = found.log_joint - 0.5 * term.log_det
        lost = ~np.isfinite(value) | (typical.status[:, 0] != 0) | ~np.isfinite(sd).all(axis=1)
        dmu, dfactor, response = total_gradient(shape, term, factor, found.u)
        # The typical SDs move with mu too: directly, through the determinant, and through the mode.
        at_mode = residual_terms(self.target, found.phi[:, None])
        F = at_mode.slope[:, 0]
        inverse = np.linalg.inv(np.eye(factor.shape[1]) + factor.T @ term.curvature @ factor)
        with np.errstate(all="ignore"):
            spread = F @ factor
            leverage = ((spread @ inverse) * spread).sum(axis=2)
            shift = (spread * response[:, None]).sum(axis=2)
            motion = frozen.motion(at_mode.residual)
            by_sd = -2.0 * motion.ds + leverage * motion.dcurvature_ds + shift * motion.dh_ds
            # A record that was not observed has an SD of 1 that never moves.
            dmu = dmu + np.nan_to_num(by_sd[..., None] * sd_slope).sum(axis=1)
        scores = -0.5 * self.population.pullback(dmu, dfactor, x)
        return np.where(lost, -np.inf, value), np.where(lost[:, None], 0.0, scores)


def _typical(bound: BoundModel, mu: np.ndarray) -> ResidualTerms:
    return residual_terms(bound, mu[:, None])
