"""The traced and compiled form of an individual model: everything that turns phi and designs into numbers."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from amortnlme.core.errors import DesignError, ModelError
from amortnlme.core.status import SolveStatus
from amortnlme.data.design import DesignBatch, EventKind
from amortnlme.model.dynamics import AbstractDynamics, Engine
from amortnlme.model.error_model import AbstractErrorModel
from amortnlme.model.parameters import ParameterSpace
from amortnlme.solve.engine import AbstractEngine, AbstractStochasticEngine, Rows
from amortnlme.solve.schedule import MAX_RUNNING, Records, Schedule, covariate_segments, make_schedule
from amortnlme.solve.trace import ModelFunction, Names, Shift, canonical_text, trace_output


@dataclass(frozen=True, slots=True, eq=False)
class ProgramInputs:
    """A batch of designs as the program needs it.

    Attributes
    ----------
    schedule : Schedule
    time : ndarray, shape (n, m)   [time]
    output : ndarray of int, shape (n, m)
        0-based output of each observation; 0 in padding.
    present : ndarray of bool, shape (n, m)
        False in padding.
    covariates : ndarray, shape (n, m, c)
        Values in force at each observation.
    """

    schedule: Schedule
    time: np.ndarray
    output: np.ndarray
    present: np.ndarray
    covariates: np.ndarray

    def rows(self, psi: np.ndarray, design_index: np.ndarray) -> Rows:
        """Join the designs with parameter vectors.

        Parameters
        ----------
        psi : ndarray, shape (N, d)
            Structural parameters.
        design_index : ndarray of int, shape (N,)

        Returns
        -------
        Rows
        """
        return Rows(psi, self.schedule, design_index, self.time, self.output, self.covariates)


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A compiled individual model.

    Attributes
    ----------
    parameters : ParameterSpace
    states, covariates : tuple of str
    dose_index : int
        0-based state that receives doses without a compartment number.
    structural : tuple of int
        Columns of phi that enter dynamics and outputs.
    engine : AbstractEngine or AbstractStochasticEngine
    error_models : tuple of AbstractErrorModel
        One per output.
    sigma_columns : tuple of tuple of int
        Per output, the columns of phi of its residual-error parameters.
    equation_texts : dict of str to list of str
        Canonical text of the equations, for fingerprints.
    """

    parameters: ParameterSpace
    states: tuple[str, ...]
    covariates: tuple[str, ...]
    dose_index: int
    structural: tuple[int, ...]
    engine: Engine
    error_models: tuple[AbstractErrorModel, ...]
    sigma_columns: tuple[tuple[int, ...], ...]
    equation_texts: dict[str, list[str]]

    def run(
        self, phi: np.ndarray, inputs: ProgramInputs, rows: np.ndarray, *, sensitivities: bool
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Predict the observations of every row.

        Parameters
        ----------
        phi : ndarray, shape (N, d)
        inputs : ProgramInputs
        rows : ndarray of int, shape (N,)
            Design of each row.
        sensitivities : bool

        Returns
        -------
        f : ndarray, shape (N, m)   [observation units]
            NaN where a design has no observation.
        df_dphi : ndarray, shape (N, m, d), or None
        status : ndarray of int, shape (N,)

        Raises
        ------
        ModelError
            E_MODEL_NO_PREDICTION when the dynamics are random.
        """
        psi = np.ascontiguousarray(self.parameters.to_psi(phi)[:, self.structural])
        f, df_dpsi, status = self.solve(psi, inputs, rows, sensitivities=sensitivities)
        if df_dpsi is None:
            return f, None, status
        slope = self.parameters.dpsi_dphi(phi)[:, None, self.structural]
        with np.errstate(all="ignore"):  # a failed row may hold anything; its status says so
            structural = df_dpsi * slope
        if len(self.structural) == self.parameters.d:
            return f, structural, status
        df_dphi = np.zeros((*f.shape, self.parameters.d))
        df_dphi[:, :, self.structural] = structural
        return f, df_dphi, status

    def solve(
        self, psi: np.ndarray, inputs: ProgramInputs, rows: np.ndarray, *, sensitivities: bool
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """As `run`, for structural parameters on the natural scale and differentiated by them.

        Parameters
        ----------
        psi : ndarray, shape (N, p)   [parameter units]
        inputs : ProgramInputs
        rows : ndarray of int, shape (N,)
        sensitivities : bool

        Returns
        -------
        f : ndarray, shape (N, m)   [observation units]
        df_dpsi : ndarray, shape (N, m, p), or None
            May hold anything in a row that failed.
        status : ndarray of int, shape (N,)

        Raises
        ------
        ModelError
            E_MODEL_NO_PREDICTION when the dynamics are random.
        """
        if not isinstance(self.engine, AbstractEngine):
            raise ModelError(
                "E_MODEL_NO_PREDICTION",
                "the states of this model move at random: it can be simulated, but it has no prediction and "
                "no closed likelihood. Use a method that needs simulations only.",
            )
        if not sensitivities:
            f, status = self.engine.predict(inputs.rows(psi, rows))
            return f, None, _flag_non_finite(f, inputs, rows, status)
        f, df_dpsi, status = self.engine.predict_with_sensitivity(inputs.rows(psi, rows))
        status = _flag_non_finite(f, inputs, rows, status)
        return f, df_dpsi, status

    def sample_paths(
        self, phi: np.ndarray, inputs: ProgramInputs, rows: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the noise-free observables of every row: a path of random dynamics, else the prediction.

        Parameters
        ----------
        phi : ndarray, shape (N, d)
        inputs : ProgramInputs
        rows : ndarray of int, shape (N,)
        rng : numpy.random.Generator
            Gives the key of the counter-based generator; deterministic dynamics do not touch it.

        Returns
        -------
        f : ndarray, shape (N, m)   [observation units]
        status : ndarray of int, shape (N,)
        """
        if not isinstance(self.engine, AbstractStochasticEngine):
            f, _, status = self.run(phi, inputs, rows, sensitivities=False)
            return f, status
        psi = np.ascontiguousarray(self.parameters.to_psi(phi)[:, self.structural])
        first, second = rng.integers(0, 2**32, size=2)
        f, status = self.engine.simulate(
            inputs.rows(psi, rows), (int(first), int(second)), np.arange(phi.shape[0], dtype=np.int64)
        )
        return f, _flag_non_finite(f, inputs, rows, status)

    def draw(
        self, f: np.ndarray, psi: np.ndarray, inputs: ProgramInputs, rows: np.ndarray, noise: np.ndarray
    ) -> np.ndarray:
        """Draw observations around predictions.

        Parameters
        ----------
        f : ndarray, shape (N, m)   [observation units]
        psi : ndarray, shape (N, d)
        inputs : ProgramInputs
        rows : ndarray of int, shape (N,)
            Design of each row.
        noise : ndarray, shape (N, m)
            Standard normal.

        Returns
        -------
        ndarray, shape (N, m)
        """
        with np.errstate(all="ignore"):
            drawn = [
                model.draw(f, psi[:, columns], noise)
                for model, columns in zip(self.error_models, self.sigma_columns, strict=True)
            ]
        if len(drawn) == 1:
            return drawn[0]
        y, output = np.empty_like(f), inputs.output[rows]
        for o, values in enumerate(drawn):
            np.copyto(y, values, where=output == o)
        return y


def build_program(
    parameters: ParameterSpace,
    states: tuple[str, ...],
    covariates: tuple[str, ...],
    dynamics: AbstractDynamics,
    outputs: Sequence[tuple[str, ModelFunction, AbstractErrorModel]],
    shifts: tuple[Shift, ...] = (),
) -> Program:
    """Trace and compile a model.

    Parameters
    ----------
    parameters : ParameterSpace
    states, covariates : tuple of str
    dynamics : AbstractDynamics
    outputs : sequence of (name, function, error model)
    shifts : tuple of Shift
        Parameters that move between occasions.

    Returns
    -------
    Program

    Raises
    ------
    ModelError
        With a code that names the fault of the model file.
    """
    structural = tuple(i for i, p in enumerate(parameters.parameters) if p.role == "structural")
    names = Names(states, tuple(parameters.names[i] for i in structural), covariates, shifts)
    equations = dynamics.trace(names)
    traced = equations.system
    expressions = [trace_output(fn, names, traced.symbols, name) for name, fn, _ in outputs]
    sigma_columns = tuple(_sigma_columns(parameters, name, model) for name, _, model in outputs)
    _check_all_used(parameters, equations.used_names(expressions), outputs)
    texts = {
        "derivatives": [canonical_text(e) for e in traced.derivatives],
        "outputs": [canonical_text(e) for e in expressions],
    }
    # Written only where declared: a fingerprint must not change with what a model does not use.
    if equations.noise or equations.propensities or not equations.entry.is_plain:
        texts["extra"] = [canonical_text(e) for e in equations.extra]
    return Program(
        parameters=parameters,
        states=states,
        covariates=covariates,
        dose_index=states.index(dynamics.dose_state),
        structural=structural,
        engine=dynamics.build(equations, expressions),
        error_models=tuple(model for *_, model in outputs),
        sigma_columns=sigma_columns,
        equation_texts=texts,
    )


def _flag_non_finite(
    f: np.ndarray, inputs: ProgramInputs, rows: np.ndarray, status: np.ndarray
) -> np.ndarray:
    """Flag solved rows with an observable that is not finite (log of 0, volume of 0)."""
    # Rows that are finite throughout need no look at what their design has.
    doubtful = np.flatnonzero((status == SolveStatus.OK) & ~np.isfinite(f).all(axis=1))
    bad = (~np.isfinite(f[doubtful]) & inputs.present[rows[doubtful]]).any(axis=1)
    flagged = np.array(status)
    flagged[doubtful[bad]] = int(SolveStatus.NON_FINITE)
    return flagged


def prepare_inputs(program: Program, batch: DesignBatch) -> ProgramInputs:
    """Turn a batch of designs into solver events.

    Parameters
    ----------
    program : Program
    batch : DesignBatch

    Returns
    -------
    ProgramInputs

    Raises
    ------
    ModelError
        E_MODEL_COVARIATE_MISSING, E_MODEL_COMPARTMENT, E_MODEL_OUTPUT.
    DesignError
        E_DESIGN_STEADY_STATE when more than 64 infusions of a steady-state regimen overlap.
    """
    values = _covariate_values(program, batch)
    check_batch(program, batch)
    segment, segment_covariates = covariate_segments(values, batch.n_records)
    compartment = np.where(batch.compartment > 0, batch.compartment.astype(np.int64) - 1, program.dose_index)
    records = Records(
        time=batch.time,
        kind=batch.kind,
        compartment=compartment,
        amount=batch.amount,
        duration=batch.duration,
        ii=batch.ii,
        ss=batch.ss,
        slot=batch.obs_slot,
        segment=segment,
        n_records=batch.n_records,
    )
    n, m = batch.observation_times.shape
    at_observations = np.zeros((n, m, values.shape[2]))
    if values.shape[2]:
        row, column = np.nonzero(batch.obs_slot >= 0)
        at_observations[row, batch.obs_slot[row, column]] = values[row, column]
    return ProgramInputs(
        schedule=make_schedule(records, m, segment_covariates),
        time=np.array(batch.observation_times, dtype=np.float64),
        output=np.maximum(np.asarray(batch.observation_output, dtype=np.int64) - 1, 0),
        present=np.asarray(batch.observation_mask),
        covariates=at_observations,
    )


def _covariate_values(program: Program, batch: DesignBatch) -> np.ndarray:
    missing = [name for name in program.covariates if name not in batch.covariates]
    if missing:
        raise ModelError(
            "E_MODEL_COVARIATE_MISSING",
            f"the model uses the covariate {missing[0]!r}, which the data do not have. They have: "
            f"{', '.join(batch.covariates) or 'none'}.",
        )
    shape = batch.time.shape
    values = np.zeros((*shape, len(program.covariates)))
    for i, name in enumerate(program.covariates):
        column = np.asarray(batch.covariates[name], dtype=np.float64)
        values[:, :, i] = column[:, None] if column.ndim == 1 else column
        inside = np.arange(shape[1]) < np.asarray(batch.n_records)[:, None]
        if not np.isfinite(values[:, :, i][inside]).all():
            raise ModelError(
                "E_MODEL_COVARIATE_MISSING",
                f"the covariate {name!r} has missing or infinite values in the data, but the model needs "
                "it. Impute it or drop those subjects.",
            )
    return values


def check_batch(program: Program, batch: DesignBatch) -> None:
    """Refuse designs that name what the model does not have.

    Parameters
    ----------
    program : Program
    batch : DesignBatch

    Raises
    ------
    ModelError
        E_MODEL_COMPARTMENT, E_MODEL_OUTPUT.
    DesignError
        E_DESIGN_STEADY_STATE for a steady-state infusion that lasts too many of its intervals.
    """
    is_dose = (batch.kind == EventKind.BOLUS) | (batch.kind == EventKind.INFUSION)
    beyond = is_dose & ((batch.compartment > len(program.states)) | (batch.compartment < 0))
    if beyond.any():
        raise ModelError(
            "E_MODEL_COMPARTMENT",
            f"a dose goes to compartment {int(batch.compartment[beyond][0])}, but the model has "
            f"{len(program.states)}: {', '.join(f'{i} {s}' for i, s in enumerate(program.states, 1))}. "
            "Correct CMT.",
        )
    wanted = int(np.max(batch.observation_output, initial=0))
    if wanted > len(program.error_models):
        raise ModelError(
            "E_MODEL_OUTPUT",
            f"an observation is of outcome {wanted} (DVID), but the model has {len(program.error_models)} "
            "output(s).",
        )
    overlapping = (
        (batch.kind == EventKind.INFUSION) & (batch.ss > 0) & (batch.duration >= MAX_RUNNING * batch.ii)
    )
    if overlapping.any():
        raise DesignError(
            "E_DESIGN_STEADY_STATE",
            f"a steady-state infusion lasts {float(batch.duration[overlapping][0])}, more than "
            f"{MAX_RUNNING} of its intervals II. Give it as one long infusion.",
        )


def _sigma_columns(parameters: ParameterSpace, output: str, model: AbstractErrorModel) -> tuple[int, ...]:
    for name in model.names:
        if name not in parameters.names or parameters.parameters[parameters.index(name)].role != "error":
            raise ModelError(
                "E_MODEL_ERROR_PARAMETER",
                f"the error model of output {output!r} uses {name!r}, which is not a parameter with "
                "role='error'. Declare it, with a unit and a transform.",
            )
        unit = parameters.parameters[parameters.index(name)].unit
        if name in model.exponents and unit != "1":
            raise ModelError(
                "E_MODEL_ERROR_PARAMETER",
                f"{name!r} is an exponent in the error model of output {output!r}, but its unit is {unit!r}. "
                "An exponent has no dimension: give the unit '1'.",
            )
    return parameters.indices(model.names)


def _check_all_used(
    parameters: ParameterSpace,
    used: Set[str],
    outputs: Sequence[tuple[str, ModelFunction, AbstractErrorModel]],
) -> None:
    used = used | {name for *_, model in outputs for name in model.names}
    idle = [name for name in parameters.names if name not in used]
    if idle:
        raise ModelError(
            "E_MODEL_UNUSED_PARAMETER",
            f"parameter {idle[0]!r} enters neither the dynamics nor an output nor an error model, so "
            "nothing could ever be learnt about it. Use it or remove it.",
        )
