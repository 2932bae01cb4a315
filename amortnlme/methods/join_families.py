"""The families of joint laws, each fitted to the same bank of nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream
from amortnlme.methods.flow_join import fit_conditional_mixtures, fit_flows
from amortnlme.methods.gaussian_join import (
    GaussianRule,
    bic_rule,
    fit_gaussian,
    fit_shrunken,
    fit_split,
    one_pass_gaussian,
)
from amortnlme.methods.likelihood_bank import LikelihoodBank
from amortnlme.methods.mixture_join import best_on, fit_mixtures_of_all_sizes, kept, stack
from amortnlme.population.joint_network_spec import JointNetworkSpec
from amortnlme.population.laws import AbstractLaw, GaussianLaw, MixtureLaw

#: Posterior draws per subject for the families that go over them many times, and of held-out subjects.
DRAWS, HELD_OUT_DRAWS = 96, 256

Found = tuple[AbstractLaw, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Workshop:
    """What every family is made from.

    Attributes
    ----------
    train : LikelihoodBank
    held_out : LikelihoodBank or None
        Of subjects that no law is fitted to; some families need them to stop or to choose.
    independent : GaussianLaw
        Of the learned effects.
    primary : tuple of str
        Effects of the primary endpoint; empty where none was named.
    seed : int
    free : bool
        Learn standard deviations too, where the family is normal.
    flow, conditional : JointNetworkSpec
    """

    train: LikelihoodBank
    held_out: LikelihoodBank | None
    independent: GaussianLaw
    primary: tuple[str, ...]
    seed: int
    free: bool = False
    flow: JointNetworkSpec = field(default_factory=JointNetworkSpec)
    conditional: JointNetworkSpec = field(
        default_factory=lambda: JointNetworkSpec(hidden=2, width=12, learning_rate=2e-3)
    )
    _found: dict[str, Found] = field(default_factory=dict, repr=False)
    _members: dict[str, tuple[AbstractLaw, ...]] = field(default_factory=dict, repr=False)

    def fit(self, family: str) -> Found:
        """Fit a family, or return what was found before.

        Parameters
        ----------
        family : str
            A key of `FAMILIES`.

        Returns
        -------
        law : AbstractLaw
        notes : dict
        """
        if family not in self._found:
            self._found[family] = FAMILIES[family](self)
        return self._found[family]

    def members(self, kind: str) -> tuple[AbstractLaw, ...]:
        """Fit every law of a kind, or return those found before: a family keeps the best, a stack all.

        Parameters
        ----------
        kind : str
            mixture | flow | conditional-mixture.

        Returns
        -------
        tuple of AbstractLaw
        """
        if kind not in self._members:
            self._members[kind] = MEMBERS[kind](self)
        return self._members[kind]

    def gaussian(self) -> GaussianLaw:
        """Return the EM Gaussian, where other families start."""
        law, _ = self.fit("gaussian")
        assert isinstance(law, GaussianLaw)
        return law

    def rng(self, purpose: int) -> np.random.Generator:
        """Return random numbers of one purpose."""
        return stream(self.seed, purpose)

    def draws(self) -> tuple[LikelihoodBank, LikelihoodBank]:
        """Draw effects given the data under the EM Gaussian: of training subjects, of held-out ones."""
        tuning, base = self.tuning("networks"), self.gaussian()
        return self.train.resampled(base, DRAWS, self.rng(5)), tuning.resampled(
            base, HELD_OUT_DRAWS, self.rng(6)
        )

    def tuning(self, what: str) -> LikelihoodBank:
        """Return the held-out subjects; refuse where there are none."""
        if self.held_out is None:
            raise UsageError(
                "E_JOIN_HELD_OUT",
                f"{what} need held-out subjects, but none were set aside. Give a share such as 0.2.",
            )
        return self.held_out


def _independent(shop: Workshop) -> Found:
    return shop.independent, {}


def _one_pass(shop: Workshop) -> Found:
    return one_pass_gaussian(shop.train, shop.independent), {}


def _gaussian(shop: Workshop) -> Found:
    return fit_gaussian(shop.train, shop.independent, GaussianRule(free=shop.free))[0], {}


def _sparse(shop: Workshop) -> Found:
    law, graph = fit_gaussian(shop.train, shop.independent, bic_rule(shop.train), shop.gaussian())
    assert graph is not None
    names = law.names
    rows, columns = np.nonzero(np.tril(graph, -1))
    edges = [[names[j], names[i]] for i, j in zip(rows.tolist(), columns.tolist(), strict=True)]
    return law, {"edges": edges}


def _shrunken(shop: Workshop) -> Found:
    law, weight = fit_shrunken(shop.train, shop.independent, shop.gaussian(), shop.rng(1))
    return law, {"weight": weight}


def _split(shop: Workshop) -> Found:
    law, weight = fit_split(shop.train, shop.independent, shop.primary, shop.gaussian(), shop.rng(2))
    return law, {"weight": weight}


def _mixtures(shop: Workshop) -> tuple[AbstractLaw, ...]:
    small = shop.train.resampled(shop.gaussian(), DRAWS, shop.rng(3))
    return fit_mixtures_of_all_sizes(small, shop.gaussian(), shop.rng(4))


def _mixture(shop: Workshop) -> Found:
    law, notes = kept(shop.members("mixture"), shop.gaussian(), shop.tuning("mixtures"))
    components = len(law.weights) if isinstance(law, MixtureLaw) else 1
    return law, {"components": components, **notes}


def _flows(shop: Workshop) -> tuple[AbstractLaw, ...]:
    train, other = shop.draws()
    return fit_flows(train.eta, other.eta, shop.gaussian(), shop.flow, shop.seed)


def _flow(shop: Workshop) -> Found:
    return kept(shop.members("flow"), shop.gaussian(), shop.tuning("flows"))


def _one_pass_flow(shop: Workshop) -> Found:
    base, tuning = shop.independent, shop.tuning("flows")
    train = shop.train.resampled(base, DRAWS, shop.rng(7))
    other = tuning.resampled(base, HELD_OUT_DRAWS, shop.rng(8))
    laws = fit_flows(train.eta, other.eta, base, shop.flow, shop.seed, aggregated=True)
    return laws[best_on(laws, tuning)], {}


def _conditionals(shop: Workshop) -> tuple[AbstractLaw, ...]:
    if not shop.primary:
        raise UsageError(
            "E_JOIN_PRIMARY",
            "a conditional mixture needs a primary endpoint, whose effects it models. Name it.",
        )
    # Its block stays normal; a sparse law says it better than the EM Gaussian where subjects are few.
    base = shop.fit("sparse")[0]
    assert isinstance(base, GaussianLaw)
    train = shop.train.resampled(base, DRAWS, shop.rng(9))
    other = shop.tuning("conditional mixtures").resampled(base, HELD_OUT_DRAWS, shop.rng(10))
    block = tuple(name for name in base.names if name not in shop.primary)
    return fit_conditional_mixtures(train.eta, other.eta, base, block, shop.conditional, shop.seed)


def _conditional(shop: Workshop) -> Found:
    start = shop.fit("sparse")[0]
    return kept(shop.members("conditional-mixture"), start, shop.tuning("conditional mixtures"))


def _stacked(shop: Workshop) -> Found:
    default = "split" if shop.primary else "sparse"
    kinds: dict[str, tuple[AbstractLaw, ...]] = {
        "gaussian": (shop.gaussian(),),
        default: (shop.fit(default)[0],),
        "mixture": shop.members("mixture"),
        "flow": shop.members("flow"),
    }
    if shop.primary:
        kinds["conditional-mixture"] = shop.members("conditional-mixture")
    law = stack([law for laws in kinds.values() for law in laws], shop.tuning("stacks"))
    weights, used, k = {}, law.weights.tolist(), 0
    for kind, laws in kinds.items():
        weights[kind] = float(sum(used[k : k + len(laws)]))
        k += len(laws)
    return law, {"weights": weights}


MEMBERS: dict[str, Callable[[Workshop], tuple[AbstractLaw, ...]]] = {
    "mixture": _mixtures,
    "flow": _flows,
    "conditional-mixture": _conditionals,
}
FAMILIES: dict[str, Callable[[Workshop], Found]] = {
    "independent": _independent,
    "one-pass": _one_pass,
    "gaussian": _gaussian,
    "shrunken": _shrunken,
    "sparse": _sparse,
    "split": _split,
    "mixture": _mixture,
    "conditional-mixture": _conditional,
    "flow": _flow,
    "one-pass-flow": _one_pass_flow,
    "stacked": _stacked,
}
#: Families that need held-out subjects, and those that need a primary endpoint.
NEEDS_HELD_OUT = ("mixture", "conditional-mixture", "flow", "one-pass-flow", "stacked")
NEEDS_PRIMARY = ("split", "conditional-mixture")
