"""Likelihood, gradient and information of a model bound to data."""

import numpy as np
import pytest
from amortnlme.simulators.one_compartment_oral import MODEL as ORAL
from numpy.testing import assert_allclose
from scipy import stats
from unit.model.example_models import one_state, two_output_model

from amortnlme.core.errors import ModelError
from amortnlme.core.rng import stream
from amortnlme.data.bundled import load_bundled
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.subject import Subject
from amortnlme.model import bound as bound_module


def ragged_dataset(model, censored=False):
    """Three subjects of two outputs, different lengths, a missing value, censored values on demand."""
    rng = stream(11)
    subjects = []
    for i, m in enumerate((4, 7, 2)):
        times = np.sort(rng.uniform(0.3, 20, m))
        design = Design.from_doses(
            [Dose(0, 100.0), Dose(6.0, 50.0, duration=2.0)], times, outputs=rng.integers(1, 3, m).tolist()
        )
        y = model.simulate(model.parameters.typical_phi[None], design, {"weight": 60.0 + i}, rng).y[0]
        observed, censoring, limit = np.ones(m, bool), np.zeros(m, np.int8), np.full(m, np.nan)
        observed[1] = i != 1
        if censored:
            censoring[0], censoring[-1] = 1, -1
            limit[0] = y[0] - 0.5 if i else np.nan
        subject = Subject(
            id=str(i), design=design, y=y, observed=observed, censoring=censoring, limit=limit,
            occasion=np.ones(design.n_records, np.int32), covariates={"weight": 60.0 + i},
        )  # fmt: skip
        subjects.append(subject)
    return Dataset(subjects=tuple(subjects))


def draws(model, S, M, seed=3):
    return model.prior.sample(S * M, np.random.default_rng(seed)).reshape(S, M, model.d)


@pytest.mark.parametrize("censored", [False, True])
def test_log_likelihood_sums_the_observed_rows_only(censored):
    model = two_output_model()
    data = ragged_dataset(model, censored)
    phi = draws(model, 3, 5)
    found = model.bind(data).log_likelihood(phi)
    for i, subject in enumerate(data.subjects):
        f = model.predict(phi[i], subject.design, {"weight": subject.covariate_values("weight")}).f
        psi = model.parameters.to_psi(phi[i])
        total = np.zeros(5)
        for j in np.flatnonzero(subject.observed):
            o = int(subject.design.observation_outputs[j]) - 1
            sd = np.hypot(psi[:, 4], psi[:, 5] * f[:, j]) if o == 0 else psi[:, 6]
            normal = stats.norm(f[:, j], sd)
            if subject.censoring[j] == 0:
                total += normal.logpdf(subject.y[j])
            elif subject.censoring[j] < 0:
                total += normal.logsf(subject.y[j])
            elif np.isnan(subject.limit[j]):
                total += normal.logcdf(subject.y[j])
            else:
                total += np.log(normal.cdf(subject.y[j]) - normal.cdf(subject.limit[j]))
        assert_allclose(found[i], total, rtol=1e-10)
        assert_allclose(model.log_likelihood(phi[i], subject), found[i], rtol=1e-14)


@pytest.mark.parametrize("convention", ["variance", "sd"])
@pytest.mark.parametrize("censored", [False, True])
def test_gradient_agrees_with_extrapolated_differences(censored, convention):
    model = two_output_model(convention)
    bound = model.bind(ragged_dataset(model, censored))
    phi = draws(model, 3, 4)
    ll, gradient = bound.log_likelihood_and_gradient(phi)
    assert_allclose(ll, bound.log_likelihood(phi), rtol=1e-14)
    for j in range(model.d):

        def difference(h, j=j):
            e = np.eye(model.d)[j] * h
            return (bound.log_likelihood(phi + e) - bound.log_likelihood(phi - e)) / (2 * h)

        numeric = (4 * difference(5e-4) - difference(1e-3)) / 3
        assert_allclose(gradient[..., j], numeric, rtol=1e-6, atol=1e-7)


def test_information_is_the_variance_of_the_score():
    """Null: Cov(score) = information at the true phi. n = 20 000; each entry within 5 of its SEs."""
    model = two_output_model()
    data = ragged_dataset(model)
    subject = data.subjects[0]
    phi = model.parameters.typical_phi[None]
    _, _, information = model.bind(Dataset(subjects=(subject,))).gauss_newton(phi)
    n = 20_000
    rng = stream(5)
    y = model.simulate(np.repeat(phi, n, axis=0), subject.design, {"weight": 60.0}, rng).y
    found = model.predict_with_sensitivity(phi, subject.design, {"weight": 60.0})
    assert found.df_dphi is not None
    psi = model.parameters.to_psi(phi)
    scores = np.zeros((n, model.d))
    for o, (error_model, columns) in enumerate(
        zip(model.program.error_models, model.program.sigma_columns, strict=True)
    ):
        at = np.flatnonzero(subject.design.observation_outputs == o + 1)
        f = np.broadcast_to(found.f[:, at], (n, at.size))
        _, df, ds = error_model.log_density_with_gradient(y[:, at], f, np.repeat(psi[:, columns], n, axis=0))
        scores += df @ found.df_dphi[0][at]
        for k, column in enumerate(columns):
            scores[:, column] += ds[..., k].sum(axis=1) * psi[0, column]
    products = scores[:, :, None] * scores[:, None, :]
    se = products.std(axis=0) / np.sqrt(n)
    assert (np.abs(products.mean(axis=0) - information[0]) <= 5 * se + 1e-12).all()


def test_information_of_censored_data_is_positive_semi_definite_and_gradient_is_that_of_the_likelihood():
    model = two_output_model()
    bound = model.bind(ragged_dataset(model, censored=True))
    phi = draws(model, 3, 1)[:, 0]
    ll, gradient, information = bound.gauss_newton(phi)
    reference = bound.log_likelihood_and_gradient(phi[:, None])
    assert_allclose(ll, reference[0][:, 0], rtol=1e-14)
    assert_allclose(gradient, reference[1][:, 0], rtol=1e-14)
    assert np.linalg.eigvalsh(information).min() > -1e-9


def test_failed_solve_has_minus_infinite_likelihood_and_zero_gradient():
    bound = ORAL.bind(load_bundled("theophylline"))
    phi = np.repeat(ORAL.parameters.typical_phi[None, None], 12, axis=0).repeat(3, axis=1)
    phi[0, 1, 0] = np.inf
    phi[3, 2, 2] = -800.0
    ll, gradient = bound.log_likelihood_and_gradient(phi)
    bad = np.zeros((12, 3), bool)
    bad[0, 1] = bad[3, 2] = True
    assert (np.isneginf(ll) == bad).all()
    assert (gradient[bad] == 0.0).all() and np.isfinite(gradient).all()
    assert (np.isneginf(bound.log_likelihood(phi)) == bad).all()


def test_theophylline_likelihood_is_that_of_the_bateman_function():
    data = load_bundled("theophylline")
    bound = ORAL.bind(data)
    phi = draws(ORAL, 12, 50)
    found = bound.log_likelihood(phi)
    ka, ke, V, a = np.moveaxis(np.exp(phi), -1, 0)[..., None]
    for i, subject in enumerate(data.subjects):
        t, dose = subject.design.observation_times, subject.design.first_dose_amount
        with np.errstate(all="ignore"):
            f = dose * ka[i] / (V[i] * (ka[i] - ke[i])) * (np.exp(-ke[i] * t) - np.exp(-ka[i] * t))
        exact = stats.norm.logpdf(subject.y, f, a[i]).sum(axis=1)
        # The naive formula itself cancels when ka is near ke.
        apart = np.abs(ka[i] / ke[i] - 1.0)[:, 0] > 1e-3
        assert_allclose(found[i][apart], exact[apart], rtol=1e-9)


def test_chunks_change_nothing(monkeypatch):
    model = two_output_model()
    bound = model.bind(ragged_dataset(model))
    phi = draws(model, 3, 11)
    whole = bound.log_likelihood_and_gradient(phi)
    f, slopes, status = bound.predict_with_sensitivity(phi)
    monkeypatch.setattr(bound_module, "CHUNK_ROWS", 7)
    parts = bound.log_likelihood_and_gradient(phi)
    for one, other in zip(whole, parts, strict=True):
        assert one.tobytes() == other.tobytes()
    again = bound.predict_with_sensitivity(phi)
    assert [a.tobytes() for a in again] == [f.tobytes(), slopes.tobytes(), status.tobytes()]
    assert bound.predict(phi)[0].tobytes() == f.tobytes()


def test_bound_model_refuses_phi_of_another_shape():
    bound = one_state().bind(
        Dataset(
            subjects=(Subject.from_observations("x", Design.from_doses([Dose(0, 1)], [1.0]), np.ones(1)),)
        )
    )
    with pytest.raises(ModelError) as caught:
        bound.log_likelihood(np.zeros((2, 3, 2)))
    assert caught.value.code == "E_MODEL_PHI_SHAPE"
