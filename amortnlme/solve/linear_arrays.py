"""The arrays that the kernels of linear systems share.

State and sensitivities of a row are the rows of one array X, shape (p + 1, n): X[0] = z, X[1 + q] = dz/dp_q;
inputs and their derivatives likewise. States are in internal order (`LinearSystem.order`) and, within one
covariate segment, in *basis coordinates* z = W x: with a well-conditioned eigenbasis (`modal`) the
coordinates decouple; otherwise V = W = 1 and every interval takes a matrix exponential.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amortnlme.solve.entry import EntryValues


class Rates(NamedTuple):
    """Rate matrices, inputs and eigenbases, one per row and covariate segment (R = rows x segments).

    Attributes
    ----------
    K : ndarray, shape (R, n, n)   [1/time]
    dK : ndarray, shape (R, p, n, n)
        Derivatives with respect to the p parameters that move the states.
    inputs : ndarray, shape (R, p + 1, n)   [amount/time]
        Constant inputs b and their derivatives; shape (0, p + 1, n) for a system without inputs.
    eigenvalues : ndarray, shape (R, n)   [1/time]
    V, W : ndarray, shape (R, n, n)
        Eigenvectors and their inverse; identities where `modal` is 0.
    modal : ndarray of int, shape (R,)
    """

    K: np.ndarray
    dK: np.ndarray
    inputs: np.ndarray
    eigenvalues: np.ndarray
    V: np.ndarray
    W: np.ndarray
    modal: np.ndarray


class Entries(NamedTuple):
    """Start of every row and derivatives of its doses, in internal order.

    Attributes
    ----------
    start : ndarray, shape (N,)   [time]
        -inf for a system that moves from the first record on.
    initial : ndarray, shape (N, p + 1, n)
        State at the start and after a reset, with its derivatives; shape (0, p + 1, n) when all are zero.
    d_start : ndarray, shape (N, p)
    lag_slopes, fraction_slopes : ndarray, shape (N, n_segments, p, n)
        Derivatives of lag and bioavailability; shape (0, 0, p, n) when no dose moves.
    """

    start: np.ndarray
    initial: np.ndarray
    d_start: np.ndarray
    lag_slopes: np.ndarray
    fraction_slopes: np.ndarray


class Regimen(NamedTuple):
    """An endlessly repeated dose.

    Attributes
    ----------
    is_bolus : bool
    is_lagged : bool
        Whether the state `phase` after an arrival is wanted, not that just before one.
    with_inputs : bool
        Whether the constant inputs act too.
    compartment, running : int
        Internal state dosed; earlier infusions still running at an arrival.
    amount : float
        Amount of the bolus or rate of the infusion.
    period, duration, phase : float   [time]
    """

    is_bolus: bool
    is_lagged: bool
    with_inputs: bool
    compartment: int
    running: int
    amount: float
    period: float
    duration: float
    phase: float


class Work(NamedTuple):
    """Scratch memory of one thread.

    Attributes
    ----------
    X, rate, U : ndarray, shape (p + 1, n)
        State in basis coordinates; rates of the running infusions (states as they are); input in basis
        coordinates.
    A : ndarray, shape (p, n, n)
        W dK V.
    periodic, right, input : ndarray, shape (p + 1, n)
        State, right-hand sides and input of a steady state.
    amount_slopes, phase_slopes : ndarray, shape (p,)
        Derivatives of the amount and the phase of a dose.
    e, scratch : ndarray, shape (n,)
    small : ndarray, shape (n, n)
    tag : ndarray, shape (2,)
        Row of the rates and length of the interval whose exponential stands in big[1] and dbig[1]; -1: none.
    big, dbig : ndarray, shapes (4, n + 1, n + 1) and (3, p, n + 1, n + 1)
    """

    X: np.ndarray
    rate: np.ndarray
    U: np.ndarray
    A: np.ndarray
    periodic: np.ndarray
    right: np.ndarray
    input: np.ndarray
    amount_slopes: np.ndarray
    phase_slopes: np.ndarray
    e: np.ndarray
    scratch: np.ndarray
    small: np.ndarray
    tag: np.ndarray
    big: np.ndarray
    dbig: np.ndarray


def make_work(n: int, p: int) -> Work:
    """Allocate the scratch memory of one thread.

    Parameters
    ----------
    n, p : int
        Number of states and of parameters that move them.

    Returns
    -------
    Work
    """
    rows = (p + 1, n)
    return Work(
        X=np.zeros(rows),
        rate=np.zeros(rows),
        U=np.zeros(rows),
        A=np.zeros((p, n, n)),
        periodic=np.zeros(rows),
        right=np.zeros(rows),
        input=np.zeros(rows),
        amount_slopes=np.zeros(p),
        phase_slopes=np.zeros(p),
        e=np.zeros(n),
        scratch=np.zeros(n),
        small=np.zeros((n, n)),
        tag=np.full(2, -1.0),
        big=np.zeros((4, n + 1, n + 1)),
        dbig=np.zeros((3, p, n + 1, n + 1)),
    )


def make_entries(
    values: EntryValues | None, order: np.ndarray, n_rows: int, p: int, *, moves_doses: bool = False
) -> Entries:
    """Bring the entry of a batch into internal order.

    Parameters
    ----------
    values : EntryValues or None
        None: all states start at zero with the first record and doses enter as recorded.
    order : ndarray of int, shape (n,)
        Declared index of each internal state.
    n_rows, p : int
        Number of rows and of parameters to differentiate by.
    moves_doses : bool
        Whether lag or bioavailability were declared.

    Returns
    -------
    Entries
    """
    n = order.shape[0]
    none = np.zeros((0, 0, p, n))
    if values is None:
        return Entries(np.full(n_rows, -np.inf), np.zeros((0, p + 1, n)), np.zeros((n_rows, p)), none, none)
    initial = np.zeros((n_rows, p + 1, n))
    initial[:, 0] = values.initial[:, order]
    d_start = np.zeros((n_rows, p))
    lag_slopes = fraction_slopes = np.zeros((*values.lag.shape[:2], p, n)) if moves_doses else none
    if values.d_start is not None and values.d_initial is not None:
        d_start = values.d_start
        initial[:, 1:] = values.d_initial[:, :, order]
    if moves_doses and values.d_lag is not None and values.d_bioavailability is not None:
        lag_slopes, fraction_slopes = (
            np.ascontiguousarray(slopes[..., order]) for slopes in (values.d_lag, values.d_bioavailability)
        )
    return Entries(values.start, initial, d_start, lag_slopes, fraction_slopes)
