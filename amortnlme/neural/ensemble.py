"""Ensembles: several networks trained alike from different seeds, as one density.

Members agree where the training decided, and differ where it did not: the spread between them is what can be
seen of a network's own error when there is no likelihood to judge it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from amortnlme.core.errors import TrainingError
from amortnlme.neural.estimator import Estimator

MAX_MEMBERS = 32


def combine(estimators: Sequence[Estimator]) -> Estimator:
    """Make one estimator of several: draws come from each with equal probability.

    Parameters
    ----------
    estimators : sequence of Estimator
        Two or more, trained on one training set with one set of options and different seeds.

    Returns
    -------
    Estimator
        Its density is the mean of their densities. Not calibrated.

    Raises
    ------
    TrainingError
        E_ENSEMBLE_SIZE for fewer than two or too many, E_ENSEMBLE_MEMBERS when they differ in more than their
        seeds or share one.
    """
    if not 2 <= len(estimators) <= MAX_MEMBERS:
        raise TrainingError(
            "E_ENSEMBLE_SIZE",
            f"an ensemble of {len(estimators)} estimators. Allowed: 2 to {MAX_MEMBERS}. Name more, or fewer.",
        )
    first = estimators[0]
    for other in estimators[1:]:
        same = {
            "model": (first.model.fingerprint, other.model.fingerprint),
            "network options": (first.network_config(), other.network_config()),
            "training set": (first.record.training_set, other.record.training_set),
            "training options": (first.record.spec, other.record.spec),
        }
        different = [name for name, (a, b) in same.items() if a != b]
        if different:
            raise TrainingError(
                "E_ENSEMBLE_MEMBERS",
                f"the estimators have another {different[0]} than the first. Allowed: members that differ in "
                "their seed only. Train them from one training set and one file of options.",
            )
    seeds = [estimator.record.seed for estimator in estimators]
    if len(set(seeds)) < len(seeds) or any(estimator.record.other_seeds for estimator in estimators):
        raise TrainingError(
            "E_ENSEMBLE_MEMBERS",
            f"the members were trained from the seeds {seeds}, or are ensembles themselves. Allowed: single "
            "estimators of different seeds.",
        )
    record = replace(first.record, other_seeds=tuple(seeds[1:]))
    made = Estimator.untrained(first.model, first.encoder, record, seed=None)
    made.network.set_weights([weight for estimator in estimators for weight in estimator.weights()])
    history = [
        {**row, "member": number} for number, part in enumerate(estimators, 1) for row in part.history
    ]
    return made.with_history(history)


def split(estimator: Estimator) -> tuple[Estimator, ...]:
    """Return the members of an ensemble, each an estimator of its own.

    Parameters
    ----------
    estimator : Estimator
        An ensemble, or a single estimator, which is its own only member.

    Returns
    -------
    tuple of Estimator
        Not calibrated, unless there is only one.
    """
    record = estimator.record
    if not record.other_seeds:
        return (estimator,)
    out = []
    for number, seed in enumerate((record.seed, *record.other_seeds), 1):
        history = tuple(
            {key: value for key, value in row.items() if key != "member"}
            for row in estimator.history
            if row["member"] == number
        )
        out.append(
            replace(
                estimator,
                network=estimator.network.members[number - 1],
                record=replace(record, seed=seed, other_seeds=()),
                history=history,
                calibration=None,
            )
        )
    return tuple(out)
