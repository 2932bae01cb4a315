"""Artefacts: the same estimator comes back, and every kind of damage has a name."""

import errno
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from unit.neural import tiny

from amortnlme.core.errors import ArtefactError
from amortnlme.core.files import sha256_file, write_error
from amortnlme.core.rng import generator
from amortnlme.neural.artefact import store_calibration, trained_model_names
from amortnlme.neural.calibrate import calibrate
from amortnlme.neural.estimator import Estimator


@pytest.fixture
def copy(tiny_artefact, tmp_path):
    """An artefact that a test may damage."""
    return Path(shutil.copytree(tiny_artefact, tmp_path / "copy"))


def seal(folder: Path) -> None:
    """Make the checksums fit again, as a forger would."""
    names = [line.split("  ")[1] for line in (folder / "CHECKSUMS.sha256").read_text().splitlines()]
    lines = [f"{sha256_file(folder / name)}  {name}\n" for name in names]
    (folder / "CHECKSUMS.sha256").write_text("".join(lines))


def edit_config(folder: Path, change) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    seal(folder)


def refuse(folder: Path) -> str:
    with pytest.raises(ArtefactError) as caught:
        Estimator.load(folder)
    return caught.value.code


def test_a_loaded_estimator_is_the_saved_one(tiny_estimator, tiny_artefact, tmp_path):
    dataset = tiny.patients(3)
    tiny_estimator.save(tmp_path / "again")
    again = Estimator.load(tmp_path / "again")
    assert again.fingerprint == tiny_estimator.fingerprint
    assert again.history == tiny_estimator.history
    a, b = (e.sample(dataset, 20, generator(1)) for e in (tiny_estimator, again))
    np.testing.assert_array_equal(a.phi, b.phi)
    assert sha256_file(tmp_path / "again" / "model.weights.h5") == sha256_file(
        tiny_artefact / "model.weights.h5"
    )


def test_an_artefact_holds_exactly_the_listed_files(tiny_artefact):
    assert {file.name for file in tiny_artefact.iterdir()} == {
        "config.json", "model.weights.h5", "sentinel.h5", "history.csv", "model_card.md", "CHECKSUMS.sha256",
    }  # fmt: skip


def test_a_missing_estimator_is_named(tmp_path):
    with pytest.raises(ArtefactError, match="no estimator") as caught:
        Estimator.load(tmp_path / "nowhere")
    assert caught.value.code == "E_ARTEFACT_MISSING"
    with pytest.raises(ArtefactError):
        Estimator.load("no_such_name")


@pytest.mark.parametrize("name", ["CHECKSUMS.sha256", "config.json", "model.weights.h5", "sentinel.h5"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    assert refuse(copy) == "E_ARTEFACT_MISSING"


@pytest.mark.parametrize(
    "name", ["config.json", "model.weights.h5", "sentinel.h5", "history.csv", "model_card.md"]
)
def test_a_flipped_byte_in_any_file_is_found(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    assert refuse(copy) == "E_ARTEFACT_CHECKSUM"


def test_a_truncated_weights_file_is_found(copy):
    content = (copy / "model.weights.h5").read_bytes()
    (copy / "model.weights.h5").write_bytes(content[:1000])
    assert refuse(copy) == "E_ARTEFACT_CHECKSUM"
    seal(copy)
    assert refuse(copy) == "E_H5_TRUNCATED"


@pytest.mark.parametrize("line", ["0" * 64 + "  ../../etc/passwd\n", "nonsense\n"])
def test_checksums_that_list_other_files_are_refused(copy, line):
    path = copy / "CHECKSUMS.sha256"
    path.write_text(path.read_text() + line)
    assert refuse(copy) == "E_ARTEFACT_CHECKSUM"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: c.update(format_version=99), "E_ARTEFACT_FORMAT"),
        (lambda c: c.pop("format_version"), "E_ARTEFACT_CONFIG"),
        (lambda c: c.pop("network"), "E_ARTEFACT_CONFIG"),
        (lambda c: c["network"]["spec"].update(dropout=0.1), "E_ARTEFACT_CONFIG"),
        (lambda c: c["network"]["encoder"].update(phi_sd="text"), "E_ARTEFACT_CONFIG"),
        (lambda c: c["network"]["spec"].update(summary_width=10**9), "E_ARTEFACT_CONFIG"),
        (lambda c: c["training"].update(seed=float("inf")), "E_ARTEFACT_CONFIG"),
        (lambda c: c["model"].update(fingerprint="sha256:0"), "E_ARTEFACT_MODEL"),
        (lambda c: c["prior"].update(mean=[0, 0, 0, 0]), "E_ARTEFACT_MODEL"),
        (lambda c: c["design_sampler"].update(doses=[1, 2]), "E_ARTEFACT_MODEL"),
        (lambda c: c["model"].update(name="no_such_model"), "E_ARTEFACT_MODEL"),
        (lambda c: c["network"]["spec"].update(summary_width=16), "E_ARTEFACT_WEIGHTS"),
        (lambda c: c["network"]["encoder"].update(output_scale=3.0), "E_ARTEFACT_SENTINEL"),
    ],
)
def test_a_sealed_but_changed_configuration_is_refused(copy, change, code):
    edit_config(copy, change)
    assert refuse(copy) == code


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("history.csv", b"epoch,steps\n1,-\n"),
        ("history.csv", b"\xff\xfe"),
        ("history.csv", b"epoch\n1,2\n"),
        ("calibration.json", b'{"parameters": '),
        ("calibration.json", b"[1]"),
        ("config.json", b"\xff\xfe"),
    ],
)
def test_a_sealed_file_without_sense_is_named(copy, name, content):
    listed = (copy / "CHECKSUMS.sha256").read_text()
    if name not in listed:
        (copy / "CHECKSUMS.sha256").write_text(f"{listed}{'0' * 64}  {name}\n")
    (copy / name).write_bytes(content)
    seal(copy)
    assert refuse(copy) == "E_ARTEFACT_CONFIG"


@pytest.mark.parametrize("name", ["points", "log_density", "n_records", "y"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_sealed_sentinel_without_sense_is_named(copy, name, damage):
    from amortnlme.core.h5 import read_h5, write_h5_atomic

    arrays, _ = read_h5(copy / "sentinel.h5", "estimator-sentinel")
    if damage == "missing":
        del arrays[name]
    else:
        arrays[name] = arrays[name][:2]
    write_h5_atomic(copy / "sentinel.h5", arrays, {"kind": "estimator-sentinel"})
    seal(copy)
    assert refuse(copy) == "E_ARTEFACT_CONFIG"


def test_a_configuration_that_names_a_file_never_executes_it(copy, tmp_path):
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\nMODEL = None\n")
    edit_config(copy, lambda c: c["model"].update(name=str(trap)))
    assert refuse(copy) == "E_ARTEFACT_MODEL"
    assert not (tmp_path / "sprung").exists()


def test_weights_that_drifted_are_caught_by_the_sentinel(copy, tiny_artefact):
    from amortnlme.core.h5 import read_h5, write_h5_atomic

    arrays, _ = read_h5(tiny_artefact / "model.weights.h5", "estimator-weights")
    arrays["weight-000"] = arrays["weight-000"] * np.float32(1.05)
    write_h5_atomic(copy / "model.weights.h5", arrays, {"kind": "estimator-weights"})
    seal(copy)
    assert refuse(copy) == "E_ARTEFACT_SENTINEL"


def test_a_sentinel_of_another_kind_is_refused(copy):
    with h5py.File(copy / "sentinel.h5", "r+") as file:
        file.attrs["kind"] = "draws"
    seal(copy)
    assert refuse(copy) == "E_H5_KIND"


def test_an_interrupted_save_cannot_be_loaded(copy, tiny_estimator, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("amortnlme.neural.artefact.make_sentinel", fail)
    with pytest.raises(KeyboardInterrupt):
        tiny_estimator.save(copy)
    assert refuse(copy) == "E_ARTEFACT_MISSING"


def test_calibration_is_stored_and_sealed(copy, tiny_estimator):
    result = calibrate(tiny_estimator, 40, 3, n_draws=60)
    store_calibration(copy, result.to_dict())
    loaded = Estimator.load(copy)
    assert loaded.calibration == json.loads(json.dumps(result.to_dict()))
    assert loaded.fingerprint == tiny_estimator.fingerprint
    card = (copy / "model_card.md").read_text()
    assert "coverage 50 %" in card and "ranks_uniform" in card


def test_a_failed_check_stands_in_the_first_line_of_the_card(copy, tiny_estimator):
    record = calibrate(tiny_estimator, 40, 3, n_draws=60).to_dict()
    for passed, wanted in ((True, "all checks passed"), (False, "FAILED a b")):
        store_calibration(copy, record | {"checks": {"a_b": passed, "c": True}})
        first = (copy / "model_card.md").read_text().splitlines()[0]
        assert first == f"# Estimator `one_compartment_oral`: {wanted}"


def test_a_picture_of_the_calibration_is_sealed_and_kept(copy, tiny_estimator):
    record = calibrate(tiny_estimator, 40, 3, n_draws=60).to_dict()
    store_calibration(copy, record, b"picture")
    store_calibration(copy, record)
    assert (copy / "calibration.png").read_bytes() == b"picture"
    assert "(calibration.png)" in (copy / "model_card.md").read_text()
    assert Estimator.load(copy).calibration is not None
    (copy / "calibration.png").write_bytes(b"another")
    assert refuse(copy) == "E_ARTEFACT_CHECKSUM"


def test_a_full_disk_during_calibration_leaves_the_artefact_as_it_was(copy, tiny_estimator, monkeypatch):
    def no_space(path, _):
        raise write_error(path, OSError(errno.ENOSPC, "No space left on device"))

    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    monkeypatch.setattr("amortnlme.neural.artefact.write_text_atomic", no_space)
    with pytest.raises(ArtefactError) as caught:
        store_calibration(copy, calibrate(tiny_estimator, 40, 3, n_draws=60).to_dict())
    assert caught.value.code == "E_IO_WRITE"
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before
    assert [file.name for file in copy.parent.iterdir()] == [copy.name]


def test_shipped_names_are_folders_with_a_configuration():
    assert "one_compartment_oral" in trained_model_names()
