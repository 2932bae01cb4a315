"""Fits judged on subjects they have not seen, and the ridge of networks chosen that way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.data.dataset import Dataset
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.fit import fit
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.quadrature_likelihood import QuadratureLikelihood
from amortnlme.model.individual import IndividualModel
from amortnlme.model.registry import load_model
from amortnlme.population.population_model import PopulationModel

N_NODES = 5


@dataclass(frozen=True, slots=True, eq=False)
class RidgeChoice:
    """What validation says about the ridges tried.

    Attributes
    ----------
    ridges : tuple of float
    validation : ndarray, shape (n_ridges,)
        -2 log-likelihood of the validation subjects, by quadrature; inf where a fit failed.
    fits : tuple of PopulationFit
    """

    ridges: tuple[float, ...]
    validation: np.ndarray
    fits: tuple[PopulationFit, ...]

    @property
    def best(self) -> PopulationFit:
        """The fit with the lowest validation value."""
        return self.fits[int(np.argmin(self.validation))]

    @property
    def ridge(self) -> float:
        """Its ridge."""
        return self.ridges[int(np.argmin(self.validation))]


def score_new_subjects(
    result: PopulationFit, training: Dataset, new: Dataset, model: IndividualModel | str
) -> np.ndarray:
    """-2 log-likelihood of subjects that took no part in a fit, by adaptive quadrature.

    Parameters
    ----------
    result : PopulationFit
    training : Dataset
        The data of the fit: reference values of covariates come from them.
    new : Dataset
    model : IndividualModel or str

    Returns
    -------
    ndarray, shape (n_new_subjects,)

    Raises
    ------
    PopulationError
        E_POP_NEW_SUBJECTS, E_POP_COVARIATE_MISSING.
    """
    individual = load_model(model) if isinstance(model, str) else model
    joined = result.population.bind(training.covariate_table(), individual.parameters)
    here = joined.for_subjects(new.covariate_table())
    return -2.0 * QuadratureLikelihood(individual.bind(new), here, N_NODES).value_and_scores(result.x)[0]


def with_ridge(population: PopulationModel, ridge: float) -> PopulationModel:
    """Give all networks of a population one ridge.

    Parameters
    ----------
    population : PopulationModel
    ridge : float

    Returns
    -------
    PopulationModel
    """
    return replace(population, networks=tuple(replace(n, ridge=ridge) for n in population.networks))


def choose_ridge(
    training: Dataset,
    validation: Dataset,
    population: PopulationModel,
    method: AbstractMethod,
    model: IndividualModel | str,
    ridges: Sequence[float] = (2.0, 8.0, 32.0),
    seed: int = 0,
) -> RidgeChoice:
    """Fit with several ridges and judge each on other subjects.

    Parameters
    ----------
    training, validation : Dataset
    population : PopulationModel
        With networks.
    method : AbstractMethod
    model : IndividualModel or str
    ridges : sequence of float
    seed : int

    Returns
    -------
    RidgeChoice

    Raises
    ------
    UsageError
        E_FIT_ARGUMENT: no networks, or no ridges.
    """
    if not population.networks or not ridges:
        raise UsageError(
            "E_FIT_ARGUMENT",
            f"population {population.name!r} has {len(population.networks)} networks and {len(ridges)} "
            "ridges were given. Give at least one of each.",
        )
    fits = tuple(
        fit(training, with_ridge(population, ridge), method, model=model, seed=seed) for ridge in ridges
    )
    values = [float(score_new_subjects(one, training, validation, model).sum()) for one in fits]
    return RidgeChoice(tuple(ridges), np.array([v if np.isfinite(v) else np.inf for v in values]), fits)
