"""Joint laws with networks: the one place where joining needs a neural backend."""

from __future__ import annotations

import numpy as np

from amortnlme.neural.joint_training import train_conditional_mixture, train_flow
from amortnlme.population.flow_law import ConditionalMixtureLaw, FlowLaw
from amortnlme.population.joint_network_spec import JointNetworkSpec
from amortnlme.population.laws import GaussianLaw

#: Networks of each kind, from different starts; a stack holds them all, else the best on held-out subjects.
N_NETWORKS = 2


def fit_flows(
    train: np.ndarray,
    held_out: np.ndarray,
    base: GaussianLaw,
    spec: JointNetworkSpec,
    seed: int,
    *,
    aggregated: bool = False,
) -> tuple[FlowLaw, ...]:
    """Train coupling flows from several starts.

    Parameters
    ----------
    train, held_out : ndarray, shape (n, S, d)
        Posterior draws under `base`.
    base : GaussianLaw
    spec : JointNetworkSpec
    seed : int
    aggregated : bool
        Use the one-pass objective, as published.

    Returns
    -------
    tuple of FlowLaw
    """
    return tuple(
        train_flow(train, held_out, base, spec, seed + k, aggregated=aggregated)[0] for k in range(N_NETWORKS)
    )


def fit_conditional_mixtures(
    train: np.ndarray,
    held_out: np.ndarray,
    base: GaussianLaw,
    block: tuple[str, ...],
    spec: JointNetworkSpec,
    seed: int,
) -> tuple[ConditionalMixtureLaw, ...]:
    """Train conditional mixtures from several starts.

    Parameters
    ----------
    train, held_out : ndarray, shape (n, S, d)
        Posterior draws under `base`.
    base : GaussianLaw
    block : tuple of str
        Effects that keep their normal law.
    spec : JointNetworkSpec
    seed : int

    Returns
    -------
    tuple of ConditionalMixtureLaw
    """
    return tuple(
        train_conditional_mixture(train, held_out, base, block, spec, seed + k)[0] for k in range(N_NETWORKS)
    )
