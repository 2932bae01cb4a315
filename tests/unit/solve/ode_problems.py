"""Small ODE problems and hand-written event lists for the engine's tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from amortnlme.solve.engine import Rows
from amortnlme.solve.entry import Entry, EntryFunctions
from amortnlme.solve.ode import OdeEngine, OdeOptions
from amortnlme.solve.schedule import (
    RECORD_BOLUS,
    RECORD_INFUSION,
    RECORD_OBSERVATION,
    RECORD_OTHER,
    RECORD_RESET,
    Records,
    covariate_segments,
    make_schedule,
)
from amortnlme.solve.trace import Names, trace, trace_output

KINDS = {
    "obs": RECORD_OBSERVATION,
    "bolus": RECORD_BOLUS,
    "infusion": RECORD_INFUSION,
    "reset": RECORD_RESET,
    "other": RECORD_OTHER,
}


def engine(rhs, names, outputs, *, method="rodas5p", rtol=1e-8, atol=1e-10, max_steps=100_000, **entry):
    """Build the engine of a model given as functions."""
    system = trace(rhs, names)
    traced = [trace_output(f, names, system.symbols, f"output {i}") for i, f in enumerate(outputs)]
    functions = EntryFunctions(**entry)
    options = OdeOptions(method, rtol, atol, max_steps)
    return OdeEngine.build(system, Entry.from_functions(functions, names, system.symbols), traced, options)


def with_options(built, **changes):
    """Build the same engine with other options; its kernels are compiled already."""
    return replace(built, options=replace(built.options, **changes))


def record(kind, time, *, amount=0.0, into=0, duration=0.0, ii=0.0, ss=0, output=0, x=()):
    """Return one record; `x` are the covariates in force from it on."""
    return dict(
        kind=KINDS[kind], time=time, amount=amount, compartment=into, duration=duration, ii=ii, ss=ss,
        output=output, x=tuple(x),
    )  # fmt: skip


def observations(times, **settings):
    """Return one observation record per time."""
    return [record("obs", float(t), **settings) for t in times]


def rows(psi, *designs, index=None):
    """Join parameter vectors with designs, each a list of records in processing order."""
    psi = np.atleast_2d(np.asarray(psi, dtype=float))
    n, k = len(designs), max(len(d) for d in designs)
    n_records = np.array([len(d) for d in designs])
    n_covariates = len(designs[0][0]["x"])

    def column(name, dtype):
        table = np.zeros((n, k), dtype=dtype)
        for g, design in enumerate(designs):
            table[g, : len(design)] = [r[name] for r in design]
        return table

    values = np.zeros((n, k, n_covariates))
    for g, design in enumerate(designs):
        values[g, : len(design)] = [r["x"] for r in design]
    segment, segment_covariates = covariate_segments(values, n_records)
    kind = column("kind", int)
    observed = (kind == RECORD_OBSERVATION) & (np.arange(k) < n_records[:, None])
    slot = np.where(observed, np.cumsum(observed, axis=1) - 1, -1)
    m = int(observed.sum(axis=1).max())
    records = Records(
        time=column("time", float), kind=kind, compartment=column("compartment", int),
        amount=column("amount", float), duration=column("duration", float), ii=column("ii", float),
        ss=column("ss", int), slot=slot, segment=segment, n_records=n_records,
    )  # fmt: skip
    time, output = np.zeros((n, m)), np.zeros((n, m), dtype=int)
    at_observations = np.zeros((n, m, n_covariates))
    for g in range(n):
        here = observed[g]
        count = int(here.sum())
        time[g, :count] = records.time[g, here]
        output[g, :count] = column("output", int)[g, here]
        at_observations[g, :count] = values[g, here]
    schedule = make_schedule(records, m, segment_covariates)
    index = np.zeros(len(psi), dtype=int) if index is None else np.asarray(index)
    return Rows(psi, schedule, index, time, output, at_observations)


# Depot and central compartment with a covariate on clearance; linear, so that closed forms exist.
ORAL = Names(("depot", "central"), ("ka", "CL", "V"), ("w",))


def oral(t, y, p):
    """One compartment with first-order absorption."""
    k = p.CL * p.w / p.V
    return (-p.ka * y.depot, p.ka * y.depot - k * y.central)


ORAL_OUTPUTS = (lambda t, y, p: y.central / p.V, lambda t, y, p: y.depot)


def bateman(t, dose, ka, CL, V, w=1.0):
    """Concentration after one oral dose at time zero."""
    k = CL * w / V
    return np.where(t >= 0, dose * ka / (V * (ka - k)) * (np.exp(-k * t) - np.exp(-ka * t)), 0.0)


SATURABLE = Names(("central", "effect"), ("Vm", "Km", "kin", "kout"))


def saturable(t, y, p):
    """Michaelis-Menten elimination and an indirect response with a baseline."""
    return (
        -p.Vm * y.central / (p.Km + y.central),
        p.kin / (1.0 + y.central / p.Km) - p.kout * y.effect,
    )
