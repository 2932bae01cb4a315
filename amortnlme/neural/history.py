"""Dose-history features: what a linear compartment with elimination rate l would hold, for a grid of rates.

For linear dynamics every state is a mixture of such compartments, so these features carry the whole dosing
record, whatever the number of doses, and spare the network the superposition.
"""

from __future__ import annotations

import numpy as np

from amortnlme.data.design import DesignBatch, EventKind


def dose_history(batch: DesignBatch, rates: np.ndarray) -> np.ndarray:
    """Amount left at each record in a one-compartment system with each elimination rate.

    Parameters
    ----------
    batch : DesignBatch
        n designs with k records; a record sees the doses processed before it.
    rates : ndarray (L,), 1/time
        Elimination rates l.

    Returns
    -------
    ndarray (n, k, L), unit of the doses
        sum_d D_d exp(-l (t - t_d)) over bolus doses since the last reset; infusions enter through the same
        integral.
    """
    history = _bolus_history(batch, rates)
    is_infusion = batch.kind == EventKind.INFUSION
    for column in np.flatnonzero(is_infusion.any(axis=0)):
        _add_infusion(history, batch, int(column), rates)
    return history


def _bolus_history(batch: DesignBatch, rates: np.ndarray) -> np.ndarray:
    n, k = batch.time.shape
    out = np.empty((n, k, rates.size))
    held = np.zeros((n, rates.size))
    before = batch.time[:, 0]
    for j in range(k):
        kind = batch.kind[:, j]
        # The clock may jump back at a reset, where nothing is carried over anyway.
        step = np.maximum(batch.time[:, j] - before, 0.0)
        held = held * np.exp(-rates * step[:, None])
        emptied = (kind == EventKind.RESET) | ((batch.ss[:, j] == 1) & _is_dose(kind))
        held[emptied] = 0.0
        amount = np.where(kind == EventKind.BOLUS, batch.amount[:, j], 0.0)[:, None]
        held = held + amount * _steady_state_factor(batch.ss[:, j], batch.ii[:, j], rates)
        out[:, j] = held
        before = batch.time[:, j]
    return out


def _add_infusion(history: np.ndarray, batch: DesignBatch, column: int, rates: np.ndarray) -> None:
    """Add the contribution of the infusions in one record column to all later records, in place."""
    active = batch.kind[:, column] == EventKind.INFUSION
    amount = np.where(active, batch.amount[:, column], 0.0)[:, None]
    duration = np.where(active, batch.duration[:, column], 1.0)[:, None]
    start = batch.time[:, column][:, None]
    cleared = _cleared_after(batch, column)
    for j in range(column, batch.time.shape[1]):
        since = np.maximum(batch.time[:, j][:, None] - start, 0.0)
        running = np.minimum(since, duration)
        # integral of (D / T) exp(-l (t - s)) over the part of the infusion already given
        left = (np.exp(-rates * (since - running)) - np.exp(-rates * since)) / (rates * duration)
        earlier = _steady_state_factor(batch.ss[:, column], batch.ii[:, column], rates) - 1.0
        full = (np.exp(rates * duration) - 1.0) / (rates * duration)
        left = left + earlier * full * np.exp(-rates * since)
        keep = active & (j < cleared)
        history[keep, j] += (amount * left)[keep]


def _cleared_after(batch: DesignBatch, column: int) -> np.ndarray:
    """Index of the first later record that empties the system, or the number of records; (n,)."""
    kind = batch.kind[:, column + 1 :]
    empties = (kind == EventKind.RESET) | ((batch.ss[:, column + 1 :] == 1) & _is_dose(kind))
    first = np.argmax(empties, axis=1) + column + 1 if empties.shape[1] else np.full(len(kind), column + 1)
    return np.where(empties.any(axis=1), first, batch.time.shape[1])


def _is_dose(kind: np.ndarray) -> np.ndarray:
    return (kind == EventKind.BOLUS) | (kind == EventKind.INFUSION)


def _steady_state_factor(ss: np.ndarray, ii: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Sum of the geometric series of equal earlier doses every `ii`; 1 for a plain dose. Shape (n, L)."""
    interval = np.where((ss > 0) & (ii > 0), ii, np.inf)[:, None]
    return -1.0 / np.expm1(-rates * interval)
