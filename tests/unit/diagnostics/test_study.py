"""Diagnostics of a whole fit, on a linear-Gaussian study with known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from unit.diagnostics.linear_study import TIMES, make_draws, make_study

from amortnlme.core.errors import FitError
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose, EventKind
from amortnlme.diagnostics.arviz_export import to_inference_data, to_xarray
from amortnlme.diagnostics.curves import conditional_draws, dense_design, pick_subjects, subject_curves
from amortnlme.diagnostics.predictions import predict_study, simulate_study
from amortnlme.diagnostics.tables import diagnose, row_table, subject_table


def test_predictions_of_a_fit_match_the_line_it_describes():
    fit, model, dataset = make_study(np.random.default_rng(1))
    p = predict_study(fit, model, dataset)
    np.testing.assert_allclose(p.pred, p.mu[:, :1] + p.mu[:, 1:2] * TIMES)
    np.testing.assert_allclose(p.ipred - p.pred, p.eta[:, :1] + p.eta[:, 1:2] * TIMES)
    np.testing.assert_allclose(p.sd, 0.4)
    np.testing.assert_allclose(p.gradient[3], np.stack([np.ones(len(TIMES)), TIMES], axis=1))


def test_cwres_of_a_fit_have_the_exact_mahalanobis_length():
    """For a linear model sum of CWRES^2 per subject is the quadratic form of its exact -2 log-likelihood."""
    fit, model, dataset = make_study(np.random.default_rng(2))
    result = diagnose(fit, model, dataset, n_replicates=60)
    design = np.stack([np.ones(len(TIMES)), TIMES], axis=1)
    covariance = design @ fit.omega[:2, :2] @ design.T + 0.16 * np.eye(len(TIMES))
    constant = np.linalg.slogdet(2 * np.pi * covariance)[1]
    np.testing.assert_allclose((result.cwres**2).sum(axis=1) + constant, fit.ofv_individual, rtol=1e-10)


def test_diagnose_depends_on_the_seed_alone():
    fit, model, dataset = make_study(np.random.default_rng(3))
    first, again, other = (diagnose(fit, model, dataset, n_replicates=40, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.npde, again.npde)
    assert not np.array_equal(first.npde, other.npde)


def test_simulated_studies_come_in_blocks_without_a_change_of_shape():
    fit, model, dataset = make_study(np.random.default_rng(4), n_subjects=5)
    replicates = simulate_study(fit, model, dataset, 7, np.random.default_rng(0), max_rows=11)
    assert replicates.shape == (7, 5, len(TIMES))
    assert np.isfinite(replicates).all()


def test_row_table_has_one_row_per_observation_and_no_residuals_for_censored_ones():
    fit, model, dataset = make_study(np.random.default_rng(5), n_subjects=4)
    censoring = np.zeros(len(TIMES), np.int8)
    censoring[-1] = 1
    subjects = (replace(dataset.subjects[0], censoring=censoring), *dataset.subjects[1:])
    censored = Dataset(subjects, name=dataset.name)
    table = row_table(diagnose(fit, model, censored, n_replicates=60))
    assert len(table) == 4 * len(TIMES)
    low = table[table["CENS"] == 1]
    assert low["ID"].tolist() == ["S1"]
    assert low[["RES", "IRES", "IWRES", "CWRES", "NPDE"]].isna().all(axis=None)
    assert table[table["CENS"] == 0][["RES", "IWRES", "CWRES", "NPDE"]].notna().all(axis=None)


def test_subject_table_holds_parameters_effects_and_covariates():
    fit, model, dataset = make_study(np.random.default_rng(6))
    table = subject_table(fit, model, dataset)
    assert list(table.columns) == [
        "b0_mode",
        "b0_mean",
        "b1_mode",
        "b1_mean",
        "eta_b0",
        "eta_b1",
        "ofv",
        "weight",
        "sex",
    ]
    np.testing.assert_allclose(table["b0_mode"], fit.individuals.ebe_phi[:, 0])
    assert table["ofv"].sum() == pytest.approx(fit.ofv)


def test_diagnostics_refuse_a_fit_of_other_subjects():
    fit, model, dataset = make_study(np.random.default_rng(7))
    with pytest.raises(FitError) as caught:
        predict_study(fit, model, dataset.select(dataset.ids[::-1]))
    assert caught.value.code == "E_DIAGNOSTICS_SUBJECTS"


def test_subject_curves_pass_through_the_predictions_and_the_band_holds_the_mode():
    fit, model, dataset = make_study(np.random.default_rng(8), n_subjects=4)
    draws = conditional_draws(fit, model, dataset, 300, np.random.default_rng(1))
    curves = subject_curves(fit, model, dataset, draws.phi, n_grid=17)
    assert [curve.subject_id for curve in curves] == list(dataset.ids)
    for i, curve in enumerate(curves):
        b0, b1, _ = fit.individuals.ebe_phi[i]
        np.testing.assert_allclose(curve.ipred, b0 + b1 * curve.time)
        assert curve.time[0] == 0.0
        assert curve.time[-1] == TIMES[-1]
        assert ((curve.low < curve.ipred) & (curve.ipred < curve.high)).all()


def test_conditional_draws_are_distinct_where_the_data_say_nothing():
    """Without data every node weighs about 1 / 4608: systematic resampling takes none of them twice."""
    fit, model, dataset = make_study(np.random.default_rng(8), n_subjects=4)
    silent = replace(dataset.subjects[0], observed=np.zeros(len(TIMES), bool))
    draws = conditional_draws(
        fit,
        model,
        Dataset((silent, *dataset.subjects[1:])),
        300,
        np.random.default_rng(1),
        n_points=4096,
    )
    assert len(np.unique(draws.phi[0, :, 0])) == 300


def test_dense_design_keeps_doses_and_puts_the_grid_after_them_at_ties():
    design = Design.from_doses([Dose(0.0, 100.0), Dose(12.0, 50.0, duration=1.0)], [1.0, 12.0, 24.0])
    dense, source = dense_design(design, n_outputs=2, n_grid=5)
    assert dense.dose_times.tolist() == [0.0, 12.0]
    assert dense.dose_amounts.tolist() == [100.0, 50.0]
    grid = dense.observation_times[dense.observation_outputs == 2]
    # Regular points, the second dose, the end of its infusion, and the moments just before both.
    assert set(grid.round(3)) == {0.0, 6.0, 12.0, 13.0, 18.0, 24.0}
    assert len(grid) == 8
    assert dense.amount[dense.is_observation].max() == 0.0
    first_at_12 = np.flatnonzero(dense.time == 12.0)[0]
    assert dense.kind[first_at_12] == EventKind.INFUSION
    assert len(source) == dense.n_records
    assert (np.diff(source) >= 0).all()


def test_dense_design_restarts_its_grid_at_a_reset():
    kind = [EventKind.BOLUS, EventKind.OBSERVATION, EventKind.RESET, EventKind.BOLUS, EventKind.OBSERVATION]
    zeros = np.zeros(5)
    design = Design(
        time=np.array([0.0, 10.0, 0.0, 0.0, 4.0]), kind=np.array(kind), compartment=zeros,
        amount=np.array([1.0, 0.0, 0.0, 2.0, 0.0]), duration=zeros, ii=zeros, ss=zeros,
        output=np.array([0, 1, 0, 0, 1]),
    )  # fmt: skip
    dense, _ = dense_design(design, n_outputs=1, n_grid=3)
    assert dense.observation_times.tolist() == [0.0, 5.0, 10.0, 0.0, 2.0, 4.0]


def test_pick_subjects_shows_flagged_ones_first():
    ids = [str(i) for i in range(100)]
    grades = ["green"] * 100
    grades[37], grades[61] = "red", "amber"
    shown = pick_subjects(ids, grades, 10)
    assert len(shown) == 10
    assert {37, 61} <= set(shown)
    assert shown == sorted(shown)
    assert pick_subjects(ids[:4], [], 10) == [0, 1, 2, 3]


def test_draws_become_labeled_arrays_on_both_scales():
    _, _, dataset = make_study(np.random.default_rng(9), n_subjects=3)
    draws = make_draws(dataset, np.random.default_rng(1), n_draws=20)
    table = to_xarray(draws)
    assert table["phi"].dims == ("subject", "draw", "parameter")
    np.testing.assert_allclose(table["psi"].sel(parameter="a"), np.exp(draws.phi[:, :, 2]))
    data = to_inference_data(draws, dataset)
    assert data.posterior["a"].dims == ("chain", "draw", "subject")
    assert data.posterior["a"].attrs["unit"] == "mg/L"
    assert data.posterior["phi"].dims == ("chain", "draw", "subject", "parameter")
    np.testing.assert_allclose(data.posterior["b0"].values[0, :, 1], draws.phi[1, :, 0])
    np.testing.assert_allclose(data.sample_stats["log_q"].values[0].T, draws.log_q)
    np.testing.assert_allclose(data.observed_data["y"], dataset.y_padded()[0])
