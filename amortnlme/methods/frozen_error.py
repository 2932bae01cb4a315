"""Individual likelihoods whose residual SDs are given, not those of the prediction: no interaction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.model.bound import BoundModel
from amortnlme.model.censoring import CensoredNormal, censored_normal
from amortnlme.model.residuals import CensoredRecords, censored_records, residual_terms

LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True, slots=True, eq=False)
class MovingSd:
    """How the individual likelihood of every record answers to its SD s; h is the mean on the error scale.

    Attributes
    ----------
    ds : ndarray, shape (S, m)
        Derivative of the log density.
    dh_ds : ndarray, shape (S, m)
        Of its slope by h.
    dcurvature_ds : ndarray, shape (S, m)
        Of its curvature -d2/dh2.
    """

    ds: np.ndarray
    dh_ds: np.ndarray
    dcurvature_ds: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class FrozenErrorTarget:
    """Individual likelihoods with given residual SDs.

    Attributes
    ----------
    bound : BoundModel
    sd : ndarray, shape (S, m)
    censored : CensoredRecords or None
    """

    bound: BoundModel
    sd: np.ndarray
    censored: CensoredRecords | None

    def log_likelihood(self, phi: np.ndarray) -> np.ndarray:
        """Log-likelihood; see `IndividualTarget`."""
        return self.expansions(phi)[0]

    def log_likelihood_and_gradient(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood and gradient; see `IndividualTarget`."""
        return self.expansions(phi)[:2]

    def gauss_newton(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Expansion at one point per subject; see `IndividualTarget`."""
        ll, gradient, information = self.expansions(phi[:, None])
        return ll[:, 0], gradient[:, 0], information[:, 0]

    def expansions(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Expansion at many points per subject; see `ExpandableTarget`."""
        terms = residual_terms(self.bound, phi)
        sd = self.sd[:, None]
        with np.errstate(all="ignore"):  # a failed row may hold anything; its status says so
            density = -0.5 * (terms.residual / sd) ** 2 - np.log(sd)
            slope = terms.residual / sd**2
            curvature = np.broadcast_to(sd**-2.0, slope.shape)
            if self.censored is not None:
                law, place = self._law(self.censored, terms.residual)
                curvature = curvature.copy()
                density[place], slope[place], curvature[place] = law.log_p, law.dh, law.curvature
            ll = density.sum(axis=2)
            ll -= (0.5 * terms.n_quantified * LOG_2PI + terms.log_jacobian)[:, None]
            gradient = (terms.slope * slope[..., None]).sum(axis=2)
            information = np.swapaxes(terms.slope * curvature[..., None], 2, 3) @ terms.slope
        failed = (terms.status != 0) | ~np.isfinite(ll) | ~np.isfinite(gradient).all(axis=2)
        return (
            np.where(failed, -np.inf, ll),
            np.where(failed[..., None], 0.0, gradient),
            np.where(failed[..., None, None], 0.0, information),
        )

    def motion(self, residual: np.ndarray) -> MovingSd:
        """Differentiate every record's likelihood by its SD.

        Parameters
        ----------
        residual : ndarray, shape (S, 1, m)
            As in `ResidualTerms`, at one point per subject.

        Returns
        -------
        MovingSd
        """
        e, s = residual[:, 0], self.sd
        with np.errstate(all="ignore"):  # as in `expansions`
            motion = MovingSd((e**2 / s**2 - 1.0) / s, -2.0 * e / s**3, -2.0 * s**-3.0)
            if self.censored is not None:
                law, (subject, _, column) = self._law(self.censored, residual)
                motion.ds[subject, column] = law.ds[:, 0]
                motion.dh_ds[subject, column] = law.dh_ds[:, 0]
                motion.dcurvature_ds[subject, column] = law.dcurvature_ds[:, 0]
        return motion

    def _law(
        self, censored: CensoredRecords, residual: np.ndarray
    ) -> tuple[CensoredNormal, tuple[np.ndarray, slice, np.ndarray]]:
        """Laws of the censored records, shape (k, M), and where they stand among (S, M, m)."""
        place = (censored.subject, slice(None), censored.column)
        distance = residual[place]
        sd = np.broadcast_to(self.sd[censored.subject, censored.column][:, None], distance.shape)
        return censored_normal(distance + censored.lower, distance + censored.upper, sd), place


def freeze_error(bound: BoundModel, sd: np.ndarray) -> FrozenErrorTarget:
    """Give every record a residual SD of its own.

    Parameters
    ----------
    bound : BoundModel
    sd : ndarray, shape (S, m)
        1 where nothing was observed.

    Returns
    -------
    FrozenErrorTarget
    """
    return FrozenErrorTarget(bound, sd, censored_records(bound))
