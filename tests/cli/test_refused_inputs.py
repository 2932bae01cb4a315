"""Wrong inputs to the verbs: each gives a named error and exit code 1, and nothing is half-written."""

from __future__ import annotations

import json
import shutil

import pytest
from cli.refused import refusal

BROKEN_POPULATIONS = {
    "not TOML": "[random_effects\n",
    "no random effects": 'name = "x"\n',
    "unknown key": '[random_effects]\non = ["ka"]\ncolour = 1\n',
    "unknown table": '[random_effects]\non = ["ka"]\n[priors]\nka = 1\n',
    "unknown structure": '[random_effects]\non = ["ka"]\nstructure = "spherical"\n',
    "unknown parameter": '[random_effects]\non = ["ka", "clearance"]\n',
    "a parameter twice": '[random_effects]\non = ["ka", "ka"]\n',
    "unknown covariate": '[random_effects]\non = ["V"]\n[[covariate]]\nparameter="V"\ncovariate="height"\n',
    "log of zero": '[random_effects]\non = ["V"]\n[[covariate]]\nparameter = "V"\ncovariate = "sex"\n',
    "unknown center": (
        '[random_effects]\non = ["V"]\n[[covariate]]\nparameter="V"\ncovariate="weight"\ncenter="mode"\n'
    ),
    "names that are numbers": "[random_effects]\non = [1, 2]\n",
}
BROKEN_SPECS = {
    "not TOML": "[network",
    "unknown table": "[optimizer]\nname = 1\n",
    "unknown option": "[network]\nlayers = 5\n",
    "a value out of range": "[training]\nepochs = 0\n",
    "a text for a number": '[training]\nepochs = "3"\n',
    "a text for a rate": '[training]\nlearning_rate = "fast"\n',
    "a fraction for a count": "[training]\nepochs = 1.5\n",
    "a rate without bound": "[training]\nlearning_rate = inf\n",
    "a number for a list": "[network]\nbuckets = 3\n",
    "texts for counts": '[network]\nbuckets = ["a"]\n',
    "texts for rates": '[network]\nhistory_rates = ["a"]\n',
    "a fraction for a width": "[network]\nsummary_width = 8.5\n",
    "a width beyond memory": "[network]\nsummary_width = 1000000000\n",
    "a text for a switch": '[network]\naffine_head = "no"\n',
}
USAGE = {
    "unknown verb": ["distill"],
    "unknown option": ["models", "--colour"],
    "missing argument": ["sample"],
    "a seed that is no number": ["sample", "x", "y", "--out", "z", "--seed", "noon"],
    "a negative seed": ["sample", "x", "y", "--out", "z", "--seed", "-1"],
    "no draws": ["sample", "x", "y", "--out", "z", "--draws", "0"],
    "no fits to compare": ["compare"],
    "data without a verb": ["data"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE.keys())
def test_wrong_usage_is_named(arguments, capsys):
    assert refusal(arguments, capsys) == "E_USAGE"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["check", "no_such_model"], "E_MODEL_"),
        (["check", "no_such_file.py"], "E_MODEL_"),
        (["simulate", "no_such_model", "--n", "5", "--out", "x.training"], "E_MODEL_"),
        (["train", "nowhere.training", "--out", "x"], "E_TRAINING_"),
        (["calibrate", "no_such_estimator"], "E_ARTEFACT_"),
        (["ensemble", "no_such_estimator", "--out", "both"], "E_ARTEFACT_"),
        (["sample", "no_such_estimator", "theophylline", "--out", "x.h5"], "E_ARTEFACT_"),
        (["sample", "one_compartment_oral", "nowhere.csv", "--out", "x.h5"], "E_INPUT_NO_FILE"),
        (["fit", "nowhere.h5", "--population", "theophylline_none"], "E_H5_MISSING"),
        (
            ["fit", "theophylline", "-p", "ka ~ (1 | site)", "-m", "fo", "--model", "one_compartment_oral"],
            "E_POP_FORMULA",
        ),
        (["compare", "nowhere.h5"], "E_H5_MISSING"),
        (["report", "nowhere.h5", "--data", "theophylline"], "E_H5_MISSING"),
        (["data", "check", "x" * 5000], "E_INPUT_NO_FILE"),
        (["sample", "x" * 5000, "theophylline", "--out", "x.h5"], "E_ARTEFACT_"),
        (["compare", "x" * 5000], "E_H5_MISSING"),
        (["quickstart", "--out", "no_such_folder"], "E_OUTPUT_NO_FOLDER"),
        (["models", "--json", "no_such_folder/x.json"], "E_OUTPUT_NO_FOLDER"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else value,
)
def test_what_does_not_exist_is_named(arguments, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert refusal(arguments, capsys).startswith(code)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_place_of_an_output_file_is_refused(tmp_path, capsys):
    assert refusal(["models", "--json", str(tmp_path)], capsys) == "E_OUTPUT_NOT_A_FILE"


def test_a_folder_that_may_not_be_written_is_refused(tmp_path, monkeypatch, capsys):
    """The permission is withheld in the answer of the system, because a test may run as root."""
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert refusal(["models", "--json", str(tmp_path / "x.json")], capsys) == "E_OUTPUT_NOT_WRITABLE"


@pytest.mark.parametrize("text", ["x = (", "x = 1\n", "raise ValueError('no')\n", "MODEL = 5\n"])
def test_a_file_that_is_no_model_is_named(text, tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    assert refusal(["check", str(path)], capsys).startswith("E_MODEL_")


@pytest.mark.backend
@pytest.mark.parametrize("text", BROKEN_POPULATIONS.values(), ids=BROKEN_POPULATIONS.keys())
def test_fit_refuses_a_broken_population_model(text, study, tmp_path, capsys):
    path = tmp_path / "population.toml"
    path.write_text(text, encoding="utf-8")
    arguments = ["fit", study.path("draws.h5"), "--population", str(path), "--data", "theophylline"]
    assert refusal(arguments, capsys).startswith("E_POP_")


@pytest.mark.backend
@pytest.mark.parametrize("text", BROKEN_SPECS.values(), ids=BROKEN_SPECS.keys())
def test_train_refuses_broken_options(text, study, tmp_path, capsys):
    path = tmp_path / "spec.toml"
    path.write_text(text, encoding="utf-8")
    arguments = ["train", study.path("oral.training"), "--spec", str(path), "--out", str(tmp_path / "oral")]
    assert refusal(arguments, capsys).startswith("E_SPEC_")


@pytest.mark.backend
def test_fit_refuses_draws_of_another_dataset(study, tmp_path, capsys):
    from amortnlme import load_bundled, to_csv

    data = load_bundled("theophylline")
    to_csv(data.select(data.ids[:6]), tmp_path / "half.csv")
    arguments = ["fit", study.path("draws.h5"), "--population", "theophylline_none"]
    assert refusal([*arguments, "--data", str(tmp_path / "half.csv")], capsys) == "E_DRAWS_OTHER_DATASET"


@pytest.mark.backend
def test_fit_refuses_covariates_without_data(study, capsys):
    arguments = ["fit", study.path("draws.h5"), "--population", "theophylline_v_weight"]
    assert refusal(arguments, capsys) == "E_FIT_NEEDS_DATASET"


@pytest.mark.backend
def test_fit_refuses_an_unknown_correction(study, capsys):
    arguments = ["fit", study.path("draws.h5"), "--population", "theophylline_none", "--correction", "hope"]
    assert refusal(arguments, capsys) == "E_FIT_OPTION"


@pytest.mark.backend
@pytest.mark.parametrize("kind", ["a fit in place of draws", "draws in place of a fit"])
def test_the_wrong_kind_of_file_is_named(kind, study, capsys):
    arguments = {
        "a fit in place of draws": ["fit", study.path("plain.h5"), "--population", "theophylline_none"],
        "draws in place of a fit": ["compare", study.path("draws.h5")],
    }[kind]
    assert refusal(arguments, capsys) == "E_H5_KIND"


@pytest.mark.backend
@pytest.mark.parametrize(("damage", "code"), [("cut", "E_H5_"), ("flipped", "E_H5_"), ("text", "E_H5_")])
def test_damaged_draws_are_named(damage, code, study, tmp_path, capsys):
    content = bytearray((study.folder / "draws.h5").read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content = bytearray(b"these are no draws\n")
    (tmp_path / "draws.h5").write_bytes(content)
    arguments = ["fit", str(tmp_path / "draws.h5"), "--population", "theophylline_none"]
    assert refusal(arguments, capsys).startswith(code)


@pytest.mark.backend
@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "sentinel.h5", "CHECKSUMS.sha256"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_estimator_is_named(name, damage, study, tmp_path, capsys):
    folder = tmp_path / "oral"
    shutil.copytree(study.folder / "oral", folder)
    if damage == "missing":
        (folder / name).unlink()
    else:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 0x01
        (folder / name).write_bytes(content)
    arguments = ["sample", str(folder), "theophylline", "--out", str(tmp_path / "draws.h5")]
    assert refusal(arguments, capsys).startswith("E_ARTEFACT_")
    assert not (tmp_path / "draws.h5").exists()


@pytest.mark.backend
@pytest.mark.parametrize(("name", "kind"), [("draws.h5", "posterior_draws"), ("plain.h5", "population_fit")])
def test_a_model_path_inside_a_file_is_never_executed(name, kind, study, tmp_path, capsys):
    """Files travel between people: what they call their model is a name, and a path there is refused."""
    from amortnlme.core.h5 import read_h5, write_h5_atomic

    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n", encoding="utf-8")
    arrays, header = read_h5(study.folder / name, kind)
    write_h5_atomic(tmp_path / name, arrays, header | {"kind": kind, "model_name": str(trap)})
    arguments = {
        "posterior_draws": ["fit", str(tmp_path / name), "--population", "theophylline_none"],
        "population_fit": ["report", str(tmp_path / name), "--out", str(tmp_path / "report.html")],
    }[kind]
    assert refusal([*arguments, "--data", "theophylline"], capsys) == "E_MODEL_UNKNOWN"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.backend
@pytest.mark.parametrize(
    ("name", "kind", "change"),
    [
        ("draws.h5", "posterior_draws", {"parameters": 3}),
        ("draws.h5", "posterior_draws", {"prior": None}),
        ("draws.h5", "posterior_draws", {"out_of_domain": 3}),
        ("plain.h5", "population_fit", {"status": "great"}),
        ("plain.h5", "population_fit", {"estimates": [{"x": 1}]}),
        ("plain.h5", "population_fit", {"seconds": None}),
        ("plain.h5", "population_fit", {"n_subjects": "x"}),
    ],
)
def test_a_header_without_sense_is_named(name, kind, change, study, tmp_path, capsys):
    from amortnlme.core.h5 import read_h5, write_h5_atomic

    arrays, header = read_h5(study.folder / name, kind)
    write_h5_atomic(tmp_path / name, arrays, {**header, "kind": kind, **change})
    verb = ["fit", "--population", "theophylline_none"] if kind == "posterior_draws" else ["compare"]
    assert refusal([*verb, str(tmp_path / name)], capsys) == "E_H5_CONTENT"


@pytest.mark.backend
@pytest.mark.parametrize("below", [False, True])
def test_a_file_in_place_of_an_output_folder_is_named(below, study, tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.write_text("mine", encoding="utf-8")
    out = str(taken / "x" if below else taken)
    simulate = ["simulate", "one_compartment_oral", "--n", "5", "--out", out]
    train = ["train", study.path("oral.training"), "--spec", study.path("spec.toml"), "--out", out]
    for arguments in (simulate, train):
        assert refusal(arguments, capsys) == ("E_IO_WRITE" if below else "E_TRAINING_PATH")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"] and taken.read_text() == "mine"


def test_a_seed_beyond_64_bits_leaves_no_folder(tmp_path, capsys):
    arguments = ["simulate", "one_compartment_oral", "--n", "5", "--out", str(tmp_path / "x.training")]
    assert refusal([*arguments, "--seed", "9" * 40], capsys) == "E_SEED"
    assert not list(tmp_path.iterdir())


@pytest.mark.backend
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"n": "x"}, "E_TRAINING_FORMAT"),
        ({"n": -5}, "E_TRAINING_FORMAT"),
        ({"n": 10**12}, "E_TRAINING_INCOMPLETE"),
        ({"shard_size": 0}, "E_TRAINING_FORMAT"),
        ({"model": "trap.py"}, "E_MODEL_UNKNOWN"),
        ({"seed": 77}, "E_TRAINING_FOREIGN"),
    ],
)
def test_a_changed_header_of_a_training_set_is_named(change, code, study, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trap.py").write_text("open('sprung', 'w').close()\n", encoding="utf-8")
    shutil.copytree(study.folder / "oral.training", tmp_path / "x.training")
    header = tmp_path / "x.training" / "header.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | change), encoding="utf-8")
    arguments = ["train", "x.training", "--spec", study.path("spec.toml"), "--out", "x"]
    assert refusal(arguments, capsys) == code
    assert not (tmp_path / "sprung").exists() and not (tmp_path / "x").exists()


@pytest.mark.backend
def test_simulate_refuses_to_mix_two_training_sets(study, capsys):
    arguments = ["simulate", "one_compartment_oral", "--n", "601", "--shard-size", "300"]
    assert refusal([*arguments, "--out", study.path("oral.training")], capsys) == "E_TRAINING_HEADER"
