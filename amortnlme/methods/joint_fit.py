"""The result of joining: a joint law with its gains on held-out and own data, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from amortnlme.core.errors import ArtefactError, FitError
from amortnlme.core.h5 import read_h5, understood, write_h5_atomic
from amortnlme.core.json_values import json_values
from amortnlme.methods.joint_model import JointModel
from amortnlme.population.flow_law import ConditionalMixtureLaw, FlowLaw, layers_from
from amortnlme.population.laws import AbstractLaw, GaussianLaw, MixtureLaw
from amortnlme.population.stacked_law import StackedLaw

JOINT_KIND, JOINT_VERSION = "joint_fit", 1


@dataclass(frozen=True, slots=True)
class FamilyResult:
    """How one family did.

    Attributes
    ----------
    family : str
    train_gain, train_se : float   [nats]
        Gain of log-likelihood over independence on the subjects it was fitted to, with its Monte-Carlo
        standard error.
    held_out_gain, held_out_se : float   [nats]
        The same on held-out subjects; NaN without them.
    held_out_over_gaussian : float   [nats]
        Gain over the EM Gaussian on held-out subjects: negative where the family lost.
    held_out_over_gaussian_sd : float   [nats]
        Standard error of that from one set of held-out subjects to the next: a gain below it shows nothing.
    minimum_ess : float
        Smallest effective number of nodes of a training subject.
    """

    family: str
    train_gain: float
    train_se: float
    held_out_gain: float
    held_out_se: float
    held_out_over_gaussian: float
    held_out_over_gaussian_sd: float
    minimum_ess: float


@dataclass(frozen=True, slots=True, eq=False)
class JointFit:
    """A joint law of the random effects of separately fitted models.

    Attributes
    ----------
    family : str
    law : AbstractLaw
        Of the learned effects.
    held : GaussianLaw or None
        Of the shared effects.
    independent : GaussianLaw
        Of the learned effects: what the separate fits say.
    endpoints : tuple of mapping
        Name, model, fingerprint of the model, effects and primary (bool) of each endpoint.
    results : tuple of FamilyResult
        Of `family` first, then of all others that were tried.
    n_subjects, n_held_out : int
    notes : mapping
        What the family found: edges of a graph, weight of shrinkage, weights of a stack.
    provenance : mapping
        Seed, options.
    """

    family: str
    law: AbstractLaw
    held: GaussianLaw | None
    independent: GaussianLaw
    endpoints: tuple[Mapping[str, Any], ...]
    results: tuple[FamilyResult, ...]
    n_subjects: int
    n_held_out: int
    notes: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def check_belongs(self, joint: JointModel) -> None:
        """Refuse models that the law was not made for.

        Parameters
        ----------
        joint : JointModel

        Raises
        ------
        FitError
            E_JOIN_OTHER_MODEL.
        """
        mine = {e["name"]: e["fingerprint"] for e in self.endpoints}
        given = {e.name: e.model.fingerprint for e in joint.endpoints}
        if self.law.names != joint.learned or mine != given:
            raise FitError(
                "E_JOIN_OTHER_MODEL",
                f"the joint law is of the effects {', '.join(self.law.names)} of endpoints "
                f"{', '.join(mine)}; the models given have {', '.join(joint.learned)} (or other equations). "
                "Pass the models that were joined.",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values, without the arrays of the law."""
        mean, covariance = self.law.moments()
        sd = np.sqrt(np.diagonal(covariance))
        return json_values(
            {
                "family": self.family,
                "effects": list(self.law.names),
                "mean": mean.tolist(),
                "sd": sd.tolist(),
                "correlation": (covariance / np.outer(sd, sd)).tolist(),
                "held": [] if self.held is None else list(self.held.names),
                "endpoints": [dict(e) for e in self.endpoints],
                "results": [asdict(r) for r in self.results],
                "n_subjects": self.n_subjects,
                "n_held_out": self.n_held_out,
                "notes": dict(self.notes),
                "provenance": dict(self.provenance),
            }
        )

    def save(self, path: str | Path) -> None:
        """Write the joint fit to one HDF5 file with checksums, atomically.

        Parameters
        ----------
        path : str or Path

        Raises
        ------
        ArtefactError
            E_IO_WRITE.
        """
        laws = {"law": self.law, "independent": self.independent}
        if self.held is not None:
            laws["held"] = self.held
        arrays: dict[str, np.ndarray] = {}
        header: dict[str, Any] = {"kind": JOINT_KIND, "version": JOINT_VERSION, "laws": {}}
        for place, law in laws.items():
            part, found = law.state()
            header["laws"][place] = {"kind": law.kind, **part}
            arrays |= {f"{place}/{name}": value for name, value in found.items()}
        # Numbers that may be NaN, which JSON cannot say.
        arrays["results"] = np.array([list(asdict(r).values())[1:] for r in self.results], dtype=np.float64)
        header |= {
            "family": self.family,
            "endpoints": [dict(e) for e in self.endpoints],
            "families": [r.family for r in self.results],
            "n_subjects": self.n_subjects,
            "n_held_out": self.n_held_out,
            "notes": dict(self.notes),
            "provenance": dict(self.provenance),
        }
        write_h5_atomic(Path(path), arrays, json_values(header))

    @classmethod
    def load(cls, path: str | Path) -> JointFit:
        """Read and verify a joint fit written by `save`.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        JointFit

        Raises
        ------
        ArtefactError
            E_H5_MISSING, E_H5_TRUNCATED, E_H5_CHECKSUM, E_H5_KIND, E_H5_CONTENT, E_JOIN_VERSION.
        """
        arrays, raw = read_h5(path, kind=JOINT_KIND)
        header: dict[str, Any] = dict(raw)
        if header.get("version") != JOINT_VERSION:
            raise ArtefactError(
                "E_JOIN_VERSION",
                f"{path} holds a joint fit of format {header.get('version')!r}; this version reads format "
                f"{JOINT_VERSION}. Join again, or upgrade.",
            )
        with understood(path, "a joint fit"):
            laws = {place: law_from(part, _below(place, arrays)) for place, part in header["laws"].items()}
            held, independent = laws.get("held"), laws["independent"]
            if not isinstance(independent, GaussianLaw) or not isinstance(held, GaussianLaw | None):
                raise ValueError("the laws of the separate fits are not normal")
            rows = zip(header["families"], arrays["results"].tolist(), strict=True)
            return cls(
                family=str(header["family"]),
                law=laws["law"],
                held=held,
                independent=independent,
                endpoints=tuple(header["endpoints"]),
                results=tuple(FamilyResult(str(family), *row) for family, row in rows),
                n_subjects=int(header["n_subjects"]),
                n_held_out=int(header["n_held_out"]),
                notes=header["notes"],
                provenance=header["provenance"],
            )


def law_from(header: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> AbstractLaw:
    """Build a law from what `AbstractLaw.state` returned, and its kind.

    Parameters
    ----------
    header : mapping
    arrays : dict of str to ndarray

    Returns
    -------
    AbstractLaw

    Raises
    ------
    ValueError
        For an unknown kind.
    PopulationError
        For arrays that make no law.
    """
    names, kind = tuple(header["names"]), header["kind"]
    if kind == GaussianLaw.kind:
        return GaussianLaw(names, arrays["mean"], arrays["covariance"])
    if kind == MixtureLaw.kind:
        return MixtureLaw(names, arrays["weights"], arrays["means"], arrays["covariances"])
    if kind == StackedLaw.kind:
        parts = (law_from(part, _below(str(k), arrays)) for k, part in enumerate(header["laws"]))
        return StackedLaw(names, arrays["weights"], tuple(parts))
    if kind == FlowLaw.kind:
        base = GaussianLaw(names, arrays["base_mean"], arrays["base_covariance"])
        sizes = enumerate(header["layers"])
        return FlowLaw(names, base, tuple(layers_from(f"coupling{c}", n, arrays) for c, n in sizes))
    if kind == ConditionalMixtureLaw.kind:
        base = GaussianLaw(tuple(header["order"]), arrays["base_mean"], arrays["base_covariance"])
        layers = layers_from("network", header["layers"], arrays)
        return ConditionalMixtureLaw(names, base, int(header["n_block"]), layers)
    raise ValueError(f"unknown kind of law {kind!r}")


def _below(place: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays under a place, without its name."""
    return {name.removeprefix(f"{place}/"): a for name, a in arrays.items() if name.startswith(f"{place}/")}
