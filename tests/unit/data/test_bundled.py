"""The bundled theophylline table against the file it was made from, and against published facts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from architecture.house import ROOT

from amortnlme.core.errors import DataError
from amortnlme.data.bundled import bundled_names, load_bundled

SOURCE = ROOT.parent / "shared" / "data" / "theophylline_single.tab"


def test_load_bundled_gives_twelve_subjects_with_ten_measurements_each():
    dataset = load_bundled("theophylline")
    assert bundled_names() == ("theophylline",)
    assert dataset.ids == tuple(str(i) for i in range(1, 13))
    assert [subject.n_observed for subject in dataset.subjects] == [10] * 12
    assert [subject.design.n_doses for subject in dataset.subjects] == [1] * 12
    assert dataset.covariate_names == ("weight", "sex")
    assert not dataset.exclusions
    assert dataset.units["AMT"] == "mg"


@pytest.mark.skipif(not SOURCE.is_file(), reason="the source table is not distributed with the package")
def test_bundled_theophylline_equals_its_source_to_the_last_bit():
    source = pd.read_csv(SOURCE, sep=" ", dtype=str).astype(float)
    dataset = load_bundled("theophylline")
    assert len(source) == dataset.n_observations == 120
    for subject, (_, rows) in zip(dataset.subjects, source.groupby("Id"), strict=True):
        np.testing.assert_array_equal(subject.design.observation_times, rows["Time"])
        np.testing.assert_array_equal(subject.y, rows["Concentration"])
        assert subject.design.dose_amounts.tolist() == [rows["Dose"].iloc[0]]
        assert subject.design.dose_times.tolist() == [0.0]
        assert subject.covariates == {"weight": rows["Weight"].iloc[0], "sex": rows["Sex"].iloc[0]}


def test_bundled_theophylline_doses_are_about_four_mg_per_kg():
    dataset = load_bundled("theophylline")
    doses = np.array([subject.design.first_dose_amount for subject in dataset.subjects])
    per_kg = doses / dataset.covariate_table()["weight"].to_numpy()
    assert per_kg.min() == pytest.approx(3.1, abs=0.005)
    assert per_kg.max() == pytest.approx(5.86, abs=0.005)


def test_load_bundled_lists_the_tables_when_the_name_is_unknown():
    with pytest.raises(DataError, match=r"theophylline.*E_DATA_UNKNOWN_BUNDLED"):
        load_bundled("warfarin")
