"""Posterior draws: validation, selection, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from unit.population.spaces import IDS, make_draws

from amortnlme.core.errors import ArtefactError, DrawsError
from amortnlme.population.posterior_draws import PosteriorDraws


def test_file_round_trip_keeps_everything(tmp_path):
    draws = make_draws()
    draws.save(tmp_path / "draws.h5")
    back = PosteriorDraws.load(tmp_path / "draws.h5")
    for name in ("phi", "log_q", "log_prior", "n_rejected"):
        np.testing.assert_array_equal(getattr(back, name), getattr(draws, name))
    for name in ("subject_ids", "parameters", "prior", "model_name", "out_of_domain"):
        assert getattr(back, name) == getattr(draws, name)


def test_arrays_are_read_only_copies():
    draws = make_draws()
    with pytest.raises(ValueError, match="read-only"):
        draws.phi[0, 0, 0] = 0.0
    phi = draws.phi.copy()
    other = replace(draws, phi=phi)
    phi[:] = 0.0
    assert (other.phi != 0).any()


def test_selection_keeps_order_and_drops_the_dataset():
    draws = replace(make_draws(), dataset_fingerprint="sha256:x")
    part = draws.select(["p3", "p1"])
    assert part.subject_ids == ("p3", "p1")
    np.testing.assert_array_equal(part.phi, draws.phi[[3, 1]])
    np.testing.assert_array_equal(part.n_rejected, [3, 1])
    assert part.dataset_fingerprint == ""
    assert draws.select(IDS).dataset_fingerprint == "sha256:x"
    with pytest.raises(DrawsError) as caught:
        draws.select(["nobody"])
    assert caught.value.code == "E_DRAWS_UNKNOWN_SUBJECT"


def _spoiled(phi):
    phi = phi.copy()
    phi[2, 5, 1] = np.nan
    return phi


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda d: {"phi": d.phi[0]}, "E_DRAWS_SHAPE"),
        (lambda d: {"phi": d.phi[:, :, :3]}, "E_DRAWS_SHAPE"),
        (lambda d: {"phi": d.phi[:, :0]}, "E_DRAWS_SHAPE"),
        (lambda d: {"log_q": d.log_q[:, :-1]}, "E_DRAWS_SHAPE"),
        (lambda d: {"n_rejected": np.zeros(2)}, "E_DRAWS_SHAPE"),
        (lambda d: {"out_of_domain": ((),)}, "E_DRAWS_SHAPE"),
        (lambda d: {"subject_ids": ("p0",) * 6}, "E_DRAWS_DUPLICATE_SUBJECT"),
        (lambda d: {"phi": _spoiled(d.phi)}, "E_DRAWS_NON_FINITE"),
        (lambda d: {"log_q": np.full(d.log_q.shape, -np.inf)}, "E_DRAWS_NON_FINITE"),
    ],
)
def test_malformed_draws_are_named_errors(change, code):
    draws = make_draws()
    with pytest.raises(DrawsError) as caught:
        replace(draws, **change(draws))
    assert caught.value.code == code


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "draws.h5"
    with pytest.raises(ArtefactError) as caught:
        PosteriorDraws.load(path)
    assert caught.value.code == "E_H5_MISSING"
    make_draws().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtefactError):
        PosteriorDraws.load(path)
