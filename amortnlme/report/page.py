"""One self-contained HTML page about the fits of a study."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.core.files import write_text_atomic
from amortnlme.core.rng import stream
from amortnlme.diagnostics.compare import fit_labels
from amortnlme.diagnostics.curves import conditional_draws, pick_subjects, subject_curves
from amortnlme.diagnostics.importance_table import DrawChecks, check_draws
from amortnlme.diagnostics.tables import diagnose
from amortnlme.report import fit_figures as figures
from amortnlme.report.content import picture
from amortnlme.report.convergence_section import convergence_section
from amortnlme.report.estimate_tables import (
    comparison_table,
    correlation_table,
    cv_note,
    parameter_table,
    population_sentence,
)
from amortnlme.report.plots_effects import estimates_across_fits
from amortnlme.report.provenance_section import individual_table, provenance_section
from amortnlme.report.rendering import render
from amortnlme.report.trust_section import grade_counts, trust_section
from amortnlme.report.verdict import Verdict, judge

if TYPE_CHECKING:
    from amortnlme.data.dataset import Dataset
    from amortnlme.methods.population_fit import PopulationFit
    from amortnlme.model.individual import IndividualModel
    from amortnlme.population.posterior_draws import PosteriorDraws

_CURVE_KEY = 63


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What goes into a report.

    Attributes
    ----------
    title : str
        Empty for a title made from the model and the dataset.
    n_replicates : int
        Simulated studies for NPDE and predictive checks; large studies use fewer, see `max_simulated`.
    max_simulated : int
        Most simulated observations per fit.
    n_curve_draws : int
        Conditional draws per subject behind the bands of the individual fits.
    max_individuals : int
        Most subjects among the individual fits.
    seed : int
        For simulations and resampling; the same seed gives the same page.
    commands : tuple of str
        Shown under provenance.
    """

    title: str = ""
    n_replicates: int = 500
    max_simulated: int = 5_000_000
    n_curve_draws: int = 200
    max_individuals: int = 24
    seed: int = 0
    commands: tuple[str, ...] = ()


def write_report(
    fits: Sequence[PopulationFit],
    draws: PosteriorDraws | None,
    dataset: Dataset,
    model: IndividualModel,
    path: str | Path,
    estimator_card: Mapping[str, Any] | None = None,
    *,
    uncorrected: Sequence[PopulationFit] = (),
    options: ReportOptions | None = None,
) -> Path:
    """Write a report about population fits of one dataset as a single HTML file.

    Parameters
    ----------
    fits : sequence of PopulationFit
        At least one; all of `dataset`.
    draws : PosteriorDraws or None
        The draws the fits were made from, for the trust grades; None for methods without draws.
    dataset : Dataset
    model : IndividualModel
    path : str or Path
        File to write; its folder must exist.
    estimator_card : mapping or None
        Texts about the estimator, and under "calibration" the content of its calibration.json.
    uncorrected : sequence of PopulationFit
        Fits to the raw draws, shown beside the fit with the same population name.
    options : ReportOptions or None

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    UsageError
        E_REPORT_EMPTY without fits; E_REPORT_CALIBRATION for an incomplete calibration record.
    FitError
        E_DIAGNOSTICS_SUBJECTS if a fit belongs to other data.
    ArtefactError
        E_IO_WRITE if the file cannot be written.
    """
    if not fits:
        raise UsageError(
            "E_REPORT_EMPTY", "a report needs something to report - 0 fits given - pass at least one fit"
        )
    options = options or ReportOptions()
    with _collection_paused():
        content = _content(fits, draws, dataset, model, estimator_card or {}, uncorrected, options)
    target = Path(path)
    write_text_atomic(target, render("report.html", content, _SECTIONS))
    return target


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Hold back the cyclic garbage collector while figures are made.

    They consist of many small objects; scanning them over and over takes a quarter of the time of a page.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _content(
    fits: Sequence[PopulationFit],
    draws: PosteriorDraws | None,
    dataset: Dataset,
    model: IndividualModel,
    card: Mapping[str, Any],
    uncorrected: Sequence[PopulationFit],
    options: ReportOptions,
) -> dict[str, Any]:
    """Everything the template shows."""
    labels = fit_labels(fits)
    checks = None if draws is None else check_draws(draws, model, dataset, options.seed)
    subjects = () if checks is None else checks.subjects
    verdict = judge(fits, labels, subjects)
    main = 0 if verdict.preferred is None else verdict.preferred
    parts = _fit_parts(fits, labels, dataset, model, checks, main, verdict, options)
    trust = trust_section(checks, model.parameters.names, fits, uncorrected, card)
    return {
        "title": options.title or f"Population analysis: {dataset.name}",
        "subtitle": f"{model.name}: {model.text}" if model.text else model.name,
        "verdict": verdict,
        "tiles": _tiles(fits, dataset, checks),
        "comparison": _comparison(fits, labels, verdict),
        "fits": [
            _parameters(fit, label, i, i == verdict.preferred, model)
            for i, (fit, label) in enumerate(zip(fits, labels, strict=True))
        ],
        "fit_parts": parts,
        "convergence": convergence_section(fits, labels),
        "trust": trust,
        "individuals": individual_table(fits[main], model, dataset, subjects),
        "individuals_label": labels[main],
        "provenance": provenance_section(fits, labels, draws, dataset, model, options.commands),
    }


def _fit_parts(
    fits: Sequence[PopulationFit],
    labels: Sequence[str],
    dataset: Dataset,
    model: IndividualModel,
    checks: DrawChecks | None,
    main: int,
    verdict: Verdict,
    options: ReportOptions,
) -> list[dict[str, Any]]:
    """Figures of every fit by section, the main fit first and open, the others folded."""
    axis = figures.Labels.of(model)
    n_records = max(1, int(dataset.y_padded()[0].size))
    n_replicates = int(np.clip(options.max_simulated // n_records, 100, options.n_replicates))
    grades = [] if checks is None else [str(subject.grade) for subject in checks.subjects]
    blocks: dict[str, list[dict[str, Any]]] = {"gof": [], "fits": [], "eta": [], "vpc": []}
    for i in [main, *(j for j in range(len(fits)) if j != main)]:
        fit, key = fits[i], f"f{i}"
        study = diagnose(fit, model, dataset, n_replicates=n_replicates, seed=options.seed)
        head = {"label": labels[i], "open": i == main, "preferred": i == verdict.preferred}
        blocks["gof"].append({**head, "figures": figures.residual_pictures(key, study, axis)})
        blocks["eta"].append({**head, "figures": figures.effect_pictures(key, fit, dataset)})
        blocks["vpc"].append({**head, "figures": figures.check_pictures(key, study, axis)})
        if i == main:
            rng = stream(options.seed, _CURVE_KEY)
            index = pick_subjects(dataset.ids, grades, options.max_individuals)
            sample = conditional_draws(fit, model, dataset, options.n_curve_draws, rng, index=index)
            curves = subject_curves(fit, model, dataset, sample.phi, index=index)
            shown = figures.individual_pictures(key, curves, dataset, model, grades)
            blocks["fits"].append({**head, "figures": shown})
    return [{"key": key, "blocks": blocks[key], **_PARTS[key]} for key in ("gof", "fits", "eta", "vpc")]


_PARTS = {
    "gof": {
        "title": "Goodness of fit",
        "introduction": "Points should scatter evenly around the gray lines; the red line should not trend.",
    },
    "fits": {
        "title": "Individual fits",
        "introduction": "All panels share their axes.",
    },
    "eta": {
        "title": "Random effects",
        "introduction": (
            "Under the model the random effects are normal, unrelated to covariates that are already"
            " accounted"
            " for, and correlated only as omega says."
        ),
    },
    "vpc": {
        "title": "Visual predictive checks",
        "introduction": (
            "Observed percentiles (lines) should run inside the bands of the simulated ones. The"
            " prediction-corrected check removes differences in dose and covariates."
        ),
    },
}


def _tiles(
    fits: Sequence[PopulationFit], dataset: Dataset, checks: DrawChecks | None
) -> list[dict[str, str]]:
    tiles = [
        {"value": f"{dataset.n_subjects:,}", "text": "subjects"},
        {"value": f"{dataset.n_observations:,}", "text": "observations"},
        {"value": str(len(fits)), "text": "population models"},
        {"value": f"{sum(sum(f.seconds.values()) for f in fits):.1f} s", "text": "for all fits"},
    ]
    grades = grade_counts(checks)
    if grades:
        value = f"{grades['green']} / {sum(grades.values())}"
        text = "subjects graded green"
        if grades["amber"] or grades["red"]:
            text += f" ({grades['amber']} amber, {grades['red']} red)"
        tiles.append({"value": value, "text": text})
    return tiles


def _comparison(fits: Sequence[PopulationFit], labels: Sequence[str], verdict: Verdict) -> dict[str, Any]:
    comparable = len({str(fit.ofv_kind) for fit in fits}) == 1
    table = comparison_table(fits, labels, verdict.preferred, with_deltas=comparable)
    pictures = []
    if len(fits) > 1:
        text = "Estimates with 95 % intervals (natural scale; ω on the estimation scale)."
        figure = estimates_across_fits(labels, [fit.estimates for fit in fits])
        pictures.append(picture(figure, "compare", text))
    refusal = "" if comparable else "The objective values are of different kinds and are not subtracted."
    return {"table": table, "figures": pictures, "refusal": refusal}


def _parameters(
    fit: PopulationFit, label: str, index: int, preferred: bool, model: IndividualModel
) -> dict[str, Any]:
    description = " ".join(text for text in (population_sentence(fit, model), cv_note(fit, model)) if text)
    return {
        "key": f"f{index}",
        "label": label,
        "status": str(fit.status),
        "preferred": preferred,
        "description": description,
        "parameters": parameter_table(fit, model),
        "correlations": correlation_table(fit),
        "warnings": list(fit.warnings),
    }


_SECTIONS = (
    ("summary", "Summary"),
    ("comparison", "Model comparison"),
    ("parameters", "Parameter estimates"),
    ("gof", "Goodness of fit"),
    ("fits", "Individual fits"),
    ("eta", "Random effects"),
    ("vpc", "Visual predictive checks"),
    ("convergence", "Convergence"),
    ("trust", "Calibration and trust"),
    ("individuals", "Individual parameters"),
    ("provenance", "Provenance"),
)
