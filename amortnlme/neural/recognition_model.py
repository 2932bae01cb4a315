"""A trained recognition network with everything that turns a dataset into its input, and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amortnlme.core.errors import ArtefactError, DrawsError
from amortnlme.core.h5 import read_h5, understood, write_h5_atomic
from amortnlme.data.dataset import Dataset
from amortnlme.model.individual import IndividualModel
from amortnlme.model.program import check_batch
from amortnlme.neural.backend import use_backend, values_of
from amortnlme.neural.encoder import EventEncoder, frozen, pad_tokens
from amortnlme.neural.gaussian_head import GaussianHead
from amortnlme.neural.pilot import fit_encoder
from amortnlme.neural.recognition_step import NetworkShape
from amortnlme.neural.spec import NetworkSpec
from amortnlme.population.networks import covariate_column

keras = use_backend()

_KIND = "recognition-network"
ENCODER_KINDS = ("lstm", "conv-gru")
_SMALLEST_SPREAD = 1e-9
# Keeps a file of unknown origin from asking for all the memory there is.
_MOST_WIDTH = 4096


@dataclass(frozen=True, slots=True, eq=False)
class RecognitionInput:
    """Padded input of n subjects: tokens (n, T, F), mask (n, T) and conditions (n, C)."""

    tokens: np.ndarray
    mask: np.ndarray
    conditions: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class RecognitionModel:
    """Encoder of a variational autoencoder: a Gaussian law of every subject's random parameters in one pass.

    Attributes
    ----------
    model_name, model_fingerprint : str
        The individual model it belongs to.
    parameters : tuple of str
        Parameters the law is about, on the phi scale.
    kind : {"lstm", "conv-gru"}
    width : int
    covariates : tuple of str
        Of the population model, standardized into conditions.
    covariate_mean, covariate_sd : ndarray, shape (n_covariates,)
    encoder : EventEncoder
        Tokens of measurements and doses.
    head : GaussianHead
    network : RecognitionNetwork
    """

    model_name: str
    model_fingerprint: str
    parameters: tuple[str, ...]
    kind: str
    width: int
    covariates: tuple[str, ...]
    covariate_mean: np.ndarray
    covariate_sd: np.ndarray
    encoder: EventEncoder
    head: GaussianHead
    network: Any

    @classmethod
    def untrained(
        cls,
        model: IndividualModel,
        dataset: Dataset,
        parameters: Sequence[str],
        covariates: Sequence[str],
        head: GaussianHead,
        *,
        kind: str,
        width: int,
        seed: int,
    ) -> RecognitionModel:
        """Measure the constants of the input on a dataset, and draw first weights.

        Parameters
        ----------
        model : IndividualModel
        dataset : Dataset
        parameters : sequence of str, length r
        covariates : sequence of str
        head : GaussianHead
        kind : {"lstm", "conv-gru"}
        width : int
        seed : int
            Determines the weights (of one backend).

        Returns
        -------
        RecognitionModel
        """
        y, phi = dataset.y_padded()[0], np.tile(model.parameters.typical_phi, (dataset.n_subjects, 1))
        encoder = fit_encoder(model, NetworkSpec(tokens="events"), dataset.design_batch(), y, phi)
        values = _covariate_values(dataset, covariates)
        spread = values.std(axis=0)
        # Keras initializers draw from its global generator; there is no narrower switch for nested layers.
        keras.utils.set_random_seed(seed % 2**32)
        shape = _shape(kind, width, encoder, len(covariates), head)
        return cls(
            model.name,
            model.fingerprint,
            tuple(parameters),
            kind,
            width,
            tuple(covariates),
            frozen(values.mean(axis=0)),
            frozen(np.where(spread > _SMALLEST_SPREAD, spread, 1.0)),
            encoder,
            head,
            shape.build(),
        )

    @property
    def shape(self) -> NetworkShape:
        """What the network is built from."""
        return _shape(self.kind, self.width, self.encoder, len(self.covariates), self.head)

    def input(self, model: IndividualModel, dataset: Dataset, width: int = 0) -> RecognitionInput:
        """Encode a dataset.

        Parameters
        ----------
        model : IndividualModel
        dataset : Dataset
        width : int
            Tokens to pad to, at least.

        Returns
        -------
        RecognitionInput

        Raises
        ------
        DrawsError
            E_DRAWS_OTHER_MODEL.
        PopulationError
            E_POP_COVARIATE_MISSING.
        """
        if model.fingerprint != self.model_fingerprint:
            raise DrawsError(
                "E_DRAWS_OTHER_MODEL",
                f"the encoder was trained with model {self.model_name!r} in another version than model "
                f"{model.name!r} is (fingerprints differ). Pass the model of the fit, or fit again.",
            )
        batch = dataset.design_batch()
        check_batch(model.program, batch)
        y, observed, _, _ = dataset.y_padded()
        encoded = self.encoder.encode(batch, y, observed)
        values = _covariate_values(dataset, self.covariates)
        scaled = ((values - self.covariate_mean) / self.covariate_sd).astype(np.float32)
        conditions = np.concatenate([encoded.conditions, scaled], axis=1)
        size = max(encoded.tokens.shape[1], width)
        mask = np.arange(size) < encoded.length[:, None]
        return RecognitionInput(pad_tokens(encoded.tokens, size), mask, conditions)

    def law(self, model: IndividualModel, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Predict the individual parameters of any subjects by one pass.

        Parameters
        ----------
        model : IndividualModel
            The model of the fit.
        dataset : Dataset

        Returns
        -------
        mean : ndarray, shape (n, r)
            On the phi scale, in the order of `parameters`.
        covariance : ndarray, shape (n, r, r)

        Raises
        ------
        DrawsError, PopulationError
            See `input`.
        """
        given = self.input(model, dataset)
        numbers = self.network(given.tokens, given.mask.astype(np.float32), given.conditions)
        mean, root = self.head.law(np.asarray(numbers))
        return mean, root @ np.swapaxes(root, 1, 2)

    def save(self, path: str | Path) -> None:
        """Write constants and weights to one HDF5 file, with checksums, nothing pickled.

        Parameters
        ----------
        path : str or Path

        Raises
        ------
        ArtefactError
            E_IO_WRITE.
        """
        arrays = {
            f"weight-{number:03d}": value for number, value in enumerate(values_of(self.network.weights))
        }
        attributes = {
            "kind": _KIND,
            "model": {"name": self.model_name, "fingerprint": self.model_fingerprint},
            "parameters": list(self.parameters),
            "network": {"kind": self.kind, "width": self.width},
            "covariates": list(self.covariates),
            "covariate_mean": [float(v) for v in self.covariate_mean],
            "covariate_sd": [float(v) for v in self.covariate_sd],
            "encoder": self.encoder.to_config(),
            "head": self.head.to_config(),
        }
        write_h5_atomic(path, arrays, attributes)

    @classmethod
    def load(cls, path: str | Path) -> RecognitionModel:
        """Read a file that `save` wrote.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        RecognitionModel

        Raises
        ------
        ArtefactError
            When the file is missing, damaged or describes no encoder.
        """
        arrays, stored = read_h5(path, _KIND)
        with understood(path, "an encoder"):
            built = cls._rebuilt(stored)
            values = [arrays[name] for name in sorted(arrays)]
            if [value.shape for value in values] != [tuple(w.shape) for w in built.network.weights]:
                raise ArtefactError(
                    "E_ARTEFACT_WEIGHTS",
                    f"{path} holds {len(values)} arrays that do not fit the network it describes "
                    f"({len(built.network.weights)} arrays). Restore the file from its source.",
                )
            built.network.set_weights(values)
        return built

    @classmethod
    def _rebuilt(cls, stored: Mapping[str, Any]) -> RecognitionModel:
        spec, parameters = stored["network"], tuple(str(name) for name in stored["parameters"])
        encoder = EventEncoder.from_config(stored["encoder"], NetworkSpec(tokens="events"))
        head = GaussianHead.from_config(stored["head"])
        kind, width, covariates = str(spec["kind"]), int(spec["width"]), tuple(stored["covariates"])
        if kind not in ENCODER_KINDS or not 1 <= width <= _MOST_WIDTH or len(parameters) != head.r:
            raise ValueError(f"network {kind!r} of width {width} for {head.r} parameters")
        shape = _shape(kind, width, encoder, len(covariates), head)
        return cls(
            str(stored["model"]["name"]),
            str(stored["model"]["fingerprint"]),
            parameters,
            kind,
            width,
            covariates,
            frozen(stored["covariate_mean"]),
            frozen(stored["covariate_sd"]),
            encoder,
            head,
            shape.build(),
        )


def _shape(
    kind: str, width: int, encoder: EventEncoder, n_covariates: int, head: GaussianHead
) -> NetworkShape:
    n_conditions = len(encoder.condition_mean) + n_covariates
    return NetworkShape(kind, width, len(encoder.feature_mean), n_conditions, head.n_numbers)


def _covariate_values(dataset: Dataset, names: Sequence[str]) -> np.ndarray:
    """Values of covariates, shape (n, n_covariates)."""
    table = dataset.covariate_table()
    columns = [covariate_column(table, name, "the encoder") for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((dataset.n_subjects, 0))
