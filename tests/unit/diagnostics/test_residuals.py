"""Residuals against closed forms of a linear-Gaussian mixed model."""

import numpy as np
import pytest
from scipy.special import ndtri

from amortnlme.core.errors import FitError, UsageError
from amortnlme.diagnostics.decorrelation import decorrelate
from amortnlme.diagnostics.residuals import (
    conditional_moments,
    conditional_weighted_residuals,
    individual_weighted_residuals,
    prediction_distribution_errors,
)


def _linear_study(rng, n_subjects=40, n_records=6):
    """y = A (mu + eta) + e with ragged records; the mode of eta is known exactly."""
    design = np.stack([np.ones(n_records), np.linspace(0.0, 2.0, n_records)], axis=1)
    omega = np.array([[0.5, 0.2], [0.2, 0.3]])
    sd = np.tile(0.4 + 0.1 * np.arange(n_records), (n_subjects, 1))
    used = np.arange(n_records)[None, :] < rng.integers(2, n_records + 1, n_subjects)[:, None]
    eta_true = rng.standard_normal((n_subjects, 2)) @ np.linalg.cholesky(omega).T
    pred = np.tile(design @ [1.0, -0.7], (n_subjects, 1))
    y = pred + eta_true @ design.T + sd * rng.standard_normal((n_subjects, n_records))
    eta = np.empty((n_subjects, 2))
    for i in range(n_subjects):
        a, r = design[used[i]], sd[i, used[i]]
        precision = np.linalg.inv(omega) + a.T @ (a / r[:, None] ** 2)
        eta[i] = np.linalg.solve(precision, a.T @ ((y - pred)[i, used[i]] / r**2))
    gradient = np.tile(design, (n_subjects, 1, 1))
    ipred = pred + eta @ design.T
    return {
        "y": y,
        "pred": pred,
        "ipred": ipred,
        "gradient": gradient,
        "eta": eta,
        "omega": omega,
        "sd": sd,
        "used": used,
    }


def test_conditional_moments_are_the_marginal_ones_when_the_model_is_linear():
    study = _linear_study(np.random.default_rng(1))
    mean, covariance = conditional_moments(
        study["ipred"], study["gradient"], study["eta"], study["omega"], study["sd"]
    )
    design = study["gradient"][0]
    np.testing.assert_allclose(mean, study["pred"], atol=1e-13)
    expected = design @ study["omega"] @ design.T + np.diag(study["sd"][0] ** 2)
    np.testing.assert_allclose(covariance, np.broadcast_to(expected, covariance.shape), atol=1e-14)


def test_cwres_of_a_linear_model_match_the_closed_form_subject_by_subject():
    study = _linear_study(np.random.default_rng(2))
    cwres = conditional_weighted_residuals(
        study["y"],
        study["ipred"],
        study["gradient"],
        study["eta"],
        study["omega"],
        study["sd"],
        study["used"],
    )
    for i, used in enumerate(study["used"]):
        design = study["gradient"][i, used]
        covariance = design @ study["omega"] @ design.T + np.diag(study["sd"][i, used] ** 2)
        residual = (study["y"] - study["pred"])[i, used]
        # The squared length of whitened residuals is the Mahalanobis distance, whatever the square root.
        assert cwres[i, used] @ cwres[i, used] == pytest.approx(
            residual @ np.linalg.solve(covariance, residual)
        )
        value, vector = np.linalg.eigh(covariance)
        expected = vector @ np.diag(value**-0.5) @ vector.T @ residual
        np.testing.assert_allclose(cwres[i, used], expected, rtol=1e-10)
        assert np.isnan(cwres[i, ~used]).all()


def test_cholesky_decorrelation_orders_the_records():
    """Whitened record j must be the residual of record j given the earlier ones, in its conditional SD."""
    covariance = np.array([[[2.0, 0.8], [0.8, 1.0]]])
    residual = np.array([[[1.5], [-0.3]]])
    whitened = decorrelate(residual, covariance, np.ones((1, 2), bool), "cholesky")[0, :, 0]
    conditional_sd = np.sqrt(1.0 - 0.8**2 / 2.0)
    assert whitened == pytest.approx([1.5 / np.sqrt(2.0), (-0.3 - 0.4 * 1.5) / conditional_sd])


def test_iwres_are_plain_scaled_residuals_and_nan_where_unused():
    used = np.array([[True, False]])
    value = individual_weighted_residuals(
        np.array([[3.0, 9.0]]), np.array([[2.0, 1.0]]), np.array([[0.5, 0.0]]), used
    )
    assert value[0, 0] == 2.0
    assert np.isnan(value[0, 1])


def test_decorrelate_names_the_subject_when_a_covariance_is_singular():
    covariance = np.stack([np.eye(2), np.ones((2, 2))])
    for root in ("symmetric", "cholesky"):
        with pytest.raises(FitError, match="subject number 2") as caught:
            decorrelate(np.ones((2, 2, 1)), covariance, np.ones((2, 2), bool), root)
        assert caught.value.code == "E_DIAGNOSTICS_COVARIANCE"


def test_npde_of_one_record_is_the_normal_quantile_of_its_rank():
    replicates = np.arange(9.0).reshape(9, 1, 1)
    pde, npde = prediction_distribution_errors(np.array([[6.5]]), replicates, np.ones((1, 1), bool))
    assert pde[0, 0] == pytest.approx(7.5 / 10.0)
    assert npde[0, 0] == pytest.approx(ndtri(0.75))


def test_npde_ignores_failed_replicates_and_padding():
    rng = np.random.default_rng(3)
    replicates = rng.standard_normal((300, 2, 3))
    y = np.array([[0.3, -1.0, 0.7], [0.1, 0.2, np.nan]])
    used = np.array([[True, True, True], [True, True, False]])
    clean, _ = prediction_distribution_errors(y, replicates, used)
    extended = np.concatenate([replicates, np.full((5, 2, 3), np.nan)])
    extended[:, 1, 2] = np.nan
    withfailed, _ = prediction_distribution_errors(y, extended, used)
    np.testing.assert_array_equal(clean, withfailed)


def test_npde_do_not_depend_on_the_block_size():
    rng = np.random.default_rng(4)
    replicates, y = rng.standard_normal((60, 7, 2)), rng.standard_normal((7, 2))
    used = np.ones((7, 2), bool)
    whole, _ = prediction_distribution_errors(y, replicates, used)
    blocks, _ = prediction_distribution_errors(y, replicates, used, max_block_bytes=1)
    np.testing.assert_array_equal(whole, blocks)


def test_npde_refuse_too_few_replicates():
    with pytest.raises(UsageError) as caught:
        prediction_distribution_errors(np.zeros((1, 5)), np.zeros((5, 1, 5)), np.ones((1, 5), bool))
    assert caught.value.code == "E_DIAGNOSTICS_REPLICATES"
