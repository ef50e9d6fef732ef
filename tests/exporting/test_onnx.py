"""Each primitive as ONNX gives what JAX gives, and what is not written is refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax import export, lax
from jax.extend.core import jaxprs_in_params

from aejax.errors import InputError
from aejax.exporting import onnx_model
from aejax.exporting.onnx_primitives import PRIMITIVES
from aejax.nn.bernoulli import log_prob

RANDOM = np.random.RandomState(0)
X = RANDOM.randn(6, 4, 3).astype(np.float32)
IMAGE = RANDOM.randn(5, 6, 6, 2).astype(np.float32)
KERNEL = RANDOM.randn(3, 3, 2, 4).astype(np.float32)


def elementwise(x):
    positive = jnp.abs(x) + 0.5
    found = [f(x) for f in (jnp.exp, jnp.sin, jnp.cos, jnp.tanh, jnp.floor, jnp.ceil, jnp.sign)]
    found += [jax.nn.sigmoid(x), lax.erf(x), jnp.expm1(x), lax.square(x), lax.integer_pow(x, 3)]
    found += [f(positive) for f in (jnp.log, jnp.log1p, jnp.sqrt, lax.rsqrt, jnp.round)]
    found += [positive**1.5, x / positive, -x, jnp.maximum(x, 0.1), jnp.minimum(x, 0.1), x - 1]
    return jnp.stack([*found, x**2, lax.clamp(-0.5, x, 0.5)])


def logical(x):
    a, b = x > 0, x <= 0.5
    found = [a & b, a | b, ~a, x < 0, x >= 0, x == x, x != x, jnp.isfinite(1 / jnp.floor(x))]
    return jnp.stack(found)


def bits(x):
    whole = (x * 10).astype(jnp.int32)
    return jnp.stack([whole & 6, whole | 3, ~whole, jnp.where(whole > 2, whole, -1)])


def reductions(x):
    found = [jnp.sum(x, 1), jnp.prod(x, 1), jnp.max(x, 1), jnp.min(x, 1), jnp.cumsum(x, 0)[:, 0]]
    found += [lax.cumsum(x, 1, reverse=True)[:, 0], jnp.argmax(x, 1), jnp.argmin(x, 1)]
    found += [jnp.any(x > 1, 1), jnp.all(x > 0, 1)]
    return jnp.stack([each.astype(jnp.float32) for each in found])


def moved(x):
    a, b = lax.split(x, (1, 3), axis=0)
    padded = lax.pad(x, jnp.float32(7), ((-1, 2, 0), (1, -2, 0)))
    parts = [lax.rev(b, (0,)), padded.repeat(2, 1)[:, :3], x[1:, ::2].repeat(2, 1)[:, :3], a]
    parts += [x.T.reshape(-1, 3), x + lax.iota(jnp.float32, 3), jnp.tile(a, (2, 1))]
    parts.append(jnp.stack(jnp.unstack(x)[::-1]))
    return jnp.concatenate(parts)


def chosen(x):
    values, index = lax.top_k(x, 2)
    table = jnp.asarray(X[0])
    taken = jnp.take(table, index, axis=0, mode="clip")
    at = jnp.argmax(table[:, 0])
    window = lax.dynamic_slice(table, (at, 1), (2, 2)) + lax.dynamic_slice(x, (at, 0), (2, 2))
    return values[..., None] + taken + window[0, 0]


def looped(x):
    def step(carry, now):
        carry = carry * 0.5 + now @ jnp.asarray(X[0, :3])
        return carry, carry + 1

    last, forward = lax.scan(step, x[0] * 0, x)
    _, backward = lax.scan(step, last, x, reverse=True)
    kept, _ = lax.scan(lambda carry, _: (carry * 1.5, None), last, None, length=3)
    return jnp.concatenate([forward + backward, kept[None]])


def products(x):
    pairs = jnp.einsum("qd,kd->qk", x, x)
    free = jnp.einsum("qd,ed->eq", x, jnp.asarray(X[1]))
    return jnp.concatenate([pairs, free, jnp.einsum("qd,eqd->e", x, X[:4])[None]])


def convolution(x):
    layout = ("NHWC", "HWIO", "NHWC")
    pads = ((1, 0), (1, 1))
    return lax.conv_general_dilated(x[None], KERNEL, (2, 1), pads, dimension_numbers=layout)[0]


def called(x):
    return jax.nn.gelu(jax.checkpoint(jax.jit(jnp.tanh))(x)) + jax.nn.relu(x) + log_prob(x, x)


CASES = (elementwise, logical, bits, reductions, moved, chosen, looped, products, called)


@pytest.mark.parametrize("function", [*CASES, convolution], ids=lambda f: f.__name__)
def test_it_gives_what_jax_gives_for_any_number_of_rows(function):
    given = IMAGE if function is convolution else X
    (rows,) = export.symbolic_shape("rows")
    taken = jax.ShapeDtypeStruct((rows, *given.shape[1:]), given.dtype)
    written = onnx_model.model(jax.vmap(function), rows, ("x", taken), ("y",))
    session = onnxruntime.InferenceSession(written)
    for count in (len(given), 1):
        (found,) = session.run(None, {"x": given[:count]})
        wanted = np.asarray(jax.jit(jax.vmap(function))(given[:count]))
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)


def test_every_primitive_that_is_written_was_compared():
    seen = set()

    def walk(jaxpr):
        for eqn in jaxpr.eqns:
            seen.add(eqn.primitive.name)
            for inner in jaxprs_in_params(eqn.params):
                walk(inner)

    for function in (*CASES, convolution):
        walk(jax.make_jaxpr(jax.vmap(function))(IMAGE if function is convolution else X).jaxpr)
    aliases = {"add_any", "copy", "name", "optimization_barrier", "stop_gradient"}
    assert set(PRIMITIVES) - seen - aliases == set()


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: jnp.sort(x, axis=1), "sort; accepted: abs, add, "),
        (lambda x: jax.checkpoint(lambda y: jnp.fft.fft(y).real)(x), "fft, real; accepted"),
        (lambda x: lax.slice(x, (1, 0, 0), x.shape), "slice; of some of its rows"),
        (lambda x: lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1), (0, 0, 0))), "pad; between elements"),
        (jax.vmap(lambda x: jnp.take(x, 9, axis=0)), "gather; accepted: with mode=clip"),
    ],
)
def test_what_is_not_written_is_refused_by_name(function, text):
    (rows,) = export.symbolic_shape("rows")
    taken = jax.ShapeDtypeStruct((rows, 4, 3), np.float32)
    with pytest.raises(InputError, match=f"--to=onnx: the model computes with {text}"):
        onnx_model.model(function, rows, ("x", taken), ("y",))
