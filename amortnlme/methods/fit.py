"""`fit`: the one verb of the population floor."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from amortnlme.core.errors import CapabilityError, DrawsError, FitError, UsageError
from amortnlme.data.dataset import Dataset
from amortnlme.methods.amortized import Amortized
from amortnlme.methods.base import AbstractMethod, FitProblem
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.model.individual import IndividualModel
from amortnlme.model.occasions import OccasionStudy, spell_out_occasions
from amortnlme.model.registry import load_model, load_shipped_model
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.posterior_draws import PosteriorDraws

if TYPE_CHECKING:
    import pandas as pd

    from amortnlme.model.bound import BoundModel

MIN_DRAWS = 50
_T = TypeVar("_T")


def fit(
    draws_or_dataset: PosteriorDraws | Dataset,
    population: PopulationModel,
    method: AbstractMethod | None = None,
    *,
    dataset: Dataset | None = None,
    model: IndividualModel | str | None = None,
    seed: int = 0,
) -> PopulationFit:
    """Fit a population model.

    Parameters
    ----------
    draws_or_dataset : PosteriorDraws or Dataset
        Individual posterior draws for methods that swap population models from draws; a dataset for the
        others.
    population : PopulationModel
    method : AbstractMethod
        Carries its options; `Amortized()` where not given.
    dataset : Dataset, optional
        The data the draws belong to: covariates and, with `model`, the exact likelihood that corrects the
        draws.
    model : IndividualModel or str, optional
        Where not given but needed, the registry is asked for the model the draws name.
    seed : int
        All random numbers of the fit derive from it.

    Returns
    -------
    PopulationFit
        Also when the fit did not succeed; `status` then says why.

    Raises
    ------
    UsageError
        E_FIT_ARGUMENT, E_FIT_NEEDS_DRAWS, E_FIT_NEEDS_DATASET.
    DrawsError
        E_DRAWS_OTHER_DATASET, E_DRAWS_OTHER_MODEL, E_DRAWS_TOO_FEW, E_DRAWS_DEGENERATE.
    FitError
        E_FIT_TOO_FEW_SUBJECTS.
    CapabilityError
        E_FIT_CAPABILITY, E_FIT_OCCASIONS, E_FIT_GROUPS, E_FIT_NETWORKS.
    PopulationError
        When the population model does not fit the parameters or covariates.
    """
    method = Amortized() if method is None else method
    draws, dataset = _arguments(draws_or_dataset, dataset, population, method)
    if draws is not None:
        _check_draws(draws)
        if dataset is not None:
            _check_same_dataset(draws, dataset)
    individual = _resolve_model(draws, dataset, model)
    if individual is not None:
        _check_capabilities(f"method {method.name!r}", method.requires, individual)
    _refuse_unhandled(population, method)
    study = None
    if population.occasion_effects is not None:
        study = _spelled_out(draws, dataset, individual, population, method)
    if draws is None:
        _required(individual, method)
        _required(dataset, method)
    return method.run(_joined(draws, dataset, individual, population, study, seed))


def problem_of(
    dataset: Dataset, population: PopulationModel, model: IndividualModel | str, seed: int
) -> FitProblem:
    """Join a population model with data and an individual model whose likelihood and gradient are known.

    Parameters
    ----------
    dataset : Dataset
    population : PopulationModel
    model : IndividualModel or str
        A name is looked up in the registry.
    seed : int

    Returns
    -------
    FitProblem
        Without draws.

    Raises
    ------
    CapabilityError
        E_FIT_CAPABILITY.
    FitError
        E_FIT_TOO_FEW_SUBJECTS.
    """
    individual = load_model(model) if isinstance(model, str) else model
    _check_capabilities("the exact likelihood", frozenset({"likelihood", "sensitivity"}), individual)
    effects = population.occasion_effects
    study = None if effects is None else spell_out_occasions(individual, dataset, effects.on)
    return _joined(None, dataset, individual, population, study, seed)


def _check_capabilities(what: str, needed: frozenset[str], individual: IndividualModel) -> None:
    missing = needed - individual.capabilities
    if missing:
        raise CapabilityError(
            "E_FIT_CAPABILITY",
            f"{what} needs {', '.join(sorted(missing))}, which model {individual.name!r} does not offer (it "
            f"offers {', '.join(sorted(individual.capabilities))}). Choose another method.",
        )


def _joined(
    draws: PosteriorDraws | None,
    dataset: Dataset | None,
    individual: IndividualModel | None,
    population: PopulationModel,
    study: OccasionStudy | None,
    seed: int,
) -> FitProblem:
    """Bind population and model to the subjects of the draws, or else of the dataset."""
    spelled_out, counts = None, None
    if study is not None:
        individual, spelled_out, counts = study.model, study.dataset, study.n_occasions
    whose = draws if draws is not None else individual
    who = draws if draws is not None else dataset
    assert whose is not None and who is not None
    parameters, ids = whose.parameters, who.subject_ids if isinstance(who, PosteriorDraws) else who.ids
    if len(ids) < 2:
        raise FitError(
            "E_FIT_TOO_FEW_SUBJECTS",
            f"a population model needs at least 2 subjects, but there is {len(ids)}. Pool the data of more "
            f"subjects.",
        )
    bound_model: BoundModel | None = None
    if dataset is not None and individual is not None and "likelihood" in individual.capabilities:
        bound_model = individual.bind(dataset if spelled_out is None else spelled_out)
    return FitProblem(
        population=population,
        bound_population=population.bind(
            _covariate_table(dataset, ids, population), parameters, n_occasions=counts
        ),
        draws=draws,
        dataset=dataset,
        model=individual,
        bound_model=bound_model,
        seed=seed,
    )


def _refuse_unhandled(population: PopulationModel, method: AbstractMethod) -> None:
    """Refuse features of a population model that a method does not know."""
    if population.groups and not method.handles_groups:
        raise CapabilityError(
            "E_FIT_GROUPS",
            f"population {population.name!r} has parameters by group "
            f"({', '.join(g.parameter for g in population.groups)}), which method {method.name!r} does "
            "not handle. Fit posterior draws by method 'amortized', or remove the groups.",
        )
    if population.networks and not method.handles_networks:
        raise CapabilityError(
            "E_FIT_NETWORKS",
            f"population {population.name!r} has networks of covariates, which method {method.name!r} does "
            "not handle. Fit the data by pooled, fo, foce, focei, laplace, agq or vi, or remove them.",
        )


def _arguments(
    first: PosteriorDraws | Dataset,
    dataset: Dataset | None,
    population: PopulationModel,
    method: AbstractMethod,
) -> tuple[PosteriorDraws | None, Dataset | None]:
    if not isinstance(population, PopulationModel):
        raise UsageError(
            "E_FIT_ARGUMENT",
            f"`population` is a {type(population).__name__}, not a PopulationModel. Build one, or read a "
            f"TOML file "
            f"with read_population(path).",
        )
    if not isinstance(method, AbstractMethod):
        raise UsageError(
            "E_FIT_ARGUMENT",
            f"`method` is a {type(method).__name__}, not a method object such as Amortized().",
        )
    if dataset is not None and not isinstance(dataset, Dataset):
        raise UsageError("E_FIT_ARGUMENT", f"`dataset` is a {type(dataset).__name__}, not a Dataset.")
    if isinstance(first, PosteriorDraws):
        return first, dataset
    if not isinstance(first, Dataset):
        raise UsageError(
            "E_FIT_ARGUMENT",
            f"the first argument is a {type(first).__name__}; give PosteriorDraws or a Dataset.",
        )
    if method.needs_draws:
        raise UsageError(
            "E_FIT_NEEDS_DRAWS",
            f"method {method.name!r} works on posterior draws, but a dataset was given. Sample first: "
            f"draws = estimator.sample(dataset, 1000, rng); fit(draws, population, dataset=dataset).",
        )
    return None, first


def _check_draws(draws: PosteriorDraws) -> None:
    if draws.n_draws < MIN_DRAWS:
        raise DrawsError(
            "E_DRAWS_TOO_FEW",
            f"there are {draws.n_draws} draws per subject; a population fit needs at least {MIN_DRAWS} "
            f"(1000 is usual). Sample again with more draws.",
        )
    # Not the standard deviation, which rounding keeps above zero.
    flat = np.argwhere(np.ptp(draws.phi, axis=1) <= 0)
    if len(flat):
        who, which = draws.subject_ids[flat[0][0]], draws.parameters.names[flat[0][1]]
        raise DrawsError(
            "E_DRAWS_DEGENERATE",
            f"all draws of {which!r} for subject {who!r} are the same number. Posterior draws must vary; "
            f"sample again.",
        )
    scaled = (draws.phi - draws.phi.mean(axis=1, keepdims=True)) / draws.phi.std(axis=1, keepdims=True)
    flat = np.flatnonzero(
        np.linalg.eigvalsh(np.swapaxes(scaled, 1, 2) @ scaled)[:, 0] < 1e-12 * draws.n_draws
    )
    if len(flat):
        raise DrawsError(
            "E_DRAWS_DEGENERATE",
            f"the draws of subject {draws.subject_ids[flat[0]]!r} are linearly dependent: one parameter "
            f"follows from the others. Posterior draws must vary in every direction; sample again.",
        )


def _check_same_dataset(draws: PosteriorDraws, dataset: Dataset) -> None:
    if draws.subject_ids != dataset.ids or (
        draws.dataset_fingerprint and draws.dataset_fingerprint != dataset.fingerprint
    ):
        what = "other subjects" if draws.subject_ids != dataset.ids else "other records (fingerprints differ)"
        raise DrawsError(
            "E_DRAWS_OTHER_DATASET",
            f"the draws were made from {what} than dataset {dataset.name!r} holds. Sample again from this "
            f"dataset, or "
            f"pass the dataset the draws came from.",
        )


def _resolve_model(
    draws: PosteriorDraws | None, dataset: Dataset | None, model: IndividualModel | str | None
) -> IndividualModel | None:
    if model is None:
        if draws is None or dataset is None or not draws.model_name:
            return None
        individual = load_shipped_model(draws.model_name)
    else:
        individual = load_model(model) if isinstance(model, str) else model
    if draws is not None:
        if draws.parameters.names != individual.parameters.names:
            raise DrawsError(
                "E_DRAWS_OTHER_MODEL",
                f"the draws have parameters {', '.join(draws.parameters.names)}, but model "
                f"{individual.name!r} has "
                f"{', '.join(individual.parameters.names)}. Pass the model the draws were made with.",
            )
        if draws.model_fingerprint and draws.model_fingerprint != individual.fingerprint:
            raise DrawsError(
                "E_DRAWS_OTHER_MODEL",
                f"the draws were made with another version of model {draws.model_name!r} (fingerprints "
                f"differ from "
                f"{individual.name!r}). Sample again, or pass the model the draws were made with.",
            )
    return individual


def _spelled_out(
    draws: PosteriorDraws | None,
    dataset: Dataset | None,
    individual: IndividualModel | None,
    population: PopulationModel,
    method: AbstractMethod,
) -> OccasionStudy:
    """Spell out the occasions of a dataset; posterior draws know nothing of them."""
    effects = population.occasion_effects
    if draws is not None or effects is None:
        raise CapabilityError(
            "E_FIT_OCCASIONS",
            f"population {population.name!r} has inter-occasion variability, which method {method.name!r} "
            "does not handle: posterior draws hold one set of parameters per subject. Fit the data by fo, "
            "foce, focei, laplace, agq, vi or saem, or remove the occasion effects.",
        )
    return spell_out_occasions(_required(individual, method), _required(dataset, method), effects.on)


def _covariate_table(
    dataset: Dataset | None, ids: tuple[str, ...], population: PopulationModel
) -> pd.DataFrame:
    if dataset is not None:
        return dataset.covariate_table()
    inputs = [given for network in population.networks for given in network.inputs]
    if population.covariates or population.groups or inputs:
        used = ", ".join(sorted({e.covariate for e in (*population.covariates, *population.groups, *inputs)}))
        raise UsageError(
            "E_FIT_NEEDS_DATASET",
            f"population {population.name!r} uses covariates ({used}), but only draws were given. "
            f"Pass dataset=..., the data the draws were made from.",
        )
    import pandas as pd

    return pd.DataFrame(index=pd.Index(ids))


def _required(value: _T | None, method: AbstractMethod) -> _T:
    if value is None:
        raise UsageError("E_FIT_NEEDS_DATASET", f"method {method.name!r} needs a dataset and a model.")
    return value
