"""Rows for the engines of random dynamics, written as lists of records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amortnlme.solve.engine import Rows
from amortnlme.solve.schedule import (
    RECORD_BOLUS,
    RECORD_INFUSION,
    RECORD_OBSERVATION,
    RECORD_RESET,
    Records,
    covariate_segments,
    make_schedule,
)

# A record is (time, kind, amount, duration, ss, covariate); what is left out is zero.
Record = tuple[float, ...]


def observe(time, covariate=0.0) -> Record:
    return (time, RECORD_OBSERVATION, 0.0, 0.0, 0, covariate)


def bolus(time, amount, ss=0, covariate=0.0) -> Record:
    return (time, RECORD_BOLUS, amount, 0.0, ss, covariate)


def infusion(time, amount, duration) -> Record:
    return (time, RECORD_INFUSION, amount, duration, 0, 0.0)


def reset(time) -> Record:
    return (time, RECORD_RESET, 0.0, 0.0, 0, 0.0)


def make_rows(psi, designs: Sequence[Sequence[Record]], index=None, *, covariates: bool = False) -> Rows:
    """Rows of one output; doses go to the first state."""
    n, width = len(designs), max(len(design) for design in designs)
    table = np.zeros((n, width, 6))
    for i, design in enumerate(designs):
        table[i, : len(design)] = design
    kind = table[:, :, 1].astype(int)
    n_records = np.array([len(design) for design in designs])
    seen = (kind == RECORD_OBSERVATION) & (np.arange(width) < n_records[:, None])
    slot = np.where(seen, np.cumsum(seen, axis=1) - 1, -1)
    m = int(seen.sum(axis=1).max())
    values = table[:, :, 5:] if covariates else np.zeros((n, width, 0))
    segment, distinct = covariate_segments(values, n_records)
    zeros = np.zeros((n, width), dtype=int)
    schedule = make_schedule(
        Records(
            time=table[:, :, 0],
            kind=kind,
            compartment=zeros,
            amount=table[:, :, 2],
            duration=table[:, :, 3],
            ii=np.ones((n, width)),
            ss=table[:, :, 4].astype(int),
            slot=slot,
            segment=segment,
            n_records=n_records,
        ),
        m,
        distinct,
    )
    time, at = np.zeros((n, m)), np.zeros((n, m, values.shape[2]))
    where = np.nonzero(seen)
    time[where[0], slot[where]] = table[:, :, 0][where]
    at[where[0], slot[where]] = values[where]
    psi = np.asarray(psi, dtype=float)
    index = np.zeros(psi.shape[0], dtype=int) if index is None else np.asarray(index)
    return Rows(psi, schedule, index, time, np.zeros((n, m), dtype=int), at)
