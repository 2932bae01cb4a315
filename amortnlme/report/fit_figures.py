"""Collect the figures of every fit: goodness of fit, individual fits, random effects, predictive checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.diagnostics.curves import SubjectCurve
from amortnlme.diagnostics.tables import FitDiagnostics, row_table
from amortnlme.diagnostics.vpc import ObservedStudy, VpcOptions, visual_predictive_check
from amortnlme.report.content import Picture, picture
from amortnlme.report.numbers import count
from amortnlme.report.plots_checks import predictive_checks
from amortnlme.report.plots_effects import eta_against_covariates, eta_distribution, eta_pairs
from amortnlme.report.plots_individual import IndividualCurve, individual_fits
from amortnlme.report.plots_residuals import goodness_of_fit

if TYPE_CHECKING:
    from amortnlme.data.dataset import Dataset
    from amortnlme.methods.population_fit import PopulationFit
    from amortnlme.model.individual import IndividualModel

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Labels:
    """Axis texts of a model: time with its unit, and every output with its unit."""

    time: str
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, model: IndividualModel) -> Labels:
        """Take the texts from a model."""
        outputs = tuple(f"{output.name} ({output.unit})" for output in model.outputs)
        return cls(f"time ({model.units['time']})", outputs)


def residual_pictures(key: str, diagnostics: FitDiagnostics, labels: Labels) -> list[Picture]:
    """Draw goodness of fit, one figure per output that has data.

    Parameters
    ----------
    key : str
        Unique among fits.
    diagnostics : FitDiagnostics
    labels : Labels

    Returns
    -------
    list of Picture
    """
    table = row_table(diagnostics)
    pictures = []
    for k, label in enumerate(labels.outputs, start=1):
        mine = table["DVID"].to_numpy() == k
        censored = table["CENS"].to_numpy() == 1
        rows = table.loc[mine & ~censored]
        if len(rows) == 0:
            continue
        n_censored = int(np.sum(mine & censored))
        caption = (
            f"{count(len(rows), 'observation')}. Gray: identity, zero and ±1.96; red: local trend (LOESS)."
            " CWRES by FOCE linearization at the empirical Bayes estimates; NPDE from"
            f" {len(diagnostics.replicates)} simulated studies, decorrelated within subject."
        )
        if n_censored:
            caption += f" {count(n_censored, 'censored observation')} not shown."
        figure = goodness_of_fit(rows, labels.time, label)
        pictures.append(picture(figure, f"{key}-gof{k}", caption))
    return pictures


def check_pictures(key: str, diagnostics: FitDiagnostics, labels: Labels) -> list[Picture]:
    """Draw the visual predictive check with and without prediction correction, per output.

    Parameters
    ----------
    key : str
    diagnostics : FitDiagnostics
    labels : Labels

    Returns
    -------
    list of Picture
    """
    p = diagnostics.predictions
    pictures = []
    for k, label in enumerate(labels.outputs, start=1):
        used = p.observed & (p.output == k)
        if used.sum() < 2:
            continue
        study = ObservedStudy(p.time, p.y, used, p.pred, p.below_limit, p.limit)
        checks = [
            visual_predictive_check(study, diagnostics.replicates, VpcOptions(prediction_corrected=corrected))
            for corrected in (False, True)
        ]
        inside = checks[0].share_inside()
        caption = (
            f"{checks[0].n_replicates} simulated studies under each subject's own doses, times and"
            " covariates;"
            f" {len(checks[0].count)} time bins (ticks at the bottom), {checks[0].count.min()} to"
            f" {checks[0].count.max()} observations per bin. {100 * inside:.0f} % of the observed percentiles"
            " lie inside their 95 % bands."
        )
        pictures.append(picture(predictive_checks(checks, labels.time, label), f"{key}-vpc{k}", caption))
    return pictures


def effect_pictures(key: str, fit: PopulationFit, dataset: Dataset) -> list[Picture]:
    """Draw the random effects: distribution, against covariates, pairs.

    Parameters
    ----------
    key : str
    fit : PopulationFit
    dataset : Dataset

    Returns
    -------
    list of Picture
    """
    eta, names = np.asarray(fit.individuals.ebe_eta), fit.random_effects
    if not names:
        return []
    index = [fit.parameter_names.index(name) for name in names]
    omega_sd = np.sqrt(np.diagonal(fit.omega)[index])
    shrinkage = np.asarray(fit.eta_shrinkage, dtype=np.float64)
    figure = eta_distribution(eta, omega_sd, names, shrinkage)
    text = "Empirical Bayes estimates (conditional modes). Red: the fitted N(0, ω²); ticks: subjects."
    pictures = [picture(figure, f"{key}-eta", text)]
    covariates = dataset.covariate_table()
    covariates = covariates.loc[:, [np.ptp(covariates[c].dropna()) > 0 for c in covariates.columns]]
    if covariates.shape[1]:
        used = {effect.covariate for effect in fit.population.covariates}
        note = f" In this model: {', '.join(sorted(used))}." if used else " None of them is in this model."
        text = "Random effects against covariates; a trend that remains is a missing covariate effect." + note
        figure = eta_against_covariates(eta, names, covariates)
        pictures.append(picture(figure, f"{key}-etacov", text))
    if len(names) > 1:
        text = "Pairs of random effects with their sample correlation."
        pictures.append(picture(eta_pairs(eta, names), f"{key}-etapairs", text))
    return pictures


def individual_pictures(
    key: str,
    curves: Sequence[SubjectCurve],
    dataset: Dataset,
    model: IndividualModel,
    grades: Sequence[str],
) -> list[Picture]:
    """Draw individual fits, one figure per output.

    Parameters
    ----------
    key : str
    curves : sequence of SubjectCurve
    dataset : Dataset
    model : IndividualModel
    grades : sequence of str
        Trust grades in the order of the subjects, or empty.

    Returns
    -------
    list of Picture
    """
    labels, pictures = Labels.of(model), []
    row = {subject_id: i for i, subject_id in enumerate(dataset.ids)}
    n_shown = len({curve.subject_id for curve in curves})
    for k, label in enumerate(labels.outputs, start=1):
        panels = [_panel(c, row[c.subject_id], dataset, model, grades) for c in curves if c.output == k]
        if not panels:
            continue
        text = (
            "Points: data; blue: individual prediction at the empirical Bayes estimate; orange: population"
            " prediction; band: central 90 % of the individual prediction over draws from the subject's"
            " posterior given this population, importance-corrected by the exact likelihood."
        )
        if n_shown < dataset.n_subjects:
            text += (
                f" {n_shown} of {dataset.n_subjects} subjects: those with a trust warning first, the"
                " others"
                " evenly spread."
            )
        pictures.append(picture(individual_fits(panels, labels.time, label), f"{key}-ind{k}", text))
    return pictures


def _panel(
    curve: SubjectCurve, i: int, dataset: Dataset, model: IndividualModel, grades: Sequence[str]
) -> IndividualCurve:
    subject = dataset.subjects[i]
    design = subject.design
    mine = subject.observed & (np.maximum(design.observation_outputs, 1) == curve.output)
    note = ""
    if design.n_doses == 1:
        note = f"{design.first_dose_amount:.4g} {model.units['amount']}"
    elif design.n_doses > 1:
        note = count(design.n_doses, "dose")
    return IndividualCurve(
        subject_id=subject.id,
        note=note,
        grade=grades[i] if len(grades) else "",
        time=curve.time,
        ipred=curve.ipred,
        pred=curve.pred,
        low=curve.low,
        high=curve.high,
        data_time=design.observation_times[mine],
        data=subject.y[mine],
        censored=subject.censoring[mine] != 0,
        dose_time=design.dose_times,
    )
