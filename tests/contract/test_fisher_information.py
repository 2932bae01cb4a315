"""Fisher information of SAEM by Louis' method and by linearization, against exact information matrices.

On a linear mixed model the likelihood is closed-form: its observed information (differences of the exact
likelihood) is what Louis' method estimates, and its expected information is what the linearized model has.
"""

from dataclasses import replace

import numpy as np
import pytest
from contract.linear_mixed_model import exact_log_likelihood, line, linear_study

from amortnlme.core.errors import CapabilityError, UsageError
from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.data.dataset import Dataset
from amortnlme.methods.classical import Focei
from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.fit import fit
from amortnlme.methods.linearization import linearized_covariance
from amortnlme.methods.louis import louis_covariance, louis_information
from amortnlme.methods.saem import Saem
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel

STUDY, MODEL = linear_study(), line()
BOUND = MODEL.bind(STUDY.dataset)
SHORT = {"n_exploration": 50, "max_exploration": 50, "n_averaging": 20, "referee_points": 64}
#: t with 7 degrees of freedom (8 batches), two-sided at 1e-4.
T_LIMIT = 7.9


def _case(on: tuple[str, ...], structure: str):
    """Population, its packed parameters at a point off the optimum, and (mu, beta, omega, a) from them."""
    population = PopulationModel(
        random_effects=RandomEffects(on, structure), covariates=(CovariateEffect("s", "w"),)
    )
    joined = population.bind(STUDY.dataset.covariate_table(), MODEL.parameters)
    named = {
        "theta_m": 1.1,
        "theta_s": 0.4,
        "theta_a": np.log(0.45),
        "beta_s_w": 0.6,
        "chol_m": 0.9,
        "chol_s_m": 0.2,
        "chol_s": 0.6,
    }
    return population, joined, np.array([named[name] for name in joined.names])


CASES = {
    "full": (("m", "s"), "full"),
    "diagonal": (("m", "s"), "diagonal"),
    "slope pooled": (("m",), "diagonal"),
}


def _pieces(joined, x):
    value = dict(zip(joined.names, x, strict=True))
    root = np.array([[value["chol_m"], 0.0], [value.get("chol_s_m", 0.0), value.get("chol_s", 0.0)]])
    mu = np.array([value["theta_m"], value["theta_s"]])
    return mu, value["beta_s_w"], root @ root.T, float(np.exp(value["theta_a"]))


def _exact(joined, x) -> float:
    return float(exact_log_likelihood(STUDY, *_pieces(joined, x)).sum())


def _observed(joined, x) -> np.ndarray:
    """Observed information of the exact likelihood: differences of fourth order, right to about 1e-6."""
    h, p = 2e-3, len(x)
    near, far = np.eye(p) * h, 2.0 * np.eye(p) * h

    def corner(i, j, step):
        signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
        return sum(s * q * _exact(joined, x + s * step[i] + q * step[j]) for s, q in signs)

    def second(i, j):
        return (16 * corner(i, j, near) - corner(i, j, far)) / (48 * h * h)

    return -np.array([[second(i, j) for j in range(p)] for i in range(p)])


def _expected(joined, x) -> np.ndarray:
    """Expected information of y_i ~ N(X mu, X omega X' + a^2 I), from differences of its moments."""
    h, p = 1e-5, len(x)
    total = np.zeros((p, p))
    for i, t in enumerate(STUDY.times):
        X = np.column_stack([np.ones_like(t), t])
        log_weight = np.log(STUDY.weight[i] / STUDY.weight.mean())

        def moments(point, X=X, log_weight=log_weight):
            mu, beta, omega, a = _pieces(joined, point)
            return X @ (mu + np.array([0.0, beta * log_weight])), X @ omega @ X.T + a**2 * np.eye(len(X))

        inverse = np.linalg.inv(moments(x)[1])
        moved = [(moments(x + h * e), moments(x - h * e)) for e in np.eye(p)]
        dm = [(up[0] - down[0]) / (2 * h) for up, down in moved]
        dV = [(up[1] - down[1]) / (2 * h) for up, down in moved]
        for k in range(p):
            for m in range(p):
                total[k, m] += dm[k] @ inverse @ dm[m]
                total[k, m] += 0.5 * np.trace(inverse @ dV[k] @ inverse @ dV[m])
    return total


@pytest.mark.parametrize("name", CASES)
def test_louis_information_is_the_exact_observed_information_within_its_error(name):
    """Null: no bias. Entries in units of the exact information's diagonal; error from the batches."""
    _, joined, x = _case(*CASES[name])
    found = louis_information(BOUND, joined, x, find_ebe(BOUND, *joined.unpack(x)), stream(1, 1), 512)
    exact = _observed(joined, x)
    size = np.sqrt(np.diagonal(exact))
    error = found.batches.std(axis=0, ddof=1) / np.sqrt(len(found.batches))
    gap, noise = np.abs(found.total - exact) / np.outer(size, size), error / np.outer(size, size)
    # Differences of the reference are right to 1e-5; 49 entries share the false-alarm rate of one at 1e-4.
    assert (gap < 14.0 * noise + 1e-5).all()
    assert noise.max() < 0.05


@pytest.mark.parametrize("name", CASES)
def test_louis_standard_errors_are_exact_within_their_stated_error(name):
    _, joined, x = _case(*CASES[name])
    modes = find_ebe(BOUND, *joined.unpack(x))
    information = louis_information(BOUND, joined, x, modes, stream(1, 2), 512)
    covariance = np.linalg.inv(information.total)
    exact = np.sqrt(np.diagonal(np.linalg.inv(_observed(joined, x))))
    error = information.error_of_se(covariance)
    assert (np.abs(np.sqrt(np.diagonal(covariance)) - exact) < T_LIMIT * error + 1e-5 * exact).all()
    assert (error < 0.03 * exact).all()


def test_louis_warns_when_its_monte_carlo_error_is_large():
    """With noisy data most of the complete-data information is missing, and 16 nodes are too few."""
    _, joined, x = _case(*CASES["full"])
    noisy = x.copy()
    noisy[joined.names.index("theta_a")] = np.log(3.0)
    modes = find_ebe(BOUND, *joined.unpack(noisy))
    covariance, (text,) = louis_covariance(BOUND, joined, noisy, modes, stream(1, 3), 16)
    assert covariance is not None
    assert text.startswith("[W_FIT_LOUIS] the Monte-Carlo error of the standard error of chol_")
    assert louis_covariance(BOUND, joined, noisy, modes, stream(1, 3), 256)[1] == []


def test_louis_says_why_when_omega_is_singular():
    _, joined, x = _case(*CASES["full"])
    flat = x.copy()
    flat[joined.names.index("chol_s")] = 0.0
    modes = find_ebe(BOUND, *joined.unpack(flat))
    covariance, (text,) = louis_covariance(BOUND, joined, flat, modes, stream(1, 4), 64)
    assert covariance is None
    assert "omega is singular" in text


@pytest.mark.parametrize("name", CASES)
def test_linearization_is_the_exact_expected_information_when_the_model_is_linear(name):
    _, joined, x = _case(*CASES[name])
    modes = find_ebe(BOUND, *joined.unpack(x))
    covariance, warnings = linearized_covariance(BOUND, joined, x, modes.phi)
    assert warnings == []
    exact = np.linalg.inv(_expected(joined, x))
    sd = np.sqrt(np.diagonal(exact))
    # The reference differences moments: right to 1e-9 of their size, times the condition of the matrix.
    np.testing.assert_allclose(covariance / np.outer(sd, sd), exact / np.outer(sd, sd), atol=1e-6)


def test_saem_gives_the_standard_errors_it_is_asked_for():
    """One run of the chains, three kinds of standard errors: only the covariance differs."""
    population, joined, _ = _case(*CASES["diagonal"])
    fits = {
        kind: fit(STUDY.dataset, population, Saem(**SHORT, standard_errors=kind), model=MODEL)
        for kind in ("importance", "louis", "linearization")
    }
    first = fits["importance"]
    assert all(f.x.tobytes() == first.x.tobytes() for f in fits.values())
    assert all(f.status is not FitStatus.FAILED for f in fits.values())
    se = {kind: np.sqrt(np.diagonal(f.covariance)) for kind, f in fits.items()}
    exact = np.sqrt(np.diagonal(np.linalg.inv(_observed(joined, first.x))))
    expected = np.sqrt(np.diagonal(np.linalg.inv(_expected(joined, first.x))))
    # Importance sampling: differences of 0.02 SE, right to (0.02)^2 of third derivatives, and 128 nodes.
    np.testing.assert_allclose(se["importance"], exact, rtol=0.03)
    # Louis: its warning is absent, so that its error is below a tenth.
    assert not any("W_FIT_LOUIS" in text for text in fits["louis"].warnings)
    np.testing.assert_allclose(se["louis"], exact, rtol=0.1)
    np.testing.assert_allclose(se["linearization"], expected, rtol=1e-6)


def test_maximizing_methods_offer_linearization_too():
    population, joined, _ = _case(*CASES["full"])
    result = fit(
        STUDY.dataset, population, Focei(standard_errors="linearization", referee_points=0), model=MODEL
    )
    exact = np.sqrt(np.diagonal(np.linalg.inv(_expected(joined, result.x))))
    np.testing.assert_allclose(np.sqrt(np.diagonal(result.covariance)), exact, rtol=1e-6)


@pytest.mark.parametrize(
    "method", [Saem(standard_errors="linearization"), Focei(standard_errors="linearization")]
)
def test_linearization_refuses_what_it_cannot_express_before_the_fit(method):
    first = STUDY.dataset.subjects[0]
    censoring = np.zeros(first.design.n_observations, np.int8)
    censoring[-1] = 1
    censored = Dataset((replace(first, censoring=censoring), *STUDY.dataset.subjects[1:]))
    with pytest.raises(CapabilityError) as caught:
        fit(censored, _case(*CASES["full"])[0], method, model=MODEL)
    assert caught.value.code == "E_FIT_CENSORED"
    varying = PopulationModel(random_effects=RandomEffects(("m", "a")))
    with pytest.raises(CapabilityError, match="'a'") as caught:
        fit(STUDY.dataset, varying, method, model=MODEL)
    assert caught.value.code == "E_FIT_LINEARIZATION"


def test_methods_name_their_kinds_when_another_one_is_asked_for():
    for make in (Saem, Focei):
        with pytest.raises(UsageError, match="linearization") as caught:
            make(standard_errors="bootstrap")
        assert caught.value.code == "E_FIT_OPTION"
