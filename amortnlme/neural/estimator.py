"""The trained estimator: posterior draws and densities for any dataset inside its design domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from amortnlme.core.errors import DrawsError
from amortnlme.core.fingerprint import fingerprint_arrays, fingerprint_json
from amortnlme.data.dataset import Dataset
from amortnlme.data.subject import Subject
from amortnlme.model.individual import IndividualModel
from amortnlme.model.program import check_batch
from amortnlme.neural.backend import use_backend, values_of
from amortnlme.neural.encoder import Encoded, EventEncoder
from amortnlme.neural.spec import NetworkSpec, TrainingSpec
from amortnlme.neural.summary_domain import SummaryDomain
from amortnlme.population.posterior_draws import PosteriorDraws

keras = use_backend()

# Float32 flows throw about one draw in a thousand to absurd places; those beyond this many SDs of the
# training parameters are drawn again and counted.
_WILD = 8.0
_MAX_WILD_SHARE = 0.5
_MAX_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """Where an estimator comes from.

    Attributes
    ----------
    training_set : str
        Fingerprint.
    seed : int
        Of the initial weights and the order of the batches.
    spec : TrainingSpec
        Options.
    backend : str
        Backend that trained.
    other_seeds : tuple of int
        Seeds of the further members where the estimator is an ensemble.
    """

    training_set: str
    seed: int
    spec: TrainingSpec
    backend: str
    other_seeds: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Estimator:
    """Amortized posterior q(phi | subject) of one individual model.

    Attributes
    ----------
    model : IndividualModel
        The model it was trained for; its design sampler is part of the estimator's identity.
    encoder : EventEncoder
        From designs and measurements to network input.
    network : PosteriorNetwork or EnsembleNetwork
        The trained network.
    record : TrainingRecord
        Provenance.
    history : tuple of dict
        One row per training epoch.
    calibration : dict or None
        Content of calibration.json, None before calibration.
    """

    model: IndividualModel
    encoder: EventEncoder
    network: Any
    record: TrainingRecord
    history: tuple[dict[str, float], ...] = ()
    calibration: dict[str, Any] | None = None

    @classmethod
    def untrained(
        cls, model: IndividualModel, encoder: EventEncoder, record: TrainingRecord, *, seed: int | None
    ) -> Estimator:
        """Build an estimator with fresh weights.

        Parameters
        ----------
        model : IndividualModel
            Model to be inverted.
        encoder : EventEncoder
            Encoder with fixed constants.
        record : TrainingRecord
            Provenance; with `other_seeds` an ensemble is built.
        seed : int or None
            Determines the weights (of one backend); None where they are about to be replaced.

        Returns
        -------
        Estimator
            Not trained yet.
        """
        from amortnlme.neural.ensemble_network import EnsembleNetwork
        from amortnlme.neural.exchange import exchangeable_pair
        from amortnlme.neural.flow import PosteriorNetwork

        # Keras initializers draw from its global generator; there is no narrower switch for nested layers.
        # The switch also reseeds NumPy and loads TensorFlow on any backend; loading weights needs none of it.
        if seed is not None:
            keras.utils.set_random_seed(seed % 2**32)
        n_features, n_conditions = len(encoder.feature_mean), len(encoder.condition_mean)
        pair = exchangeable_pair(model, encoder.spec) if encoder.spec.exchangeable else None
        members = [
            PosteriorNetwork(encoder.spec, n_features, n_conditions, model.d, pair)
            for _ in range(1 + len(record.other_seeds))
        ]
        network = EnsembleNetwork(members) if record.other_seeds else members[0]
        return cls(model, encoder, network, record)

    @classmethod
    def load(cls, path: str | Path, *, model: IndividualModel | None = None) -> Estimator:
        """Load and verify an artefact; see `artefact.load_artefact`.

        Parameters
        ----------
        path : path or str
            Directory, or the name of an estimator that ships with the package.
        model : IndividualModel or None
            The model, if it does not ship with the package.

        Returns
        -------
        Estimator
            Ready to sample.
        """
        from amortnlme.neural.artefact import load_artefact

        return load_artefact(path, model)

    def save(self, path: str | Path) -> None:
        """Write the artefact directory; see `artefact.save_artefact`."""
        from amortnlme.neural.artefact import save_artefact

        save_artefact(self, Path(path))

    def with_history(self, history: Sequence[dict[str, float]]) -> Estimator:
        """Return a copy that carries the training history."""
        return replace(self, history=tuple(dict(row) for row in history))

    def with_calibration(self, calibration: dict[str, Any]) -> Estimator:
        """Return a copy that carries a calibration result."""
        return replace(self, calibration=calibration)

    @property
    def spec(self) -> NetworkSpec:
        """Network options."""
        return self.encoder.spec

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the model, the encoder and the weights."""
        weights = fingerprint_arrays(*self.weights())
        return fingerprint_json(
            {"model": self.model.fingerprint, "network": self.network_config(), "weights": weights}
        )

    def weights(self) -> list[np.ndarray]:
        """Network weights in storage types: backends keep permutations in different integers."""
        values = values_of(self.network.weights)
        return [value.astype(np.float32 if value.dtype.kind == "f" else np.int32) for value in values]

    def network_config(self) -> dict[str, Any]:
        """JSON-able options and constants of network and encoder."""
        return {"spec": _plain(self.spec.to_config()), "encoder": self.encoder.to_config()}

    def sample(self, dataset: Dataset, n_draws: int, rng: np.random.Generator) -> PosteriorDraws:
        """Draw independently from every subject's posterior.

        Parameters
        ----------
        dataset : Dataset
            S subjects.
        n_draws : int
            Draws per subject, M.
        rng : numpy.random.Generator
            Source of all noise; the same state gives the same draws on every backend, up to rounding.

        Returns
        -------
        PosteriorDraws
            phi (S, M, d) in float64 with log q and log prior; wild draws are replaced and counted, subjects
            outside the training domain are flagged with reasons.

        Raises
        ------
        DrawsError
            E_DRAWS_COUNT for fewer than one draw, E_DRAWS_COVARIATES when the dataset lacks a covariate of
            the model, E_DRAWS_WILD when more than half of a subject's draws are wild.
        """
        if n_draws < 1:
            raise DrawsError("E_DRAWS_COUNT", f"n_draws is {n_draws}. Allowed: an integer of at least 1.")
        encoded = self.encode(dataset)
        context = self._compiled.context(encoded)
        noise = rng.standard_normal((dataset.n_subjects, n_draws, self.network.n_noise))
        coordinates = self._draw(noise, context)
        rejected = self._redraw_wild(coordinates, context, dataset.ids, rng)
        phi = self.encoder.to_phi(coordinates, encoded.shift)
        return PosteriorDraws(
            phi=phi,
            log_q=self._log_density(phi, encoded, context),
            log_prior=self.model.prior.log_prob(phi),
            subject_ids=tuple(dataset.ids),
            parameters=self.model.parameters,
            prior=self.model.prior,
            model_name=self.model.name,
            model_fingerprint=self.model.fingerprint,
            estimator_fingerprint=self.fingerprint,
            dataset_fingerprint=dataset.fingerprint,
            n_rejected=rejected,
            out_of_domain=self._reasons(dataset, context),
        )

    def log_prob(self, dataset: Dataset, phi: np.ndarray) -> np.ndarray:
        """Log density of the estimator's posteriors.

        Parameters
        ----------
        dataset : Dataset
            S subjects.
        phi : ndarray (S, M, d)
            Parameters, unconstrained scale.

        Returns
        -------
        ndarray (S, M), nats
            log q(phi | subject), all Jacobians included.

        Raises
        ------
        DrawsError
            E_DRAWS_SHAPE for another shape, E_DRAWS_COVARIATES when the dataset lacks a covariate of the
            model.
        """
        phi = np.asarray(phi, dtype=np.float64)
        if phi.ndim != 3 or phi.shape[0] != dataset.n_subjects or phi.shape[2] != self.model.d:
            raise DrawsError(
                "E_DRAWS_SHAPE",
                f"phi has shape {phi.shape}. Allowed: ({dataset.n_subjects} subjects, draws, {self.model.d} "
                "parameters).",
            )
        encoded = self.encode(dataset)
        return self._log_density(phi, encoded, self._compiled.context(encoded))

    def in_domain(self, dataset: Dataset) -> tuple[tuple[str, ...], ...]:
        """Say for every subject why it lies outside what the network was trained on.

        Parameters
        ----------
        dataset : Dataset
            S subjects.

        Returns
        -------
        tuple of tuple of str, length S
            Reasons; empty for a subject inside the domain. Designs are held against the training designs and,
            for a calibrated estimator, summaries against those of the simulated subjects.

        Raises
        ------
        DrawsError
            E_DRAWS_COVARIATES when the dataset lacks a covariate of the model.
        """
        return self._reasons(dataset, self.summaries(dataset))

    def summaries(self, dataset: Dataset) -> np.ndarray:
        """Compute what the density is conditioned on.

        Parameters
        ----------
        dataset : Dataset
            S subjects.

        Returns
        -------
        ndarray (S, p) float32
            Summaries and conditions.

        Raises
        ------
        DrawsError
            E_DRAWS_COVARIATES when the dataset lacks a covariate of the model.
        """
        return self._compiled.context(self.encode(dataset))

    @cached_property
    def summary_domain(self) -> SummaryDomain | None:
        """Where the summaries of simulated subjects lie; None before calibration."""
        stored = (self.calibration or {}).get("summaries")
        return None if stored is None else SummaryDomain.from_config(stored)

    def _reasons(self, dataset: Dataset, summaries: np.ndarray) -> tuple[tuple[str, ...], ...]:
        domain = self.summary_domain
        unlike = [()] * dataset.n_subjects if domain is None else domain.reasons(summaries)
        return tuple(
            (*self._compartment_reasons(subject), *self.model.design_sampler.contains(subject), *more)
            for subject, more in zip(dataset.subjects, unlike, strict=True)
        )

    def _compartment_reasons(self, subject: Subject) -> list[str]:
        """Training designs dose the model's default compartment; tokens do not tell another one apart."""
        default = self.model.program.dose_index + 1
        used = {int(c) or default for c in subject.design.compartment[subject.design.is_dose]}
        return [
            f"a dose goes to compartment {c}; in the training designs all go to {default} "
            f"({self.model.program.states[default - 1]})"
            for c in sorted(used - {default})
        ]

    def encode(self, dataset: Dataset) -> Encoded:
        """Network input of a dataset; raises DrawsError E_DRAWS_COVARIATES, ModelError as `check_batch`."""
        missing = [name for name in self.encoder.covariates if name not in dataset.covariate_names]
        if missing:
            raise DrawsError(
                "E_DRAWS_COVARIATES",
                f"dataset {dataset.name!r} lacks the covariate(s) {', '.join(missing)} that model "
                f"{self.model.name!r} "
                "uses. Add the columns.",
            )
        y, observed, _, _ = dataset.y_padded()
        batch = dataset.design_batch()
        check_batch(self.model.program, batch)
        return self.encoder.encode(batch, y, observed)

    @cached_property
    def _compiled(self) -> Any:
        from amortnlme.neural.compiled import CompiledNetwork

        return CompiledNetwork(self.network, self.spec.buckets[-1])

    def _draw(self, noise: np.ndarray, context: np.ndarray) -> np.ndarray:
        """Coordinates (S, M, d) float32 of noise (S, M, d)."""
        repeated = np.repeat(context, noise.shape[1], axis=0)
        drawn = self._compiled.draw(noise.reshape(-1, noise.shape[2]), repeated)
        return drawn.reshape(*noise.shape[:2], self.model.d)

    def _redraw_wild(
        self, coordinates: np.ndarray, context: np.ndarray, ids: Sequence[str], rng: np.random.Generator
    ) -> np.ndarray:
        """Replace wild draws in place; return how many each subject lost (S,)."""
        rejected = np.zeros(len(coordinates), dtype=np.int64)
        for _ in range(_MAX_ROUNDS):
            subject, draw = np.nonzero(_is_wild(coordinates))
            if not subject.size:
                return rejected
            rejected += np.bincount(subject, minlength=len(rejected))
            if rejected.max() > _MAX_WILD_SHARE * coordinates.shape[1] + 1:
                break
            noise = rng.standard_normal((subject.size, self.network.n_noise))
            coordinates[subject, draw] = self._compiled.draw(noise, context[subject])
        worst = int(np.argmax(rejected))
        raise DrawsError(
            "E_DRAWS_WILD",
            f"{rejected[worst]} draws of subject {ids[worst]!r} are not finite or lie beyond {_WILD:g} SDs "
            "of the "
            "training parameters: the subject is far outside the training domain. Check its doses, times "
            "and units.",
        )

    def _log_density(self, phi: np.ndarray, encoded: Encoded, context: np.ndarray) -> np.ndarray:
        """Log q (S, M) of phi (S, M, d)."""
        coordinates = self.encoder.to_network(phi, encoded.shift)
        repeated = np.repeat(context, phi.shape[1], axis=0)
        values = self._compiled.log_density(coordinates.reshape(-1, phi.shape[2]), repeated)
        return values.reshape(phi.shape[:2]) + self.encoder.log_abs_det


def _is_wild(coordinates: np.ndarray) -> np.ndarray:
    # Written so that NaN counts as wild.
    return np.asarray(~(np.abs(coordinates) <= _WILD).all(axis=-1))


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, as JSON would give them back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
