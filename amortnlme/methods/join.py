"""`join`: one joint law for the random effects of separately fitted models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream
from amortnlme.methods.gaussian_join import GaussianRule, fit_gaussian
from amortnlme.methods.join_families import FAMILIES, NEEDS_HELD_OUT, NEEDS_PRIMARY, Workshop
from amortnlme.methods.joint_fit import FamilyResult, JointFit
from amortnlme.methods.joint_model import JointModel
from amortnlme.methods.likelihood_bank import LikelihoodBank, make_bank, reference_law, score
from amortnlme.population.joint_network_spec import JointNetworkSpec
from amortnlme.population.laws import GaussianLaw

#: Purposes of the random streams.
BANK_STREAM, HELD_OUT_STREAM = 11, 12


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """How to join.

    Attributes
    ----------
    family : str
        One of `amortnlme.methods.join_families.FAMILIES`, or "auto": split shrinkage where a primary
        endpoint is named, a sparse graph otherwise. Both protect small studies, where the plain EM Gaussian
        overfits.
    also : tuple of str
        Other families to fit and report beside it.
    primary : str or None
        Endpoint whose effects are to be predicted from the others'.
    held_out : float
        Share of the subjects set aside to compare families, to stop the training of networks and to weigh
        stacks. Normal families are fitted to all subjects in the end.
    n_nodes : int
        Importance nodes per subject.
    rounds : int
        Banks made, each around the law that EM found on the one before.
    free : bool
        Let normal families learn standard deviations too, instead of keeping those of the separate fits.
    mixtures : bool
        See `make_bank`.
    flow, conditional : JointNetworkSpec

    Raises
    ------
    UsageError
        E_JOIN_OPTION.
    """

    family: str = "auto"
    also: tuple[str, ...] = ()
    primary: str | None = None
    held_out: float = 0.2
    n_nodes: int = 512
    rounds: int = 2
    free: bool = False
    mixtures: bool = False
    flow: JointNetworkSpec = field(default_factory=JointNetworkSpec)
    conditional: JointNetworkSpec = field(
        default_factory=lambda: JointNetworkSpec(hidden=2, width=12, learning_rate=2e-3)
    )

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        for family in (self.family, *self.also):
            if family != "auto" and family not in FAMILIES:
                raise UsageError(
                    "E_JOIN_OPTION", f"family {family!r} is unknown. Allowed: auto, {', '.join(FAMILIES)}."
                )
            if family in NEEDS_PRIMARY and self.primary is None:
                raise UsageError(
                    "E_JOIN_PRIMARY",
                    f"family {family!r} needs a primary endpoint, whose effects it predicts. Name one.",
                )
            if family in NEEDS_HELD_OUT and self.held_out == 0:
                raise UsageError(
                    "E_JOIN_HELD_OUT",
                    f"family {family!r} needs held-out subjects, but held_out is 0. Give for instance 0.2.",
                )
        if not 0 <= self.held_out <= 0.5:
            raise UsageError("E_JOIN_OPTION", f"held_out is {self.held_out!r}. Give a share from 0 to 0.5.")
        for name, low in (("n_nodes", 64), ("rounds", 1)):
            if getattr(self, name) < low:
                raise UsageError("E_JOIN_OPTION", f"{name} is {getattr(self, name)!r}, below {low}.")

    @property
    def chosen(self) -> str:
        """The family, "auto" resolved."""
        if self.family != "auto":
            return self.family
        return "sparse" if self.primary is None else "split"


def join(joint: JointModel, options: JoinOptions | None = None, *, seed: int = 0) -> JointFit:
    """Learn the joint law of the random effects of separately fitted models.

    Parameters
    ----------
    joint : JointModel
    options : JoinOptions, optional
    seed : int
        All random numbers derive from it.

    Returns
    -------
    JointFit

    Raises
    ------
    UsageError
        E_JOIN_PRIMARY, E_JOIN_HELD_OUT.
    FitError
        E_JOIN_PRIMARY.
    """
    options = options or JoinOptions()
    primary = () if options.primary is None else joint.effects_of(options.primary)
    if options.primary is not None and not primary:
        raise UsageError(
            "E_JOIN_PRIMARY",
            f"the primary endpoint {options.primary!r} has no effects of its own. Endpoints with some: "
            f"{', '.join(e.name for e in joint.endpoints if joint.effects_of(e.name))}.",
        )
    bank = refreshed_bank(joint, options, seed)
    n = bank.n_subjects
    aside = stream(seed, HELD_OUT_STREAM).permutation(n)[: round(options.held_out * n)]
    train = bank.select(np.setdiff1d(np.arange(n), aside))
    held_out = bank.select(np.sort(aside)) if len(aside) else None
    shop = _workshop(joint, options, primary, train, held_out, seed)
    families = list(dict.fromkeys((options.chosen, *options.also)))
    results = tuple(_result(shop, family) for family in families)
    if options.chosen not in NEEDS_HELD_OUT:
        # Nothing was chosen by the held-out subjects: learn from them too.
        shop = _workshop(joint, options, primary, bank, None, seed)
    law, notes = shop.fit(options.chosen)
    return JointFit(
        family=options.chosen,
        law=law,
        held=joint.held,
        independent=shop.independent,
        endpoints=_described(joint, options.primary),
        results=results,
        n_subjects=n,
        n_held_out=len(aside),
        notes=notes,
        provenance={"seed": seed, "n_nodes": options.n_nodes, "rounds": options.rounds, "free": options.free},
    )


def refreshed_bank(joint: JointModel, options: JoinOptions, seed: int) -> LikelihoodBank:
    """Nodes of all subjects around the EM Gaussian: proposals of the separate fits cover many effects badly.

    Parameters
    ----------
    joint : JointModel
    options : JoinOptions
    seed : int

    Returns
    -------
    LikelihoodBank
    """
    target, independent = joint.bind(), joint.independent.marginal(joint.learned)

    def placed(law: GaussianLaw, k: int, mixtures: bool) -> LikelihoodBank:
        around, rng = reference_law(joint.held, law), stream(seed, BANK_STREAM, k)
        return make_bank(target, around, joint.learned, rng, options.n_nodes, mixtures=mixtures)

    law, rule = independent, GaussianRule(free=options.free)
    for k in range(options.rounds - 1):
        law, _ = fit_gaussian(placed(law, k, False), independent, rule, law)
    return placed(law, options.rounds - 1, options.mixtures)


def _workshop(
    joint: JointModel,
    options: JoinOptions,
    primary: Sequence[str],
    train: LikelihoodBank,
    held_out: LikelihoodBank | None,
    seed: int,
) -> Workshop:
    independent = joint.independent.marginal(joint.learned)
    return Workshop(
        train, held_out, independent, tuple(primary), seed, options.free, options.flow, options.conditional
    )


def _result(shop: Workshop, family: str) -> FamilyResult:
    law, nothing = shop.fit(family)[0], shop.independent
    own = score(shop.train, law)
    gain, se = own.gain_over(score(shop.train, nothing))
    other = other_se = over = over_sd = float("nan")
    if shop.held_out is not None:
        found, normal = score(shop.held_out, law), score(shop.held_out, shop.gaussian())
        other, other_se = found.gain_over(score(shop.held_out, nothing))
        difference = found.log_likelihood - normal.log_likelihood
        over, over_sd = float(difference.sum()), float(difference.std(ddof=1) * np.sqrt(len(difference)))
    return FamilyResult(family, gain, se, other, other_se, over, over_sd, float(own.ess.min()))


def _described(joint: JointModel, primary: str | None) -> tuple[dict[str, object], ...]:
    return tuple(
        {
            "name": e.name,
            "model": e.model.name,
            "fingerprint": e.model.fingerprint,
            "method": e.fit.method,
            "effects": list(joint.effects_of(e.name)),
            "primary": e.name == primary,
            "n_subjects": e.dataset.n_subjects,
        }
        for e in joint.endpoints
    )
