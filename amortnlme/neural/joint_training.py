"""Training of joint laws with networks, by the importance-weighted marginal likelihood of the subjects.

    maximize  sum_i log (1/S) sum_s p(eta_is) / p_0(eta_is),   eta_is ~ p(eta | y_i) under the normal law p_0:

the marginal log-likelihood relative to p_0. `aggregated` replaces it by the mean of log p over posterior
draws, as published; that one attenuates dependence. Training stops when the marginal likelihood of held-out
subjects stops rising.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from amortnlme.neural.backend import use_backend, values_of
from amortnlme.population.flow_law import ConditionalMixtureLaw, FlowLaw, Layer, white
from amortnlme.population.joint_network_spec import JointNetworkSpec
from amortnlme.population.laws import GaussianLaw

#: Held-out subjects are looked at every so many steps.
EVERY = 10


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training went.

    Attributes
    ----------
    steps : int
        At which the network was best; 0: it stayed where it started.
    held_out_gain : float   [nats]
        Of all held-out subjects, over the start.
    """

    steps: int
    held_out_gain: float


def train_flow(
    train: np.ndarray,
    held_out: np.ndarray,
    base: GaussianLaw,
    spec: JointNetworkSpec,
    seed: int,
    *,
    aggregated: bool = False,
) -> tuple[FlowLaw, Trained]:
    """Train a coupling flow around a normal law.

    Parameters
    ----------
    train, held_out : ndarray, shape (n, S, d)
        Posterior draws under `base` of subjects to learn from, and of others to stop by.
    base : GaussianLaw
    spec : JointNetworkSpec
    seed : int
    aggregated : bool
        Use the objective that was published.

    Returns
    -------
    law : FlowLaw
    trained : Trained
    """
    use_backend()
    from amortnlme.neural.joint_networks import CouplingNetwork

    network = CouplingNetwork(len(base.names), spec.couplings, spec.hidden, spec.width, seed)
    found = _train(network, white(base, train), white(base, held_out), spec, seed, aggregated)
    law = FlowLaw(base.names, base, tuple(_layers(part) for part in network.networks))
    return law, found


def train_conditional_mixture(
    train: np.ndarray,
    held_out: np.ndarray,
    base: GaussianLaw,
    block: tuple[str, ...],
    spec: JointNetworkSpec,
    seed: int,
) -> tuple[ConditionalMixtureLaw, Trained]:
    """Train a mixture of some effects given a block that stays normal.

    Parameters
    ----------
    train, held_out : ndarray, shape (n, S, d)
        As for `train_flow`, in the order of `base`.
    base : GaussianLaw
    block : tuple of str
        Effects that keep their normal law.
    spec : JointNetworkSpec
    seed : int

    Returns
    -------
    law : ConditionalMixtureLaw
    trained : Trained
    """
    use_backend()
    from amortnlme.neural.joint_networks import ConditionalMixtureNetwork

    ordered = base.marginal((*block, *(name for name in base.names if name not in block)))
    order = [base.names.index(name) for name in ordered.names]
    q = len(base.names) - len(block)
    network = ConditionalMixtureNetwork(len(block), q, spec.components, spec.hidden, spec.width, seed)
    z, other = white(ordered, train[..., order]), white(ordered, held_out[..., order])
    found = _train(network, z, other, spec, seed, False)
    return ConditionalMixtureLaw(base.names, ordered, len(block), _layers(network.network)), found


def _train(
    network: Any, z: np.ndarray, other: np.ndarray, spec: JointNetworkSpec, seed: int, aggregated: bool
) -> Trained:
    import keras
    from keras import ops as keras_ops

    # Keras types its functions as if any could return None.
    ops: Any = keras_ops

    def marginal(_: Any, ratio: Any) -> Any:
        return -ops.mean(ops.logsumexp(ratio, axis=1)) + float(np.log(spec.batch_nodes))

    def mean(_: Any, ratio: Any) -> Any:
        return -ops.mean(ratio)

    schedule: Any = keras.optimizers.schedules.PolynomialDecay(
        spec.learning_rate, spec.steps, end_learning_rate=0.2 * spec.learning_rate
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=spec.weight_decay, beta_2=0.99)
    network.compile(optimizer=optimizer, loss=mean if aggregated else marginal)
    rng = np.random.default_rng([seed, 17])
    n, S = z.shape[:2]
    n_batch, k_batch = min(n, spec.batch_subjects), min(S, spec.batch_nodes)
    z, other = z.astype(np.float32), other.astype(np.float32)
    target = np.zeros((n_batch, k_batch), np.float32)
    start = best = _value(network, other)
    kept, at, bad = values_of(network.weights), 0, 0
    for step in range(1, spec.steps + 1):
        rows = rng.permutation(n)[:n_batch, None]
        loss = network.train_on_batch(z[rows, rng.permutation(S)[None, :k_batch]], target)
        if step % EVERY:
            continue
        value = _value(network, other)
        if not np.isfinite(value) or not np.isfinite(np.asarray(loss)).all():
            break
        if value > best:
            best, kept, at, bad = value, values_of(network.weights), step, 0
        elif (bad := bad + 1) >= spec.patience:
            break
    for variable, array in zip(network.weights, kept, strict=True):
        variable.assign(array)
    return Trained(at, best - start)


def _value(network: Any, z: np.ndarray) -> float:
    """Marginal log-likelihood of all subjects relative to the normal law [nats]."""
    from keras import ops

    # Without compilation: few looks, and every network would have to be traced anew.
    ratio = np.asarray(ops.convert_to_numpy(network(z)), dtype=np.float64)
    top = ratio.max(axis=1, keepdims=True)
    return float((top[:, 0] + np.log(np.exp(ratio - top).mean(axis=1))).sum())


def _layers(network: Any) -> tuple[Layer, ...]:
    arrays = [np.asarray(a, dtype=np.float64) for a in values_of(network.weights)]
    return tuple(zip(arrays[::2], arrays[1::2], strict=True))
