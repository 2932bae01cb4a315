"""Summary networks and the flow: masks, symmetry, inverse, Jacobian."""

import numpy as np
import pytest

from amortnlme.neural.backend import use_backend, values_of
from amortnlme.neural.spec import COUPLING_KINDS, SUMMARY_KINDS, NetworkSpec

keras = use_backend()

B, T, F, C, D = 5, 7, 4, 3, 4


def network(summary="set", affine_head=True, seed=0, coupling="affine", pair=None):
    from amortnlme.neural.flow import PosteriorNetwork

    spec = NetworkSpec(summary=summary, summary_width=8, summary_size=6, flow_depth=2, flow_width=8,
                       affine_head=affine_head, coupling=coupling)  # fmt: skip
    out = PosteriorNetwork(spec, F, C, D, pair)
    rng = np.random.default_rng(seed)
    # Fresh flows ignore their conditions (zero last layers): give every kernel something to do.
    for weight in out.trainable_variables:
        if "kernel" in weight.path:
            weight.assign(rng.normal(0.0, 0.3, weight.shape).astype(np.float32))
    return out


def inputs(seed=1):
    rng = np.random.default_rng(seed)
    mask = np.arange(T) < np.array([1, 3, 7, 2, 5])[:, None]
    tokens = (rng.standard_normal((B, T, F)) * mask[..., None]).astype(np.float32)
    return tokens, mask, rng.standard_normal((B, C)).astype(np.float32)


@pytest.mark.backend
@pytest.mark.parametrize("summary", SUMMARY_KINDS)
@pytest.mark.parametrize("filler", [0.0, 1e3])
def test_context_does_not_change_when_padding_is_added(summary, filler):
    net = network(summary)
    tokens, mask, conditions = inputs()
    wider = np.pad(tokens, ((0, 0), (0, 6), (0, 0)))
    wide_mask = np.pad(mask, ((0, 0), (0, 6)))
    wider[~wide_mask] = filler
    a = np.asarray(net.context(tokens, mask, conditions))
    b = np.asarray(net.context(wider, wide_mask, conditions))
    # Sums over other shapes may be reordered: a few float32 units.
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_only_the_set_summary_does_not_depend_on_the_order_of_tokens():
    tokens, _, conditions = inputs()
    mask = np.ones((B, T), dtype=bool)
    tokens = np.random.default_rng(3).standard_normal((B, T, F)).astype(np.float32)
    for summary in SUMMARY_KINDS:
        net = network(summary)
        a = np.asarray(net.context(tokens, mask, conditions))
        b = np.asarray(net.context(tokens[:, ::-1].copy(), mask, conditions))
        assert np.allclose(a, b, rtol=1e-5, atol=1e-5) == (summary == "set")


@pytest.mark.parametrize("summary", SUMMARY_KINDS)
def test_context_depends_on_every_valid_token(summary):
    net = network(summary)
    tokens, mask, conditions = inputs()
    before = np.asarray(net.context(tokens, mask, conditions))
    changed = tokens.copy()
    changed[2, 4] += 1.0
    after = np.asarray(net.context(changed, mask, conditions))
    assert np.abs(after - before)[2].max() > 1e-3
    np.testing.assert_allclose(np.delete(after, 2, 0), np.delete(before, 2, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("affine_head", [True, False])
@pytest.mark.parametrize("coupling", COUPLING_KINDS)
def test_drawing_inverts_the_density_direction(affine_head, coupling):
    net = network(affine_head=affine_head, coupling=coupling)
    context = net.context(*inputs())
    noise = np.random.default_rng(2).standard_normal((B, D)).astype(np.float32)
    x = net.draw(noise, context)
    u = x if net.affine_head is None else net.affine_head(x, context)[0]
    np.testing.assert_allclose(np.asarray(net.coupling(u, conditions=context)), noise, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("affine_head", "coupling"), [(True, "affine"), (False, "affine"), (True, "spline")])
def test_log_density_has_the_jacobian_of_the_map(affine_head, coupling):
    """log q(x) = log N(z(x)) + log |dz/dx|, with the Jacobian by central differences of the drawing map."""
    net = network(affine_head=affine_head, coupling=coupling)
    context = np.asarray(net.context(*inputs()))
    noise = np.random.default_rng(4).standard_normal((B, D)).astype(np.float32)
    step = 1e-2
    columns = []
    for j in range(D):
        shift = np.zeros(D, dtype=np.float32)
        shift[j] = step
        up, down = (np.asarray(net.draw(noise + s * shift, context), dtype=float) for s in (1, -1))
        columns.append((up - down) / (2 * step))
    log_det = np.linalg.slogdet(np.stack(columns, axis=-1))[1]
    expected = -0.5 * (noise.astype(float) ** 2).sum(axis=1) - 0.5 * D * np.log(2 * np.pi) - log_det
    x = net.draw(noise, context)
    # Differences of float32 numbers over 1e-2 leave an error of about 1e-4 per column.
    np.testing.assert_allclose(np.asarray(net.log_density(x, context)), expected, atol=5e-3)


def test_density_stays_finite_for_stray_inputs():
    net = network()
    tokens, mask, conditions = inputs()
    context = net.context(1e3 * tokens, mask, 1e3 * conditions)
    x = np.full((B, D), 8.0, dtype=np.float32)
    assert np.isfinite(np.asarray(net.log_density(x, context))).all()


def mirrored(x):
    return x[:, [1, 0, 2, 3]]


@pytest.mark.backend
def test_a_mirrored_density_is_the_mean_of_the_flow_and_its_mirror_image():
    net, plain = network(pair=(0, 1)), network()
    plain.set_weights(values_of(net.weights))
    context = net.context(*inputs())
    x = np.random.default_rng(5).standard_normal((B, D)).astype(np.float32)
    found = np.asarray(net.log_density(x, context))
    parts = [np.asarray(plain.log_density(point, context), dtype=float) for point in (x, mirrored(x))]
    # One float32 pass in two batch shapes.
    np.testing.assert_allclose(found, np.logaddexp(*parts) - np.log(2.0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found, np.asarray(net.log_density(mirrored(x), context)), rtol=1e-5, atol=1e-5)


@pytest.mark.backend
def test_the_last_noise_number_says_which_image_a_draw_belongs_to():
    net = network(pair=(0, 1))
    context = net.context(*inputs())
    noise = np.random.default_rng(6).standard_normal((B, net.n_noise)).astype(np.float32)
    other = noise * np.array([1.0] * D + [-1.0], dtype=np.float32)
    a, b = (np.asarray(net.draw(values, context)) for values in (noise, other))
    assert net.n_noise == D + 1
    np.testing.assert_array_equal(a, mirrored(b))


def test_a_mirrored_network_starts_off_its_mirror_image():
    """From a symmetric start the gradients of the two images cancel, and the flow would bridge both modes."""
    from amortnlme.neural.flow import PosteriorNetwork

    spec = NetworkSpec(summary_width=8, summary_size=6, flow_depth=2, flow_width=8)
    net = PosteriorNetwork(spec, F, C, D, (1, 2))
    bias = np.asarray(net.affine_head.read.bias)
    assert bias[:D].tolist() == [0.0, 0.5, -0.5, 0.0] and not bias[D:].any()
