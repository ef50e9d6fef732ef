"""Encoders and decoders against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aejax.models import Autoencoder, Batch
from aejax.models.bottlenecks import Variational
from aejax.models.coders import Dense

SHAPE = (4, 3, 2)
ROWS = np.random.RandomState(0).randn(6, *SHAPE).astype(np.float32)


def layers(module: nnx.Module) -> list[tuple[np.ndarray, np.ndarray | float]]:
    """(kernel, bias) of each layer, in double precision."""
    return [
        (np.float64(layer.kernel[...]), 0.0 if layer.bias is None else np.float64(layer.bias[...]))
        for layer in module.layers
    ]


def in_numpy(module: nnx.Module, x: np.ndarray) -> np.ndarray:
    """tanh(x W + b) at every layer but the last."""
    *hidden, (kernel, bias) = layers(module)
    for weights, shift in hidden:
        x = np.tanh(x @ weights + shift)
    return x @ kernel + bias


def shaken(module: nnx.Module) -> nnx.Module:
    """Its biases moved away from 0, so that they count."""
    random = np.random.RandomState(5)
    for layer in module.layers:
        if layer.bias is not None:
            layer.bias[...] = jnp.asarray(random.randn(*layer.bias.shape), jnp.float32)
    return module


@pytest.mark.parametrize(
    ("hidden", "bias", "sizes"),
    [((), True, [24, 5]), ((16, 8), True, [24, 16, 8, 5]), ((16, 8), False, [24, 16, 8, 5])],
)
def test_the_dense_encoder_is_its_layers_in_a_row(hidden, bias, sizes):
    coder = Dense(hidden, "tanh", bias)
    encoder = shaken(coder.encoder(SHAPE, 5, nnx.Rngs(0)))
    assert [kernel.shape for kernel, _ in layers(encoder)] == list(
        zip(sizes[:-1], sizes[1:], strict=True)
    )
    found = encoder(jnp.asarray(ROWS), None, None)
    assert found.shape == (6, 5)
    np.testing.assert_allclose(found, in_numpy(encoder, ROWS.reshape(6, -1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("leading", "outputs"), [((), 2), ((6,), 1), ((3, 6), 2)])
def test_the_dense_decoder_is_the_mirror_for_codes_of_any_leading_axes(leading, outputs):
    decoder = shaken(Dense((16, 8), "tanh").decoder(5, SHAPE, outputs, nnx.Rngs(1)))
    sizes = [5, 8, 16, 24 * outputs]
    assert [kernel.shape for kernel, _ in layers(decoder)] == list(
        zip(sizes[:-1], sizes[1:], strict=True)
    )
    z = np.random.RandomState(3).randn(*leading, 5).astype(np.float32)
    found = decoder(jnp.asarray(z), None, None)
    assert found.shape == (*leading, *SHAPE, outputs)
    exact = in_numpy(decoder, z).reshape(*leading, *SHAPE, outputs)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)


def test_the_last_layers_are_linear_and_without_biases_zero_stays_zero():
    coder = Dense((), "relu", bias=False)
    encoder = coder.encoder(SHAPE, 5, nnx.Rngs(0))
    np.testing.assert_allclose(
        encoder(-jnp.asarray(ROWS), None, None), -encoder(jnp.asarray(ROWS), None, None), rtol=1e-6
    )
    decoder = coder.decoder(5, SHAPE, 1, nnx.Rngs(0))
    assert not decoder(jnp.zeros((2, 5)), None, None).any()


def test_kernels_are_drawn_as_glorot_says_and_biases_start_at_0():
    encoder = Dense((300,), "tanh").encoder((20, 20), 100, nnx.Rngs(0))
    for (kernel, bias), (n, m) in zip(layers(encoder), ((400, 300), (300, 100)), strict=True):
        limit = np.sqrt(6 / (n + m))
        assert np.abs(kernel).max() <= limit
        assert np.abs(kernel).max() > 0.999 * limit
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.01)
        assert abs(kernel.mean()) < 0.01 * limit
        assert not np.any(bias)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_before_what_cuts_one_half_off_kernels_have_the_variance_of_he(activation):
    coder = Dense((300,), activation)
    for module, sizes in (
        (coder.encoder((20, 20), 100, nnx.Rngs(0)), ((400, 300), (300, 100))),
        (coder.decoder(100, (20, 20), 1, nnx.Rngs(0)), ((100, 300), (300, 400))),
    ):
        (hidden, _), (last, _) = layers(module)
        assert hidden.std() == pytest.approx(np.sqrt(2 / sizes[0][0]), rel=0.02)
        assert last.std() == pytest.approx(np.sqrt(2 / sum(sizes[1])), rel=0.02)


def test_layers_are_drawn_independently_and_by_the_seed():
    coder = Dense((24, 24))

    def kernels(seed):
        return [kernel for kernel, _ in layers(coder.encoder(SHAPE, 24, nnx.Rngs(seed)))]

    one = kernels(0)
    for same, other, again in zip(one, kernels(1), kernels(0), strict=True):
        assert np.array_equal(same, again) and not np.array_equal(same, other)
    assert not np.array_equal(one[0], one[1]) and not np.array_equal(one[1], one[2])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hidden": (64, 0)}, r"hidden=\(64, 0\): layer sizes must be at least 1"),
        ({"activation": "rleu"}, "activation=rleu: must be one of"),
    ],
)
def test_settings_that_make_no_layers_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Dense(**fields)


def test_a_list_of_sizes_becomes_a_tuple():
    assert Dense([64, 32]).hidden == (64, 32)


def test_computing_hidden_layers_again_changes_no_number():
    def value_and_gradient(remat):
        coder = Dense((16, 8), "tanh", remat=remat)
        graph, state = nnx.split(coder.encoder(SHAPE, 5, nnx.Rngs(0)))

        def loss(state):
            return jnp.sum(jnp.square(nnx.merge(graph, state)(ROWS, None, None)))

        return jax.jit(jax.value_and_grad(loss))(state)

    plain, again = value_and_gradient(False), value_and_gradient(True)
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_an_encoder_gives_the_same_under_jit():
    encoder = Dense((16,)).encoder(SHAPE, 5, nnx.Rngs(0))
    graph, state = nnx.split(encoder)
    jitted = jax.jit(lambda state, x: nnx.merge(graph, state)(x, None, None))(state, ROWS)
    np.testing.assert_allclose(jitted, encoder(jnp.asarray(ROWS), None, None), rtol=1e-5, atol=1e-6)


def test_tied_layers_share_their_weights_and_train_as_one():
    model = Autoencoder(Dense((16, 8), "tanh", tied=True), latent_dim=5)
    batch = Batch(jnp.asarray(ROWS))
    module = model.init(nnx.Rngs(0), batch)
    graph, params = nnx.split(module)
    assert len(jax.tree.leaves(params)) == 3 + 6  # a weight for two layers, a bias for each

    def loss(module):
        return module.loss(batch)[0]

    apart = Autoencoder(Dense((16, 8), "tanh"), latent_dim=5).init(nnx.Rngs(0), batch)
    for into, out, one in zip(
        apart.encoder.layers, reversed(apart.decoder.layers), module.encoder.layers, strict=True
    ):
        into.weight[...] = out.kernel[...] = one.weight[...]
    np.testing.assert_allclose(loss(module), loss(apart), rtol=1e-6)
    together, each = nnx.grad(loss)(module), nnx.grad(loss)(apart)
    for k in range(3):
        both = each["encoder"]["layers"][k]["weight"][...]
        both += each["decoder"]["layers"][2 - k]["kernel"][...]
        found = together["decoder"]["layers"][2 - k]["kernel"][...]
        np.testing.assert_allclose(found, both, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_tied_is_refused():
    model = Autoencoder(Dense((16,), tied=True), latent_dim=5, bottleneck=Variational())
    with pytest.raises(ValueError, match=r"tied=True: .* \(16, 10\) does not mirror .* \(5, 16\)"):
        model.init(nnx.Rngs(0), Batch(jnp.asarray(ROWS)))
