"""Posterior of one patient under a fitted population, from that patient's own data.

With theta, omega and sigma at their estimates and u ~ N(0, I), phi = mu + L u, the law of u given the data is
approximated by the Gaussian of Laplace ("laplace"), by the best Gaussian ("vi"), or by draws from the latter,
widened, which are weighted by the exact density and resampled ("importance").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.core.errors import FitError, UsageError
from amortnlme.data.dataset import Dataset
from amortnlme.data.subject import Subject
from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.importance import pareto_smooth
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.variational_posterior import VariationalProblem, expectation_nodes, find_posteriors
from amortnlme.model.bound import BoundModel
from amortnlme.model.individual import IndividualModel

LAWS = ("laplace", "vi", "importance")
#: Quasi-Monte Carlo nodes from five random effects on.
N_NODES = 256
#: SDs of the proposal relative to those of q, and its draws for every draw kept.
WIDER, MORE = 1.3, 4
#: Tail index of the weights above which weighted draws are not to be trusted.
HEAVY_TAIL = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class PatientPosterior:
    """Draws of one patient's parameters given the data and the population.

    Attributes
    ----------
    patient : Subject
    phi : ndarray, shape (n_draws, d)
    law : str
        How they were made, one of `LAWS`.
    pareto_k : float
        Tail index of the weights of "importance"; NaN otherwise.
    """

    patient: Subject
    phi: np.ndarray
    law: str
    pareto_k: float


def patient_posterior(
    fit: PopulationFit,
    training: Dataset,
    patient: Subject,
    model: IndividualModel,
    rng: np.random.Generator,
    n_draws: int = 1000,
    law: str = "vi",
) -> PatientPosterior:
    """Draw from the posterior of a patient, who need not have taken part in the fit.

    Parameters
    ----------
    fit : PopulationFit
    training : Dataset
        The data of the fit: reference values of covariates come from them.
    patient : Subject
        Without a measurement the law is that of the population, given the covariates.
    model : IndividualModel
    rng : numpy.random.Generator
    n_draws : int
    law : {"laplace", "vi", "importance"}

    Returns
    -------
    PatientPosterior

    Raises
    ------
    UsageError
        E_PATIENT_LAW.
    FitError
        E_PATIENT_MODEL when the fit is one of another model; E_PATIENT_POSTERIOR when the posterior was not
        found, or the weights have too heavy a tail.
    PopulationError
        E_POP_NEW_SUBJECTS, E_POP_COVARIATE_MISSING.
    """
    if law not in LAWS:
        raise UsageError("E_PATIENT_LAW", f"law is {law!r}. Allowed: {', '.join(LAWS)}.")
    if fit.parameter_names != model.parameters.names:
        raise FitError(
            "E_PATIENT_MODEL",
            f"the fit has parameters {', '.join(fit.parameter_names)}, but model {model.name!r} has "
            f"{', '.join(model.parameters.names)}. Pass the model {fit.model_name!r}.",
        )
    import pandas as pd

    table = training.covariate_table()
    joined = fit.population.bind(table, model.parameters)
    known = {name: patient.covariate_values(name)[0] for name in table.columns if name in patient.covariates}
    mu, factor = joined.for_subjects(pd.DataFrame(known, index=pd.Index([patient.id]))).unpack(fit.x)
    if not patient.observed.any():
        u = rng.standard_normal((n_draws, factor.shape[1]))
        return PatientPosterior(patient, mu + u @ factor.T, law, float("nan"))
    bound = model.bind(Dataset(subjects=(patient,)))
    if law == "laplace":
        modes = find_ebe(bound, mu, factor)
        found, mean = modes.converged[0], modes.u[0]
        root = np.linalg.cholesky(np.linalg.inv(modes.precision[0]))
    else:
        nodes = expectation_nodes(factor.shape[1], None, N_NODES, rng)
        best = find_posteriors(VariationalProblem(bound, mu, factor, nodes))
        found, mean, root = best.converged[0], best.mean[0], best.root[0]
    if not found:
        raise FitError(
            "E_PATIENT_POSTERIOR",
            f"the posterior of patient {patient.id!r} was not found from {int(patient.observed.sum())} "
            "measurements. Check doses, times and units against those of the fit.",
        )
    if law == "importance":
        u, pareto_k = _weighted(bound, mu, factor, mean, WIDER * root, n_draws, rng)
        if not pareto_k < HEAVY_TAIL:
            raise FitError(
                "E_PATIENT_POSTERIOR",
                f"the weights of patient {patient.id!r} have the tail index {pareto_k:.2f}, above "
                f"{HEAVY_TAIL}: the posterior is far from a normal law. Raise n_draws.",
            )
    else:
        u, pareto_k = mean + rng.standard_normal((n_draws, len(mean))) @ root.T, float("nan")
    return PatientPosterior(patient, mu + u @ factor.T, law, pareto_k)


def _weighted(
    bound: BoundModel,
    mu: np.ndarray,
    factor: np.ndarray,
    mean: np.ndarray,
    root: np.ndarray,
    n_draws: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Draws of the exact law of u by sampling importance resampling, and the tail index of the weights."""
    eps = rng.standard_normal((MORE * n_draws, len(mean)))
    u = mean + eps @ root.T
    log_weights = bound.log_likelihood((mu + u @ factor.T)[None])[0]
    log_weights += 0.5 * ((eps**2).sum(axis=1) - (u**2).sum(axis=1))
    smoothed, pareto_k = pareto_smooth(log_weights[None])
    cumulative = np.cumsum(np.exp(smoothed[0]))
    grid = (np.arange(n_draws) + rng.random()) / n_draws
    kept = np.minimum(np.searchsorted(cumulative / cumulative[-1], grid), len(u) - 1)
    return rng.permuted(u[kept], axis=0), float(pareto_k[0])
