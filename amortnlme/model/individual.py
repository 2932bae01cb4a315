"""The individual model: one file of plain Python gives predictions, sensitivities, draws, likelihoods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.errors import ModelError
from amortnlme.core.fingerprint import fingerprint_json
from amortnlme.data.design import Design, DesignBatch
from amortnlme.model.dynamics import AbstractDynamics
from amortnlme.model.error_model import AbstractErrorModel
from amortnlme.model.parameters import ParameterSpace
from amortnlme.model.prior import AbstractPrior
from amortnlme.model.program import Program, ProgramInputs, build_program, prepare_inputs
from amortnlme.solve.engine import AbstractEngine
from amortnlme.solve.trace import ModelFunction, Shift

if TYPE_CHECKING:
    from amortnlme.data.dataset import Dataset
    from amortnlme.data.design_sampler import AbstractDesignSampler
    from amortnlme.data.subject import Subject
    from amortnlme.model.bound import BoundModel

REQUIRED_UNITS = ("time", "amount")
CAPABILITIES = frozenset({"simulate", "predict", "sensitivity", "likelihood"})


@dataclass(frozen=True, slots=True)
class Output:
    """One observed quantity.

    Attributes
    ----------
    name : str
    unit : str
    fn : callable
        `fn(t, y, p)`, the prediction of the observation.
    error_model : AbstractErrorModel
    """

    name: str
    unit: str
    fn: ModelFunction
    error_model: AbstractErrorModel

    def __post_init__(self) -> None:
        """Refuse an output without a unit."""
        if not isinstance(self.unit, str) or not self.unit.strip():
            raise ModelError(
                "E_MODEL_OUTPUT_UNIT", f"output {self.name!r} has no unit. Give one, for instance 'mg/L'."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Predictions for many parameter vectors.

    Attributes
    ----------
    f : ndarray, shape (n, m)   [observation units]
    status : ndarray of int, shape (n,)
        Values of `amortnlme.core.status.SolveStatus`.
    df_dphi : ndarray, shape (n, m, d), or None
    """

    f: np.ndarray
    status: np.ndarray
    df_dphi: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """Simulated observations.

    Attributes
    ----------
    y : ndarray, shape (n, m)   [observation units]
        NaN in columns a design does not have, and in rows that could not be solved.
    status : ndarray of int, shape (n,)
    """

    y: np.ndarray
    status: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class IndividualModel:
    """A model of one individual.

    Attributes
    ----------
    name, version : str
    text : str
        What the model describes, in a sentence.
    source : str
        Where it comes from, with equation numbers.
    parameters : ParameterSpace
        Or a tuple of Parameter.
    states : tuple of str
        Compartment 1 is the first state, and so on.
    dynamics : AbstractDynamics
    outputs : tuple of Output
        DVID 1 is the first output, and so on.
    prior : AbstractPrior
        On phi; what estimators are trained under.
    design_sampler : AbstractDesignSampler
        The designs an estimator of this model is trained to see.
    units : mapping of str to str
        At least "time" and "amount".
    covariates : tuple of str
        Covariates that the right-hand side or an output uses as p.<name>. Covariates of the population model
        do not belong here.
    shifts : tuple of Shift
        Parameters that move between occasions; made by `amortnlme.model.occasions`, never by a model file.

    Raises
    ------
    ModelError
        With a code that names the fault of the model file.
    """

    name: str
    version: str
    text: str
    source: str
    parameters: ParameterSpace
    states: tuple[str, ...]
    dynamics: AbstractDynamics
    outputs: tuple[Output, ...]
    prior: AbstractPrior
    design_sampler: AbstractDesignSampler
    units: Mapping[str, str]
    covariates: tuple[str, ...] = ()
    shifts: tuple[Shift, ...] = ()
    _program: Program = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the declaration and trace it."""
        parameters = self.parameters
        if not isinstance(parameters, ParameterSpace):
            parameters = ParameterSpace(tuple(parameters))
            object.__setattr__(self, "parameters", parameters)
        for name in ("states", "outputs", "covariates"):
            if isinstance(getattr(self, name), str):
                raise ModelError(
                    "E_MODEL_NAMES",
                    f"`{name}` is the text {getattr(self, name)!r}, whose letters would count as names. Give "
                    f"a tuple: ({getattr(self, name)!r},).",
                )
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "units", MappingProxyType(dict(self.units)))
        _check_declaration(self)
        program = build_program(
            parameters,
            self.states,
            self.covariates,
            self.dynamics,
            [(o.name, o.fn, o.error_model) for o in self.outputs],
            self.shifts,
        )
        object.__setattr__(self, "_program", program)

    @property
    def d(self) -> int:
        """Number of individual parameters."""
        return self.parameters.d

    @property
    def capabilities(self) -> frozenset[str]:
        """What methods may ask for: a subset of simulate, predict, sensitivity, likelihood."""
        engine = self.program.engine
        if not isinstance(engine, AbstractEngine):
            return frozenset({"simulate"})
        return CAPABILITIES if engine.has_sensitivities else CAPABILITIES - {"sensitivity"}

    @property
    def program(self) -> Program:
        """The traced and compiled model."""
        return self._program

    @property
    def fingerprint(self) -> str:
        """Hash of everything that defines the numbers: equations, parameters, transforms, error models.

        Prior, design sampler, texts and formatting are left out; artefacts store those separately.
        """
        texts = self.program.equation_texts
        identity = {
            "parameters": [[p.name, p.unit, p.transform, p.role] for p in self.parameters.parameters],
            "covariates": list(self.covariates),
            "states": list(self.states),
            "dynamics": self.dynamics.to_config(),
            "derivatives": texts["derivatives"],
            "outputs": [
                [o.name, o.unit, text, o.error_model.to_config()]
                for o, text in zip(self.outputs, texts["outputs"], strict=True)
            ],
            "units": dict(self.units),
        }
        if "extra" in texts:
            identity["extra"] = texts["extra"]
        return fingerprint_json(identity)

    def predict(
        self, phi: np.ndarray, design: Design, covariates: Mapping[str, float | np.ndarray] | None = None
    ) -> Prediction:
        """Predict the observations of one design for many parameter vectors.

        Parameters
        ----------
        phi : ndarray, shape (n, d)
        design : Design
        covariates : mapping of str to float or ndarray of shape (n_records,), optional

        Returns
        -------
        Prediction
        """
        return self._predict(phi, design, covariates, sensitivities=False)

    def predict_with_sensitivity(
        self, phi: np.ndarray, design: Design, covariates: Mapping[str, float | np.ndarray] | None = None
    ) -> Prediction:
        """As `predict`, with df/dphi.

        Parameters
        ----------
        phi : ndarray, shape (n, d)
        design : Design
        covariates : mapping of str to float or ndarray of shape (n_records,), optional

        Returns
        -------
        Prediction
        """
        return self._predict(phi, design, covariates, sensitivities=True)

    def simulate(
        self,
        phi: np.ndarray,
        design: Design,
        covariates: Mapping[str, float | np.ndarray] | None,
        rng: np.random.Generator,
    ) -> Simulated:
        """Simulate one design for many parameter vectors.

        Parameters
        ----------
        phi : ndarray, shape (n, d)
        design : Design
        covariates : mapping of str to float or ndarray of shape (n_records,), or None
        rng : numpy.random.Generator

        Returns
        -------
        Simulated
        """
        phi = self._rows(phi)
        inputs = self._inputs(_one_design(design, covariates))
        simulated = self._simulate(phi, inputs, np.zeros(phi.shape[0], dtype=np.int64), rng)
        # A batch has at least one column, also where the design has no observation.
        return Simulated(simulated.y[:, : design.n_observations], simulated.status)

    def simulate_batch(self, phi: np.ndarray, batch: DesignBatch, rng: np.random.Generator) -> Simulated:
        """Simulate n parameter vectors, each under its own design.

        Parameters
        ----------
        phi : ndarray, shape (n, d)
        batch : DesignBatch
            n designs.
        rng : numpy.random.Generator

        Returns
        -------
        Simulated
        """
        phi = self._rows(phi)
        if batch.n != phi.shape[0]:
            raise ModelError(
                "E_MODEL_BATCH_SHAPE",
                f"{phi.shape[0]} parameter vectors came with {batch.n} designs. Give one design per vector.",
            )
        return self._simulate(phi, self._inputs(batch), np.arange(phi.shape[0]), rng)

    def log_likelihood(self, phi: np.ndarray, subject: Subject) -> np.ndarray:
        """Log likelihood of one subject's data for many parameter vectors.

        Parameters
        ----------
        phi : ndarray, shape (n, d)
        subject : Subject

        Returns
        -------
        ndarray, shape (n,)   [nats]
            Constants included; -inf where the model cannot be solved.
        """
        from amortnlme.data.dataset import Dataset

        return self.bind(Dataset(subjects=(subject,))).log_likelihood(self._rows(phi)[None])[0]

    def bind(self, dataset: Dataset) -> BoundModel:
        """Prepare the model for repeated evaluation on a dataset.

        Parameters
        ----------
        dataset : Dataset

        Returns
        -------
        BoundModel

        Raises
        ------
        ModelError
            E_MODEL_COVARIATE_MISSING, E_MODEL_COMPARTMENT, E_MODEL_OUTPUT when the data ask for what the
            model lacks.
        """
        from amortnlme.model.bound import bind_model

        return bind_model(self, dataset)

    def _inputs(self, batch: DesignBatch) -> ProgramInputs:
        return prepare_inputs(self.program, batch)

    def _rows(self, phi: np.ndarray) -> np.ndarray:
        phi = np.asarray(phi, dtype=np.float64)
        if phi.ndim != 2 or phi.shape[1] != self.d:
            raise ModelError(
                "E_MODEL_PHI_SHAPE",
                f"phi has shape {phi.shape}; model {self.name!r} needs (n, {self.d}): one row per "
                f"parameter vector, columns {', '.join(self.parameters.names)}.",
            )
        return phi

    def _predict(
        self,
        phi: np.ndarray,
        design: Design,
        covariates: Mapping[str, float | np.ndarray] | None,
        *,
        sensitivities: bool,
    ) -> Prediction:
        phi = self._rows(phi)
        inputs = self._inputs(_one_design(design, covariates))
        rows = np.zeros(phi.shape[0], dtype=np.int64)
        f, df_dphi, status = self.program.run(phi, inputs, rows, sensitivities=sensitivities)
        m = design.n_observations
        return Prediction(f[:, :m], status, None if df_dphi is None else df_dphi[:, :m])

    def _simulate(
        self, phi: np.ndarray, inputs: ProgramInputs, rows: np.ndarray, rng: np.random.Generator
    ) -> Simulated:
        f, status = self.program.sample_paths(phi, inputs, rows, rng)
        noise = rng.standard_normal(f.shape)
        psi = self.parameters.to_psi(phi)
        y = self.program.draw(f, psi, inputs, rows, noise)
        # NaN predictions (columns a design lacks, failed rows) stay NaN whatever the noise.
        y[status != 0] = np.nan
        return Simulated(y, status)


def _one_design(design: Design, covariates: Mapping[str, float | np.ndarray] | None) -> DesignBatch:
    values = {name: np.broadcast_to(v, (1, design.n_records)) for name, v in (covariates or {}).items()}
    return DesignBatch.from_designs([design], values)


def _check_declaration(model: IndividualModel) -> None:
    for name in ("name", "version", "text", "source"):
        if not str(getattr(model, name)).strip():
            raise ModelError(
                "E_MODEL_UNDOCUMENTED",
                f"the model's `{name}` is empty. Say it: others have to judge the model by it.",
            )
    missing = [kind for kind in REQUIRED_UNITS if not str(model.units.get(kind, "")).strip()]
    if missing:
        raise ModelError(
            "E_MODEL_UNITS",
            f"model {model.name!r} gives no unit of {missing[0]}. Give units such as time='h', amount='mg'.",
        )
    if not model.states or not model.outputs:
        raise ModelError(
            "E_MODEL_EMPTY",
            f"model {model.name!r} needs at least one state and one output; one list is empty.",
        )
    if model.prior.d != model.parameters.d:
        raise ModelError(
            "E_MODEL_PRIOR_SHAPE",
            f"the prior has {model.prior.d} dimensions, but the model has {model.parameters.d} parameters "
            f"({', '.join(model.parameters.names)}). Give one mean and sd per parameter, in this order.",
        )
