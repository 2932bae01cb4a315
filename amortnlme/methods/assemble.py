"""From packed estimates to a PopulationFit: the part that every method shares, so that fits compare."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amortnlme.core.status import FitStatus
from amortnlme.methods.base import FitProblem
from amortnlme.methods.ebe import EmpiricalBayes
from amortnlme.methods.grouped import gather
from amortnlme.methods.information import condition_number, correlation_of_estimates, weak_entries
from amortnlme.methods.iwres import eps_shrinkage
from amortnlme.methods.population_fit import FitQuality, Individuals, PopulationFit
from amortnlme.model.bound import BoundModel

PARETO_K_LIMIT = 0.7
ESS_LIMIT = 10.0
#: Condition number of the correlation matrix of the estimates above which PsN flags a fit.
CONDITION_LIMIT = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """What a method found, before it is turned into a PopulationFit.

    Attributes
    ----------
    x : ndarray, shape (n_x,)
    covariance : ndarray or None, shape (n_x, n_x)
    status : FitStatus
    modes : EmpiricalBayes
    conditional_mean_u : ndarray, shape (n_subjects, r)
    conditional_cov_u : ndarray, shape (n_subjects, r, r)
    ofv, ofv_se : float
    ofv_kind : str
    ofv_individual : ndarray, shape (n_subjects,)
    quality : FitQuality
    warnings : sequence of str
    trace : sequence of mappings
    seconds : mapping
    options : mapping
        The method's options, for the provenance.
    criterion, criterion_kind : float, str
        See `PopulationFit`.
    """

    x: np.ndarray
    covariance: np.ndarray | None
    status: FitStatus
    modes: EmpiricalBayes
    conditional_mean_u: np.ndarray
    conditional_cov_u: np.ndarray
    ofv: float
    ofv_se: float
    ofv_kind: str
    ofv_individual: np.ndarray
    quality: FitQuality
    warnings: Sequence[str]
    trace: Sequence[Mapping[str, Any]]
    seconds: Mapping[str, float]
    options: Mapping[str, Any]
    criterion: float = float("nan")
    criterion_kind: str = ""


def assemble_fit(method: str, problem: FitProblem, solution: Solution) -> PopulationFit:
    """Build the result object.

    Parameters
    ----------
    method : str
        Name of the method.
    problem : FitProblem
    solution : Solution

    Returns
    -------
    PopulationFit
    """
    population = problem.bound_population
    space = population.parameters
    mu, factor = population.unpack(solution.x)
    omega = factor @ factor.T
    eta = (solution.modes.u @ factor.T)[:, population.random_index]
    omega_sd = np.sqrt(np.diagonal(omega)[population.random_index])
    with np.errstate(divide="ignore", invalid="ignore"):
        present = np.where(population.has_occasion, eta, np.nan)
        shrinkage = np.where(omega_sd > 0, 1.0 - np.nanstd(present, axis=0, ddof=1) / omega_sd, np.nan)
    variance = np.einsum("da,nab,db->nd", factor, solution.conditional_cov_u, factor)
    individuals = Individuals(
        ids=population.subject_ids,
        ebe_phi=solution.modes.phi,
        ebe_eta=eta,
        conditional_mean_phi=mu + solution.conditional_mean_u @ factor.T,
        conditional_sd_phi=np.sqrt(np.maximum(variance, 0.0)),
    )
    theta = population.typical_phi(solution.x)
    psi = space.to_psi(theta)
    sigma = {q.name: float(psi[i]) for i, q in enumerate(space.parameters) if q.role == "error"}
    eps = float("nan")
    if isinstance(problem.bound_model, BoundModel):
        phi = solution.modes.phi
        if population.grouped is not None:
            phi = gather(phi[:, None], population.grouped)[:, 0]
        eps = eps_shrinkage(problem.bound_model, phi)
    return PopulationFit(
        method=method,
        model_name=_model_name(problem),
        population=problem.population,
        status=solution.status,
        estimates=population.describe(solution.x, solution.covariance),
        theta=theta,
        omega=omega,
        sigma=sigma,
        parameter_names=space.names,
        random_effects=population.layout.random_names,
        x=solution.x,
        x_names=population.names,
        covariance=solution.covariance,
        ofv=solution.ofv,
        ofv_kind=solution.ofv_kind,
        ofv_se=solution.ofv_se,
        ofv_individual=solution.ofv_individual,
        individuals=individuals,
        eta_shrinkage=shrinkage,
        eps_shrinkage=eps,
        quality=solution.quality,
        warnings=(*solution.warnings, *_condition_warnings(population.names, solution.covariance)),
        trace=tuple(solution.trace),
        provenance=_provenance(problem, solution.options),
        seconds=dict(solution.seconds),
        n_subjects=population.n_subjects,
        n_observations=0 if problem.dataset is None else problem.dataset.n_observations,
        n_parameters_random=_n_parameters_random(problem),
        n_censored=0 if problem.dataset is None else sum(s.n_censored for s in problem.dataset.subjects),
        criterion=solution.criterion,
        criterion_kind=solution.criterion_kind,
    )


def _n_parameters_random(problem: FitProblem) -> int:
    """Parameters that cost log n_subjects in BICc: omega, and coefficients on parameters that vary."""
    population = problem.bound_population
    varies = set(population.random_index.tolist())
    n_beta = sum(int(p) in varies for p in population.covariate_index)
    return n_beta + population.layout.n_entries


def _condition_warnings(names: tuple[str, ...], covariance: np.ndarray | None) -> list[str]:
    if covariance is None or (number := condition_number(covariance)) <= CONDITION_LIMIT:
        return []
    correlation = correlation_of_estimates(covariance)
    weakest = np.linalg.eigvalsh(correlation)[0]
    involved = weak_entries(correlation, weakest + 1e-12)
    text = ", ".join(names[k].removeprefix("theta_") for k in involved)
    return [
        f"[W_FIT_CONDITION] the condition number of the correlation matrix of the estimates is {number:.3g} "
        f"(above {CONDITION_LIMIT:.0f}, the limit of PsN): the data hardly tell {text} apart. Simplify the "
        "model."
    ]


def importance_warnings(ids: Sequence[str], ess: np.ndarray, pareto_k: np.ndarray) -> list[str]:
    """Coded warnings for subjects whose importance weights cannot be trusted.

    Parameters
    ----------
    ids : sequence of str
    ess, pareto_k : ndarray, shape (n_subjects,)

    Returns
    -------
    list of str
    """
    warnings = []
    heavy = np.flatnonzero(pareto_k > PARETO_K_LIMIT)
    if len(heavy):
        warnings.append(
            f"[W_FIT_PARETO_K] k-hat exceeds {PARETO_K_LIMIT} for {len(heavy)} of {len(ids)} subjects "
            f"({_few(ids, heavy)}): their likelihood contributions are unreliable."
        )
    poor = np.flatnonzero(ess < ESS_LIMIT)
    if len(poor):
        warnings.append(
            f"[W_FIT_LOW_ESS] fewer than {ESS_LIMIT:g} effective nodes for {len(poor)} of {len(ids)} "
            f"subjects "
            f"({_few(ids, poor)}): raise n_points, or check these subjects."
        )
    return warnings


def _few(ids: Sequence[str], index: np.ndarray, limit: int = 8) -> str:
    names = ", ".join(repr(ids[i]) for i in index[:limit])
    return names + (" ..." if len(index) > limit else "")


def _model_name(problem: FitProblem) -> str:
    if problem.model is not None:
        return problem.model.name
    return "" if problem.draws is None else problem.draws.model_name


def _provenance(problem: FitProblem, options: Mapping[str, Any]) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for package in ("amortnlme", "numpy", "scipy", "pypesto"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    draws, dataset, model = problem.draws, problem.dataset, problem.model
    return {
        "seed": problem.seed,
        "options": dict(options),
        "model_fingerprint": model.fingerprint
        if model is not None
        else (draws.model_fingerprint if draws else ""),
        "dataset_fingerprint": dataset.fingerprint if dataset is not None else "",
        "dataset_name": dataset.name if dataset is not None else "",
        "estimator_fingerprint": draws.estimator_fingerprint if draws is not None else "",
        "n_draws": draws.n_draws if draws is not None else 0,
        "versions": versions,
    }
