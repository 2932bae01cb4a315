"""Event lists as the lanes read them: stops, where the solution has a kink, and observations between."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from amortnlme.solve.schedule import OBSERVE, RESET, Events

# Columns of the stops' numbers.
LAND, TIME, AMOUNT, DURATION, INTERVAL, PHASE = range(6)
# Columns of the stops' integers; N_BEFORE counts the observations listed before the stop.
ACTION, COMPARTMENT, STEADY, SEGMENT, N_BEFORE = range(5)
# Columns of a list's integers.
N_STOPS, N_OBSERVATIONS = range(2)
# Observation times are padded with infinity by one block, so that a block can be read beyond the last.
BLOCK = 8


class StopTables(NamedTuple):
    """Stops of every event list.

    A stop is an event where the integration has to start anew: a dose, an infusion end, a reset, a change of
    covariates. Everything else is an observation, and read off the interpolation.

    Attributes
    ----------
    numbers : ndarray, shape (G, s, 6)
        LAND is the time to integrate to: of the stop itself, but of the last observation before a reset.
    integers : ndarray of int, shape (G, s, 5)
    lists : ndarray of int, shape (G, 2)
    first : ndarray, shape (G,)   [time]
        Time of the first event.
    """

    numbers: np.ndarray
    integers: np.ndarray
    lists: np.ndarray
    first: np.ndarray


def stop_tables(events: Events) -> StopTables:
    """Tabulate the stops of every list.

    Parameters
    ----------
    events : Events

    Returns
    -------
    StopTables
    """
    arrays = (
        events.time,
        events.action,
        events.compartment,
        events.amount,
        events.duration,
        events.ii,
        events.ss,
        events.segment,
        events.phase,
        events.n_events,
    )
    n_lists = events.time.shape[0]
    lists = np.zeros((n_lists, 2), dtype=np.int64)
    width = int(_count_stops(events.action, events.segment, events.n_events, lists))
    numbers = np.zeros((n_lists, max(1, width), 6))
    integers = np.zeros((n_lists, max(1, width), 5), dtype=np.int64)
    first = np.zeros(n_lists)
    _fill_stops(arrays, numbers, integers, first)
    return StopTables(numbers, integers, lists, first)


def padded_times(time: np.ndarray, n_observations: np.ndarray) -> np.ndarray:
    """Pad observation times with infinity.

    Parameters
    ----------
    time : ndarray, shape (n, m)   [time]
    n_observations : ndarray of int, shape (n,)

    Returns
    -------
    ndarray, shape (n, m + BLOCK)
    """
    n, m = time.shape
    padded = np.full((n, m + BLOCK), np.inf)
    padded[:, :m] = np.where(np.arange(m) < n_observations[:, None], time, np.inf)
    return padded


@njit(cache=True, nogil=True, error_model="numpy")
def _is_stop(action, segment, g, k):
    return action[g, k] != OBSERVE or (k > 0 and segment[g, k] != segment[g, k - 1])


@njit(cache=True, nogil=True, error_model="numpy")
def _count_stops(action, segment, n_events, lists):
    most = 0
    for g in range(n_events.shape[0]):
        n_stops = 0
        n_observations = 0
        for k in range(n_events[g]):
            if _is_stop(action, segment, g, k):
                n_stops += 1
            if action[g, k] == OBSERVE:
                n_observations += 1
        lists[g, N_STOPS] = n_stops
        lists[g, N_OBSERVATIONS] = n_observations
        most = max(most, n_stops)
    return most


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_stops(arrays, numbers, integers, first):
    time, action, compartment, amount, duration, ii, ss, segment, phase, n_events = arrays
    for g in range(n_events.shape[0]):
        n_before = 0
        s = 0
        last_observation = -np.inf
        if n_events[g] > 0:
            first[g] = time[g, 0]
        for k in range(n_events[g]):
            what = action[g, k]
            if _is_stop(action, segment, g, k):
                numbers[g, s, LAND] = last_observation if what == RESET else time[g, k]
                numbers[g, s, TIME] = time[g, k]
                numbers[g, s, AMOUNT] = amount[g, k]
                numbers[g, s, DURATION] = duration[g, k]
                numbers[g, s, INTERVAL] = ii[g, k]
                numbers[g, s, PHASE] = phase[g, k]
                integers[g, s, ACTION] = what
                integers[g, s, COMPARTMENT] = compartment[g, k]
                integers[g, s, STEADY] = ss[g, k]
                integers[g, s, SEGMENT] = segment[g, k]
                integers[g, s, N_BEFORE] = n_before
                s += 1
                last_observation = -np.inf
            if what == OBSERVE:
                n_before += 1
                last_observation = time[g, k]
