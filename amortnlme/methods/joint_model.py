"""Separately fitted models as one joint model: which random effects it has, and the likelihood of all data.

Every endpoint is a model with its fit and its data. Given the random effects the endpoints are independent,
so that the joint likelihood is a sum over endpoints. The likelihood of an endpoint may also come from
posterior draws of an estimator: their density divided by the prior they were made under. Effects named in
`shared` (those of the pharmacokinetics that drive every endpoint) are the same in all of them and keep the
law of the first fit that has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from amortnlme.core.errors import CapabilityError, FitError
from amortnlme.core.rng import stream
from amortnlme.data.dataset import Dataset
from amortnlme.methods.density_targets import SurrogateTarget
from amortnlme.methods.ebe import IndividualTarget
from amortnlme.methods.joint_target import JointPart, JointTarget
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.surrogate import build_surrogate
from amortnlme.model.individual import IndividualModel
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.laws import GaussianLaw
from amortnlme.population.posterior_draws import PosteriorDraws

#: Typical values of a shared effect may differ between fits by this share of its SD: they were fixed at the
#: same numbers, which a table may have rounded.
SAME_TYPICAL = 0.02
#: Normal components that draws are refitted by, and the stream of that.
DRAW_COMPONENTS, DRAW_STREAM = 2, 90


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """One fitted model with its data.

    Attributes
    ----------
    name : str
    model : IndividualModel
    fit : PopulationFit
    dataset : Dataset
        What the fit was made from, or other data of the same kind.
    outputs : tuple of str or None
        Outputs of the model that count here; None: all. A concentration that helped to fit several endpoints
        is to count in one of them only.
    draws : PosteriorDraws or None
        Of subjects of the dataset: they take the place of the likelihood. They must come from the data of
        this endpoint alone, as draws cannot leave outputs out.

    Raises
    ------
    FitError
        E_JOIN_OUTPUT, E_JOIN_DRAWS, E_JOIN_MODEL, E_JOIN_STATUS.
    CapabilityError
        E_JOIN_POPULATION.
    """

    name: str
    model: IndividualModel
    fit: PopulationFit
    dataset: Dataset
    outputs: tuple[str, ...] | None = None
    draws: PosteriorDraws | None = None

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        known = [output.name for output in self.model.outputs]
        for output in self.outputs or ():
            if output not in known:
                raise FitError(
                    "E_JOIN_OUTPUT",
                    f"endpoint {self.name!r} is to count output {output!r}, which model {self.model.name!r} "
                    f"lacks. It has {', '.join(known)}.",
                )
        if self.draws is not None and (
            self.outputs is not None or self.draws.parameters.names != self.model.parameters.names
        ):
            raise FitError(
                "E_JOIN_DRAWS",
                f"the draws of endpoint {self.name!r} cannot be used: they must have the parameters of the "
                "model, and `outputs` cannot leave out what they were made from. Sample again.",
            )
        if self.fit.parameter_names != self.model.parameters.names:
            raise FitError(
                "E_JOIN_MODEL",
                f"the fit of endpoint {self.name!r} has parameters {', '.join(self.fit.parameter_names)}, "
                f"model {self.model.name!r} has {', '.join(self.model.parameters.names)}. Pass the model "
                "that was fitted.",
            )
        if not self.fit.status.is_success:
            raise FitError(
                "E_JOIN_STATUS",
                f"the fit of endpoint {self.name!r} is {self.fit.status.value}: {self.fit.status.sentence} "
                "Fit it again before joining.",
            )
        population = self.fit.population
        if population.occasion_effects is not None or population.groups:
            raise CapabilityError(
                "E_JOIN_POPULATION",
                f"population {population.name!r} of endpoint {self.name!r} has occasion effects or groups, "
                "which joining does not handle. Fit it without them.",
            )

    def counted(self, dataset: Dataset | PosteriorDraws) -> Dataset | PosteriorDraws:
        """Keep only the observations of the outputs that count; draws stay as they are.

        Parameters
        ----------
        dataset : Dataset or PosteriorDraws

        Returns
        -------
        Dataset or PosteriorDraws
        """
        if self.outputs is None or isinstance(dataset, PosteriorDraws):
            return dataset
        number = [k + 1 for k, output in enumerate(self.model.outputs) if output.name in self.outputs]
        subjects = [
            replace(s, observed=s.observed & np.isin(s.design.observation_outputs, number))
            for s in dataset.subjects
        ]
        return replace(dataset, subjects=tuple(s for s in subjects if s.n_observed))


@dataclass(frozen=True, eq=False)
class JointModel:
    """Endpoints whose random effects are to share one law.

    Attributes
    ----------
    endpoints : tuple of Endpoint
        The owners of shared effects first.
    shared : tuple of str
        Parameters whose random effects are the same in every endpoint that has them. Their law stays that of
        the first one; they are named as they are, all others "endpoint.parameter".

    Raises
    ------
    FitError
        E_JOIN_ENDPOINT, E_JOIN_OUTPUT, E_JOIN_SHARED.
    """

    endpoints: tuple[Endpoint, ...]
    shared: tuple[str, ...] = ()
    _populations: tuple[BoundPopulation, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check that the endpoints go together."""
        object.__setattr__(self, "endpoints", tuple(self.endpoints))
        object.__setattr__(self, "shared", tuple(self.shared))
        bound = [
            e.fit.population.bind(e.dataset.covariate_table(), e.model.parameters) for e in self.endpoints
        ]
        object.__setattr__(self, "_populations", tuple(bound))
        _check_endpoints(self)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all random effects, shared ones first."""
        return (
            *self.shared,
            *(f"{e.name}.{n}" for e in self.endpoints for n in e.fit.random_effects if n not in self.shared),
        )

    @cached_property
    def learned(self) -> tuple[str, ...]:
        """Names of the random effects whose joint law is learned: all that are not shared."""
        return self.names[len(self.shared) :]

    @cached_property
    def independent(self) -> GaussianLaw:
        """Law of all random effects as the separate fits have it: endpoints independent."""
        D = len(self.names)
        covariance = np.zeros((D, D))
        done: set[str] = set()
        for endpoint in self.endpoints:
            fit, places = endpoint.fit, self.places(endpoint)
            columns = [fit.parameter_names.index(name) for name in fit.random_effects]
            new = np.array([name not in done for name in fit.random_effects])
            done |= set(fit.random_effects) & set(self.shared)
            omega = fit.omega[np.ix_(columns, columns)]
            covariance[np.ix_(places[new], places[new])] = omega[np.ix_(new, new)]
        return GaussianLaw(self.names, np.zeros(D), covariance)

    @property
    def held(self) -> GaussianLaw | None:
        """Law of the shared effects; None where there are none."""
        return self.independent.marginal(self.shared) if self.shared else None

    def effects_of(self, endpoint: str) -> tuple[str, ...]:
        """Names of the effects that belong to one endpoint alone.

        Parameters
        ----------
        endpoint : str

        Returns
        -------
        tuple of str
        """
        return tuple(name for name in self.learned if name.startswith(f"{endpoint}."))

    def places(self, endpoint: Endpoint) -> np.ndarray:
        """Where the random effects of an endpoint stand among those of the joint model.

        Parameters
        ----------
        endpoint : Endpoint

        Returns
        -------
        ndarray of int, shape (r_e,)
        """
        names = [n if n in self.shared else f"{endpoint.name}.{n}" for n in endpoint.fit.random_effects]
        return np.array([self.names.index(name) for name in names])

    def bind(self, datasets: Mapping[str, Dataset | PosteriorDraws] | None = None) -> JointTarget:
        """Join the models with data.

        Parameters
        ----------
        datasets : mapping of str to Dataset or PosteriorDraws, optional
            Of new subjects, by endpoint; endpoints that are not there were not measured. None: the data or
            draws the endpoints have. Covariates keep the reference values of the fits.

        Returns
        -------
        JointTarget
            Subjects in the order in which they first occur.

        Raises
        ------
        FitError
            E_JOIN_ENDPOINT, E_JOIN_SHARED, E_JOIN_COVARIATES.
        """
        given = {e.name: e.draws or e.dataset for e in self.endpoints} if datasets is None else dict(datasets)
        unknown = [name for name in given if name not in {e.name for e in self.endpoints}]
        if unknown or not given:
            raise FitError(
                "E_JOIN_ENDPOINT",
                f"there are data of {', '.join(map(repr, unknown)) or 'nothing'}. Give data by the names of "
                f"endpoints: {', '.join(e.name for e in self.endpoints)}.",
            )
        counted = {e.name: e.counted(given[e.name]) for e in self.endpoints if e.name in given}
        ids = tuple(dict.fromkeys(i for source in counted.values() for i in _ids(source)))
        row = {i: k for k, i in enumerate(ids)}
        parts = []
        for endpoint, population in zip(self.endpoints, self._populations, strict=True):
            if endpoint.name not in counted:
                continue
            source = counted[endpoint.name]
            new = population.for_subjects(_covariates(endpoint, source))
            columns = [endpoint.fit.parameter_names.index(n) for n in endpoint.fit.random_effects]
            parts.append(
                JointPart(
                    name=endpoint.name,
                    bound=_likelihood(endpoint, source),
                    rows=np.array([row[i] for i in _ids(source)]),
                    mu=new.unpack(endpoint.fit.x)[0],
                    columns=np.array(columns),
                    places=self.places(endpoint),
                )
            )
        _check_shared(self, parts)
        return JointTarget(ids, self.names, tuple(parts))


def _ids(source: Dataset | PosteriorDraws) -> tuple[str, ...]:
    return source.subject_ids if isinstance(source, PosteriorDraws) else source.ids


def _covariates(endpoint: Endpoint, source: Dataset | PosteriorDraws) -> pd.DataFrame:
    if isinstance(source, Dataset):
        return source.covariate_table()
    population = endpoint.fit.population
    if not (population.covariates or population.networks):
        return pd.DataFrame(index=pd.Index(source.subject_ids))
    if not set(source.subject_ids) <= set(endpoint.dataset.ids):
        raise FitError(
            "E_JOIN_COVARIATES",
            f"the population of endpoint {endpoint.name!r} has covariates, which draws of new subjects do "
            "not tell. Give their data.",
        )
    return endpoint.dataset.select(source.subject_ids).covariate_table()


def _likelihood(endpoint: Endpoint, source: Dataset | PosteriorDraws) -> IndividualTarget:
    if isinstance(source, Dataset):
        return endpoint.model.bind(source)
    return SurrogateTarget(build_surrogate(source, DRAW_COMPONENTS, stream(0, DRAW_STREAM)))


def _check_endpoints(joint: JointModel) -> None:
    names = [e.name for e in joint.endpoints]
    if len(names) < 2 or len(set(names)) != len(names) or any("." in name for name in names):
        raise FitError(
            "E_JOIN_ENDPOINT",
            f"endpoints {names} cannot be joined. Give two or more, with different names without dots.",
        )
    counted = [
        (output.name, e.name)
        for e in joint.endpoints
        for output in e.model.outputs
        if e.outputs is None or output.name in e.outputs
    ]
    for parameter in joint.shared:
        owners = [e.name for e in joint.endpoints if parameter in e.fit.random_effects]
        if len(owners) < 2:
            raise FitError(
                "E_JOIN_SHARED",
                f"{parameter!r} is to be shared, but has a random effect in {', '.join(owners) or 'no'} "
                "endpoint only. Share effects of two or more.",
            )
    for e in joint.endpoints:
        _check_blocks(e, joint.shared)
    for output, name in counted if joint.shared else ():
        twice = [other for o, other in counted if o == output and other != name]
        if twice and _same_data(joint, output, name, twice[0]):
            raise FitError(
                "E_JOIN_OUTPUT",
                f"the observations of {output!r} are in endpoints {name!r} and {twice[0]!r}: they would "
                "count twice. Pass `outputs` to count them in one only.",
            )


def _check_blocks(endpoint: Endpoint, shared: Sequence[str]) -> None:
    fit = endpoint.fit
    inside = [k for k, name in enumerate(fit.parameter_names) if name in shared]
    outside = [k for k, name in enumerate(fit.parameter_names) if name not in shared]
    if np.abs(fit.omega[np.ix_(inside, outside)]).max(initial=0.0) > 0:
        raise FitError(
            "E_JOIN_SHARED",
            f"endpoint {endpoint.name!r} has covariances between shared effects ({', '.join(shared)}) and "
            "its own. Fit it with separate blocks: the law of shared effects is that of one fit.",
        )


def _same_data(joint: JointModel, output: str, first: str, second: str) -> bool:
    """Whether two endpoints hold the same observations of an output."""
    found = []
    for e in joint.endpoints:
        if e.name in (first, second):
            number = 1 + [o.name for o in e.model.outputs].index(output)
            found.append(
                {
                    s.id: s.y[s.observed & (s.design.observation_outputs == number)].tolist()
                    for s in e.dataset.subjects
                }
            )
    return any(values and found[1].get(i) == values for i, values in found[0].items())


def _check_shared(joint: JointModel, parts: Sequence[JointPart]) -> None:
    """Refuse fits that have shared effects around different typical values."""
    sd = dict(zip(joint.names, np.sqrt(np.diagonal(joint.independent.covariance)), strict=True))
    for k, name in enumerate(joint.shared):
        seen: dict[int, float] = {}
        for part in parts:
            if k not in part.places:
                continue
            column = part.columns[list(part.places).index(k)]
            for row, value in zip(part.rows.tolist(), part.mu[:, column].tolist(), strict=True):
                if abs(seen.setdefault(row, value) - value) > SAME_TYPICAL * sd[name]:
                    raise FitError(
                        "E_JOIN_SHARED",
                        f"the typical value of the shared effect {name!r} differs between the fits (on the "
                        f"phi scale {seen[row]:.5g} and {value:.5g} in endpoint {part.name!r}). Fix it in "
                        "the later fits at the value of the first.",
                    )
