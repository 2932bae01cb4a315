"""Errors carry a code and a sentence; every status has its sentence."""

from __future__ import annotations

import pickle

import pytest

from amortnlme.core import errors
from amortnlme.core.status import FitStatus, SolveStatus

KINDS = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.AmortNlmeError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_shows_its_message_and_its_code(kind):
    error = kind("E_SOMETHING", "Something is wrong.")
    assert str(error) == "Something is wrong. [E_SOMETHING]"
    assert (error.code, error.message) == ("E_SOMETHING", "Something is wrong.")
    assert kind is errors.AmortNlmeError or kind.__bases__ == (errors.AmortNlmeError,)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_back_from_a_worker_process(kind):
    back = pickle.loads(pickle.dumps(kind("E_SOMETHING", "Something is wrong.")))
    assert (type(back), back.code, back.message) == (kind, "E_SOMETHING", "Something is wrong.")


@pytest.mark.parametrize("status", [*SolveStatus, *FitStatus])
def test_every_status_has_a_sentence(status):
    assert status.sentence.endswith(".")


def test_a_fit_on_the_boundary_is_a_success_and_a_stopped_one_is_not():
    assert {status for status in FitStatus if status.is_success} == {FitStatus.CONVERGED, FitStatus.BOUNDARY}
