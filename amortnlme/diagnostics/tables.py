"""The per-row and per-subject tables of a fit, as files in the field hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from amortnlme.core.rng import stream
from amortnlme.diagnostics.predictions import StudyPredictions, predict_study, simulate_study
from amortnlme.diagnostics.residuals import (
    conditional_weighted_residuals,
    individual_weighted_residuals,
    prediction_distribution_errors,
)

if TYPE_CHECKING:
    from amortnlme.data.dataset import Dataset
    from amortnlme.diagnostics.trust import SubjectTrust
    from amortnlme.methods.population_fit import PopulationFit
    from amortnlme.model.individual import IndividualModel

Array = np.ndarray
_SIMULATION_KEY = 61


@dataclass(frozen=True, slots=True, eq=False)
class FitDiagnostics:
    """Predictions, residuals and simulated studies of one fit.

    Attributes
    ----------
    predictions : StudyPredictions
    iwres, cwres, pde, npde : ndarray, shape (n_subjects, n_records)   [no unit]
        nan for censored and absent records.
    replicates : ndarray, shape (n_replicates, n_subjects, n_records)   [output unit]
    """

    predictions: StudyPredictions
    iwres: Array
    cwres: Array
    pde: Array
    npde: Array
    replicates: Array


def diagnose(
    fit: PopulationFit, model: IndividualModel, dataset: Dataset, *, n_replicates: int = 500, seed: int = 0
) -> FitDiagnostics:
    """Compute every observation-level diagnostic of a fit.

    Parameters
    ----------
    fit : PopulationFit
    model : IndividualModel
    dataset : Dataset
        The one the fit was made from.
    n_replicates : int
        Simulated studies for NPDE and predictive checks.
    seed : int
        Fits diagnosed with one seed share their random numbers, so their pages differ by the models alone.

    Returns
    -------
    FitDiagnostics

    Raises
    ------
    FitError
        E_DIAGNOSTICS_SUBJECTS, E_DIAGNOSTICS_COVARIANCE.
    UsageError
        E_DIAGNOSTICS_REPLICATES when there are too few replicates for the observations of a subject.
    """
    p = predict_study(fit, model, dataset)
    replicates = simulate_study(fit, model, dataset, n_replicates, stream(seed, _SIMULATION_KEY))
    y, ipred, gradient = _residual_scale(p)
    iwres = individual_weighted_residuals(y, ipred, p.sd, p.quantified)
    cwres = conditional_weighted_residuals(y, ipred, gradient, p.eta, p.omega, p.sd, p.quantified)
    pde, npde = prediction_distribution_errors(p.y, replicates, p.quantified)
    return FitDiagnostics(p, iwres, cwres, pde, npde, replicates)


def _residual_scale(p: StudyPredictions) -> tuple[Array, Array, Array]:
    """Observations, individual predictions and gradients on the scale of the residual error."""
    if not p.log_scale.any():
        return p.y, p.ipred, p.gradient
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.where(p.log_scale, np.log(p.y), p.y)
        ipred = np.where(p.log_scale, np.log(p.ipred), p.ipred)
        gradient = np.where(p.log_scale[:, :, None], p.gradient / p.ipred[:, :, None], p.gradient)
    return y, ipred, gradient


def row_table(diagnostics: FitDiagnostics) -> pd.DataFrame:
    """One row per observation: ID TIME DVID DV CENS PRED IPRED RES IRES IWRES CWRES NPDE.

    Parameters
    ----------
    diagnostics : FitDiagnostics

    Returns
    -------
    pandas.DataFrame
        Residuals of censored observations are nan; DV holds their limit.
    """
    p = diagnostics.predictions
    rows, columns = np.nonzero(p.observed)
    at = (rows, columns)
    residual_known = np.where(p.quantified[at], 1.0, np.nan)
    return pd.DataFrame(
        {
            "ID": [p.subject_ids[i] for i in rows],
            "TIME": p.time[at],
            "DVID": p.output[at].astype(int),
            "DV": p.y[at],
            "CENS": (~p.quantified[at]).astype(int),
            "PRED": p.pred[at],
            "IPRED": p.ipred[at],
            "RES": (p.y - p.pred)[at] * residual_known,
            "IRES": (p.y - p.ipred)[at] * residual_known,
            "IWRES": diagnostics.iwres[at],
            "CWRES": diagnostics.cwres[at],
            "NPDE": diagnostics.npde[at],
        }
    )


def subject_table(
    fit: PopulationFit, model: IndividualModel, dataset: Dataset, trust: Sequence[SubjectTrust] = ()
) -> pd.DataFrame:
    """One row per subject: parameters, random effects, objective value, covariates, trust grade.

    Parameters
    ----------
    fit : PopulationFit
    model : IndividualModel
    dataset : Dataset
    trust : sequence of SubjectTrust
        In the order of the subjects, or empty.

    Returns
    -------
    pandas.DataFrame
        Index: subject id. Columns: NAME_mode and NAME_mean (the mean on the phi scale, mapped to the
        natural scale) for every varying parameter, eta_NAME, ofv, covariates, and trust if given.
    """
    people = fit.individuals
    mode, mean = (_natural(model, phi) for phi in (people.ebe_phi, people.conditional_mean_phi))
    columns: dict[str, object] = {}
    for name in fit.random_effects:
        j = fit.parameter_names.index(name)
        columns[f"{name}_mode"] = mode[:, j]
        columns[f"{name}_mean"] = mean[:, j]
    for j, name in enumerate(fit.random_effects):
        columns[f"eta_{name}"] = people.ebe_eta[:, j]
    columns["ofv"] = fit.ofv_individual
    frame = pd.DataFrame(columns, index=pd.Index(people.ids, name="ID"))
    covariates = dataset.covariate_table()
    for name in covariates.columns:
        frame[str(name)] = covariates[name].to_numpy()
    if trust:
        frame["trust"] = [str(subject.grade) for subject in trust]
    return frame


def _natural(model: IndividualModel, phi: np.ndarray) -> np.ndarray:
    """Map phi to the natural scale; effects of occasions, behind the model's own parameters, stay."""
    return np.concatenate([model.parameters.to_psi(phi[:, : model.d]), phi[:, model.d :]], axis=1)
