"""What a joint law is for: effects from other endpoints' data, predictions, virtual patients, information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from amortnlme.core.errors import FitError
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.methods.importance import normalized_weights
from amortnlme.methods.joint_fit import JointFit
from amortnlme.methods.joint_model import Endpoint, JointModel
from amortnlme.methods.likelihood_bank import JointScore, LikelihoodBank, make_bank, reference_law, score
from amortnlme.population.laws import GaussianLaw
from amortnlme.population.posterior_draws import PosteriorDraws


@dataclass(frozen=True, slots=True, eq=False)
class ConditionalEffects:
    """What data of some or all endpoints say about the effects of every subject.

    Attributes
    ----------
    ids : tuple of str
    names : tuple of str
        All effects, shared ones first.
    draws : ndarray, shape (n, K, D)
        From the conditional laws.
    score : JointScore
        Likelihood of the data, effective nodes, conditional means of the learned effects.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    draws: np.ndarray
    score: JointScore

    @property
    def mean(self) -> np.ndarray:
        """Conditional means of all effects, shape (n, D)."""
        return self.draws.mean(axis=1)

    @property
    def sd(self) -> np.ndarray:
        """Conditional SDs of all effects, shape (n, D)."""
        return self.draws.std(axis=1)


def conditional_effects(
    joint: JointModel,
    found: JointFit,
    datasets: Mapping[str, Dataset | PosteriorDraws] | None,
    rng: np.random.Generator,
    *,
    without: Sequence[str] = (),
    n_nodes: int = 1024,
    n_draws: int = 200,
) -> ConditionalEffects:
    """Infer the effects of every subject, those of unmeasured endpoints through the joint law.

    Parameters
    ----------
    joint : JointModel
    found : JointFit
        Of these models: the study may be a new one.
    datasets : mapping of str to Dataset or PosteriorDraws, or None
        Data by endpoint; None: those of the endpoints themselves.
    rng : numpy.random.Generator
    without : sequence of str
        Endpoints to treat as not measured.
    n_nodes, n_draws : int

    Returns
    -------
    ConditionalEffects

    Raises
    ------
    FitError
        E_JOIN_OTHER_MODEL, E_JOIN_ENDPOINT.
    """
    found.check_belongs(joint)
    target = joint.bind(datasets)
    if without:
        target = target.without(*without)
    bank = make_bank(target, reference_law(found.held, found.law), found.law.names, rng, n_nodes)
    return ConditionalEffects(
        bank.ids, joint.names, conditional_draws(bank, found, n_draws, rng), score(bank, found.law)
    )


def conditional_draws(
    bank: LikelihoodBank, found: JointFit, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw all effects from the conditional laws.

    Parameters
    ----------
    bank : LikelihoodBank
    found : JointFit
    n_draws : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n, n_draws, D)
        Shared effects first.
    """
    weights = normalized_weights(bank.log_weight + found.law.log_density(bank.eta))
    cumulative = np.cumsum(weights, axis=1)
    grid = (np.arange(n_draws) + rng.random((bank.n_subjects, 1))) / n_draws
    index = np.stack([np.searchsorted(c, g * c[-1]) for c, g in zip(cumulative, grid, strict=True)])
    index = rng.permuted(np.minimum(index, bank.n_nodes - 1), axis=1)
    everything = np.concatenate([bank.held, bank.eta], axis=2)
    return np.take_along_axis(everything, index[..., None], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Bands:
    """Predictions of one endpoint for every subject.

    Attributes
    ----------
    ids : tuple of str
    times : ndarray, shape (m,)
    quantiles : ndarray, shape (n, q, m)
        Of the prediction, without residual error.
    levels : tuple of float
        q of them.
    """

    ids: tuple[str, ...]
    times: np.ndarray
    quantiles: np.ndarray
    levels: tuple[float, ...]


def predict_endpoint(
    joint: JointModel,
    effects: ConditionalEffects,
    endpoint: str,
    design: Design,
    levels: tuple[float, ...] = (0.05, 0.5, 0.95),
) -> Bands:
    """Predict an endpoint from what other data say about the effects.

    Parameters
    ----------
    joint : JointModel
    effects : ConditionalEffects
    endpoint : str
        Without covariates in its population.
    design : Design
        Doses and times to predict at, the same for all subjects.
    levels : tuple of float
        Probabilities of the quantiles.

    Returns
    -------
    Bands

    Raises
    ------
    FitError
        E_JOIN_ENDPOINT, E_JOIN_COVARIATES.
    """
    chosen = _endpoint(joint, endpoint)
    out = []
    for draws in effects.draws:
        f = chosen.model.predict(_phi(joint, chosen, draws), design).f
        out.append(np.quantile(f, levels, axis=0))
    return Bands(effects.ids, design.observation_times, np.stack(out), levels)


def virtual_patients(
    joint: JointModel,
    found: JointFit,
    designs: Mapping[str, Design],
    n: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Simulate subjects whose effects depend on each other as learned.

    Parameters
    ----------
    joint : JointModel
    found : JointFit
    designs : mapping of str to Design
        Of the endpoints to simulate, whose populations must not have covariates.
    n : int
    rng : numpy.random.Generator

    Returns
    -------
    effects : ndarray, shape (n, D)
        All effects, shared ones first.
    y : dict of str to ndarray, shape (n, m)
        Observations with residual error, by endpoint.

    Raises
    ------
    FitError
        E_JOIN_OTHER_MODEL, E_JOIN_ENDPOINT, E_JOIN_COVARIATES.
    """
    found.check_belongs(joint)
    learned = found.law.sample(n, rng)
    effects = learned if found.held is None else np.concatenate([found.held.sample(n, rng), learned], axis=1)
    y = {}
    for name, design in designs.items():
        chosen = _endpoint(joint, name)
        y[name] = chosen.model.simulate(_phi(joint, chosen, effects), design, None, rng).y
    return effects, y


@dataclass(frozen=True, slots=True, eq=False)
class Information:
    """What endpoints say about each other.

    Attributes
    ----------
    endpoints : tuple of str
        Those with effects of their own, E of them.
    effects : tuple of str
    nats : ndarray, shape (E, E)
        Mutual information of the effects of two endpoints per subject, of the normal law with the same
        moments: what a linear dependence is worth with unlimited data.
    r_squared : ndarray, shape (d, E)
        Share of the variance of an effect that the effects of an endpoint explain linearly; NaN for its own.
    """

    endpoints: tuple[str, ...]
    effects: tuple[str, ...]
    nats: np.ndarray
    r_squared: np.ndarray


def information(found: JointFit) -> Information:
    """Report what each endpoint says about each other one, under the law alone.

    Parameters
    ----------
    found : JointFit

    Returns
    -------
    Information
    """
    normal = GaussianLaw(found.law.names, *found.law.moments())
    groups = {e["name"]: list(e["effects"]) for e in found.endpoints if e["effects"]}
    names = list(groups)
    place = {name: k for k, name in enumerate(found.law.names)}
    covariance = normal.covariance
    nats = np.zeros((len(names), len(names)))
    r_squared = np.full((len(found.law.names), len(names)), np.nan)
    for b, other in enumerate(names):
        given = [place[name] for name in groups[other]]
        block = covariance[np.ix_(given, given)]
        for a, name in enumerate(names):
            if a == b:
                continue
            mine = [place[effect] for effect in groups[name]]
            explained = covariance[np.ix_(mine, given)] @ np.linalg.solve(
                block, covariance[np.ix_(given, mine)]
            )
            own = covariance[np.ix_(mine, mine)]
            nats[a, b] = 0.5 * (np.linalg.slogdet(own)[1] - np.linalg.slogdet(own - explained)[1])
            r_squared[mine, b] = np.diagonal(explained) / np.diagonal(own)
    return Information(tuple(names), found.law.names, nats, r_squared)


def information_in_data(
    joint: JointModel, found: JointFit, rng: np.random.Generator, n_nodes: int = 512
) -> np.ndarray:
    """Log-likelihood that the data of two endpoints share, per subject.

    Parameters
    ----------
    joint : JointModel
        Whose data count; endpoints without effects of their own (the pharmacokinetics) are given throughout.
    found : JointFit
    rng : numpy.random.Generator
    n_nodes : int

    Returns
    -------
    ndarray, shape (E, E)   [nats]
        Mean over subjects of log p(y_a, y_b) - log p(y_a) - log p(y_b); endpoints as in `Information`.
    """
    found.check_belongs(joint)
    target, reference = joint.bind(), reference_law(found.held, found.law)
    with_effects = [e.name for e in joint.endpoints if joint.effects_of(e.name)]

    def value(*kept: str) -> float:
        parts = target.without(*(name for name in with_effects if name not in kept))
        bank = make_bank(parts, reference, found.law.names, rng, n_nodes)
        return score(bank, found.law).total

    # Given data of endpoints without effects of their own; without such, nothing is given.
    given = value() if len(with_effects) < len(target.parts) else 0.0
    single = {name: value(name) - given for name in with_effects}
    shared = np.zeros((len(with_effects), len(with_effects)))
    for a, first in enumerate(with_effects):
        for b, second in enumerate(with_effects[:a]):
            both = value(first, second) - given
            shared[a, b] = shared[b, a] = both - single[first] - single[second]
    return shared / len(target.ids)


def _endpoint(joint: JointModel, name: str) -> Endpoint:
    for endpoint in joint.endpoints:
        if endpoint.name == name:
            population = endpoint.fit.population
            if population.covariates or population.networks:
                raise FitError(
                    "E_JOIN_COVARIATES",
                    f"the population of endpoint {name!r} has covariates, so that effects alone make no "
                    "individual parameters. Predict from its own model.",
                )
            return endpoint
    raise FitError(
        "E_JOIN_ENDPOINT",
        f"there is no endpoint {name!r}. There are {', '.join(e.name for e in joint.endpoints)}.",
    )


def _phi(joint: JointModel, endpoint: Endpoint, effects: np.ndarray) -> np.ndarray:
    """Individual parameters (n, d_e) of an endpoint from all effects (n, D)."""
    phi = np.tile(endpoint.fit.theta, (len(effects), 1))
    columns = [endpoint.fit.parameter_names.index(n) for n in endpoint.fit.random_effects]
    phi[:, columns] += effects[:, joint.places(endpoint)]
    return phi
