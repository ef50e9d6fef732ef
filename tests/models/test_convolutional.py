"""The convolutional coder against NumPy, which unpools with zeros and convolves the large image."""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aejax.models import Autoencoder, Batch
from aejax.models.coders import Convolutional
from aejax.models.likelihood import Gaussian

SHAPE = (8, 12, 2)
ROWS = np.random.RandomState(0).randn(3, *SHAPE).astype(np.float32)


def numbers(layer: nnx.Module) -> tuple[np.ndarray, np.ndarray | float]:
    """(kernel, bias) of a layer, in double precision."""
    bias = 0.0 if layer.bias is None else np.float64(layer.bias[...])
    return np.float64(layer.kernel[...]), bias


def compiled(module: nnx.Module, x, hidden=None, mask=None) -> jax.Array:
    """What the module gives, as one program: every operation by itself takes seconds to compile."""
    graph, state = nnx.split(module)
    run = jax.jit(lambda state, x, hidden, mask: nnx.merge(graph, state)(x, hidden, mask))
    return run(state, jnp.asarray(x), hidden, mask)


def drawn(build: Callable[[nnx.Rngs], nnx.Module]) -> nnx.Module:
    """The module with numbers of NumPy's, biases too: nothing is compiled to draw them."""
    random = np.random.RandomState(5)
    graph, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

    def draw(leaf):
        scale = np.sqrt(leaf.shape[-1] / math.prod(leaf.shape)) if len(leaf.shape) > 1 else 0.5
        return np.float32(scale * random.randn(*leaf.shape))

    return nnx.merge(graph, jax.tree.map(draw, state))


def encoder_of(coder: Convolutional, shape: tuple[int, ...] = SHAPE, features: int = 5):
    return drawn(lambda rngs: coder.encoder(shape, features, rngs))


def decoder_of(coder: Convolutional, shape: tuple[int, ...] = SHAPE, outputs: int = 1):
    return drawn(lambda rngs: coder.decoder(5, shape, outputs, rngs))


def correlate(x: np.ndarray, kernel: np.ndarray, before: int) -> np.ndarray:
    """x [n, h, w, c] with `before` zeros in front of each side, as large as it was."""
    after = len(kernel) - 1 - before
    padded = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], axis=(1, 2))
    return np.einsum("nhwcuv,uvco->nhwo", windows, kernel)


def encoder_in_numpy(module: nnx.Module, x: np.ndarray) -> np.ndarray:
    x = np.float64(x)
    for kernel, bias in map(numbers, module.stages):
        y = np.tanh(correlate(x, kernel, (len(kernel) - 1) // 2) + bias)
        x = np.maximum.reduce([y[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])
    *hidden, (last, shift) = map(numbers, module.layers)
    x = x.reshape(len(x), -1)
    for kernel, bias in hidden:
        x = np.tanh(x @ kernel + bias)
    return x @ last + shift


def on_the_large_image(kernel: np.ndarray) -> np.ndarray:
    """ConvolutionUp's kernel [k, k, n, 4 m] as the one that runs over the zeros, [2k, 2k, n, m]."""
    size, _, inputs, outputs = kernel.shape
    large = np.empty((2 * size, 2 * size, inputs, outputs // 4))
    for u, v, a, b in itertools.product(range(size), range(size), (0, 1), (0, 1)):
        place = slice((2 * a + b) * outputs // 4, (2 * a + b + 1) * outputs // 4)
        large[2 * u + 1 - a, 2 * v + 1 - b] = kernel[u, v, :, place]
    return large


def decoder_in_numpy(module: nnx.Module, z: np.ndarray, innermost: tuple[int, ...]) -> np.ndarray:
    x = np.float64(z)
    for kernel, bias in map(numbers, module.layers):
        x = np.tanh(x @ kernel + bias)
    x = x.reshape(-1, *innermost)
    for i, (kernel, bias) in enumerate(map(numbers, module.stages)):
        unpooled = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2], x.shape[3]))
        unpooled[:, ::2, ::2] = x
        x = correlate(unpooled, on_the_large_image(kernel), len(kernel)) + bias
        x = x if i == len(module.stages) - 1 else np.tanh(x)
    return x


SETTINGS = [
    Convolutional((4, 3), 3, (), "tanh"),
    Convolutional((4, 3), 5, (10, 7), "tanh", bias=False),
    Convolutional((5,), 4, (6,), "tanh"),
    Convolutional((2, 3), 1, (), "tanh"),
    Convolutional((3, 2), 2, (), "tanh"),
]


@pytest.mark.parametrize("coder", SETTINGS)
def test_the_encoder_is_convolution_activation_and_the_largest_of_four(coder):
    encoder = encoder_of(coder)
    found = compiled(encoder, ROWS)
    assert found.shape == (3, 5)
    np.testing.assert_allclose(found, encoder_in_numpy(encoder, ROWS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("coder", SETTINGS)
def test_the_decoder_is_unpooling_with_zeros_and_convolution(coder):
    decoder = decoder_of(coder)
    z = np.random.RandomState(3).randn(4, 5).astype(np.float32)
    found = compiled(decoder, z)
    assert found.shape == (4, *SHAPE, 1)
    factor = 2 ** len(coder.channels)
    exact = decoder_in_numpy(decoder, z, (8 // factor, 12 // factor, coder.channels[-1]))
    np.testing.assert_allclose(found[..., 0], exact, rtol=1e-4, atol=1e-5)


def test_several_outputs_an_element_come_last():
    coder = Convolutional((4, 3), activation="tanh")
    decoder = decoder_of(coder, outputs=3)
    z = np.random.RandomState(3).randn(4, 5).astype(np.float32)
    exact = decoder_in_numpy(decoder, z, (2, 3, 3)).reshape(4, *SHAPE, 3)
    np.testing.assert_allclose(compiled(decoder, z), exact, rtol=1e-4, atol=1e-5)


def test_the_decoder_mirrors_the_encoder():
    coder = Convolutional((4, 6), 3, (20, 10))
    encoder, decoder = encoder_of(coder), decoder_of(coder)
    assert [s.kernel.shape for s in encoder.stages] == [(3, 3, 2, 4), (3, 3, 4, 6)]
    assert [s.kernel.shape for s in decoder.stages] == [(2, 2, 6, 16), (2, 2, 4, 8)]
    inwards = [layer.kernel.shape for layer in encoder.layers]
    assert inwards == [(36, 20), (20, 10), (10, 5)]
    assert [layer.kernel.shape for layer in decoder.layers] == [(m, n) for n, m in inwards[::-1]]


@pytest.mark.parametrize("leading", [(), (2,), (3, 2), (0,)])
@pytest.mark.parametrize("shape", [(8, 8), (28, 28, 1), (4, 16, 3)])
def test_codes_of_any_leading_axes_and_images_of_any_size(shape, leading):
    coder = Convolutional((3, 2))
    encoder = encoder_of(coder, shape)
    assert compiled(encoder, np.ones((2, *shape))).shape == (2, 5)
    decoder = decoder_of(coder, shape, 2)
    z = np.random.RandomState(0).randn(*leading, 5).astype(np.float32)
    found = compiled(decoder, z)
    assert found.shape == (*leading, *shape, 2)
    if leading == (3, 2):
        np.testing.assert_allclose(found[2, 1], compiled(decoder, z[2, 1]), rtol=1e-4, atol=1e-6)


def test_an_image_moved_by_the_poolings_side_moves_the_features_by_one():
    coder = Convolutional((4, 3), activation="tanh")
    encoder = encoder_of(coder, (24, 24), 6 * 6 * 3)
    encoder.layers[0].weight[...] = np.eye(6 * 6 * 3, dtype=np.float32)
    encoder.layers[0].bias[...] = np.zeros(6 * 6 * 3, np.float32)
    image = np.zeros((1, 24, 24), np.float32)
    image[:, 8:13, 4:9] = np.random.RandomState(0).randn(5, 5)

    def features(x):
        return np.asarray(compiled(encoder, x)).reshape(6, 6, 3)

    one, moved = features(image), features(np.roll(image, (4, 4), axis=(1, 2)))
    # Not at the border, where biases meet the zeros around the image.
    np.testing.assert_allclose(moved[2:5, 2:5], one[1:4, 1:4], rtol=1e-5, atol=1e-6)
    assert not np.allclose(one[2:5, 2:5], one[1:4, 1:4])


def test_what_is_hidden_or_padding_is_zero_to_the_encoder():
    encoder = encoder_of(Convolutional((4, 3)))
    hidden = np.zeros((3, 8, 12), bool)
    hidden[:, 2:4, 3:9] = True
    mask = np.ones((3, 8), np.float32)
    mask[1, 6:] = 0
    zeroed = np.where(hidden[..., None] | (mask == 0)[:, :, None, None], 0, ROWS)
    found = compiled(encoder, ROWS, hidden, mask)
    np.testing.assert_array_equal(found, compiled(encoder, zeroed))
    one = compiled(encoder, ROWS, hidden)
    zeroed = np.where(hidden[..., None], 0, ROWS)
    np.testing.assert_array_equal(one, compiled(encoder, zeroed))
    # Not by a product with 0: what is not a number stays out too.
    broken = ROWS.copy()
    broken[:, 2, 3] = np.nan
    np.testing.assert_array_equal(compiled(encoder, broken, hidden), one)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"channels": ()}, r"channels=\(\): must be one number or more, each at least 1"),
        ({"channels": (16, 0)}, r"channels=\(16, 0\): must be one number or more"),
        ({"kernel": 0}, "kernel=0: must be at least 1"),
        ({"hidden": (0,)}, r"hidden=\(0,\): layer sizes must be at least 1"),
        ({"activation": "rleu"}, "activation=rleu: must be one of"),
    ],
)
def test_settings_that_make_no_layers_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Convolutional(**fields)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((28, 28, 1), "multiples of 8; images of 28 x 28 take at most 2"),
        ((8, 12, 3), "multiples of 8; images of 8 x 12 take at most 2"),
        ((8, 9), "multiples of 8; images of 8 x 9 take none"),
        ((10,), r"rows of shape \(10,\) are no images; they must be \(height, width\) or"),
        ((4, 8, 8, 1), r"rows of shape \(4, 8, 8, 1\) are no images"),
    ],
)
def test_rows_that_do_not_halve_so_often_are_refused(shape, said):
    coder = Convolutional((4, 4, 4))
    with pytest.raises(ValueError, match=said):
        coder.encoder(shape, 5, nnx.Rngs(0))
    with pytest.raises(ValueError, match=said):
        coder.decoder(5, shape, 1, nnx.Rngs(0))


def test_a_list_of_channels_becomes_a_tuple():
    coder = Convolutional([4, 2], hidden=[3])
    assert (coder.channels, coder.hidden) == ((4, 2), (3,))


def autoencoder(coder: Convolutional):
    """(graph, state, batch) of a small one on images of 4 x 4."""
    x = np.random.RandomState(2).uniform(size=(3, 4, 4, 1))
    batch = Batch(jnp.asarray(x))
    settings = Autoencoder(coder, latent_dim=2, likelihood=Gaussian())
    module = drawn(lambda rngs: settings.init(rngs, batch))
    return *nnx.split(module), batch


def test_its_gradient_is_the_slope_of_the_loss():
    """In double precision, which the parameters' type alone decides."""
    with jax.enable_x64(True):
        graph, state, batch = autoencoder(Convolutional((3, 2), activation="tanh"))
        state = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state)

        def error(state):
            module = nnx.merge(graph, state)
            z = module.encoder(batch.x, None, None)
            return jnp.sum(jnp.square(module.decoder(z, None, None)[..., 0] - batch.x))

        error = jax.jit(error)
        assert error(state).dtype == jnp.float64
        gradient = jax.jit(jax.grad(error))(state)
        leaves, tree = jax.tree.flatten(state)
        random, step = np.random.RandomState(0), 1e-5
        for i, slope in enumerate(jax.tree.leaves(gradient)):
            way = random.randn(*slope.shape)

            def at(distance, i=i, way=way):
                moved = [*leaves[:i], leaves[i] + distance * way, *leaves[i + 1 :]]
                return float(error(jax.tree.unflatten(tree, moved)))

            expected = (at(step) - at(-step)) / (2 * step)
            assert np.sum(np.asarray(slope) * way) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_computing_stages_again_changes_no_number():
    def value_and_gradient(remat):
        coder = Convolutional((3, 2), hidden=(6,), activation="tanh", remat=remat)
        graph, state, batch = autoencoder(coder)
        loss = lambda state: nnx.merge(graph, state).loss(batch)[0]  # noqa: E731
        text = str(jax.make_jaxpr(jax.grad(loss))(state))
        return jax.jit(jax.value_and_grad(loss))(state), text.count("remat")

    (plain, none), (again, some) = value_and_gradient(False), value_and_gradient(True)
    assert not none and some
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_it_computes_in_the_type_of_its_parameters():
    graph, state, batch = autoencoder(Convolutional((3, 2), hidden=(6,)))

    @jax.jit
    def run(state):
        module = nnx.merge(graph, state)
        z = module.encoder(batch.x, None, None)
        return z, module.decoder(z.astype(jnp.float32), None, None)

    (z, images), (_, exact) = run(jax.tree.map(lambda a: a.astype(jnp.bfloat16), state)), run(state)
    assert z.dtype == images.dtype == jnp.bfloat16
    np.testing.assert_allclose(images.astype(jnp.float32), exact, atol=0.05)
