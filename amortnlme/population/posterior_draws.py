"""Draws from every subject's individual posterior: the hinge from which population models are swapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amortnlme.core.errors import DrawsError
from amortnlme.core.h5 import read_h5, understood, write_h5_atomic
from amortnlme.model.parameters import ParameterSpace
from amortnlme.model.prior import AbstractPrior, prior_from_config

DRAWS_KIND = "posterior_draws"
DRAWS_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorDraws:
    """Independent draws from the individual posteriors of a dataset, with their densities and their origin.

    Attributes
    ----------
    phi : ndarray, shape (n_subjects, n_draws, d)
        Individual parameters on the unconstrained scale.
    log_q : ndarray, shape (n_subjects, n_draws)   [nats]
        Log density of each draw under the distribution it was drawn from.
    log_prior : ndarray, shape (n_subjects, n_draws)   [nats]
        Log density of each draw under `prior`.
    subject_ids : tuple of str
    parameters : ParameterSpace
        Names, units and transforms of the d columns of `phi`.
    prior : AbstractPrior
        The prior (on phi) under which the posteriors were formed; a population model divides it out.
    model_name, model_fingerprint, estimator_fingerprint, dataset_fingerprint : str
        Identity of what produced the draws; empty where unknown.
    n_rejected : ndarray, shape (n_subjects,)
        How many wild (non-finite or absurd) draws were filtered and redrawn.
    out_of_domain : tuple of tuple of str
        Per subject, the reasons why it lies outside what the estimator was trained on (empty: inside).

    Raises
    ------
    DrawsError
        E_DRAWS_SHAPE, E_DRAWS_NON_FINITE, E_DRAWS_DUPLICATE_SUBJECT.
    """

    phi: np.ndarray
    log_q: np.ndarray
    log_prior: np.ndarray
    subject_ids: tuple[str, ...]
    parameters: ParameterSpace
    prior: AbstractPrior
    model_name: str = ""
    model_fingerprint: str = ""
    estimator_fingerprint: str = ""
    dataset_fingerprint: str = ""
    n_rejected: np.ndarray | None = None
    out_of_domain: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        """Check shapes and values, and make the arrays read-only."""
        phi = np.array(self.phi, dtype=np.float64)
        ids = tuple(str(name) for name in self.subject_ids)
        _check_phi(phi, ids, self.parameters)
        n_subjects, n_draws = phi.shape[:2]
        arrays: dict[str, np.ndarray] = {"phi": phi}
        for name in ("log_q", "log_prior"):
            values = np.array(getattr(self, name), dtype=np.float64)
            if values.shape != (n_subjects, n_draws):
                raise DrawsError(
                    "E_DRAWS_SHAPE",
                    f"`{name}` has shape {values.shape}, but phi has {n_subjects} subjects x {n_draws} "
                    f"draws. "
                    f"Give one value per draw.",
                )
            arrays[name] = values
        _check_finite(arrays, ids)
        rejected = np.zeros(n_subjects) if self.n_rejected is None else self.n_rejected
        rejected = np.array(rejected, dtype=np.int64)
        reasons = tuple(tuple(r) for r in self.out_of_domain) or ((),) * n_subjects
        if rejected.shape != (n_subjects,) or len(reasons) != n_subjects:
            raise DrawsError(
                "E_DRAWS_SHAPE",
                f"`n_rejected` {rejected.shape} and `out_of_domain` ({len(reasons)},) must have one entry "
                f"for each "
                f"of the {n_subjects} subjects.",
            )
        arrays["n_rejected"] = rejected
        for name, values in arrays.items():
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        object.__setattr__(self, "subject_ids", ids)
        object.__setattr__(self, "out_of_domain", reasons)

    @property
    def n_subjects(self) -> int:
        """Number of subjects."""
        return self.phi.shape[0]

    @property
    def n_draws(self) -> int:
        """Number of draws per subject."""
        return self.phi.shape[1]

    @property
    def d(self) -> int:
        """Number of individual parameters."""
        return self.phi.shape[2]

    def select(self, ids: Sequence[str]) -> PosteriorDraws:
        """Return the draws of some subjects, in the order asked for.

        Parameters
        ----------
        ids : sequence of str
            Subject names, each one of `subject_ids`.

        Returns
        -------
        PosteriorDraws
            The dataset fingerprint is dropped: the selection is no longer the dataset that was sampled.

        Raises
        ------
        DrawsError
            E_DRAWS_UNKNOWN_SUBJECT.
        """
        row = {name: i for i, name in enumerate(self.subject_ids)}
        missing = [str(name) for name in ids if str(name) not in row]
        if missing:
            raise DrawsError(
                "E_DRAWS_UNKNOWN_SUBJECT",
                f"these draws hold no subject {missing[0]!r}. They hold {', '.join(self.subject_ids[:20])}"
                f"{' ...' if len(self.subject_ids) > 20 else ''}.",
            )
        index = [row[str(name)] for name in ids]
        return PosteriorDraws(
            phi=self.phi[index],
            log_q=self.log_q[index],
            log_prior=self.log_prior[index],
            subject_ids=tuple(self.subject_ids[i] for i in index),
            parameters=self.parameters,
            prior=self.prior,
            model_name=self.model_name,
            model_fingerprint=self.model_fingerprint,
            estimator_fingerprint=self.estimator_fingerprint,
            dataset_fingerprint=self.dataset_fingerprint if index == list(range(self.n_subjects)) else "",
            n_rejected=None if self.n_rejected is None else self.n_rejected[index],
            out_of_domain=tuple(self.out_of_domain[i] for i in index),
        )

    def save(self, path: str | Path) -> None:
        """Write the draws to one HDF5 file, atomically.

        Parameters
        ----------
        path : str or Path
            Target file; replaced if it exists.

        Raises
        ------
        ArtefactError
            E_IO_WRITE when the file cannot be written.
        """
        rejected = np.zeros(self.n_subjects, np.int64) if self.n_rejected is None else self.n_rejected
        arrays = {"phi": self.phi, "log_q": self.log_q, "log_prior": self.log_prior, "n_rejected": rejected}
        attributes = {
            "kind": DRAWS_KIND,
            "version": DRAWS_VERSION,
            "subject_ids": list(self.subject_ids),
            "parameters": self.parameters.to_config(),
            "prior": self.prior.to_config(),
            "model_name": self.model_name,
            "model_fingerprint": self.model_fingerprint,
            "estimator_fingerprint": self.estimator_fingerprint,
            "dataset_fingerprint": self.dataset_fingerprint,
            "out_of_domain": [list(reasons) for reasons in self.out_of_domain],
        }
        write_h5_atomic(Path(path), arrays, attributes)

    @classmethod
    def load(cls, path: str | Path) -> PosteriorDraws:
        """Read draws written by `save`.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        PosteriorDraws

        Raises
        ------
        ArtefactError
            E_H5_MISSING, E_H5_TRUNCATED, E_H5_CHECKSUM, E_H5_KIND, E_H5_CONTENT.
        DrawsError
            E_DRAWS_VERSION for a file of a later format.
        """
        arrays, header = read_h5(Path(path), kind=DRAWS_KIND)
        meta: dict[str, Any] = dict(header)
        if meta.get("version") != DRAWS_VERSION:
            raise DrawsError(
                "E_DRAWS_VERSION",
                f"{path} holds draws of format {meta.get('version')!r}; this version reads format "
                f"{DRAWS_VERSION}. "
                f"Sample again, or upgrade.",
            )
        with understood(path, "posterior draws"):
            return cls(
                phi=arrays["phi"],
                log_q=arrays["log_q"],
                log_prior=arrays["log_prior"],
                subject_ids=tuple(meta["subject_ids"]),
                parameters=ParameterSpace.from_config(meta["parameters"]),
                prior=prior_from_config(meta["prior"]),
                model_name=meta["model_name"],
                model_fingerprint=meta["model_fingerprint"],
                estimator_fingerprint=meta["estimator_fingerprint"],
                dataset_fingerprint=meta["dataset_fingerprint"],
                n_rejected=arrays["n_rejected"],
                out_of_domain=tuple(tuple(reasons) for reasons in meta["out_of_domain"]),
            )


def _check_phi(phi: np.ndarray, ids: tuple[str, ...], parameters: ParameterSpace) -> None:
    if phi.ndim != 3 or min(phi.shape) == 0:
        raise DrawsError(
            "E_DRAWS_SHAPE",
            f"phi has shape {phi.shape}; draws need (n_subjects, n_draws, d), all at least 1.",
        )
    if phi.shape[0] != len(ids) or phi.shape[2] != parameters.d:
        raise DrawsError(
            "E_DRAWS_SHAPE",
            f"phi has shape {phi.shape}, but there are {len(ids)} subject ids and {parameters.d} parameters "
            f"({', '.join(parameters.names)}). Give one row per subject and one column per parameter.",
        )
    if len(set(ids)) != len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise DrawsError(
            "E_DRAWS_DUPLICATE_SUBJECT", f"subject {twice!r} appears more than once. Make the ids unique."
        )


def _check_finite(arrays: dict[str, np.ndarray], ids: tuple[str, ...]) -> None:
    for name, values in arrays.items():
        bad = ~np.isfinite(values).reshape(len(ids), -1).all(axis=1)
        if bad.any():
            who = ids[int(np.flatnonzero(bad)[0])]
            raise DrawsError(
                "E_DRAWS_NON_FINITE",
                f"`{name}` holds NaN or infinite values for {int(bad.sum())} subject(s), first {who!r}. "
                f"Filter wild draws before building PosteriorDraws (an Estimator does this and counts them).",
            )
