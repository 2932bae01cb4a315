"""Population models: packing, derivatives, descriptions and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from unit.population.spaces import SPACE, TABLE

from amortnlme.core.errors import PopulationError
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel

FULL = PopulationModel(
    random_effects=RandomEffects(("ka", "ke", "V"), (("ke", "V"),)),
    covariates=(
        CovariateEffect("V", "weight"),
        CovariateEffect("V", "age", "linear"),
        CovariateEffect("ka", "weight"),
    ),
    name="blocks",
)


def _x(bound, seed=0):
    x = np.random.default_rng(seed).normal(size=bound.n_x) * 0.3
    x[bound.chol_diagonal] = np.abs(x[bound.chol_diagonal]) + 0.2
    return x


def test_packed_vector_is_named_in_a_fixed_order():
    bound = FULL.bind(TABLE, SPACE)
    assert bound.names == (
        *("theta_ka", "theta_ke", "theta_V", "theta_a"),
        *("beta_V_weight", "beta_V_age", "beta_ka_weight"),
        *("chol_ka", "chol_ke", "chol_V_ke", "chol_V"),
    )
    assert [bound.names[k] for k in bound.chol_diagonal] == ["chol_ka", "chol_ke", "chol_V"]


def test_pooled_parameters_have_exactly_zero_rows():
    bound = FULL.bind(TABLE, SPACE)
    x = _x(bound)
    assert (bound.unpack(x)[1][3] == 0).all()
    assert (bound.omega(x)[3] == 0).all() and (bound.omega(x)[:, 3] == 0).all()
    assert bound.pooled_index.tolist() == [3]


def test_covariance_is_zero_between_blocks_only():
    bound = FULL.bind(TABLE, SPACE)
    omega = bound.omega(_x(bound))
    assert omega[0, 1] == 0 and omega[0, 2] == 0 and omega[1, 2] != 0


def test_typical_parameters_follow_the_covariates():
    bound = FULL.bind(TABLE, SPACE)
    x = _x(bound)
    mu, _ = bound.unpack(x)
    weight, age = TABLE["weight"].to_numpy(), TABLE["age"].to_numpy()
    expected = x[2] + x[4] * np.log(weight / weight.mean()) + x[5] * (age - age.mean())
    np.testing.assert_allclose(mu[:, 2], expected)
    np.testing.assert_allclose(mu[:, 1], x[1])


def test_pullback_is_the_derivative_of_unpack():
    bound = FULL.bind(TABLE, SPACE)
    x, rng = _x(bound), np.random.default_rng(1)
    wmu, wl = rng.normal(size=(6, 4)), rng.normal(size=(4, 3))

    def scalar(v):
        mu, factor = bound.unpack(v)
        return (wmu * mu).sum() + (wl * factor).sum()

    numeric = [(scalar(x + h) - scalar(x - h)) / 2e-6 for h in 1e-6 * np.eye(bound.n_x)]
    np.testing.assert_allclose(bound.pullback(wmu, wl, x), numeric, atol=1e-8)
    per_subject = bound.pullback(wmu, np.tile(wl / 6, (6, 1, 1)), x)
    np.testing.assert_allclose(per_subject.sum(axis=0), bound.pullback(wmu, wl, x), atol=1e-12)


def test_folding_signs_leaves_the_covariance_alone():
    bound = FULL.bind(TABLE, SPACE)
    x = _x(bound)
    flipped = x.copy()
    flipped[-3:-1] *= -1  # the column of ke: its own entry and that of V
    folded = bound.fold_signs(flipped)
    np.testing.assert_allclose(bound.omega(flipped), bound.omega(x))
    np.testing.assert_allclose(folded, x)


@pytest.mark.parametrize("seed", range(3))
def test_standard_errors_follow_the_delta_method(seed):
    bound = FULL.bind(TABLE, SPACE)
    x, rng = _x(bound, seed), np.random.default_rng(seed)
    root = 0.05 * rng.normal(size=(bound.n_x, bound.n_x))
    covariance = root @ root.T

    def natural(v):
        return np.array([row.value for row in bound.describe(v, None)])

    jacobian = np.stack([(natural(x + h) - natural(x - h)) / 2e-6 for h in 1e-6 * np.eye(bound.n_x)], axis=1)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", jacobian, covariance, jacobian))
    rows = bound.describe(x, covariance)
    np.testing.assert_allclose([row.se for row in rows], expected, rtol=1e-5)
    for row in rows:
        assert row.ci_low < row.value < row.ci_high
        assert row.rse_percent == pytest.approx(100 * row.se / abs(row.value))


def test_description_names_kinds_units_and_has_no_uncertainty_without_covariance():
    bound = FULL.bind(TABLE, SPACE)
    rows = {row.name: row for row in bound.describe(_x(bound), None)}
    assert rows["ka"].kind == "theta" and rows["ka"].unit == "1/h" and rows["ka"].scale == "natural"
    assert rows["a"].kind == "sigma" and rows["a"].unit == "mg/L"
    assert rows["beta_V_weight"].kind == "beta"
    assert rows["omega_V"].kind == "omega_sd"
    assert rows["corr_ke_V"].kind == "omega_corr"
    assert all(row.se is None and row.ci_low is None and row.rse_percent is None for row in rows.values())


def test_intervals_of_positive_parameters_stay_positive():
    bound = FULL.bind(TABLE, SPACE)
    rows = bound.describe(_x(bound), 4.0 * np.eye(bound.n_x))
    assert all(row.ci_low > 0 for row in rows if row.kind in ("theta", "sigma", "omega_sd"))
    assert all(row.ci_low >= -1 and row.ci_high <= 1 for row in rows if row.kind == "omega_corr")


def _model(**changes):
    settings = {"random_effects": RandomEffects(("ka", "V")), "covariates": ()} | changes
    return PopulationModel(**settings)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"random_effects": RandomEffects(("CL",))}, "E_POP_UNKNOWN_PARAMETER"),
        ({"covariates": (CovariateEffect("CL", "weight"),)}, "E_POP_UNKNOWN_PARAMETER"),
        ({"covariates": (CovariateEffect("V", "height"),)}, "E_POP_COVARIATE_MISSING"),
        (
            {"covariates": (CovariateEffect("V", "weight"), CovariateEffect("V", "twin", "log"))},
            "E_POP_COVARIATE_COLLINEAR",
        ),
    ],
)
def test_bind_refuses_what_the_data_or_the_model_do_not_have(changes, code):
    table = TABLE.assign(twin=2.0 * TABLE["weight"])
    with pytest.raises(PopulationError) as caught:
        _model(**changes).bind(table, SPACE)
    assert caught.value.code == code


def test_duplicate_effects_are_refused():
    with pytest.raises(PopulationError) as caught:
        _model(covariates=(CovariateEffect("V", "weight"), CovariateEffect("V", "weight", "linear")))
    assert caught.value.code == "E_POP_COVARIATE_DUPLICATE"


def test_unknown_names_are_refused_at_once_where_the_parameters_are_given():
    with pytest.raises(PopulationError) as caught:
        _model(random_effects=RandomEffects(("CL",)), parameters=SPACE)
    assert caught.value.code == "E_POP_UNKNOWN_PARAMETER"


def _with_occasions():
    """Two occasions of ke and V, V's typical value given; a subject may have one occasion only."""
    space = ParameterSpace(
        (
            *SPACE.parameters,
            *(
                Parameter(f"kappa_{name}_{k}", "1", "identity", 0.0)
                for k in (1, 2)
                for name in ("ke", "V")
            ),
        )
    )
    population = PopulationModel(
        random_effects=RandomEffects(("ka", "ke"), "full"),
        covariates=(CovariateEffect("V", "weight"),),
        occasion_effects=RandomEffects(("ke", "V"), "full"),
        fixed={"V": 30.0},
    )
    return population.bind(TABLE, space, n_occasions=np.array([2, 1, 2, 2, 1, 2]))


def test_occasions_share_their_entries_and_fixed_values_leave_the_vector():
    bound = _with_occasions()
    assert bound.names == (
        *("theta_ka", "theta_ke", "theta_a", "beta_V_weight", "chol_ka", "chol_ke_ka", "chol_ke"),
        *("chol_iov_ke", "chol_iov_V_ke", "chol_iov_V"),
    )
    x = _x(bound)
    mu, factor = bound.unpack(x)
    weight = TABLE["weight"].to_numpy()
    np.testing.assert_allclose(mu[:, 2], np.log(30.0) + x[3] * np.log(weight / weight.mean()))
    assert (mu[:, 4:] == 0).all()
    np.testing.assert_array_equal(factor[4:6, 2:4], factor[6:8, 4:6])
    np.testing.assert_array_equal(factor[4:6, 2:4], [[x[7], 0.0], [x[8], x[9]]])
    assert (factor[4:6, 4:6] == 0).all() and (factor[:4, 2:] == 0).all()
    assert bound.has_occasion[:, 2:].tolist()[:2] == [[True] * 4, [True, True, False, False]]


def test_pullback_with_occasions_is_the_transpose_of_unpacking():
    """Unpacking is affine: its matrix by differences is exact up to rounding."""
    bound = _with_occasions()
    x, rng = _x(bound), np.random.default_rng(2)
    mu, factor = bound.unpack(x)
    dmu, dfactor = rng.normal(size=mu.shape), rng.normal(size=(len(mu), *factor.shape))
    moved = [bound.unpack(x + e) for e in np.eye(bound.n_x)]
    expected = np.stack(
        [((m - mu) * dmu).sum(axis=1) + ((f - factor) * dfactor).sum(axis=(1, 2)) for m, f in moved], axis=1
    )
    np.testing.assert_allclose(bound.pullback(dmu, dfactor, x), expected, atol=1e-12)
    np.testing.assert_allclose(bound.pullback(dmu, dfactor.sum(axis=0), x), expected.sum(axis=0), atol=1e-12)


def test_signs_are_folded_in_all_occasions_at_once():
    bound = _with_occasions()
    x = _x(bound)
    x[7] = -x[7]
    folded = bound.fold_signs(x)
    assert (folded[bound.chol_diagonal] >= 0).all()
    np.testing.assert_allclose(bound.omega(folded), bound.omega(x), atol=1e-14)


def test_occasions_must_be_spelled_out_where_the_population_has_them():
    with pytest.raises(PopulationError, match="E_POP_OCCASIONS"):
        PopulationModel(
            random_effects=RandomEffects(("ka",)), occasion_effects=RandomEffects(("ke",))
        ).bind(TABLE, SPACE)


def test_a_fixed_value_outside_its_domain_is_refused():
    with pytest.raises(PopulationError, match="E_POP_FIXED"):
        PopulationModel(random_effects=RandomEffects(("ka",)), fixed={"V": -1.0}).bind(TABLE, SPACE)
    with pytest.raises(PopulationError, match="E_POP_UNKNOWN_PARAMETER"):
        PopulationModel(random_effects=RandomEffects(("ka",)), fixed={"W": 1.0}).bind(TABLE, SPACE)
