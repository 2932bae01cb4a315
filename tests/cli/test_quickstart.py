"""The main job, as a newcomer runs it: shipped estimator, bundled data, four population models, a report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from amortnlme.cli import main

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.artefact


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder in which `amortnlme quickstart` ran, its exit code and its JSON document."""
    folder = tmp_path_factory.mktemp("quickstart")
    code = main(["quickstart", "--out", str(folder), "--json", str(folder / "quickstart.json")])
    return folder, code, json.loads((folder / "quickstart.json").read_text(encoding="utf-8"))


@pytest.mark.backend
def test_quickstart_fits_four_population_models(finished):
    _, code, document = finished
    assert code == 0
    fits = document["result"]["fits"]
    assert [fit["population"]["name"] for fit in fits] == [
        "no covariates",
        "V~weight",
        "ka~weight, V~weight",
        "full omega",
    ]
    assert [fit["status"]["name"] for fit in fits] == ["converged"] * 3 + ["boundary"]
    assert document["result"]["comparison"]["fits"] == [fit["population"]["name"] for fit in fits]


@pytest.mark.backend
def test_quickstart_gives_every_objective_value_its_method_and_its_error(finished):
    for fit in finished[2]["result"]["fits"]:
        assert fit["ofv"]["kind"] == "importance_sampling"
        # A tenth of the difference that matters on a -2LL scale (3.84 for one parameter at 5 %) would be 0.4.
        assert 0 < fit["ofv"]["monte_carlo_se"] < 0.1


@pytest.mark.backend
def test_quickstart_gives_no_wald_errors_on_the_boundary(finished):
    by_name = {fit["population"]["name"]: fit for fit in finished[2]["result"]["fits"]}
    assert all(row["se"] is None for row in by_name["full omega"]["estimates"])
    assert all(row["se"] > 0 for row in by_name["V~weight"]["estimates"])


@pytest.mark.backend
def test_quickstart_writes_one_self_contained_page(finished):
    page = (finished[0] / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["']https?://""", page)
    for part in ("Goodness of fit", "Individual fits", "Visual predictive checks", "Calibration and trust"):
        assert part in page


def test_a_population_swap_evaluates_the_likelihood_at_few_points(monkeypatch):
    """37 times 256 points per patient were counted, 15 of them with gradients; seconds are for benchmarks."""
    import numpy as np

    import amortnlme as am
    from amortnlme.model.bound import BoundModel

    points = {"log_likelihood": 0, "log_likelihood_and_gradient": 0, "expansions": 0}

    def count(name):
        original = getattr(BoundModel, name)

        def counted(bound, phi):
            points[name] += phi.shape[0] * phi.shape[1]
            return original(bound, phi)

        monkeypatch.setattr(BoundModel, name, counted)

    for name in points:
        count(name)
    data = am.load_bundled("theophylline")
    draws = am.Estimator.load("one_compartment_oral").sample(data, 1000, np.random.default_rng(1))
    effects = am.RandomEffects(on=("ka", "ke", "V"))
    weight = am.CovariateEffect(parameter="V", covariate="weight")
    am.fit(draws, am.PopulationModel(random_effects=effects, covariates=(weight,)), dataset=data)
    unit = 256 * data.n_subjects
    assert 0 < points["log_likelihood"] <= 40 * unit
    assert 0 < points["log_likelihood_and_gradient"] + points["expansions"] <= 25 * unit


@pytest.mark.backend
def test_the_notebook_example_of_the_readme_runs(capsys, monkeypatch, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    assert len(blocks[0].strip().splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks[0], "README.md", "exec"), {})
    assert "ka, V ~ weight" in capsys.readouterr().out
