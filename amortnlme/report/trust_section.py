"""The calibration and trust page: per subject, for the estimator, and what the correction changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.diagnostics.calibration import coverage_from_ranks, ecdf_difference
from amortnlme.diagnostics.importance_table import DrawChecks
from amortnlme.diagnostics.trust import TrustGrade, TrustThresholds
from amortnlme.report.content import Cell, Picture, Table, cells, facts, picture, row
from amortnlme.report.estimate_tables import ordered_names, pretty
from amortnlme.report.numbers import MISSING, fixed, percent, significant
from amortnlme.report.plots_checks import calibration_figure, trust_figure

if TYPE_CHECKING:
    from amortnlme.methods.population_fit import PopulationFit


MAX_ROWS = 200
_SEVERITY = {TrustGrade.RED: 0, TrustGrade.AMBER: 1, TrustGrade.GREEN: 2}


def trust_section(
    checks: DrawChecks | None,
    parameter_names: Sequence[str],
    fits: Sequence[PopulationFit],
    uncorrected: Sequence[PopulationFit],
    card: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Collect the contents of the calibration and trust section.

    Parameters
    ----------
    checks : DrawChecks or None
        None when the report has no draws.
    parameter_names : sequence of str
    fits, uncorrected : sequence of PopulationFit
        Uncorrected fits are matched to fits by the name of their population model.
    card : mapping or None
        About the estimator: any texts, and under "calibration" the content of its calibration.json.

    Returns
    -------
    dict
        For the template.
    """
    card = dict(card or {})
    calibration = card.pop("calibration", None)
    pairs = [(fit, raw) for fit in fits for raw in uncorrected if raw.population.name == fit.population.name]
    return {
        "introduction": _introduction(checks, calibration),
        "subjects": None if checks is None else _subject_table(checks, parameter_names),
        "subject_figures": [] if checks is None or not checks.corrected else [_subject_picture(checks)],
        "corrected": _correction_table(pairs) if pairs else None,
        "corrected_text": (
            "Each population model fitted twice: from the network's draws alone, and with every subject's"
            " likelihood evaluated exactly by importance sampling. The table shows"
            " the former."
        ),
        "card": facts([(key.replace("_", " "), value) for key, value in card.items()]),
        "checks": _check_table(calibration),
        "recovery": _recovery_table(calibration),
        "calibration_figures": _calibration_pictures(calibration),
    }


def _introduction(checks: DrawChecks | None, calibration: Mapping[str, Any] | None) -> list[str]:
    texts = []
    if checks is None:
        texts.append("These fits were made without amortized posterior draws; there is nothing to grade.")
    else:
        grades = [str(subject.grade) for subject in checks.subjects]
        parts = [f"{grades.count(g)} {g}" for g in ("green", "amber", "red") if g in grades]
        texts.append(
            f"{len(grades)} subjects: {', '.join(parts)}. A subject is green when it lies inside the"
            " domain the"
            " estimator was trained on, hardly any draw was wild, and the exact likelihood confirms the draws"
            " (ESS / M at least 0.3, Pareto k-hat at most 0.7)."
        )
        if not checks.corrected:
            texts.append("The model has no likelihood: the draws could not be checked against it.")
    if calibration is None:
        texts.append("No calibration record of an estimator was given with this report.")
    return texts


def _subject_table(checks: DrawChecks, names: Sequence[str]) -> Table:
    rows = []
    # Flagged subjects must not fall off the end of a long table.
    n = len(checks.subjects)
    order = range(n) if n <= MAX_ROWS else sorted(range(n), key=lambda i: _SEVERITY[checks.subjects[i].grade])
    for i in order[:MAX_ROWS]:
        subject = checks.subjects[i]
        largest, which = MISSING, ""
        if checks.shift is not None:
            j = int(np.argmax(checks.shift[i]))
            largest, which = fixed(float(checks.shift[i, j])), names[j]
        grade = str(subject.grade)
        reasons = "; ".join(subject.reasons)
        rows.append(
            row(
                [
                    subject.subject_id,
                    Cell(grade, tag=grade),
                    fixed(subject.ess_share),
                    fixed(subject.pareto_k),
                    percent(100.0 * subject.rejected_share, 1),
                    Cell(largest, which),
                    reasons,
                ]
            )
        )
    header = cells(
        [
            "Subject",
            "Trust",
            "ESS / M",
            "k-hat",
            "Wild draws",
            Cell("Largest shift", "posterior SD"),
            "Remarks",
        ]
    )
    caption = (
        f"{checks.n_draws} draws per subject. ESS / M: effective share of the draws after"
        " weighting with the exact"
        " likelihood. Largest shift: Wasserstein distance between raw and corrected draws,"
        " largest over parameters."
    )
    if n > MAX_ROWS:
        caption += f" {MAX_ROWS} of {n:,} subjects, the worst grades first."
    return Table(header, tuple(rows), frozenset({0, 1, 6}), frozenset({6}), caption=caption)


def _subject_picture(checks: DrawChecks) -> Picture:
    text = "Likelihood check of every subject's draws. Green line: limit for green; red line: limit for red."
    return picture(trust_figure(checks.subjects, TrustThresholds()), "trust", text)


def _correction_table(pairs: Sequence[tuple[PopulationFit, PopulationFit]]) -> Table:
    """Estimates of the network alone, each with its distance from the corrected fit."""
    groups = ordered_names([fit for fit, _ in pairs])
    names = [name for group in groups.values() for name in group]
    rows = [row([pretty(name), *(_correction_cell(name, fit, raw) for fit, raw in pairs)]) for name in names]
    if all(str(fit.ofv_kind) == str(raw.ofv_kind) for fit, raw in pairs):
        rows.append(row(["−2LL above corrected", *(fixed(raw.ofv - fit.ofv) for fit, raw in pairs)]))
    header = cells(["Network alone", *(fit.population.name for fit, _ in pairs)])
    caption = (
        "In brackets: distance from the corrected estimate in its standard errors (none on the boundary)."
        " Last row: what the network's estimates lose in exact −2LL."
    )
    return Table(header, tuple(rows), caption=caption)


def _correction_cell(name: str, fit: PopulationFit, raw: PopulationFit) -> Cell:
    mine = next((e for e in fit.estimates if e.name == name), None)
    other = next((e for e in raw.estimates if e.name == name), None)
    if mine is None or other is None:
        return Cell(MISSING)
    small = f"({fixed((other.value - mine.value) / mine.se)} SE)" if mine.se else ""
    return Cell(significant(other.value), small)


def _check_table(calibration: Mapping[str, Any] | None) -> Table | None:
    checks = (calibration or {}).get("checks") or {}
    if not checks:
        return None
    rows = tuple(
        row([str(name).replace("_", " "), Cell("passed" if ok else "failed", tag="pass" if ok else "fail")])
        for name, ok in checks.items()
    )
    return Table(cells(["Check made when the estimator was calibrated", "Result"]), rows, frozenset({0, 1}))


def _recovery_table(calibration: Mapping[str, Any] | None) -> Table | None:
    """Per parameter: coverage, contraction and recovery, as far as the record has them."""
    parameters = (calibration or {}).get("parameters")
    if not isinstance(parameters, Mapping):
        return None
    levels = list(
        dict.fromkeys(level for numbers in parameters.values() for level in numbers.get("coverage", {}))
    )
    rows = [
        row(
            [
                name,
                *(percent(100.0 * numbers["coverage"][level], 1) for level in levels),
                fixed(numbers.get("recovery")),
                fixed(numbers.get("contraction")),
            ]
        )
        for name, numbers in parameters.items()
    ]
    header = cells(
        [
            "Parameter",
            *(Cell("Coverage", f"of {level} % intervals") for level in levels),
            Cell("Recovery", "correlation with truth"),
            Cell("Contraction", "1 - var / prior var"),
        ]
    )
    caption = f"{int(calibration['n']):,} simulated subjects. " if calibration and "n" in calibration else ""
    share = (calibration or {}).get("importance_efficiency_percentiles") or {}
    if "50" in share and "5" in share:
        caption += (
            f"Effective share of the draws under the exact likelihood: median {fixed(share['50'])},"
            f" lowest 5 % below {fixed(share['5'])}."
        )
    return Table(header, tuple(rows), caption=caption)


def _calibration_pictures(calibration: Mapping[str, Any] | None) -> list[Picture]:
    if not calibration or "ranks" not in calibration:
        return []
    missing = [key for key in ("parameters", "n_draws") if key not in calibration]
    if missing:
        raise UsageError(
            "E_REPORT_CALIBRATION",
            f"the calibration record is incomplete - it has ranks but no {' and no '.join(missing)} -"
            " all three"
            " are needed to draw it - calibrate the estimator again",
        )
    ranks = np.asarray(calibration["ranks"], dtype=np.int64)
    n_draws = int(calibration["n_draws"])
    ecdf, coverage = ecdf_difference(ranks, n_draws), coverage_from_ranks(ranks, n_draws)
    n_out = int((~ecdf.inside).sum())
    text = (
        f"Simulation-based calibration over {len(ranks)} simulated subjects. Top: ECDF of the"
        " ranks minus uniform"
        " with a 95 % simultaneous band per parameter; a curve that leaves it is drawn in red"
        f" ({n_out} of {len(ecdf.inside)}). Bottom: coverage of central credible intervals with exact 95 %"
        " binomial intervals."
    )
    return [picture(calibration_figure(list(calibration["parameters"]), ecdf, coverage), "calibration", text)]


def grade_counts(checks: DrawChecks | None) -> dict[str, int]:
    """Count the grades.

    Parameters
    ----------
    checks : DrawChecks or None

    Returns
    -------
    dict
        Grade to number of subjects; empty without draws.
    """
    if checks is None:
        return {}
    grades = [str(subject.grade) for subject in checks.subjects]
    return {grade: grades.count(grade) for grade in ("green", "amber", "red")}


def worst_khat(checks: DrawChecks | None) -> float:
    """Largest finite k-hat over subjects, nan where there is none.

    Parameters
    ----------
    checks : DrawChecks or None

    Returns
    -------
    float
    """
    values = [s.pareto_k for s in checks.subjects if math.isfinite(s.pareto_k)] if checks else []
    return max(values) if values else math.nan
