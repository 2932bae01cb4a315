"""What a fitted population model says about every observation: predictions, residual SDs, simulations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.errors import FitError
from amortnlme.model.occasions import spell_out_occasions

if TYPE_CHECKING:
    from amortnlme.data.dataset import Dataset
    from amortnlme.methods.population_fit import PopulationFit
    from amortnlme.model.individual import IndividualModel

Array = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class StudyPredictions:
    """Observations and predictions of one fit, padded to the longest subject.

    Attributes
    ----------
    subject_ids : tuple of str
    time, y : ndarray, shape (n_subjects, n_records)   [time unit, output unit]
    output : ndarray of int, shape (n_subjects, n_records)
        1-based output (DVID) of every record.
    observed : ndarray of bool, shape (n_subjects, n_records)
        Records that carry an observation, censored or not.
    quantified : ndarray of bool, shape (n_subjects, n_records)
        Observed and not censored: the records residuals are defined for.
    below_limit : ndarray of bool, shape (n_subjects, n_records)
        Left-censored records; `y` holds the limit there.
    limit : ndarray, shape (n_subjects, n_records)   [output unit]
        Quantification limit that applies to simulations, nan for none.
    pred, ipred : ndarray, shape (n_subjects, n_records)   [output unit]
        Prediction at eta = 0 and at the empirical Bayes estimate.
    sd : ndarray, shape (n_subjects, n_records)   [output unit, or none on the log scale]
        Residual SD at `ipred`.
    log_scale : ndarray of bool, shape (n_subjects, n_records)
        Where the error model acts on logarithms: residuals are differences of logarithms there.
    gradient : ndarray, shape (n_subjects, n_records, n_effects)
        d ipred / d eta at the empirical Bayes estimate.
    mu : ndarray, shape (n_subjects, d)
        Typical phi of every subject, covariates included.
    factor : ndarray, shape (d, n_effects)
        L with omega = L L'.
    eta : ndarray, shape (n_subjects, n_effects)
    omega : ndarray, shape (n_effects, n_effects)
    """

    subject_ids: tuple[str, ...]
    time: Array
    y: Array
    output: Array
    observed: Array
    quantified: Array
    below_limit: Array
    limit: Array
    pred: Array
    ipred: Array
    sd: Array
    log_scale: Array
    gradient: Array
    mu: Array
    factor: Array
    eta: Array
    omega: Array


def predict_study(fit: PopulationFit, model: IndividualModel, dataset: Dataset) -> StudyPredictions:
    """Evaluate a fit at every observation of the dataset it was fitted to.

    Parameters
    ----------
    fit : PopulationFit
    model : IndividualModel
    dataset : Dataset

    Returns
    -------
    StudyPredictions

    Raises
    ------
    FitError
        E_DIAGNOSTICS_SUBJECTS if the fit belongs to other subjects or another model.
    """
    study = fitted_study(fit, model, dataset)
    model, dataset, mu, factor = study.model, study.dataset, study.mu, study.factor
    y, observed, censoring, _ = dataset.y_padded()
    batch = dataset.design_batch()
    effects = [fit.parameter_names.index(name) for name in fit.random_effects]
    phi = np.asarray(fit.individuals.ebe_phi, dtype=np.float64)
    bound = model.bind(dataset)
    pred, _ = bound.predict(mu[:, None, :])
    ipred, gradient, _ = bound.predict_with_sensitivity(phi[:, None, :])
    output = np.maximum(batch.observation_output, 1)
    left = observed & (censoring == 1)
    return StudyPredictions(
        subject_ids=tuple(dataset.ids),
        time=batch.observation_times,
        y=y,
        output=output,
        observed=observed,
        quantified=observed & (censoring == 0),
        below_limit=left,
        limit=_simulation_limit(y, left, output),
        pred=pred[:, 0],
        ipred=ipred[:, 0],
        sd=residual_sd(model, phi, ipred[:, 0], output),
        log_scale=np.isin(
            output, [k for k, o in enumerate(model.outputs, start=1) if o.error_model.is_log_scale]
        ),
        gradient=gradient[:, 0][:, :, effects],
        mu=mu,
        factor=factor,
        eta=np.asarray(fit.individuals.ebe_eta, dtype=np.float64),
        omega=fit.omega[np.ix_(effects, effects)],
    )


@dataclass(frozen=True, slots=True, eq=False)
class FittedStudy:
    """What a fit evaluates: model and dataset (with occasions spelled out), and the population per subject.

    Attributes
    ----------
    model : IndividualModel
    dataset : Dataset
    mu : ndarray, shape (n_subjects, d)
        Typical parameters of every subject, phi scale.
    factor : ndarray, shape (d, n_effects)
        L with omega = L L'.
    """

    model: IndividualModel
    dataset: Dataset
    mu: Array
    factor: Array


def fitted_study(fit: PopulationFit, model: IndividualModel, dataset: Dataset) -> FittedStudy:
    """Join a fit with the model and the dataset it was fitted to.

    Parameters
    ----------
    fit : PopulationFit
    model : IndividualModel
    dataset : Dataset

    Returns
    -------
    FittedStudy

    Raises
    ------
    FitError
        E_DIAGNOSTICS_SUBJECTS if the fit belongs to other subjects or another model.
    """
    effects, counts, covariates = fit.population.occasion_effects, None, dataset.covariate_table()
    if effects is not None:
        study = spell_out_occasions(model, dataset, effects.on)
        model, dataset, counts = study.model, study.dataset, study.n_occasions
    _check_belongs(fit, model, dataset)
    bound = fit.population.bind(covariates, model.parameters, counts)
    return FittedStudy(model, dataset, *bound.unpack(np.asarray(fit.x)))


def residual_sd(model: IndividualModel, phi: Array, f: Array, output: Array) -> Array:
    """SD of the residual error of every record.

    Parameters
    ----------
    model : IndividualModel
    phi : ndarray, shape (n_subjects, d)
    f : ndarray, shape (n_subjects, n_records)   [output unit]
    output : ndarray of int, shape (n_subjects, n_records)
        1-based output of every record.

    Returns
    -------
    sd : ndarray, shape (n_subjects, n_records)   [output unit, or none on the log scale]
    """
    psi = model.parameters.to_psi(phi)
    sd = np.full(f.shape, np.nan)
    for index, definition in enumerate(model.outputs, start=1):
        sigma = psi[:, model.parameters.indices(definition.error_model.names)]
        sd = np.where(output == index, definition.error_model.sd(f, sigma), sd)
    return sd


def simulate_study(
    fit: PopulationFit,
    model: IndividualModel,
    dataset: Dataset,
    n_replicates: int,
    rng: np.random.Generator,
    max_rows: int = 100_000,
) -> Array:
    """Simulate copies of the study from the fitted population, each subject under its own design.

    Parameters
    ----------
    fit : PopulationFit
    model : IndividualModel
    dataset : Dataset
    n_replicates : int
    rng : numpy.random.Generator
    max_rows : int
        Simulated subjects per block; it bounds the memory and does not change the result's distribution.

    Returns
    -------
    replicates : ndarray, shape (n_replicates, n_subjects, n_records)   [output unit]
        nan where a solve failed or a subject has no record.

    Raises
    ------
    FitError
        E_DIAGNOSTICS_SUBJECTS if the fit belongs to other subjects or another model.
    """
    study = fitted_study(fit, model, dataset)
    model, dataset, mu, factor = study.model, study.dataset, study.mu, study.factor
    batch = dataset.design_batch()
    n_subjects = len(mu)
    blocks = []
    remaining = n_replicates
    while remaining > 0:
        size = min(remaining, max(1, max_rows // n_subjects))
        eta = rng.standard_normal((size, n_subjects, factor.shape[1])) @ factor.T
        phi = (mu[None] + eta).reshape(size * n_subjects, -1)
        simulated = model.simulate_batch(phi, batch.take(np.tile(np.arange(n_subjects), size)), rng)
        y = np.where((simulated.status == 0)[:, None], simulated.y, np.nan)
        blocks.append(y.reshape(size, n_subjects, -1))
        remaining -= size
    return np.concatenate(blocks)


def _simulation_limit(y: Array, left: Array, output: Array) -> Array:
    """Quantification limit for all records of an output, taken from its censored ones.

    A data set states its limit only where it bites; simulations of quantified records must meet it as well.
    """
    limit = np.full(y.shape, np.nan)
    for index in np.unique(output[left]):
        of_output = output == index
        limit[of_output] = np.median(y[left & of_output])
    limit[left] = y[left]
    return limit


def _check_belongs(fit: PopulationFit, model: IndividualModel, dataset: Dataset) -> None:
    if tuple(fit.individuals.ids) != tuple(dataset.ids):
        raise FitError(
            "E_DIAGNOSTICS_SUBJECTS",
            f"the fit and the dataset hold different subjects - {len(fit.individuals.ids)} and"
            f" {dataset.n_subjects} - diagnostics need the dataset of the fit, in its order - pass that"
            " dataset, or fit this one",
        )
    if tuple(fit.parameter_names) != tuple(model.parameters.names):
        raise FitError(
            "E_DIAGNOSTICS_SUBJECTS",
            f"the fit has parameters {', '.join(fit.parameter_names)} - the model has"
            f" {', '.join(model.parameters.names)} - both must be the same model - pass"
            f" the model {fit.model_name!r}",
        )
