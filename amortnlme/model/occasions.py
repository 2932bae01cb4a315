"""Inter-occasion variability: parameters that differ between the occasions of one subject.

A parameter with inter-occasion variability is transform(psi) = phi + kappa_k while occasion k is in force.
The effects kappa_1, ..., kappa_K become parameters of an enlarged individual model and the occasions become
indicator covariates, so that every engine carries the states across occasions and differentiates by the
effects, and every method treats them as further random effects. A subject with fewer than K occasions never
sees the remaining effects: they keep their distribution and integrate to one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.errors import CapabilityError, PopulationError
from amortnlme.data.dataset import Dataset
from amortnlme.data.subject import Subject, TimeVarying
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior
from amortnlme.solve.trace import Shift

if TYPE_CHECKING:
    from amortnlme.model.individual import IndividualModel

#: Prior SD of an occasion's effect, relative to the prior SD of its parameter: only starting values feel it.
PRIOR_SHARE = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class OccasionStudy:
    """A model and a dataset in which the occasions are spelled out.

    Attributes
    ----------
    model : IndividualModel
        With the effects of all occasions behind its own parameters.
    dataset : Dataset
        With one indicator covariate per occasion.
    n_occasions : ndarray of int, shape (n_subjects,)
        Occasions of each subject, numbered in the order in which they begin.
    """

    model: IndividualModel
    dataset: Dataset
    n_occasions: np.ndarray


def effect_names(parameter: str, n_occasions: int) -> tuple[str, ...]:
    """Names of the effects of all occasions on a parameter.

    Parameters
    ----------
    parameter : str
    n_occasions : int

    Returns
    -------
    tuple of str
        kappa_<parameter>_1, kappa_<parameter>_2, ...
    """
    return tuple(f"kappa_{parameter}_{k}" for k in range(1, n_occasions + 1))


def spell_out_occasions(model: IndividualModel, dataset: Dataset, on: tuple[str, ...]) -> OccasionStudy:
    """Enlarge a model and a dataset by the occasions of the dataset.

    Parameters
    ----------
    model : IndividualModel
    dataset : Dataset
    on : tuple of str
        Structural parameters that differ between occasions.

    Returns
    -------
    OccasionStudy

    Raises
    ------
    PopulationError
        E_POP_OCCASIONS when no subject has two occasions, E_POP_UNKNOWN_PARAMETER, E_POP_OCCASION_ERROR.
    CapabilityError
        E_FIT_CAPABILITY for a model that cannot be traced.
    """
    counts = np.array([int(subject.occasion_number.max(initial=0)) + 1 for subject in dataset.subjects])
    if counts.max() < 2:
        raise PopulationError(
            "E_POP_OCCASIONS",
            f"the population has inter-occasion variability on {', '.join(on)}, but no subject of dataset "
            f"{dataset.name!r} has more than one occasion. Give the occasions in column OCC, or remove the "
            "occasion effects.",
        )
    _check(model, on)
    K = int(counts.max())
    subjects = tuple(_marked(subject, K) for subject in dataset.subjects)
    return OccasionStudy(_enlarged(model, on, K), replace(dataset, subjects=subjects), counts)


def _check(model: IndividualModel, on: tuple[str, ...]) -> None:
    known = model.parameters.names
    for name in on:
        if name not in known:
            raise PopulationError(
                "E_POP_UNKNOWN_PARAMETER",
                f"inter-occasion variability is asked for on {name!r}, which model {model.name!r} does not "
                f"have. Its parameters: {', '.join(known)}.",
            )
        if model.parameters.parameters[model.parameters.index(name)].role == "error":
            raise PopulationError(
                "E_POP_OCCASION_ERROR",
                f"{name!r} is a parameter of the residual error, which cannot differ between occasions. "
                "Choose structural parameters.",
            )
    if "sensitivity" not in model.capabilities:
        raise CapabilityError(
            "E_FIT_CAPABILITY",
            f"inter-occasion variability needs a model with sensitivities; {model.name!r} offers "
            f"{', '.join(sorted(model.capabilities))}. Write its right-hand side so that it can be traced.",
        )


def _indicators(n_occasions: int) -> tuple[str, ...]:
    return tuple(f"occasion_{k}" for k in range(1, n_occasions + 1))


def _marked(subject: Subject, n_occasions: int) -> Subject:
    number = subject.occasion_number
    marks = {
        name: TimeVarying((number == k).astype(np.float64))
        for k, name in enumerate(_indicators(n_occasions))
    }
    return replace(subject, covariates={**subject.covariates, **marks})


def _enlarged(model: IndividualModel, on: tuple[str, ...], n_occasions: int) -> IndividualModel:
    # Occasion by occasion, as the blocks of the random effects are laid out.
    effects = [
        Parameter(names[k], "1", "identity", 0.0, f"effect of occasion {k + 1} on {name}")
        for k in range(n_occasions)
        for name, names in ((name, effect_names(name, n_occasions)) for name in on)
    ]
    space = model.parameters
    shifts = tuple(
        Shift(
            name,
            space.parameters[space.index(name)].transform,
            effect_names(name, n_occasions),
            _indicators(n_occasions),
        )
        for name in on
    )
    return replace(
        model,
        parameters=ParameterSpace((*space.parameters, *effects)),
        covariates=(*model.covariates, *_indicators(n_occasions)),
        prior=_prior(model, on, n_occasions),
        shifts=shifts,
    )


def _prior(model: IndividualModel, on: tuple[str, ...], n_occasions: int) -> NormalPrior:
    prior = model.prior
    if not isinstance(prior, NormalPrior):
        raise CapabilityError(
            "E_POP_PRIOR_NOT_NORMAL",
            f"model {model.name!r} has a {type(prior).__name__}; inter-occasion variability takes its "
            "starting values from a NormalPrior. Declare one.",
        )
    columns = list(model.parameters.indices(on)) * n_occasions
    sd = np.sqrt(np.diagonal(prior.covariance))
    d, extra = prior.d, len(columns)
    covariance = np.zeros((d + extra, d + extra))
    covariance[:d, :d] = prior.covariance
    covariance[range(d, d + extra), range(d, d + extra)] = (PRIOR_SHARE * sd[columns]) ** 2
    return NormalPrior(np.concatenate([prior.mean, np.zeros(extra)]), covariance=covariance)
