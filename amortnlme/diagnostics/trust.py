"""A trust grade per subject: how far the amortized answer for this patient can be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from amortnlme.core.errors import UsageError


class TrustGrade(StrEnum):
    """Traffic light for one subject's individual inference."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"

    @property
    def sentence(self) -> str:
        """What the grade means, in one sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    TrustGrade.GREEN: "All checks passed: the draws represent this subject's posterior.",
    TrustGrade.AMBER: "Usable with care: a check is outside its preferred range.",
    TrustGrade.RED: "Do not rely on the draws of this subject; refit with a likelihood-based method.",
}


@dataclass(frozen=True, slots=True)
class TrustThresholds:
    """Limits between the grades.

    Attributes
    ----------
    ess_green, ess_red : float
        Effective share of the importance-weighted draws, ESS / M: green from `ess_green` on, red below
        `ess_red`.
    khat_green, khat_red : float
        Pareto shape of the importance ratios: green up to `khat_green`, red above `khat_red`. Above 0.7 the
        error of a weighted mean no longer falls at a useful rate, above 1 its variance and mean do not exist
        (Vehtari, Simpson, Gelman, Yao & Gabry 2024, JMLR 25, 1-58).
    rejected_green, rejected_red : float
        Share of wild draws of the network that were discarded. A few in a thousand are float32 noise.
    """

    ess_green: float = 0.3
    ess_red: float = 0.05
    khat_green: float = 0.7
    khat_red: float = 1.0
    rejected_green: float = 0.01
    rejected_red: float = 0.05


@dataclass(frozen=True, slots=True)
class SubjectTrust:
    """Grade of one subject with the reasons for it.

    Attributes
    ----------
    subject_id : str
    grade : TrustGrade
    reasons : tuple of str
        Why the grade is not green; empty for green.
    ess_share : float
        ESS / M, nan where not computed.
    pareto_k : float
        nan where not computed.
    rejected_share : float
    """

    subject_id: str
    grade: TrustGrade
    reasons: tuple[str, ...]
    ess_share: float
    pareto_k: float
    rejected_share: float


def grade_subjects(
    subject_ids: Sequence[str],
    *,
    out_of_domain: Sequence[Sequence[str]] | None = None,
    rejected_share: ArrayLike | None = None,
    ess_share: ArrayLike | None = None,
    pareto_k: ArrayLike | None = None,
    thresholds: TrustThresholds | None = None,
) -> tuple[SubjectTrust, ...]:
    """Grade every subject from the domain check, the rejected draws, the ESS and the Pareto shape.

    Parameters
    ----------
    subject_ids : sequence of str, length n_subjects
    out_of_domain : sequence of sequences of str, or None
        Reasons why a subject lies outside what the estimator was trained on.
    rejected_share : array_like, shape (n_subjects,) or None
        Discarded draws over drawn ones.
    ess_share : array_like, shape (n_subjects,) or None
        Effective sample size of the likelihood-corrected draws over their number; None where no
        correction ran.
    pareto_k : array_like, shape (n_subjects,) or None
    thresholds : TrustThresholds or None

    Returns
    -------
    tuple of SubjectTrust

    Raises
    ------
    UsageError
        E_TRUST_SHAPE if an input does not have one entry per subject.

    Notes
    -----
    The worst single check decides. A subject outside the training domain is amber when the exact-likelihood
    correction succeeded for it, because the correction does not depend on the network being right, and red
    when nothing corrected the network.
    """
    limits = thresholds or TrustThresholds()
    n = len(subject_ids)
    domain = [()] * n if out_of_domain is None or len(out_of_domain) == 0 else list(out_of_domain)
    if len(domain) != n:
        raise _shape_error("out_of_domain", len(domain), n)
    rejected = _column("rejected_share", rejected_share, n)
    ess = _column("ess_share", ess_share, n)
    khat = _column("pareto_k", pareto_k, n)
    return tuple(
        _grade_one(
            subject_ids[i], tuple(domain[i]), float(rejected[i]), float(ess[i]), float(khat[i]), limits
        )
        for i in range(n)
    )


def _column(name: str, value: ArrayLike | None, n: int) -> np.ndarray:
    column = np.full(n, np.nan) if value is None else np.asarray(value, dtype=np.float64)
    if column.shape != (n,):
        raise _shape_error(name, column.shape, n)
    return column


def _shape_error(name: str, given: object, n: int) -> UsageError:
    return UsageError(
        "E_TRUST_SHAPE",
        f"`{name}` does not have one entry per subject - {given} for {n} subjects - pass one value for each"
        " of the subject_ids, in their order",
    )


def _grade_one(
    subject_id: str,
    domain: tuple[str, ...],
    rejected: float,
    ess: float,
    khat: float,
    limits: TrustThresholds,
) -> SubjectTrust:
    level, reasons = 0, []
    corrected = ess >= limits.ess_red and khat <= limits.khat_red
    if domain:
        level = max(level, 1 if corrected else 2)
        tail = "" if corrected else " (and no likelihood correction to fall back on)"
        reasons.extend(f"outside the training domain: {reason}{tail}" for reason in domain)
    if rejected > limits.rejected_green:
        level = max(level, 2 if rejected > limits.rejected_red else 1)
        reasons.append(f"{100 * rejected:.1f} % of the draws were wild and discarded")
    if ess < limits.ess_green:
        level = max(level, 2 if ess < limits.ess_red else 1)
        reasons.append(f"effective share of the draws is {ess:.2f} (below {limits.ess_green:g})")
    if khat > limits.khat_green:
        level = max(level, 2 if khat > limits.khat_red else 1)
        reasons.append(f"Pareto k-hat is {khat:.2f} (above {limits.khat_green:g})")
    grade = (TrustGrade.GREEN, TrustGrade.AMBER, TrustGrade.RED)[level]
    return SubjectTrust(subject_id, grade, tuple(reasons), ess, khat, rejected)
