"""Scaled dot-product attention (Vaswani et al. 2017, equation 1), as is fastest on the backend.

    attention(q, k, v) = softmax(q k^T / sqrt(size) + bias) v

On a GPU this is `jax.nn.dot_product_attention`: in bfloat16 or float16 cuDNN's fused kernel (Dao et
al. 2022), which never writes the scores to memory; in float32 a few XLA operations. The kernel has
no forward-mode derivative; the float32 form has.

On a CPU the scores of a whole batch do not fit into the cache, and softmax reads them several
times. There a few sequences of one head are computed at a time. Heads are the leading axis, so that
each product is one of matrices. The normalisation by the sum of exponentials comes last: it then
divides `size` numbers per query, not `length`. The backward pass recomputes the scores from what is
kept: q, k, v, each query's largest score and sum, and the output. Keys and values are stored as
[size, keys]: their gradients are sums over queries, which take half the time of [keys, size]. XLA
computes several sequences in parallel, one on each core.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from aejax.nn.convolution import Form, chosen

# On a CPU: scores computed at a time (8 MiB), and most scores that are kept for the backward pass.
_SCORES, _KEPT = 2**21, 2**20
# With something added to the scores, cuDNN's kernel is used from this length on. With a bias its
# gradients were slower than XLA's at 64 positions, equal at 128 and faster at 256 (a trial on an
# H200 that no benchmark repeats); masks were not timed.
_LONG = 256
# The value of a masked score: its exp is exactly 0, and a row of only such scores is not NaN.
_MASKED = -1e30
_SIDES = ("all", "left", "right", "self")


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    real: jax.Array | None = None,
    bias: jax.Array | None = None,
    window: int = 0,
    sees: str = "all",
    form: Form | None = None,
) -> jax.Array:
    """softmax(q k^T / sqrt(size) + bias) v over the keys that a query may see.

    Products use the arrays' type, softmax float32. Keys that a query may not see change no bit of
    its result. A query that sees no key gets some mean of the values.

    Args:
        q: queries [rows, length, heads, size].
        k: keys, like q.
        v: values, like q.
        real: bool [rows, length], False for padding; None for no padding.
        bias: per offset, [heads, 2 length - 1]: element length - 1 + j - i is added to the score
            of query i and key j (Shaw et al. 2018 as simplified by Raffel et al. 2020); or None.
        window: query i sees keys i - window to i + window (Beltagy et al. 2020); 0 for all. On a
            CPU each query then costs three windows of keys, not `length`.
        sees: all; left or right: a query sees its own key and those before, or after; self: its
            own alone.
        form: which implementation; None for the backend's own.

    Returns:
        [rows, length, heads, size].

    Raises:
        ValueError: shapes that do not fit, a negative window or an unknown side or form.
    """
    rows, length, heads, _ = q.shape
    if not q.shape == k.shape == v.shape:
        raise ValueError(f"q {q.shape}, k {k.shape} and v {v.shape}: must have the same shape")
    if real is not None and real.shape != (rows, length):
        raise ValueError(f"real {real.shape}: must be {(rows, length)}")
    if bias is not None and bias.shape != (heads, 2 * length - 1):
        raise ValueError(f"bias {bias.shape}: must be {(heads, 2 * length - 1)}")
    if window < 0:
        raise ValueError(f"window={window}: must be at least 0")
    if sees not in _SIDES:
        raise ValueError(f"sees={sees}: must be {' or '.join(_SIDES)}")
    window = 0 if window >= length - 1 else window
    if chosen(form) == "accelerator":
        return _library(q, k, v, real, bias, _seen(length, window, sees))
    q = q * q.shape[-1] ** -0.5
    q, k, v = (jnp.transpose(x, (2, 0, 1, 3)) for x in (q, k, v))
    if sees == "all" and window and 3 * window < length:
        out = _windows(q, k, v, real, bias, window)
    else:
        table = None if bias is None else _by_offset(bias, length, length)
        out = _in_parts(q, k, v, real, _added(table, _seen(length, window, sees)))
    return jnp.transpose(out, (1, 2, 0, 3))


def _library(q, k, v, real, bias, seen):
    """Attention by `jax.nn.dot_product_attention`."""
    length = q.shape[1]
    added = None if bias is None else _by_offset(bias, length, length)[None].astype(q.dtype)
    mask = None if real is None else real[:, None, None, :]
    if seen is not None:
        mask = seen[None, None] if mask is None else mask & seen[None, None]
    if not has_kernel(q.dtype, q.shape, bias is not None, mask is not None, real is not None):
        return jax.nn.dot_product_attention(q, k, v, added, mask)
    if mask is not None:  # the kernel reads it as it lies
        mask = jnp.broadcast_to(mask, (len(mask), 1, length, length))
    return jax.nn.dot_product_attention(q, k, v, added, mask, implementation="cudnn")


def has_kernel(dtype: Any, shape: tuple[int, ...], bias: bool, masked: bool, padded: bool) -> bool:
    """Whether cuDNN's kernel supports such arrays on this process's backend, and is no slower.

    Args:
        dtype: of queries, keys and values.
        shape: of them, [rows, length, heads, size].
        bias: whether scores get a trained bias. The kernel sums its gradient over rows, which it
            supports only where all rows have the same mask.
        masked: whether there is a mask, which the kernel adds to scores like a bias.
        padded: whether each row has a mask of its own.
    """
    _, length, _, size = shape
    return (
        _on_cuda()
        and dtype in (jnp.bfloat16, jnp.float16)
        and size % 8 == 0
        and size <= 128
        and length % 2 == 0
        and (length >= _LONG or not (bias or masked))
        and not (bias and padded)
    )


def _on_cuda() -> bool:
    """Whether this process's devices are NVIDIA GPUs of the Ampere generation (2020) or later."""
    if jax.default_backend() != "gpu":
        return False
    device = jax.devices()[0]
    return "cuda" in device.client.platform_version and float(device.compute_capability) >= 8


def _by_offset(bias: jax.Array, queries: int, keys: int) -> jax.Array:
    """[heads, queries + keys - 1] -> [heads, queries, keys]: element queries - 1 + j - i at i, j.

    Implemented with tile and reshape, so that its gradient is a sum and not a scatter.
    """
    heads, size = bias.shape
    if queries == 1:
        return bias[:, None]
    # The new rows are one element shorter than the repeated one: each begins one element earlier.
    repeated = jnp.tile(jnp.roll(bias, 1 - queries, axis=1), (1, queries))
    rows = repeated[:, : queries * (size - 1)].reshape(heads, queries, size - 1)
    return rows[:, :, :keys]


def _seen(length: int, window: int, sees: str) -> jax.Array | None:
    """Which key a query may see, bool [length, length]; None for all."""
    if sees == "all" and not window:
        return None
    near = _near(window or length, length, length, 0)
    query, key = jnp.arange(length)[:, None], jnp.arange(length)
    return (
        near
        & {"all": True, "left": key <= query, "right": key >= query, "self": key == query}[sees]
    )


def _near(window: int, queries: int, keys: int, first: int) -> jax.Array:
    """Whether query i may see key j, which stands at `first` + j: bool [queries, keys]."""
    return abs(jnp.arange(queries)[:, None] - jnp.arange(first, first + keys)) <= window


def _added(bias: jax.Array | None, near: jax.Array | None) -> jax.Array | None:
    """The sum of bias and mask, to be added to scores: float32 [heads or 1, queries, keys]."""
    if near is None:
        return bias
    return jnp.where(near, jnp.zeros((1, 1, 1)) if bias is None else bias, _MASKED)


def _windows(q, k, v, real, bias, window: int) -> jax.Array:
    """Attention of blocks of `window` queries to the keys of the same and both adjacent blocks."""
    heads, rows, length, size = q.shape
    blocks = -(-length // window)
    end = blocks * window - length
    real = jnp.ones((rows, length), bool) if real is None else real

    def cut(x):
        x = jnp.pad(x, ((0, 0), (0, 0), (0, end), (0, 0)))
        return x.reshape(heads, rows * blocks, window, size)

    def neighbours(x, axis):
        """Positions axis, axis + 1 [rows, length] -> [rows * blocks, 3 window]."""
        width = [(0, 0)] * x.ndim
        width[axis + 1] = (window, window + end)
        x = jnp.pad(x, width)
        shape = x.shape[: axis + 1]
        x = x.reshape(*shape, blocks + 2, window, *x.shape[axis + 2 :])
        parts = [lax.slice_in_dim(x, i, i + blocks, axis=axis + 1) for i in range(3)]
        x = jnp.concatenate(parts, axis=axis + 2)
        return x.reshape(*shape[:-1], rows * blocks, 3 * window, *x.shape[axis + 3 :])

    if bias is not None:
        middle = length - 1
        bias = _by_offset(
            bias[:, middle + 1 - 2 * window : middle + 2 * window], window, 3 * window
        )
    added = _added(bias, _near(window, window, 3 * window, -window))
    out = _in_parts(cut(q), neighbours(k, 1), neighbours(v, 1), neighbours(real, 0), added)
    return out.reshape(heads, rows, -1, size)[:, :, :length]


def _in_parts(q, k, v, real, added) -> jax.Array:
    """Attention with heads as the leading axis, for as many rows at a time as fit into the cache.

    Args:
        q: [heads, rows, queries, size], scaled.
        k: [heads, rows, keys, size].
        v: like k.
        real: bool [rows, keys], or None.
        added: [heads or 1, queries, keys], or None.

    Returns:
        [heads, rows, queries, size].
    """
    heads, rows, queries, _ = q.shape
    scores = queries * k.shape[2]
    k, v = (jnp.swapaxes(x, 2, 3) for x in (k, v))
    if heads * rows * scores <= _KEPT:
        return _softmax(q, k, v, real, added if added is None else added[:, None])
    if added is None or len(added) == 1:  # all heads are alike
        shape = (heads, rows, queries, q.shape[-1])
        real = None if real is None else jnp.tile(real, (heads, 1))
        heads, rows = 1, heads * rows
        q, k, v = (x.reshape(1, rows, *x.shape[2:]) for x in (q, k, v))
    else:
        shape = q.shape
    most = min(rows, max(1, _SCORES // scores))
    count = max(n for n in range(1, most + 1) if rows % n == 0)
    policy = jax.checkpoint_policies.save_only_these_names("largest", "sum", "output")

    def softmax(q, k, v, real, own):
        return _softmax(q, k, v, real, own if own is None else _for_each(own, len(q)))

    part = jax.checkpoint(softmax, policy=policy)
    if count < rows:
        real = jax.tree.map(lambda x: x.reshape(-1, count, x.shape[-1]), real)

    def one_head(inputs):
        q, k, v, own = inputs
        if count == rows:
            return part(q, k, v, real, own)
        q, k, v = (x.reshape(-1, count, *x.shape[1:]) for x in (q, k, v))
        return lax.map(lambda each: part(*each, own), (q, k, v, real))

    return lax.map(one_head, (q, k, v, added)).reshape(shape)


def _for_each(added: jax.Array, rows: int) -> jax.Array:
    """Repeats an array for each row: [queries, keys] -> [rows, queries, keys].

    Written as a product, so that its gradient is a product as well. With broadcasting, XLA fuses
    the gradient's sum over rows with the recomputation of its terms: 1.5 times the time in all.
    """
    return jnp.einsum("r,qk->rqk", jnp.ones(rows, added.dtype), added)


def _softmax(q, k, v, real, added) -> jax.Array:
    """[..., rows, queries, size], [..., rows, size, keys] twice -> [..., rows, queries, size]."""
    scores = _product("...qd,...dk->...qk", q, k)
    if added is not None:
        scores = scores + added
    if real is not None:
        scores = jnp.where(real[:, None], scores, _MASKED)
    largest = lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - checkpoint_name(largest, "largest"))
    total = checkpoint_name(jnp.sum(weights, axis=-1, keepdims=True), "sum")
    out = _product("...qk,...dk->...qd", weights.astype(v.dtype), v)
    return (checkpoint_name(out, "output") / total).astype(v.dtype)


def _product(axes: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """einsum that accumulates in float32 or more."""
    kind = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(axes, a, b, preferred_element_type=kind)
