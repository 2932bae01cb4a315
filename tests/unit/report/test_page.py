"""The report page: complete, self-contained, escaped, deterministic, and honest about what it cannot rank."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pytest
from unit.diagnostics.linear_study import make_draws, make_fit, make_study

from amortnlme.core.errors import ArtefactError, FitError, UsageError
from amortnlme.core.status import FitStatus
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.report.page import ReportOptions, write_report

OPTIONS = ReportOptions(n_replicates=100, n_curve_draws=40, commands=("amortnlme fit <draws>",))


class _Reader(HTMLParser):
    """Checks that every tag is closed, and collects ids, links and addresses."""

    void = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self):
        HTMLParser.__init__(self)
        self.open, self.ids, self.targets, self.addresses, self.tags = [], [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name == "href" and tag == "a":
                self.targets.append(value)
            if name in ("src", "href", "xlink:href") and tag != "a":
                self.addresses.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@cache
def _study():
    rng = np.random.default_rng(3)
    fit, model, dataset = make_study(rng, n_subjects=6)
    plain = PopulationModel(name="no covariates", random_effects=RandomEffects(("b0", "b1")))
    base = make_fit(plain, dataset, np.array([5.0, -0.3, np.log(0.4), 1.0, 0.1]))
    return fit, base, model, dataset, make_draws(dataset, rng)


def _card(rng):
    return {
        "estimator": "toy & co",
        "calibration": {
            "parameters": {
                name: {"coverage": {"50": 0.5, "95": 0.94}, "recovery": 0.9, "contraction": 0.8}
                for name in ("b0", "b1", "a")
            },
            "n": 200,
            "n_draws": 99,
            "ranks": rng.integers(0, 100, (200, 3)).tolist(),
            "checks": {"ranks_uniform": True, "coverage": False},
            "importance_efficiency_percentiles": {"5": 0.4, "50": 0.7},
        },
    }


@cache
def _page(tmp):
    fit, base, model, dataset, draws = _study()
    card = _card(np.random.default_rng(1))
    path = write_report(
        [base, fit], draws, dataset, model, tmp / "report.html", card, uncorrected=[base], options=OPTIONS
    )
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return _page(tmp_path_factory.mktemp("report"))


def test_page_is_well_formed_and_its_contents_lead_somewhere(page):
    reader = _Reader()
    reader.feed(page)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert {target.removeprefix("#") for target in reader.targets} <= set(reader.ids)


def test_page_loads_nothing_and_runs_no_scripts(page):
    reader = _Reader()
    reader.feed(page)
    assert not reader.tags & {"script", "link", "iframe", "object", "img"}
    assert all(address.startswith("#") for address in reader.addresses)
    assert "@import" not in page
    outside = set(re.findall(r"https?://[^\s\"'<)]+", page))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_page_has_every_section_and_a_figure_of_every_kind(page):
    for title in (
        "Summary", "Model comparison", "Parameter estimates", "Goodness of fit", "Individual fits",
        "Random effects", "Visual predictive checks", "Convergence", "Calibration and trust", "Provenance",
    ):  # fmt: skip
        assert f"<h2>{title}</h2>" in page
    for key in ("f0-gof1", "f1-gof1", "f0-eta", "f0-vpc1", "convergence", "trust", "calibration", "compare"):
        assert f'id="{key}-' in page, key
    assert page.count("-ind1-") > 0


def test_page_escapes_texts_that_come_from_outside(page):
    assert "line &lt;study&gt;" in page
    assert "line <study>" not in page
    assert "a warning with &lt;angle&gt; brackets" in page
    assert "toy &amp; co" in page
    assert "amortnlme fit &lt;draws&gt;" in page


def test_page_shows_trust_warnings_with_their_reasons(page):
    assert "outside the training domain: 25 observations; the estimator saw at most 20" in page
    assert "of the draws were wild and discarded" in page
    assert "of 2 subjects (S1, S2) should be looked at" in page


def test_page_is_the_same_bytes_for_the_same_seed(tmp_path):
    fit, _, model, dataset, draws = _study()
    pages = [
        write_report([fit], draws, dataset, model, tmp_path / name, options=OPTIONS).read_bytes()
        for name in ("a.html", "b.html")
    ]
    assert pages[0] == pages[1]


def test_page_works_without_draws_and_without_an_estimator(tmp_path):
    fit, _, model, dataset, _ = _study()
    text = write_report([fit], None, dataset, model, tmp_path / "r.html", options=OPTIONS).read_text("utf-8")
    assert "without amortized posterior draws" in text
    assert "No calibration record" in text


def test_page_does_not_rank_objective_values_of_different_kinds(tmp_path):
    fit, base, model, dataset, draws = _study()
    other = replace(base, ofv_kind="surrogate")
    text = write_report([fit, other], draws, dataset, model, tmp_path / "r.html", options=OPTIONS).read_text(
        "utf-8"
    )
    assert "No model is preferred" in text
    assert "Δ 0.0" not in text
    assert "are not subtracted" in text


def test_page_leaves_failed_and_boundary_fits_readable(tmp_path):
    fit, base, model, dataset, draws = _study()
    bare = tuple(replace(e, se=None, rse_percent=None, ci_low=None, ci_high=None) for e in base.estimates)
    boundary = replace(base, status=FitStatus.BOUNDARY, covariance=None, estimates=bare)
    failed = replace(fit, status=FitStatus.NOT_CONVERGED)
    path = write_report([boundary, failed], draws, dataset, model, tmp_path / "r.html", options=OPTIONS)
    text = path.read_text("utf-8")
    assert "is the only successful fit" in text
    assert "lies on the boundary" in text
    assert "did not succeed and is left out of the ranking" in text


def test_report_refuses_no_fits(tmp_path):
    _, _, model, dataset, draws = _study()
    with pytest.raises(UsageError) as caught:
        write_report([], draws, dataset, model, tmp_path / "r.html")
    assert caught.value.code == "E_REPORT_EMPTY"


def test_report_refuses_other_subjects(tmp_path):
    fit, _, model, dataset, _ = _study()
    with pytest.raises(FitError) as caught:
        write_report([fit], None, dataset.select(dataset.ids[:3]), model, tmp_path / "r.html")
    assert caught.value.code == "E_DIAGNOSTICS_SUBJECTS"


def test_report_names_a_folder_that_does_not_exist(tmp_path):
    fit, _, model, dataset, _ = _study()
    with pytest.raises(ArtefactError) as caught:
        write_report([fit], None, dataset, model, tmp_path / "none" / "r.html", options=OPTIONS)
    assert caught.value.code == "E_IO_WRITE"


def test_report_refuses_a_calibration_record_without_its_number_of_draws(tmp_path):
    fit, _, model, dataset, _ = _study()
    card = _card(np.random.default_rng(2))
    del card["calibration"]["n_draws"]
    with pytest.raises(UsageError) as caught:
        write_report([fit], None, dataset, model, tmp_path / "r.html", card, options=OPTIONS)
    assert caught.value.code == "E_REPORT_CALIBRATION"
