"""How different are two sets of draws: a nearest-neighbor classifier test and marginal distances."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from amortnlme.core.errors import UsageError

Array = np.ndarray


def classifier_two_sample(
    first: Array, second: Array, rng: np.random.Generator, *, k: int = 25, n: int = 1000, folds: int = 5
) -> float:
    """C2ST: cross-validated accuracy of a k-nearest-neighbor classifier telling two samples apart.

    Parameters
    ----------
    first, second : ndarray, shape (n_draws, n_params)
        Draws on one common scale (usually phi).
    rng : numpy.random.Generator
        Picks the `n` draws of each sample and the folds.
    k : int
        Neighbors that vote; odd, so there are no ties.
    n : int
        Draws used of each sample. The value depends on it: compare only values with equal `n` and `k`.
    folds : int

    Returns
    -------
    accuracy : float
        0.5 when the samples cannot be told apart, 1 when they are disjoint.

    Raises
    ------
    UsageError
        E_C2ST_INPUT for too few draws, an even `k` or non-finite values.

    Notes
    -----
    Features are divided by the pooled SD, so every parameter counts alike. Lopez-Paz & Oquab (2017), ICLR.
    """
    _check(first, second, k, n)
    sample = np.concatenate([_choose(first, n, rng), _choose(second, n, rng)])
    spread = sample.std(axis=0)
    features = (sample - sample.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    label = np.repeat([0, 1], n)
    # Each fold holds equally many draws of both samples; otherwise the training majority points away
    # from the held-out label and the accuracy under equality falls below one half.
    fold = np.concatenate([rng.permutation(n) % folds, rng.permutation(n) % folds])
    correct = 0
    for index in range(folds):
        held_out = fold == index
        tree = KDTree(features[~held_out])
        _, neighbor = tree.query(features[held_out], k=k)
        vote = label[~held_out][neighbor].mean(axis=1) > 0.5
        correct += int(np.sum(vote == label[held_out]))
    return correct / (2 * n)


def marginal_wasserstein(draws: Array, reference: Array) -> Array:
    """First Wasserstein distance of every marginal, in units of the reference SD.

    Parameters
    ----------
    draws : ndarray, shape (n_draws, n_params)
    reference : ndarray, shape (n_reference, n_params)

    Returns
    -------
    distance : ndarray, shape (n_params,)   [reference SDs]

    Raises
    ------
    UsageError
        E_C2ST_INPUT for non-finite values or a reference without spread.

    Notes
    -----
    Integral over probability of the absolute difference of the two quantile functions.
    """
    for name, value in (("draws", draws), ("reference", reference)):
        if value.ndim != 2 or len(value) < 2 or not np.isfinite(value).all():
            raise _bad_input(f"{name} must be a finite array of shape (n, n_params), got shape {value.shape}")
    spread = reference.std(axis=0)
    if not (spread > 0.0).all():
        raise _bad_input("a parameter of the reference sample has no spread")
    a = np.sort(draws, axis=0)
    b = np.sort(reference, axis=0)
    # Both empirical quantile functions are steps; on the union of their levels the integral is exact.
    levels = np.union1d(np.arange(1, len(a) + 1) / len(a), np.arange(1, len(b) + 1) / len(b))
    width = np.diff(levels, prepend=0.0)
    middle = levels - 0.5 * width
    gap = np.abs(a[np.minimum((middle * len(a)).astype(int), len(a) - 1)] - b[(middle * len(b)).astype(int)])
    return width @ gap / spread


def _choose(sample: Array, n: int, rng: np.random.Generator) -> Array:
    return sample[rng.permutation(len(sample))[:n]]


def _check(first: Array, second: Array, k: int, n: int) -> None:
    for name, value in (("first", first), ("second", second)):
        if value.ndim != 2 or not np.isfinite(value).all():
            raise _bad_input(f"{name} must be a finite array of shape (n_draws, n_params), got {value.shape}")
        if len(value) < n:
            raise _bad_input(f"{name} has {len(value)} draws, n = {n} are asked for")
    if first.shape[1] != second.shape[1]:
        raise _bad_input(f"the samples have {first.shape[1]} and {second.shape[1]} parameters")
    if k < 1 or k % 2 == 0 or k > n:
        raise _bad_input(f"k = {k} neighbors")


def _bad_input(what: str) -> UsageError:
    return UsageError(
        "E_C2ST_INPUT",
        f"the two samples cannot be compared - {what} - two finite samples with equal parameters, at least n"
        " draws each and an odd k no larger than n are needed - draw more, or lower n",
    )
