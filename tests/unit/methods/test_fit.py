"""`fit`: what it refuses, what it returns, and that the result survives files, JSON and notebooks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from amortnlme.core.errors import AmortNlmeError, ArtefactError
from amortnlme.core.status import FitStatus
from amortnlme.data.bundled import load_bundled
from amortnlme.data.dataset import Dataset
from amortnlme.data.subject import TimeVarying
from amortnlme.methods.amortized import Amortized
from amortnlme.methods.fit import fit
from amortnlme.methods.population_fit import OFV_KINDS, PopulationFit
from amortnlme.model.registry import load_model
from amortnlme.population.bundled import load_bundled_population
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.posterior_draws import PosteriorDraws

PLAIN = load_bundled_population("theophylline_none")
QUICK = Amortized(starts=2, n_points=64, referee_points=64)


@pytest.fixture(scope="module")
def dataset():
    return load_bundled("theophylline")


@pytest.fixture(scope="module")
def draws(dataset):
    """Crude draws: normal around rough individual values; the likelihood does the rest."""
    model = load_model("one_compartment_oral")
    rng = np.random.default_rng(0)
    center = np.log([1.6, 0.087, 32.0, 0.7]) + rng.normal(size=(12, 1, 4)) * [0.4, 0.1, 0.1, 0.1]
    phi = center + rng.normal(size=(12, 200, 4)) * [0.3, 0.15, 0.15, 0.3]
    return PosteriorDraws(
        phi=phi,
        log_q=np.zeros(phi.shape[:2]),
        log_prior=model.prior.log_prob(phi.reshape(-1, 4)).reshape(phi.shape[:2]),
        subject_ids=dataset.ids,
        parameters=model.parameters,
        prior=model.prior,
        model_name=model.name,
        model_fingerprint=model.fingerprint,
        dataset_fingerprint=dataset.fingerprint,
        out_of_domain=(("a <script>alert(1)</script> reason",),) + ((),) * 11,
    )


@pytest.fixture(scope="module")
def result(draws, dataset):
    named = replace(PLAIN, name="<b>plain</b>")
    return fit(draws, named, QUICK, dataset=dataset, seed=2)


def _code(call) -> str:
    with pytest.raises(AmortNlmeError) as caught:
        call()
    return caught.value.code


def test_model_is_found_by_the_name_in_the_draws(result):
    assert result.status is FitStatus.CONVERGED
    assert result.model_name == "one_compartment_oral"
    assert result.ofv_kind == "importance_sampling"
    assert set(OFV_KINDS) >= {result.ofv_kind}


def test_criteria_follow_their_definitions(result):
    assert result.n_parameters == 7
    assert result.aic == pytest.approx(result.ofv + 14)
    assert result.bic == pytest.approx(result.ofv + 7 * np.log(12))
    # Three variances cost log(subjects); three typical values and the residual SD cost log(observations).
    assert result.bicc == pytest.approx(result.ofv + 3 * np.log(12) + 4 * np.log(120))
    assert result.ofv_nonmem == pytest.approx(result.ofv - 120 * np.log(2 * np.pi))


def test_dictionary_is_strict_json_with_a_version(result):
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (document["schema"], document["schema_version"]) == ("amortnlme.population_fit", 1)
    assert {row["name"] for row in document["estimates"]} == {
        *("ka", "ke", "V", "a"),
        *("omega_ka", "omega_ke", "omega_V"),
    }
    assert len(document["subjects"]) == 12
    assert document["status"]["is_success"] is True
    assert document["provenance"]["seed"] == 2


def test_every_key_of_the_dictionary_is_documented(result):
    from importlib.resources import files

    text = files("amortnlme.methods").joinpath("schema.md").read_text(encoding="utf-8")
    document = result.to_dict()
    for key, value in document.items():
        assert f"`{key}`" in text
        inner = value if isinstance(value, dict) else value[0] if isinstance(value, list) and value else {}
        for name in (
            inner if isinstance(inner, dict) and key not in ("sigma", "seconds", "provenance") else ()
        ):
            assert f"`{name}`" in text, (key, name)


def test_notebook_form_escapes_what_users_wrote(result):
    page = result._repr_html_()
    assert "<script>" not in page and "<b>plain</b>" not in page
    assert "&lt;b&gt;plain&lt;/b&gt;" in page and "&lt;script&gt;" in page


def test_tables_have_one_row_per_estimate_and_per_subject(result):
    table = result.table()
    assert list(table.index) == [row.name for row in result.estimates]
    assert table.loc["ka", "value"] == result.estimate("ka").value
    assert list(result.individual_table().index) == list(result.individuals.ids)
    with pytest.raises(KeyError, match="omega_ka"):
        result.estimate("CL")


def test_file_round_trip_keeps_everything(result, tmp_path):
    result.save(tmp_path / "fit.h5")
    back = PopulationFit.load(tmp_path / "fit.h5")
    assert back.to_dict() == result.to_dict()
    assert back.population == result.population
    np.testing.assert_array_equal(back.covariance, result.covariance)
    assert _code(lambda: PopulationFit.load(tmp_path / "absent.h5")) == "E_H5_MISSING"


def test_draws_file_is_not_taken_for_a_fit(draws, tmp_path):
    draws.save(tmp_path / "draws.h5")
    with pytest.raises(ArtefactError) as caught:
        PopulationFit.load(tmp_path / "draws.h5")
    assert caught.value.code == "E_H5_KIND"


def test_result_arrays_are_read_only(result):
    for array in (result.x, result.omega, result.individuals.ebe_phi, result.quality.ess):
        assert not array.flags.writeable


def test_out_of_domain_subjects_are_warned_about(result):
    assert any(text.startswith("[W_DRAWS_OUT_OF_DOMAIN]") for text in result.warnings)


def test_seed_is_all_that_randomness_depends_on(draws, dataset, result):
    again = fit(draws, result.population, QUICK, dataset=dataset, seed=2)
    assert again.x.tobytes() == result.x.tobytes() and again.ofv == result.ofv


def test_occasions_are_refused_for_posterior_draws(draws, dataset):
    population = PopulationModel(
        random_effects=RandomEffects(on=("ka", "ke", "V")), occasion_effects=RandomEffects(on=("ke",))
    )
    assert _code(lambda: fit(draws, population, dataset=dataset)) == "E_FIT_OCCASIONS"


def test_a_fixed_typical_value_is_kept_by_the_amortized_fit(draws, dataset, result):
    population = PopulationModel(random_effects=result.population.random_effects, fixed={"a": 0.7})
    fixed = fit(draws, population, QUICK, dataset=dataset, seed=2)
    assert fixed.status.is_success, fixed.warnings
    assert fixed.estimate("a").value == pytest.approx(0.7, rel=1e-12)
    assert fixed.n_parameters == result.n_parameters - 1
    # A maximum over fewer parameters is no larger, up to the Monte-Carlo error of both.
    assert fixed.ofv > result.ofv - 4.5 * np.hypot(fixed.ofv_se, result.ofv_se)


def test_draws_alone_give_the_surrogate_with_a_warning(draws):
    alone = fit(draws, PLAIN, QUICK)
    assert alone.ofv_kind == "surrogate" and np.isnan(alone.ofv_se) and np.isnan(alone.bicc)
    assert any(text.startswith("[W_FIT_UNCORRECTED]") for text in alone.warnings)


@pytest.fixture(scope="module")
def narrow(dataset):
    """Draws of a bad network, with their density: too narrow, shifted, and the same for every patient."""
    model = load_model("one_compartment_oral")
    center, sd = np.log([1.6, 0.087, 32.0, 0.7]), np.array([0.4, 0.15, 0.12, 0.35])
    z = np.random.default_rng(3).standard_normal((12, 1000, 4))
    phi = center + z * sd
    log_q = -0.5 * (z**2).sum(axis=-1) - np.log(sd).sum() - 2.0 * np.log(2.0 * np.pi)
    return PosteriorDraws(
        phi=phi,
        log_q=log_q,
        log_prior=model.prior.log_prob(phi),
        subject_ids=dataset.ids,
        parameters=model.parameters,
        prior=model.prior,
        model_name=model.name,
        model_fingerprint=model.fingerprint,
        dataset_fingerprint=dataset.fingerprint,
    )


def test_corrected_draws_bring_the_surrogate_near_the_likelihood(narrow, dataset, result):
    """What is left is the error of the refit, below a standard error; raw draws are off by several.

    Most of it is in the pooled SD, in which the errors of all subjects add up.
    """
    fits = {
        word: fit(narrow, PLAIN, replace(QUICK, correction=word), dataset=dataset, seed=3)
        for word in ("none", "draws")
    }
    assert result.covariance is not None
    se = np.sqrt(np.diagonal(result.covariance))
    off = {word: np.abs(found.x - result.x) / se for word, found in fits.items()}
    assert off["draws"].max() < 1.0 and off["none"].max() > 2.0, off
    assert fits["draws"].method == "amortized (draws correction)"
    assert not any("W_FIT_DRAWS_UNCORRECTED" in text for text in fits["draws"].warnings)


def test_draws_cannot_be_corrected_without_the_data(narrow):
    code = _code(lambda: fit(narrow, PLAIN, replace(QUICK, correction="draws")))
    assert code == "E_FIT_CAPABILITY"


@pytest.mark.parametrize(
    ("structure", "on"),
    [((("ke", "V"),), ("ka", "ke", "V")), ("diagonal", ("ka",)), ("full", ("ka", "V", "a"))],
)
def test_other_random_effects_are_fitted_too(draws, dataset, structure, on):
    population = PopulationModel(random_effects=RandomEffects(on, structure))
    found = fit(draws, population, Amortized(starts=2, referee_points=64), dataset=dataset)
    assert found.status.is_success, found.warnings
    pooled = [k for k, name in enumerate(found.parameter_names) if name not in on]
    assert (found.omega[pooled] == 0).all()


def test_wrong_input_is_refused_with_a_code(draws, dataset):
    model = load_model("one_compartment_oral")
    weight = PopulationModel(
        random_effects=RandomEffects(("ka",)), covariates=(CovariateEffect("V", "weight"),)
    )
    height = PopulationModel(
        random_effects=RandomEffects(("ka",)), covariates=(CovariateEffect("V", "height"),)
    )
    foreign = PopulationModel(random_effects=RandomEffects(("CL",)))
    few = replace(draws, phi=draws.phi[:, :20], log_q=draws.log_q[:, :20], log_prior=draws.log_prior[:, :20])
    flat_phi = draws.phi.copy()
    flat_phi[3, :, 1] = -2.0
    sex = PopulationModel(random_effects=RandomEffects(("ka",)), covariates=(CovariateEffect("V", "sex"),))
    cases = {
        "E_FIT_ARGUMENT": [
            lambda: fit(draws, "theophylline_none"),
            lambda: fit(draws, PLAIN, "amortized"),
            lambda: fit(draws.phi, PLAIN),
            lambda: fit(draws, PLAIN, dataset="theophylline"),
        ],
        "E_FIT_NEEDS_DRAWS": [lambda: fit(dataset, PLAIN)],
        "E_FIT_NEEDS_DATASET": [lambda: fit(draws, weight)],
        "E_FIT_CAPABILITY": [
            lambda: fit(draws, PLAIN, Amortized(correction="likelihood")),
            lambda: fit(draws, PLAIN, Amortized(correction="density"), dataset=dataset),
        ],
        "E_FIT_TOO_FEW_SUBJECTS": [lambda: fit(draws.select(["1"]), PLAIN)],
        "E_FIT_OPTION": [
            lambda: Amortized(correction="laplace"),
            lambda: Amortized(n_points=1),
            lambda: Amortized(starts=2.5),
            lambda: Amortized(tolerance=0.0),
        ],
        "E_DRAWS_TOO_FEW": [lambda: fit(few, PLAIN)],
        "E_DRAWS_DEGENERATE": [lambda: fit(replace(draws, phi=flat_phi), PLAIN)],
        "E_DRAWS_OTHER_DATASET": [
            lambda: fit(draws, PLAIN, dataset=dataset.select(dataset.ids[:5])),
            lambda: fit(replace(draws, dataset_fingerprint="sha256:0"), PLAIN, dataset=dataset),
        ],
        "E_DRAWS_OTHER_MODEL": [
            lambda: fit(replace(draws, model_fingerprint="sha256:0"), PLAIN, dataset=dataset, model=model),
        ],
        "E_POP_UNKNOWN_PARAMETER": [lambda: fit(draws, foreign, dataset=dataset)],
        "E_POP_COVARIATE_MISSING": [lambda: fit(draws, height, dataset=dataset)],
        "E_POP_COVARIATE_NON_POSITIVE": [lambda: fit(draws, sex, dataset=dataset)],
    }
    for code, calls in cases.items():
        for number, call in enumerate(calls):
            assert _code(call) == code, (code, number)


def test_data_far_from_the_draws_do_not_raise(draws, dataset):
    """Draws in a hopeless place: the fit still ends with a status and finite or missing numbers."""
    phi = draws.phi + np.array([0.0, 3.0, -3.0, 0.0])
    lost = replace(draws, phi=phi, log_prior=draws.prior.log_prob(phi.reshape(-1, 4)).reshape(phi.shape[:2]))
    found = fit(lost, PLAIN, QUICK, dataset=dataset)
    assert found.status in tuple(FitStatus)
    json.dumps(found.to_dict(), allow_nan=False)


def test_nonmem_constant_counts_quantified_observations_only(result):
    censored = replace(result, n_censored=20)
    assert censored.ofv_nonmem == pytest.approx(result.ofv - 100 * np.log(2 * np.pi))


def test_censored_observations_are_counted_and_survive_the_file(draws, dataset, tmp_path):
    first = dataset.subjects[0]
    below = replace(first, censoring=np.r_[np.zeros(9, np.int8), np.int8(1)])
    study = Dataset((below, *dataset.subjects[1:]))
    fitted = fit(replace(draws, dataset_fingerprint=""), PLAIN, QUICK, dataset=study, seed=2)
    assert (fitted.n_observations, fitted.n_censored) == (120, 1)
    fitted.save(tmp_path / "fit.h5")
    assert PopulationFit.load(tmp_path / "fit.h5").ofv_nonmem == fitted.ofv_nonmem


def test_coefficient_of_variation_is_given_for_log_normal_parameters_only(result):
    omega = result.to_dict()["omega"]
    expected = 100 * np.sqrt(np.expm1(np.diagonal(result.omega)[:3]))
    np.testing.assert_allclose(omega["cv_percent"], expected)
    rows = tuple(replace(e, value=np.log(e.value)) if e.name == "ke" else e for e in result.estimates)
    identity = replace(result, estimates=rows).to_dict()["omega"]["cv_percent"]
    assert identity[1] is None and identity[0] == omega["cv_percent"][0]


def test_draws_without_variation_in_some_direction_are_refused(draws):
    constant, dependent = draws.phi.copy(), draws.phi.copy()
    constant[2, :, 1] = 0.1  # whose standard deviation is 1e-17, not 0
    dependent[2, :, 1] = dependent[2, :, 0]
    for phi in (constant, dependent):
        assert _code(lambda phi=phi: fit(replace(draws, phi=phi), PLAIN)) == "E_DRAWS_DEGENERATE"


def test_draws_far_beyond_the_prior_are_no_traceback(draws):
    far = replace(draws, phi=draws.phi + 50.0)
    fitted = fit(far, PLAIN, replace(QUICK, correction="none"))
    assert any("W_FIT_AT_LIMIT" in text for text in fitted.warnings)


def test_covariate_that_changes_within_subjects_is_used_at_its_first_value_and_said_so(draws, dataset):
    subjects = [
        replace(s, covariates={"wt": TimeVarying(s.covariates["weight"] + np.arange(s.design.n_records))})
        for s in dataset.subjects
    ]
    population = PopulationModel(
        random_effects=RandomEffects(on=("ka", "ke", "V")), covariates=(CovariateEffect("V", "wt"),)
    )
    plain = replace(draws, dataset_fingerprint="")
    method = replace(QUICK, correction="none")
    fitted = fit(plain, population, method, dataset=Dataset(tuple(subjects)))
    assert any("W_FIT_COVARIATE_BASELINE" in text for text in fitted.warnings)
    constant = replace(population, covariates=(CovariateEffect("V", "weight"),))
    reference = fit(plain, constant, method, dataset=dataset)
    assert not any("W_FIT_COVARIATE_BASELINE" in text for text in reference.warnings)
    np.testing.assert_array_equal(fitted.x, reference.x)


def test_fit_warns_when_its_own_monte_carlo_error_matters(draws, dataset):
    spread = replace(PLAIN, name="all vary", random_effects=RandomEffects(on=("ka", "ke", "V", "a")))
    few = fit(draws, spread, replace(QUICK, n_points=32), dataset=dataset, seed=2)
    enough = fit(draws, PLAIN, replace(QUICK, n_points=512), dataset=dataset, seed=2)
    assert few.covariance is not None and few.quality.mc_se is not None
    share = few.quality.mc_se / np.sqrt(np.diagonal(few.covariance))
    assert any("W_FIT_MC_ERROR" in warning for warning in few.warnings) == bool(share.max() > 0.1)
    assert share.max() > 0.1
    assert not any("W_FIT_MC_ERROR" in warning for warning in enough.warnings)
