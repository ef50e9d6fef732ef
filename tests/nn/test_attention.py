"""Attention against softmax in double precision, in every form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.nn import attention
from aejax.nn.attention import attend

ROWS, HEADS, SIZE = 3, 2, 4


def exact(q, k, v, real=None, bias=None, window=0, sees=lambda i, j: True):
    """[rows, length, heads, size], in double precision, one query at a time."""
    q, k, v = (np.float64(x) for x in (q, k, v))
    rows, length, heads, size = q.shape
    out = np.zeros(q.shape)
    for r, i, h in np.ndindex(rows, length, heads):
        seen = [
            j
            for j in range(length)
            if (real is None or real[r, j]) and (not window or abs(i - j) <= window) and sees(i, j)
        ]
        if not seen:
            continue
        scores = k[r, seen, h] @ q[r, i, h] / np.sqrt(size)
        if bias is not None:
            scores = scores + np.float64(bias)[h, [length - 1 + j - i for j in seen]]
        weights = np.exp(scores - scores.max())
        out[r, i, h] = weights @ v[r, seen, h] / weights.sum()
    return out


def drawn(length: int, rows: int = ROWS):
    random = np.random.RandomState(length)
    arrays = [random.randn(rows, length, HEADS, SIZE).astype(np.float32) for _ in range(3)]
    bias = random.randn(HEADS, 2 * length - 1).astype(np.float32)
    real = np.arange(length) < random.randint(1, length + 1, (rows, 1))
    return arrays, bias, real


@pytest.fixture(params=["whole", "rows", "heads", "accelerator"])
def form(request, monkeypatch):
    """Scores all at once, a few rows of a head at a time, or all rows of a head; or XLA's own."""
    if request.param == "accelerator":
        return "accelerator"
    at_once = {"whole": 2**18, "rows": 1, "heads": ROWS * 33 * 33}[request.param]
    monkeypatch.setattr(attention, "_SCORES", at_once)
    return "cpu"


CASES = [(1, 0), (7, 0), (7, 6), (33, 0), (33, 20), (33, 5), (32, 8), (33, 1)]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("length", "window"), CASES)
def test_it_is_softmax_of_what_a_query_sees(form, length, window, biased, padded):
    arrays, bias, real = drawn(length)
    chosen = {"real": real if padded else None, "bias": bias if biased else None}
    found = jax.jit(functools.partial(attend, window=window, form=form))(*arrays, **chosen)
    expected = exact(*arrays, **chosen, window=window)
    if padded:  # what a query that is padding gives is anything finite
        assert np.isfinite(found).all()
        found, expected = found * real[..., None, None], expected * real[..., None, None]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("window", [0, 3])
def test_its_gradients_are_slopes_in_double_precision(form, window):
    arrays, bias, real = drawn(11)
    way = np.random.RandomState(1).randn(*arrays[0].shape) * real[..., None, None]

    with jax.enable_x64(True):
        inputs = [np.float64(x) for x in (*arrays, bias)]

        def loss(q, k, v, bias):
            return jnp.sum(way * attend(q, k, v, real=real, bias=bias, window=window, form=form))

        def reference(q, k, v, bias):
            return np.sum(way * exact(q, k, v, real, bias, window))

        gradients = jax.jit(jax.grad(loss, (0, 1, 2, 3)))(*inputs)
        for n, gradient in enumerate(gradients):
            assert gradient.dtype == np.float64
            direction = np.random.RandomState(n).randn(*gradient.shape)

            def at(distance, n=n, direction=direction):
                moved = [*inputs[:n], inputs[n] + distance * direction, *inputs[n + 1 :]]
                return reference(*moved)

            slope = (at(1e-6) - at(-1e-6)) / 2e-6
            assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_forward_mode_and_second_derivatives_agree_with_the_whole(monkeypatch):
    """Penalties take them."""
    (q, k, v), bias, real = drawn(9)

    def run():
        @jax.jit
        def curvature(q, k, v, bias):
            def loss(q):
                return jnp.sum(attend(q, k, v, real=real, bias=bias, form="cpu") ** 2)

            return jax.jvp(jax.grad(loss), (q,), (k,))

        return curvature(q, k, v, bias)

    whole = run()
    monkeypatch.setattr(attention, "_SCORES", 1)
    for one, other in zip(whole, run(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [0, 3])
def test_what_may_not_be_seen_changes_no_bit(form, window):
    arrays, bias, real = drawn(13)
    run = jax.jit(functools.partial(attend, window=window, form=form))
    found = run(*arrays, real=real, bias=bias)
    q, k, v = arrays
    far = [np.where(real[..., None, None], x, 1e3 * (1 + np.abs(x))) for x in (k, v)]
    again = run(q, *map(np.float32, far), real=real, bias=bias)
    visible = real[..., None, None]
    np.testing.assert_array_equal(np.where(visible, found, 0), np.where(visible, again, 0))
    if window:
        alone = jax.jit(functools.partial(attend, window=window, form=form))
        moved = v.copy()
        moved[:, -1] += 5
        same = alone(q, k, v)[:, : 13 - 1 - window]
        np.testing.assert_array_equal(same, alone(q, k, moved)[:, : 13 - 1 - window])


def test_rows_do_not_see_each_other_however_they_are_cut(monkeypatch):
    arrays, bias, real = drawn(8, rows=6)
    run = lambda *x: jax.jit(functools.partial(attend, form="cpu"))(*x, real=real, bias=bias)  # noqa: E731
    whole = run(*arrays)
    for at_once in (1, 2 * 64, 3 * 64, 6 * 64):
        monkeypatch.setattr(attention, "_SCORES", at_once)
        np.testing.assert_allclose(run(*arrays), whole, rtol=2e-6, atol=1e-6)


def test_bfloat16_sums_in_float32(form):
    arrays, bias, real = drawn(33)
    half = [jnp.asarray(x, jnp.bfloat16) for x in arrays]
    found = jax.jit(functools.partial(attend, form=form))(*half, real=real, bias=bias)
    assert found.dtype == jnp.bfloat16
    expected = exact(*half, real, bias) * real[..., None, None]
    found = np.float64(found) * real[..., None, None]
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, True),
        ({"dtype": jnp.dtype("float16")}, True),
        ({"dtype": jnp.dtype("float32")}, False),
        ({"shape": (2, 512, 4, 60)}, False),
        ({"shape": (2, 512, 4, 256)}, False),
        ({"shape": (2, 511, 4, 64)}, False),
        ({"masked": True, "padded": True}, True),
        ({"bias": True, "masked": True}, True),
        ({"bias": True, "masked": True, "padded": True}, False),
        ({"shape": (2, 64, 4, 64)}, True),
        ({"bias": True, "shape": (2, 64, 4, 64)}, False),
        ({"masked": True, "shape": (2, 64, 4, 64)}, False),
    ],
)
def test_the_kernel_is_taken_where_it_can_be_and_is_faster(monkeypatch, changes, taken):
    given = {"dtype": jnp.dtype("bfloat16"), "shape": (2, 512, 4, 64)}
    given |= {"bias": False, "masked": False, "padded": False} | changes
    assert not attention.has_kernel(**given)
    monkeypatch.setattr(attention, "_on_cuda", lambda: True)
    assert attention.has_kernel(**given) == taken


@pytest.mark.parametrize(("padded", "window"), [(False, 0), (False, 5), (True, 0), (True, 5)])
def test_the_kernel_is_given_what_xla_is(monkeypatch, padded, window):
    """The kernel itself runs on a GPU alone: XLA's operations stand in for it, of its arguments."""
    random, real = np.random.RandomState(0), drawn(32)[2]
    q, k, v = (jnp.asarray(random.randn(ROWS, 32, HEADS, 8), jnp.bfloat16) for _ in range(3))
    given = {"real": real if padded else None, "window": window}
    expected, asked = attend(q, k, v, form="cpu", **given), []
    usual = jax.nn.dot_product_attention

    def kernel(q, k, v, bias, mask, implementation=None):
        asked.append((implementation, None if mask is None else mask.shape))
        return usual(q, k, v, bias, mask)

    monkeypatch.setattr(attention, "_on_cuda", lambda: True)
    monkeypatch.setattr(attention, "_LONG", 32)
    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    found = attend(q, k, v, form="accelerator", **given)
    whole = (ROWS if padded else 1, 1, 32, 32)
    assert asked == [("cudnn", whole if padded or window else None)]
    seen = np.float64(real[..., None, None]) if padded else 1.0
    np.testing.assert_allclose(np.float64(found) * seen, np.float64(expected) * seen, atol=0.03)


def test_long_scores_are_not_kept_for_the_gradient():
    """What a training step holds of 2048 positions: nothing of their square but one block."""
    x = jax.ShapeDtypeStruct((2, 2048, 2, 8), np.float32)
    step = jax.jit(jax.grad(lambda x: jnp.sum(attend(x, x, x, form="cpu") ** 2)))
    held = step.lower(x).compile().memory_analysis().temp_size_in_bytes
    assert held < 4 * 4 * 2048**2  # there are 4 squares, of 4 bytes an element; several are in use


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"real": np.ones((3, 6), bool)}, r"real \(3, 6\): must be \(3, 7\)"),
        ({"bias": np.ones((2, 7))}, r"bias \(2, 7\): must be \(2, 13\)"),
        ({"window": -1}, "window=-1: must be at least 0"),
        ({"form": "tpu"}, "form=tpu: must be cpu or accelerator"),
        ({"v": np.ones((3, 7, 2, 5))}, r"must have the same shape"),
    ],
)
def test_what_does_not_fit_is_refused(changes, said):
    (q, k, v), _, _ = drawn(7)
    with pytest.raises(ValueError, match=said):
        attend(**({"q": q, "k": k, "v": v} | changes))


SIDES = {
    "left": lambda i, j: j <= i,
    "right": lambda i, j: j >= i,
    "self": lambda i, j: i == j,
}


@pytest.mark.parametrize("sees", SIDES)
@pytest.mark.parametrize(("length", "window"), [(1, 0), (7, 0), (33, 0), (33, 5)])
def test_attention_to_a_side_alone(sees, length, window, form):
    (q, k, v), bias, real = drawn(length)
    found = attend(q, k, v, real=real, bias=bias, window=window, sees=sees, form=form)
    reference = exact(q, k, v, real, bias, window, SIDES[sees])
    seen = [
        [
            any(
                real[r, j] and SIDES[sees](i, j) and (not window or abs(i - j) <= window)
                for j in range(length)
            )
            for i in range(length)
        ]
        for r in range(ROWS)
    ]
    seen = np.array(seen)
    np.testing.assert_allclose(np.asarray(found)[seen], reference[seen], rtol=0, atol=3e-6)


def test_an_unknown_side_is_refused():
    (q, k, v), _, _ = drawn(3)
    with pytest.raises(ValueError, match="sees=up: must be all or left or right or self"):
        attend(q, k, v, sees="up")
