"""Gaussian mixtures fitted to every subject's draws at once.

The draws are first whitened per subject; expectation-maximization then works on arrays (subject, component,
draw), so that the cost does not depend on Python loops over subjects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.log_sum import log_sum_exp


@dataclass(frozen=True, slots=True)
class SubjectMixtures:
    """One Gaussian mixture per subject.

    Attributes
    ----------
    weight : ndarray, shape (n_subjects, n_components)
        Sums to one over components.
    mean : ndarray, shape (n_subjects, n_components, d)
    covariance : ndarray, shape (n_subjects, n_components, d, d)
    """

    weight: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray


def fit_single_gaussian(phi: np.ndarray, debias: bool = True) -> SubjectMixtures:
    """Moment-match one Gaussian to the draws of each subject.

    Parameters
    ----------
    phi : ndarray, shape (n_subjects, n_draws, d)
    debias : bool
        Multiply the sample covariance by (M - 1) / (M - d - 2): its inverse is then unbiased for normal
        draws.

    Returns
    -------
    SubjectMixtures
        With one component.
    """
    n_draws, d = phi.shape[1:]
    mean = phi.mean(axis=1)
    centered = phi - mean[:, None]
    covariance = np.swapaxes(centered, 1, 2) @ centered / (n_draws - 1)
    if debias and n_draws > d + 3:
        covariance *= (n_draws - 1) / (n_draws - d - 2)
    return SubjectMixtures(np.ones((len(phi), 1)), mean[:, None], covariance[:, None])


def fit_mixtures(
    phi: np.ndarray,
    n_components: int,
    rng: np.random.Generator,
    n_iterations: int = 40,
    max_draws: int = 1000,
) -> SubjectMixtures:
    """Fit a Gaussian mixture to the draws of each subject by expectation-maximization.

    Parameters
    ----------
    phi : ndarray, shape (n_subjects, n_draws, d)
    n_components : int
        1 gives the debiased moment fit.
    rng : numpy.random.Generator
        Chooses the direction along which the starting means are spread.
    n_iterations : int
    max_draws : int
        At most this many draws per subject enter the fit.

    Returns
    -------
    SubjectMixtures
        Component covariances are shrunk towards the covariance of all draws by (d + 1) / 2 pseudo-draws, so
        that no component collapses on a few draws.
    """
    single = fit_single_gaussian(phi)
    if n_components == 1:
        return single
    phi = phi[:, :max_draws]
    n_subjects, n_draws, d = phi.shape
    center, factor = single.mean[:, 0], np.linalg.cholesky(single.covariance[:, 0])
    white = np.swapaxes(np.linalg.solve(factor, np.swapaxes(phi - center[:, None], 1, 2)), 1, 2)
    mean = _spread_means(white, n_components, rng)
    covariance = np.broadcast_to(0.7 * np.eye(d), (n_subjects, n_components, d, d))
    weight = np.full((n_subjects, n_components), 1.0 / n_components)
    pseudo = 0.5 * (d + 1.0)
    # Sufficient statistics of a Gaussian are linear in these features: one matrix product per iteration does
    # it.
    upper = np.triu_indices(d)
    features = np.concatenate(
        [np.ones((n_subjects, n_draws, 1)), white, white[..., upper[0]] * white[..., upper[1]]], 2
    )
    for _ in range(n_iterations):
        responsibility = _responsibilities(features, weight, mean, covariance, upper)
        moments = np.swapaxes(responsibility, 1, 2) @ features
        count = moments[..., 0] + 1e-9
        mean = moments[..., 1 : 1 + d] / count[..., None]
        second = np.empty((n_subjects, n_components, d, d))
        second[..., upper[0], upper[1]] = moments[..., 1 + d :]
        second[..., upper[1], upper[0]] = moments[..., 1 + d :]
        scatter = second - count[..., None, None] * mean[..., :, None] * mean[..., None, :]
        covariance = (scatter + pseudo * np.eye(d)) / (count + pseudo)[..., None, None]
        weight = (count + 1.0) / (count + 1.0).sum(axis=1, keepdims=True)
    back = np.swapaxes(factor, 1, 2)[:, None]
    return SubjectMixtures(
        weight=weight,
        mean=center[:, None] + mean @ np.swapaxes(factor, 1, 2),
        covariance=factor[:, None] @ covariance @ back,
    )


def _spread_means(white: np.ndarray, n_components: int, rng: np.random.Generator) -> np.ndarray:
    n_draws, d = white.shape[1:]
    # Along the direction of largest third moment if there is one, where a single Gaussian is worst.
    skew = (white**3).mean(axis=1) + 1e-3 * rng.standard_normal(d)
    direction = skew / np.linalg.norm(skew, axis=1, keepdims=True)
    order = np.argsort((white @ direction[..., None])[..., 0], axis=1)
    picks = [order[:, int((c + 0.5) * n_draws / n_components)] for c in range(n_components)]
    return np.stack([np.take_along_axis(white, p[:, None, None], axis=1)[:, 0] * 0.7 for p in picks], axis=1)


def _responsibilities(
    features: np.ndarray,
    weight: np.ndarray,
    mean: np.ndarray,
    covariance: np.ndarray,
    upper: tuple[np.ndarray, ...],
) -> np.ndarray:
    precision = np.linalg.inv(covariance)
    log_det = np.linalg.slogdet(precision)[1]
    linear = (precision @ mean[..., None])[..., 0]
    constant = np.log(weight) + 0.5 * log_det - 0.5 * (linear * mean).sum(axis=-1)
    twice = np.where(upper[0] == upper[1], -0.5, -1.0)
    coefficients = np.concatenate(
        [constant[..., None], linear, precision[..., upper[0], upper[1]] * twice], axis=-1
    )
    log_density = features @ np.swapaxes(coefficients, 1, 2)
    return np.exp(log_density - log_sum_exp(log_density, axis=2)[..., None])
