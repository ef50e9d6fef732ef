"""Every form of the convolutions against XLA's own, with both gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aejax.nn import convolution
from aejax.nn.convolution import Convolution, ConvolutionUp, convolve, convolve_up
from aejax.nn.depth_to_space import depth_to_space
from aejax.nn.product import product

FORMS = ("cpu", "accelerator")
LAYOUT = ("NHWC", "HWIO", "NHWC")


def _random(seed: int, *shape: int, dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.RandomState(seed).randn(*shape), dtype)


def _with_gradients(function, x, kernel, cotangent=None):
    """The value and its pull-back to x and kernel of a fixed cotangent."""

    @jax.jit
    def run(x, kernel):
        y, pull = jax.vjp(function, x, kernel)
        seed = _random(9, *y.shape) if cotangent is None else cotangent
        return y, *pull(seed.astype(y.dtype))

    return run(x, kernel)


def _assert_close(got, expected, tolerance=2e-5):
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        b = np.asarray(b, np.float32)
        scale = np.abs(b).max() + 1e-6
        np.testing.assert_allclose(np.asarray(a, np.float32) / scale, b / scale, atol=tolerance)


def _reference(stride: int, padding: str):
    def run(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT
        )

    return run


CASES = [
    # height, width, rows, columns, channels in, channels out
    (8, 8, 3, 3, 4, 6),
    (7, 9, 3, 3, 3, 5),
    (9, 6, 5, 5, 1, 3),
    (7, 7, 3, 3, 6, 1),
    (6, 7, 2, 2, 8, 3),
    (5, 8, 1, 3, 3, 1),
    (6, 5, 1, 1, 4, 2),
]


@pytest.mark.parametrize("stride, padding", [(1, "SAME"), (1, "VALID"), (2, "SAME"), (3, "VALID")])
@pytest.mark.parametrize("case", CASES)
def test_convolve_and_its_gradients_are_xlas(case, stride, padding):
    height, width, rows, columns, inputs, outputs = case
    x = _random(0, 2, height, width, inputs)
    kernel = _random(1, rows, columns, inputs, outputs)
    expected = _with_gradients(_reference(stride, padding), x, kernel)
    got = _with_gradients(lambda x, k: convolve(x, k, stride, padding, "cpu"), x, kernel)
    _assert_close(got, expected)


def test_the_accelerator_form_is_xlas():
    x, kernel = _random(0, 2, 7, 8, 3), _random(1, 3, 3, 3, 4)
    expected = _with_gradients(_reference(2, "SAME"), x, kernel)
    _assert_close(
        _with_gradients(lambda x, k: convolve(x, k, 2, form="accelerator"), x, kernel), expected
    )


def _transposed(kernel: jax.Array, factor: int) -> np.ndarray:
    """The kernel of `lax.conv_transpose` that convolve_up's documentation gives."""
    k, channels = kernel.shape[0], kernel.shape[3] // factor**2
    t = np.zeros((factor * k, factor * k, kernel.shape[2], channels), np.float32)
    for u, v, a, b in itertools.product(range(k), range(k), range(factor), range(factor)):
        first = (a * factor + b) * channels
        t[factor * (u + 1) - 1 - a, factor * (v + 1) - 1 - b] = kernel[
            u, v, :, first : first + channels
        ]
    return t


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "size, factor, inputs, channels",
    [(1, 2, 3, 2), (2, 2, 4, 3), (2, 2, 16, 1), (3, 2, 3, 2), (3, 2, 8, 1), (2, 4, 3, 1)]
    + [(3, 3, 2, 3), (4, 2, 2, 1)],
)
def test_convolve_up_is_the_transposed_convolution(size, factor, inputs, channels, form):
    x = _random(0, 2, 4, 5, inputs)
    kernel = _random(1, size, size, inputs, factor**2 * channels)
    y, to_x, to_kernel = _with_gradients(lambda x, k: convolve_up(x, k, factor, form), x, kernel)
    assert y.shape == (2, 4 * factor, 5 * factor, channels)
    expected, expected_to_x, to_t = _with_gradients(
        lambda x, t: lax.conv_transpose(x, t, (factor, factor), "SAME"),
        x,
        jnp.asarray(_transposed(kernel, factor)),
    )
    _assert_close((y, to_x, _transposed(to_kernel, factor)), (expected, expected_to_x, to_t))


@pytest.mark.parametrize("function", [convolve, convolve_up])
def test_bfloat16_stays_bfloat16(function):
    x, kernel = _random(0, 2, 8, 8, 8), _random(1, 3, 3, 8, 4)
    expected = _with_gradients(function, x, kernel)
    halves = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    got = _with_gradients(function, *halves)
    _assert_close(got, [e.astype(jnp.bfloat16) for e in expected], tolerance=3e-2)
    assert function(halves[0], kernel).dtype == jnp.float32


def _primitives(jaxpr) -> set[str]:
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for inner in jaxprs_in_params(equation.params):
            found |= _primitives(inner)
    return found


@pytest.mark.parametrize("function", [convolve, lambda x, k: convolve(x, k, 2), convolve_up])
@pytest.mark.parametrize("channels", [4, 32])
def test_on_a_cpu_no_gradient_is_a_convolution(function, channels):
    x, kernel = _random(0, 1, 8, 8, channels), _random(1, 3, 3, channels, 8)

    def loss(x, kernel):
        return jnp.sum(jnp.square(function(x, kernel)))

    jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1)))(x, kernel)
    assert convolution.chosen() == "cpu"
    assert "conv_general_dilated" not in _primitives(jaxpr.jaxpr)
    assert "dot_general" in _primitives(jaxpr.jaxpr)


@pytest.mark.parametrize("backend, form", [("gpu", "accelerator"), ("tpu", "accelerator")])
def test_the_backend_chooses_the_form(monkeypatch, backend, form):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert convolution.chosen() == form
    assert convolution.chosen("cpu") == "cpu"
    x, kernel = _random(0, 1, 8, 8, 4), _random(1, 3, 3, 4, 8)
    for function in (convolve, convolve_up):
        jaxpr = jax.make_jaxpr(lambda x, k, f=function: f(x, k))(x, kernel)
        assert "conv_general_dilated" in _primitives(jaxpr.jaxpr)


@pytest.mark.parametrize("outputs", [1, 8])
def test_products_are_of_two_axes(outputs):
    """Over more, XLA on a CPU reorders its operands first (see `product`)."""
    x, kernel = _random(0, 2, 8, 8, 4), _random(1, 3, 3, 4, outputs)
    jaxpr = jax.make_jaxpr(jax.grad(lambda x, k: convolve(x, k).sum(), (0, 1)))(x, kernel)
    products = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "dot_general"]
    assert products
    assert all(v.aval.ndim == 2 for e in products for v in e.invars)


def test_product_is_matmul():
    x, matrix = _random(0, 2, 3, 4, 5), _random(1, 5, 6)
    _assert_close(_with_gradients(product, x, matrix), _with_gradients(jnp.matmul, x, matrix))


@pytest.mark.parametrize("outputs", [1, 6])
def test_forward_mode_and_second_order(outputs):
    x, kernel = _random(0, 2, 5, 6, 4), _random(1, 3, 3, 4, outputs)
    dx, dk = _random(2, *x.shape), _random(3, *kernel.shape)

    def derivatives(form):
        def loss(x, kernel):
            return jnp.sum(jnp.sin(convolve(x, kernel, form=form)))

        return jax.jit(
            lambda x, k: (
                *jax.jvp(lambda x, k: convolve(x, k, form=form), (x, k), (dx, dk)),
                *jax.jvp(jax.grad(loss, (0, 1)), (x, k), (dx, dk))[1],
            )
        )(x, kernel)

    _assert_close(derivatives("cpu"), derivatives("accelerator"))


def test_mapped_over_images_and_over_kernels():
    x, kernels = _random(0, 3, 2, 5, 6, 4), _random(1, 3, 3, 3, 4, 2)
    got = jax.vmap(convolve)(x, kernels)
    expected = jnp.stack([convolve(a, k) for a, k in zip(x, kernels, strict=True)])
    _assert_close([got], [expected])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("function", [convolve, convolve_up])
def test_any_number_of_leading_axes(function, form):
    x, kernel = _random(0, 2, 3, 5, 6, 4), _random(1, 3, 3, 4, 8)
    whole = function(x, kernel, form=form)
    assert whole.shape[:2] == (2, 3)
    _assert_close([whole[1, 2]], [function(x[1, 2], kernel, form=form)])


def test_a_sharded_batch_stays_where_it_is():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    x, kernel = _random(0, 16, 8, 8, 4), _random(1, 3, 3, 4, 8)

    @jax.jit
    def gradients(x, kernel):
        return jax.grad(lambda x, k: jnp.sum(jnp.square(convolve(x, k, 2))), (0, 1))(x, kernel)

    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    everywhere = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec()))
    text = gradients.lower(sharded, everywhere).compile().as_text()
    assert "all-reduce" in text
    assert not any(word in text for word in ("all-gather", "all-to-all", "collective-permute"))
    _assert_close(gradients(sharded, everywhere), gradients(x, kernel))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x, k: convolve(x, k[:, :, :3]), "(3, 3, 3, 8)"),
        (lambda x, k: convolve(x[0, 0], k), "[..., height, width, n]"),
        (lambda x, k: convolve(x, k, 0), "stride=0"),
        (lambda x, k: convolve(x, k, padding="FULL"), "padding=FULL"),
        (lambda x, k: convolve(x[:, :2], k, padding="VALID"), "(2, 6)"),
        (lambda x, k: convolve(x, k, form="gpu"), "form=gpu"),
        (lambda x, k: convolve_up(x, k, 3), "factor=3"),
        (lambda x, k: convolve_up(x, k, 0), "factor=0"),
        (lambda x, k: convolve_up(x, k[:2]), "(2, 3)"),
        (lambda x, k: convolve_up(x, jnp.zeros((2, 2, 4, 9)), 3), "even size 2"),
        (lambda x, k: convolve_up(x, k, form="tpu"), "form=tpu"),
        (lambda x, k: depth_to_space(x, 3), "4 channels"),
    ],
)
def test_errors_name_what_is_wrong(call, words):
    with pytest.raises(ValueError) as error:
        call(_random(0, 2, 5, 6, 4), _random(1, 3, 3, 4, 8))
    assert words in str(error.value)


def test_depth_to_space_puts_each_channel_where_it_says():
    x = _random(0, 2, 3, 4, 18)
    y = depth_to_space(x, 3)
    assert y.shape == (2, 9, 12, 2)
    for i, j, a, b in itertools.product(range(3), range(4), range(3), range(3)):
        first = (a * 3 + b) * 2
        np.testing.assert_array_equal(y[:, 3 * i + a, 3 * j + b], x[:, i, j, first : first + 2])


def _filled(make) -> nnx.Module:
    """The module with known numbers in it; drawing them would compile a program a shape."""
    definition, state = nnx.split(nnx.eval_shape(make))
    return nnx.merge(definition, jax.tree.map(lambda leaf: _random(1, *leaf.shape), state))


def test_modules_hold_a_kernel_and_a_bias():
    down = _filled(lambda: Convolution(3, 8, size=3, stride=2, rngs=nnx.Rngs(0)))
    up = _filled(lambda: ConvolutionUp(8, 3, rngs=nnx.Rngs(0)))
    x = _random(0, 4, 8, 8, 3)
    y = down(x)
    _assert_close([y], [convolve(x, down.kernel[...], 2) + down.bias[...]])
    _assert_close([up(y)], [convolve_up(y, up.kernel[...]) + up.bias[...]])
    assert up(y).shape == x.shape
    bare = _filled(lambda: Convolution(3, 8, padding="VALID", bias=False, rngs=nnx.Rngs(0)))
    assert len(jax.tree.leaves(nnx.state(bare, nnx.Param))) == 1
    assert bare(x).shape == (4, 6, 6, 8)
