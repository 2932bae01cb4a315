"""What a report says about the estimator its draws came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amortnlme.neural.estimator import Estimator


def estimator_card(estimator: Estimator, name: str = "") -> dict[str, Any]:
    """Collect the facts about an estimator that `write_report` shows on its trust page.

    Parameters
    ----------
    estimator : Estimator
    name : str
        What the estimator was loaded as: its shipped name or its folder.

    Returns
    -------
    dict
        Short texts by name, and the calibration record under "calibration".
    """
    spec = estimator.spec
    return {
        "estimator": Path(name).name,
        "model": f"{estimator.model.name}, version {estimator.model.version}",
        "network": f"{spec.summary} summary of {spec.tokens}, {spec.flow_depth} coupling layers",
        "epochs": len(estimator.history),
        "training_set": estimator.record.training_set,
        "fingerprint": estimator.fingerprint,
        "calibration": estimator.calibration,
    }
