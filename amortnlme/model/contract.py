"""The contract every individual model keeps, checked by running it: `amortnlme check FILE`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from amortnlme.core.errors import AmortNlmeError
from amortnlme.core.rng import stream
from amortnlme.data.design import Design, DesignBatch, EventKind
from amortnlme.data.design_sampler import design_sampler_from_config
from amortnlme.data.subject import Subject, TimeVarying
from amortnlme.model.individual import IndividualModel
from amortnlme.model.prior import prior_from_config
from amortnlme.model.reference_ode import reference_prediction

N_ROWS = 64
# Absurd but representable: every rate, volume and error pushed by this many units of phi.
ABSURD = 300.0
# Richardson-extrapolated central differences of a prediction accurate to 1e-12 reach about 1e-8 relative.
SENSITIVITY_TOLERANCE = 1e-6
# LSODA at rtol 1e-11 keeps its global error below this over the horizons of a design sampler.
ODE_TOLERANCE = 1e-7


@dataclass(frozen=True, slots=True)
class ContractRow:
    """One checked promise.

    Attributes
    ----------
    name : str
    passed : bool
    detail : str
        What was measured, or what went wrong.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ContractReport:
    """All checked promises of one model.

    Attributes
    ----------
    model_name, fingerprint : str
    rows : tuple of ContractRow
    """

    model_name: str
    fingerprint: str
    rows: tuple[ContractRow, ...]

    @property
    def passed(self) -> bool:
        """Whether every promise is kept."""
        return all(row.passed for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able report.

        Returns
        -------
        dict
        """
        return {
            "model": self.model_name,
            "fingerprint": self.fingerprint,
            "passed": self.passed,
            "rows": [{"name": r.name, "passed": r.passed, "detail": r.detail} for r in self.rows],
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """A small simulated world every check looks at."""

    model: IndividualModel
    phi: np.ndarray
    batch: DesignBatch
    design: Design
    covariates: dict[str, np.ndarray]


def check_model(model: IndividualModel, seed: int = 1) -> ContractReport:
    """Check a model by running it.

    Parameters
    ----------
    model : IndividualModel
    seed : int

    Returns
    -------
    ContractReport
        A fault of the model is a row that failed, never an exception.
    """
    checks: tuple[tuple[str, Callable[[_Sample], str]], ...] = (
        ("units, text and source are present", _declared),
        ("transforms round-trip", _transforms),
        ("the prior's samples follow its density", _prior),
        ("sampled designs are valid and inside their own domain", _designs),
        ("simulations have the promised shapes", _shapes),
        ("prior simulations succeed", _solves),
        ("a batch of one equals its row in a batch", _batch_of_one),
        ("the same generator gives the same bytes", _same_bytes),
        ("no dose gives the baseline", _baseline),
        ("absurd parameters give a status, not an error", _absurd),
        ("predictions agree with an independent ODE solver", _ode),
        ("sensitivities agree with extrapolated differences", _sensitivities),
    )
    rng = stream(seed, 0)
    rows: list[ContractRow] = []
    try:
        sample = _sample(model, rng)
    except AmortNlmeError as fault:
        return ContractReport(
            model.name, model.fingerprint, (ContractRow("the model can be sampled", False, str(fault)),)
        )
    for name, check in checks:
        try:
            rows.append(ContractRow(name, True, check(sample)))
        except (_Broken, AmortNlmeError) as fault:
            rows.append(ContractRow(name, False, str(fault)))
    return ContractReport(model.name, model.fingerprint, tuple(rows))


class _Broken(Exception):
    """A promise that is not kept; the text says how."""


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise _Broken(text)


def _sample(model: IndividualModel, rng: np.random.Generator) -> _Sample:
    phi = model.prior.sample(N_ROWS, rng)
    batch = model.design_sampler.sample(N_ROWS, rng)
    first = int(np.argmax(batch.n_observations))
    design = _design(batch, first)
    covariates = {name: np.asarray(v)[first, : design.n_records] for name, v in batch.covariates.items()}
    return _Sample(model, phi, batch, design, covariates)


def _design(batch: DesignBatch, row: int) -> Design:
    last = int(batch.n_records[row])
    fields = ("time", "kind", "compartment", "amount", "duration", "ii", "ss", "output")
    return Design(**{name: getattr(batch, name)[row, :last] for name in fields})


def _declared(sample: _Sample) -> str:
    model = sample.model
    texts = [p.text.strip() for p in model.parameters.parameters]
    _require(
        all(texts), f"parameter {model.parameters.names[texts.index('') if '' in texts else 0]!r} has no text"
    )
    return f"{model.d} parameters, time in {model.units['time']}, amounts in {model.units['amount']}"


def _transforms(sample: _Sample) -> str:
    space = sample.model.parameters
    back = space.to_phi(space.to_psi(sample.phi))
    worst = float(np.abs(back - sample.phi).max())
    _require(
        worst < 1e-9 * (1.0 + float(np.abs(sample.phi).max())), f"phi -> psi -> phi moves by {worst:.1e}"
    )
    step = 1e-5
    numeric = (space.to_psi(sample.phi + step) - space.to_psi(sample.phi - step)) / (2 * step)
    slope = space.dpsi_dphi(sample.phi)
    gap = float((np.abs(numeric - slope) / (np.abs(slope) + 1e-300)).max())
    _require(gap < 1e-6, f"dpsi/dphi differs from differences by {gap:.1e}")
    return f"largest round-trip error {worst:.1e}"


def _prior(sample: _Sample) -> str:
    prior = sample.model.prior
    phi = prior.sample(4000, stream(2, 1))
    log_prob = prior.log_prob(phi)
    _require(
        phi.shape == (4000, sample.model.d) and log_prob.shape == (4000,),
        "sample or log_prob has a wrong shape",
    )
    _require(bool(np.isfinite(log_prob).all()), "log_prob is not finite on the prior's own samples")
    # Importance identity: E_p[q/p] = 1 for a narrower normal q around the sample mean. The ratio is bounded
    # for a normal p, and its Monte-Carlo error is estimated from the same draws; 5 SE leave a false-alarm
    # rate below 1e-6.
    mean, sd = phi.mean(axis=0), 0.7 * phi.std(axis=0)
    log_q = (-0.5 * ((phi - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    ratio = np.exp(log_q - log_prob)
    se = float(ratio.std() / np.sqrt(ratio.size))
    _require(
        abs(float(ratio.mean()) - 1.0) < 5 * se,
        f"the density integrates to {ratio.mean():.3f} +- {se:.3f} over its samples",
    )
    again = prior_from_config(prior.to_config())
    _require(bool(np.array_equal(again.log_prob(phi), log_prob)), "to_config / from_config changes the prior")
    return f"integral over its own samples {ratio.mean():.3f} +- {se:.3f}"


def _designs(sample: _Sample) -> str:
    sampler, batch = sample.model.design_sampler, sample.batch
    _require(int(batch.n_records.max()) <= sampler.max_records, "a design has more records than max_records")
    _require(
        int(batch.n_observations.max()) <= sampler.max_observations, "more observations than max_observations"
    )
    for row in range(batch.n):
        design = _design(batch, row)
        subject = Subject.from_observations(
            "x", design, np.ones(design.n_observations), _covariates(batch, row)
        )
        reasons = sampler.contains(subject)
        _require(not reasons, f"design {row + 1} of its own sample is called outside: {'; '.join(reasons)}")
    _require(
        design_sampler_from_config(sampler.to_config()) == sampler,
        "to_config / from_config changes the sampler",
    )
    counts = batch.n_observations
    return f"{batch.n} designs, {int(counts.min())} to {int(counts.max())} observations"


def _covariates(batch: DesignBatch, row: int) -> dict[str, float | TimeVarying]:
    last = int(batch.n_records[row])
    return {name: TimeVarying(np.asarray(v)[row, :last]) for name, v in batch.covariates.items()}


def _shapes(sample: _Sample) -> str:
    model, batch = sample.model, sample.batch
    m = batch.observation_mask.shape[1]
    simulated = model.simulate_batch(sample.phi, batch, stream(3, 1))
    _require(
        simulated.y.shape == (N_ROWS, m) and simulated.status.shape == (N_ROWS,),
        "simulate_batch: wrong shape",
    )
    solved = simulated.status == 0
    _require(
        bool((np.isfinite(simulated.y) == (batch.observation_mask & solved[:, None])).all()),
        "simulated values are not finite exactly where a design has an observation",
    )
    prediction = model.predict_with_sensitivity(sample.phi, sample.design, sample.covariates)
    m = sample.design.n_observations
    assert prediction.df_dphi is not None
    _require(prediction.f.shape == (N_ROWS, m), f"predict: f has shape {prediction.f.shape}")
    _require(
        prediction.df_dphi.shape == (N_ROWS, m, model.d), f"df_dphi has shape {prediction.df_dphi.shape}"
    )
    return f"y {simulated.y.shape}, df_dphi {prediction.df_dphi.shape}"


def _solves(sample: _Sample) -> str:
    simulated = sample.model.simulate_batch(sample.phi, sample.batch, stream(3, 2))
    failed = int((simulated.status != 0).sum())
    _require(failed <= N_ROWS // 100, f"{failed} of {N_ROWS} simulations from the prior failed")
    return f"{failed} of {N_ROWS} failed"


def _batch_of_one(sample: _Sample) -> str:
    model = sample.model
    together = model.predict_with_sensitivity(sample.phi, sample.design, sample.covariates)
    for row in (0, N_ROWS // 2, N_ROWS - 1):
        alone = model.predict_with_sensitivity(sample.phi[row : row + 1], sample.design, sample.covariates)
        assert together.df_dphi is not None and alone.df_dphi is not None
        same = np.array_equal(alone.f[0], together.f[row]) and np.array_equal(
            alone.df_dphi[0], together.df_dphi[row]
        )
        _require(same, f"row {row} differs from the same row alone")
    return "bit-identical"


def _same_bytes(sample: _Sample) -> str:
    runs = [sample.model.simulate_batch(sample.phi, sample.batch, stream(4, 1)).y.tobytes() for _ in range(2)]
    _require(runs[0] == runs[1], "two runs with the same generator differ")
    return "bit-identical"


def _baseline(sample: _Sample) -> str:
    design = sample.design
    kind = np.where(design.is_dose, int(EventKind.OTHER), design.kind)
    zero = np.zeros(design.n_records)
    undosed = Design(design.time, kind, zero, zero, zero, zero, zero, design.output)
    prediction = sample.model.predict(sample.phi, undosed, sample.covariates)
    _require(bool((prediction.status == 0).all()), "the model cannot be solved without a dose")
    drift = float(np.abs(prediction.f - prediction.f[:, :1]).max())
    _require(
        drift < 1e-9 * (1.0 + float(np.abs(prediction.f).max())),
        f"without a dose predictions drift by {drift:.1e}",
    )
    return f"baseline {float(prediction.f[0, 0]):g}"


def _absurd(sample: _Sample) -> str:
    model = sample.model
    rows = [model.parameters.typical_phi]
    for column in range(model.d):
        for push in (-ABSURD, ABSURD, 1e6, np.nan, np.inf):
            row = model.parameters.typical_phi.copy()
            row[column] = push
            rows.append(row)
    phi = np.array(rows)
    prediction = model.predict_with_sensitivity(phi, sample.design, sample.covariates)
    assert prediction.df_dphi is not None
    solved = prediction.status == 0
    _require(bool(solved[0]), "typical parameters cannot be solved")
    _require(
        bool(np.isfinite(prediction.f[solved]).all()), "a solved row holds predictions that are not finite"
    )
    return f"{int((~solved).sum())} of {len(rows)} rows carry a status"


def _ode(sample: _Sample) -> str:
    """Integrate between events step by step, on the untraced right-hand side."""
    model = sample.model
    worst = 0.0
    rows = sample.phi[:3]
    prediction = model.predict(rows, sample.design, sample.covariates)
    for row in range(3):
        reference = reference_prediction(model, rows[row], sample.design, sample.covariates)
        scale = float(np.abs(reference).max()) + 1e-300
        worst = max(worst, float(np.abs(prediction.f[row] - reference).max()) / scale)
    _require(worst < ODE_TOLERANCE, f"predictions differ from the ODE solver by {worst:.1e} relative")
    return f"largest relative difference {worst:.1e}"


def _sensitivities(sample: _Sample) -> str:
    model = sample.model
    phi = sample.phi[:8]
    prediction = model.predict_with_sensitivity(phi, sample.design, sample.covariates)
    assert prediction.df_dphi is not None
    worst, column_of_worst = 0.0, 0
    for column in range(model.d):
        direction = np.zeros(model.d)
        direction[column] = 1.0

        def slope(step: float, direction: np.ndarray = direction) -> np.ndarray:
            up = model.predict(phi + step * direction, sample.design, sample.covariates).f
            down = model.predict(phi - step * direction, sample.design, sample.covariates).f
            return (up - down) / (2 * step)

        # Two Richardson steps: the error is of order h^6 in truncation and 1e-15 / h in rounding.
        h = 0.02
        s1, s2, s4 = slope(h), slope(h / 2), slope(h / 4)
        first, second = (4 * s2 - s1) / 3, (4 * s4 - s2) / 3
        numeric = (16 * second - first) / 15
        scale = (
            np.abs(numeric).max(axis=1, keepdims=True)
            + 1e-9 * np.abs(prediction.f).max(axis=1, keepdims=True)
            + 1e-300
        )
        error = float((np.abs(numeric - prediction.df_dphi[:, :, column]) / scale).max())
        if error > worst:
            worst, column_of_worst = error, column
    name = model.parameters.names[column_of_worst]
    _require(
        worst < SENSITIVITY_TOLERANCE, f"df/dphi of {name!r} differs from differences by {worst:.1e} relative"
    )
    return f"largest relative difference {worst:.1e} ({name})"
