"""Which model is preferred, why, and what to be careful about: in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amortnlme.core.errors import FitError
from amortnlme.diagnostics.compare import check_comparable
from amortnlme.report.numbers import count, fixed, significant

if TYPE_CHECKING:
    from amortnlme.diagnostics.trust import SubjectTrust
    from amortnlme.methods.population_fit import PopulationFit

SHRINKAGE_LIMIT = 0.30
RSE_LIMIT = 50.0
FEW_SUBJECTS = 30


@dataclass(frozen=True, slots=True)
class Verdict:
    """The preferred fit with the reasons.

    Attributes
    ----------
    preferred : int or None
        Index of the preferred fit; None when the fits cannot be ranked.
    sentences : tuple of str
    caveats : tuple of str
    """

    preferred: int | None
    sentences: tuple[str, ...]
    caveats: tuple[str, ...]


def judge(
    fits: Sequence[PopulationFit], labels: Sequence[str], trust: Sequence[SubjectTrust] = ()
) -> Verdict:
    """Rank fits by BICc and say in words how much that means.

    Parameters
    ----------
    fits : sequence of PopulationFit
    labels : sequence of str
    trust : sequence of SubjectTrust

    Returns
    -------
    Verdict

    Notes
    -----
    Differences are named after Kass & Raftery (1995), JASA 90, 773-795: below 2 not worth more than a
    mention, 2-6 positive, 6-10 strong, above 10 very strong.
    """
    try:
        check_comparable(fits)
    except FitError as error:
        return Verdict(None, (f"No model is preferred: {error.message}.",), _trust_caveats(trust))
    order = sorted(
        (i for i, fit in enumerate(fits) if fit.status.is_success and math.isfinite(fit.bicc)),
        key=lambda i: fits[i].bicc,
    )
    if not order:
        sentence = (
            "No model is preferred: none of the fits succeeded. Their status is given with each fit below."
        )
        return Verdict(None, (sentence,), _trust_caveats(trust))
    best = order[0]
    sentences = [_headline(fits, labels, order)]
    sentences += _against_rivals(fits, labels, order)
    caveats = [
        *_failures(fits, labels),
        *_ranking_caveats(fits, labels, order),
        *_estimate_caveats(fits[best], labels[best]),
        *_trust_caveats(trust),
    ]
    return Verdict(best, tuple(sentences), tuple(caveats))


def _headline(fits: Sequence[PopulationFit], labels: Sequence[str], order: Sequence[int]) -> str:
    fit = fits[order[0]]
    if len(order) == 1:
        numbers = f"−2LL {fixed(fit.ofv)}, BICc {fixed(fit.bicc)}"
        return f"“{labels[order[0]]}” is the only successful fit ({numbers})."
    return (
        f"“{labels[order[0]]}” is preferred: it has the lowest BICc ({fixed(fit.bicc)}) of"
        f" {len(order)} models,"
        f" with −2LL {fixed(fit.ofv)}"
        + (f" ± {significant(fit.ofv_se, 2)} (Monte-Carlo SE)" if math.isfinite(fit.ofv_se) else "")
        + "."
    )


def _strength(delta: float) -> str:
    for limit, words in (
        (2.0, "is nearly as good"),
        (6.0, "is somewhat worse"),
        (10.0, "is clearly worse"),
    ):
        if delta < limit:
            return words
    return "is far worse"


def _against_rivals(fits: Sequence[PopulationFit], labels: Sequence[str], order: Sequence[int]) -> list[str]:
    if len(order) < 2:
        return []
    best = fits[order[0]]
    parts = []
    for i in order[1:]:
        delta = fits[i].bicc - best.bicc
        parts.append(f"“{labels[i]}” {_strength(delta)} (ΔBICc +{fixed(delta, 1)})")
    return ["; ".join(parts) + "."]


def _failures(fits: Sequence[PopulationFit], labels: Sequence[str]) -> list[str]:
    return [
        f"“{label}” did not succeed and is left out of the ranking: {fit.status.sentence}"
        for fit, label in zip(fits, labels, strict=True)
        if not fit.status.is_success
    ]


def _ranking_caveats(fits: Sequence[PopulationFit], labels: Sequence[str], order: Sequence[int]) -> list[str]:
    best, caveats = fits[order[0]], []
    if len(order) > 1:
        rival = fits[order[1]]
        delta = rival.bicc - best.bicc
        noise = math.hypot(*(s if math.isfinite(s) else 0.0 for s in (best.ofv_se, rival.ofv_se)))
        if delta < 2.0:
            simpler = best if best.n_parameters <= rival.n_parameters else rival
            caveats.append(
                f"The two best models differ by only {fixed(delta, 1)} in BICc: the data do not decide"
                " between"
                f" them. The simpler one has {simpler.n_parameters} parameters."
            )
        if delta < 2.0 * noise:
            caveats.append(
                f"That difference is within the Monte-Carlo error of −2LL (± {significant(noise, 2)}):"
                " increase"
                " the number of importance points before ranking them."
            )
        by_aic = min(order, key=lambda i: fits[i].aic)
        if by_aic != order[0]:
            caveats.append(
                f"AIC would choose “{labels[by_aic]}”. BICc asks for more evidence per parameter; choose the"
                " criterion by the purpose of the model."
            )
    for i in order:
        if str(fits[i].status) == "boundary":
            caveats.append(
                f"“{labels[i]}” lies on the boundary of its parameter space (a random-effects variance or"
                " correlation cannot be told from its limit): it has no Wald standard errors there,"
                " and criteria"
                " that count its parameters penalize it too much or too little."
            )
    return caveats


def _estimate_caveats(fit: PopulationFit, label: str) -> list[str]:
    caveats = []
    if fit.n_subjects < FEW_SUBJECTS and fit.population.covariates:
        caveats.append(
            f"Covariate effects rest on {count(fit.n_subjects, 'subject')}; Wald intervals are"
            " optimistic at this size."
        )
    for e in fit.estimates:
        if (
            e.kind == "beta"
            and e.ci_low is not None
            and e.ci_high is not None
            and e.ci_low <= 0.0 <= e.ci_high
        ):
            caveats.append(f"The 95 % interval of {e.name} in “{label}” includes zero.")
        if not e.kind.endswith("_corr") and e.rse_percent is not None and e.rse_percent > RSE_LIMIT:
            caveats.append(f"{e.name} is poorly determined (RSE {e.rse_percent:.0f} %).")
    for name, value in zip(fit.random_effects, fit.eta_shrinkage, strict=True):
        if value > SHRINKAGE_LIMIT:
            caveats.append(
                f"η-shrinkage of {name} is {100 * value:.0f} %: plots and regressions of its empirical Bayes"
                " estimates can mislead."
            )
    return caveats


def _trust_caveats(trust: Sequence[SubjectTrust]) -> tuple[str, ...]:
    caveats = []
    for grade, words in (
        ("red", "must not be relied on as drawn"),
        ("amber", "should be looked at"),
    ):
        ids = [subject.subject_id for subject in trust if str(subject.grade) == grade]
        if ids:
            shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
            caveats.append(
                f"The posterior draws of {count(len(ids), 'subject')} ({shown}) {words}: see"
                " “Calibration and trust”."
            )
    return tuple(caveats)
