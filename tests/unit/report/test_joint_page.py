"""The page of a joint law: self-contained, the same twice, and open about small gains and few nodes."""

from __future__ import annotations

import numpy as np
import pytest

from amortnlme.core.errors import ArtefactError
from amortnlme.methods.joint_fit import FamilyResult, JointFit
from amortnlme.population.laws import GaussianLaw
from amortnlme.report.joint_page import write_joint_report

NAMES = ("p.a", "q.<b>")


def joint_fit(least_ess=100.0, held_out=float("nan")):
    covariance = np.array([[1.0, 0.6], [0.6, 1.0]])
    return JointFit(
        family="gaussian",
        law=GaussianLaw(NAMES, np.zeros(2), covariance),
        held=None,
        independent=GaussianLaw(NAMES, np.zeros(2), np.eye(2)),
        endpoints=tuple(
            {
                "name": name[0], "model": "m", "method": "focei", "fingerprint": "x", "effects": [name],
                "primary": False, "n_subjects": 30,
            }
            for name in NAMES
        ),
        results=(FamilyResult("gaussian", 21.3, 0.4, held_out, 0.2, 0.0, 0.1, least_ess),),
        n_subjects=30,
        n_held_out=6,
    )  # fmt: skip


def test_page_is_self_contained_and_the_same_twice(tmp_path):
    first, second = (write_joint_report(joint_fit(), tmp_path / name) for name in ("a.html", "b.html"))
    text = first.read_text(encoding="utf-8")
    assert text == second.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("<svg") == 4
    assert "21.3 nats" in text
    # names are data: they are escaped
    assert "q.<b>" not in text


def test_page_tells_held_out_gains_and_few_nodes(tmp_path):
    text = write_joint_report(joint_fit(3.0, 4.5), tmp_path / "a.html").read_text(encoding="utf-8")
    assert "held-out subjects the gain is 4.50 nats" in text
    assert "only 3.00 effective nodes" in text


def test_page_refuses_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(ArtefactError, match="E_IO_WRITE"):
        write_joint_report(joint_fit(), tmp_path / "nowhere" / "a.html")
