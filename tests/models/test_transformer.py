"""The transformer coder against NumPy in double precision, and what must not be seen."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from aejax.config import Mesh
from aejax.models import Autoencoder, Batch, Context
from aejax.models.batch import evaluation
from aejax.models.bottlenecks import KSparse, Variational
from aejax.models.coders import Dense, Transformer
from aejax.models.corruption import Hidden, Masking
from aejax.models.likelihood import Categorical, Gaussian
from aejax.models.penalties import L1
from aejax.nn.blocks import angles, turn
from aejax.training.setup import setup
from configs import transformer as preset

WIDTH, HEADS = 8, 2
WINDOW = 2
SEEN = {
    "a": lambda i, j: True,
    "w": lambda i, j: abs(i - j) <= WINDOW,
    "l": lambda i, j: j <= i,
    "r": lambda i, j: j >= i,
    "s": lambda i, j: j == i,
}


def coder(**fields) -> Transformer:
    given = {"width": WIDTH, "heads": HEADS, "feed_forward": 12, "activation": "tanh"}
    given |= {"window": WINDOW, "encoder_layout": "af", "decoder_layout": "f"}
    return Transformer(**(given | fields))


def drawn(build) -> nnx.Module:
    """The module with numbers of NumPy's, so that no parameter is 0 or 1."""
    random = np.random.RandomState(5)
    graph, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    return nnx.merge(
        graph, jax.tree.map(lambda leaf: np.float32(0.5 * random.randn(*leaf.shape)), state)
    )


def compiled(module: nnx.Module, *inputs):
    graph, state = nnx.split(module)
    run = jax.jit(lambda state, *inputs: nnx.merge(graph, state)(*inputs))
    return np.asarray(run(state, *inputs))


def number(variable) -> np.ndarray:
    return np.float64(variable[...])


# The reference: one token, one head, one offset at a time.


def norm(module, x):
    if module.kind == "layer":
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x * number(module.scale) + (0 if module.bias is None else number(module.bias))


def attention(module, x, real, angle):
    rows, tokens, width = x.shape
    size = width // HEADS
    made = x @ number(module.into) + number(module.into_bias)
    out = np.zeros(x.shape)
    for r, h in np.ndindex(rows, HEADS):
        parts = made[r, :, 3 * size * h : 3 * size * (h + 1)]
        q, k, v = parts[:, :size], parts[:, size : 2 * size], parts[:, 2 * size :]
        if angle is not None:  # as products of complex numbers
            way = np.exp(1j * np.float64(angle))
            q, k = (x[:, : size // 2] + 1j * x[:, size // 2 :] for x in (q, k))
            q, k = q * way, k * way
        for i in range(tokens):
            seen = [j for j in range(tokens) if real[r, j]]
            seen = [j for j in seen if SEEN[module.letter](i, j)]
            if not seen:
                continue
            scores = np.array([(q[i].conj() @ k[j]).real / np.sqrt(size) for j in seen])
            if module.offsets is not None:
                scores += number(module.offsets)[h, [tokens - 1 + j - i for j in seen]]
            weights = np.exp(scores) / np.exp(scores).sum()
            out[r, i, h * size : (h + 1) * size] = weights @ v[seen]
    return out @ number(module.out.kernel) + number(module.out.bias)


def feed_forward(module, x):
    hidden = np.tanh(x @ number(module.into.kernel) + number(module.into.bias))
    return hidden @ number(module.out.kernel) + number(module.out.bias)


def stack(module, layout, x, real, angle=None):
    for letter, slot in zip(layout, module.slots, strict=True):
        if letter == "f":
            x = x + feed_forward(slot.block, norm(slot.norm, x))
        elif letter != "i":
            x = x + attention(slot.block, norm(slot.norm, x), real, angle)
    return norm(module.norm, x)


def image_tokens(x, patch):
    rows, height, width = x.shape[:3]
    corners = itertools.product(range(0, height, patch), range(0, width, patch))
    return np.stack(
        [x[:, i : i + patch, j : j + patch].reshape(rows, -1) for i, j in corners], axis=1
    )


IMAGES = np.random.RandomState(0).randn(3, 4, 6, 2).astype(np.float32)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"encoder_layout": "aifw", "norm": "rms"},
        {"encoder_layout": "lrs"},
        {"positions": "rotary", "pool": "mean"},
        {"remat": True},
    ],
)
def test_the_encoder_of_patches_is_the_reference(fields):
    settings = coder(patch=2, **fields)
    encoder = drawn(lambda rngs: settings.encoder(IMAGES.shape[1:], 5, rngs))
    x = image_tokens(np.float64(IMAGES), 2) @ number(encoder.table)
    angle = None
    if settings.positions == "rotary":
        angle = angles((2, 3), WIDTH // HEADS)
    else:
        x = x + number(encoder.positions)
    x = stack(encoder.stack, settings.encoder_layout, x, np.ones((3, 6), bool), angle)
    x = x.reshape(3, -1) if settings.pool == "flatten" else x.mean(axis=1)
    expected = x @ number(encoder.code.kernel) + number(encoder.code.bias)
    found = compiled(encoder, IMAGES, None, None)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("fields", [{"positions": "relative", "encoder_layout": "awf"}, {}])
def test_the_masked_encoder_of_symbols_is_the_reference_with_hidden_and_padded_ones(fields):
    settings = coder(symbols=7, **fields)
    encoder = drawn(lambda rngs: settings.encoder((9,), 0, rngs))
    random = np.random.RandomState(1)
    x = random.randint(0, 7, (4, 9))
    hidden, real = random.rand(4, 9) < 0.3, np.arange(9) < np.array([[9], [5], [1], [7]])
    tokens = np.where(hidden[..., None], number(encoder.hidden), number(encoder.table)[x])
    if settings.positions == "learned":
        tokens = tokens + number(encoder.positions)
    expected = stack(encoder.stack, settings.encoder_layout, tokens, real)
    found = compiled(encoder, x.astype(np.float32), hidden, real.astype(np.float32))
    assert found.shape == (4, 9, WIDTH)
    shown = real[..., None]
    np.testing.assert_allclose(found * shown, expected * shown, rtol=2e-4, atol=2e-5)


def test_the_decoder_is_the_reference():
    settings = coder(patch=2, decoder_layout="fa")
    decoder = drawn(lambda rngs: settings.decoder(5, IMAGES.shape[1:], 3, rngs))
    z = np.random.RandomState(3).randn(2, 3, 5).astype(np.float32)  # two samples of three rows
    x = np.float64(z).reshape(6, 5) @ number(decoder.start.kernel)
    x = x.reshape(6, 6, WIDTH) + number(decoder.positions)
    x = stack(decoder.stack, "fa", x, np.ones((6, 6), bool))
    x = x @ number(decoder.out.kernel) + number(decoder.out.bias)
    found = compiled(decoder, z, None, None)
    assert found.shape == (2, 3, *IMAGES.shape[1:], 3)
    patches = image_tokens(found.reshape(6, *IMAGES.shape[1:], 3), 2)
    np.testing.assert_allclose(patches, x, rtol=2e-4, atol=2e-5)


def test_frames_are_tokens():
    frames = np.random.RandomState(2).randn(2, 5, 3).astype(np.float32)
    settings = coder(positions="relative")
    encoder = drawn(lambda rngs: settings.encoder((5, 3), 4, rngs))
    x = stack(
        encoder.stack, "af", np.float64(frames) @ number(encoder.table), np.ones((2, 5), bool)
    )
    expected = x.reshape(2, -1) @ number(encoder.code.kernel) + number(encoder.code.bias)
    np.testing.assert_allclose(compiled(encoder, frames, None, None), expected, rtol=2e-4)


def test_scores_of_turned_vectors_depend_on_offsets_alone():
    size, angle = 8, angles((12,), 8)
    q, k = np.random.RandomState(0).randn(2, size).astype(np.float32)
    everywhere = [np.tile(v, (1, 12, 1, 1)) for v in (q, k)]
    a, b = (np.asarray(turn(jnp.asarray(v), angle))[0, :, 0] for v in everywhere)
    scores = a @ b.T
    for offset in range(-11, 12):
        along = np.diagonal(scores, offset)
        np.testing.assert_allclose(along, along[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(a, axis=-1), np.linalg.norm(q), rtol=1e-5)
    with pytest.raises(ValueError, match="must be a multiple of 4"):
        angles((3, 4), 6)


def test_relative_heads_start_at_their_neighbours():
    settings = coder(positions="relative", encoder_layout="aw", heads=4)
    encoder = settings.encoder((6, 3), 0, nnx.Rngs(0))
    for slot in encoder.stack.slots:
        peaks = np.asarray(slot.block.offsets[...])
        assert list(peaks.argmax(axis=1) - 5) == [-1, 1, -2, 2]
        assert ((peaks != 0).sum(axis=1) == 1).all()


# What must not be seen.


def masked(layout="af", **fields) -> Autoencoder:
    settings = coder(encoder_layout=layout, decoder_layout=layout, **fields)
    return Autoencoder(settings, 0, likelihood=Categorical(7), corruption=Hidden(0.3))


def test_hidden_and_padded_symbols_change_no_bit_of_a_prediction():
    settings = coder(symbols=7, encoder_layout="awf", decoder_layout="af")
    model = drawn(lambda rngs: Tokens(settings, rngs))
    random = np.random.RandomState(1)
    x = random.randint(0, 7, (4, 9)).astype(np.float32)
    hidden, real = random.rand(4, 9) < 0.3, np.arange(9) < np.array([[9], [5], [1], [7]])
    other = np.where(hidden | ~real, (x + 3) % 7, x)
    far = np.where(hidden | ~real, np.nan, x)
    mask = real.astype(np.float32)
    found = compiled(model, x, hidden, mask) * real[..., None]
    for changed in (other, far):
        again = compiled(model, changed, hidden, mask) * real[..., None]
        np.testing.assert_array_equal(found, again)
    moved = np.where(~hidden & real, (x + 3) % 7, x)
    assert not np.allclose(found, compiled(model, moved, hidden, mask) * real[..., None])


class Tokens(nnx.Module):
    """Encoder and decoder of a masked model in a row."""

    def __init__(self, settings: Transformer, rngs: nnx.Rngs):
        self.encoder = settings.encoder((9,), 0, rngs)
        self.decoder = settings.decoder(0, (9,), 7, rngs)

    def __call__(self, x, hidden, mask):
        return self.decoder(self.encoder(x, hidden, mask), None, mask)


@pytest.mark.parametrize("pool", ["flatten", "mean"])
def test_padding_changes_no_bit_of_a_code(pool):
    settings = coder(pool=pool, encoder_layout="waf")
    encoder = drawn(lambda rngs: settings.encoder((9, 3), 5, rngs))
    x = np.random.RandomState(0).randn(3, 9, 3).astype(np.float32)
    mask = (np.arange(9) < np.array([[9], [4], [1]])).astype(np.float32)
    found = compiled(encoder, x, None, mask)
    junk = np.where(mask[..., None] == 0, 1e6, x).astype(np.float32)
    np.testing.assert_array_equal(found, compiled(encoder, junk, None, mask))
    rows_alone = compiled(encoder, x, None, np.ones(3, np.float32))
    np.testing.assert_array_equal(rows_alone, compiled(encoder, x, None, None))


def test_hidden_patches_are_whole_squares_and_half_hidden_ones_lose_what_is_hidden():
    settings = coder(patch=2)
    encoder = drawn(lambda rngs: settings.encoder((4, 6, 2), 0, rngs))
    hidden = np.zeros((3, 4, 6), bool)
    hidden[:, :2, 2:4] = True  # one whole patch
    hidden[:, 2, 0] = True  # half of another's
    one = compiled(encoder, IMAGES, hidden, None)
    junk = np.where(hidden[..., None], np.nan, IMAGES)
    np.testing.assert_array_equal(one, compiled(encoder, junk, hidden, None))
    tokens = image_tokens(np.where(hidden[..., None], 0, np.float64(IMAGES)), 2)
    tokens = tokens @ number(encoder.table)
    tokens[:, 1] = number(encoder.hidden)
    tokens = tokens + number(encoder.positions)
    expected = stack(encoder.stack, "af", tokens, np.ones((3, 6), bool))
    np.testing.assert_allclose(one, expected, rtol=2e-4, atol=2e-5)


# The whole model.


def context(rows: int, seed: int = 0) -> Context:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(rows))
    return Context(keys, jnp.int32(3), lambda values: jnp.mean(values, axis=0))


def loss_of(settings: Autoencoder, batch: Batch, given: Context | None):
    graph, state = nnx.split(drawn(lambda rngs: settings.init(rngs, batch)))
    run = jax.jit(lambda state, batch: nnx.merge(graph, state).loss(batch, given))
    return run(state, batch), nnx.merge(graph, state)


def logits_of(model, x, hidden):
    return model.decoder(model.encoder(x, hidden, None), None, None)


@pytest.mark.parametrize("training", [True, False])
def test_a_masked_models_loss_is_the_likelihood_of_what_is_hidden(training):
    settings = masked(symbols=7)
    x = np.random.RandomState(1).randint(0, 7, (5, 9)).astype(np.float32)
    index = jnp.array([4, 8, 0, 1, 30])
    batch = Batch(jnp.asarray(x), index=index)
    given = context(5) if training else None
    (loss, terms), model = loss_of(settings, batch, given)
    if not training:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), index)
        given = Context(keys, None, evaluation(None).mean)
    hidden = np.asarray(settings.corruption(batch.x, given).hidden)
    assert 0 < hidden.sum() < hidden.size
    graph, state = nnx.split(model)
    run = jax.jit(lambda state, x, hidden: logits_of(nnx.merge(graph, state), x, hidden))
    logits = np.float64(run(state, batch.x, hidden))
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    own = np.take_along_axis(log_p, x.astype(int)[..., None], -1)[..., 0]
    expected = -np.sum(own * hidden) / 5
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert float(terms["nll"]) == pytest.approx(expected, rel=1e-4)
    if not training:
        each = expected * 5 / hidden.sum()
        assert float(terms["nll_element"]) == pytest.approx(each, rel=1e-4)
        wrong = (logits.argmax(-1) != x)[hidden].mean()
        assert float(terms["wrong"]) == pytest.approx(wrong, rel=1e-4)


def test_evaluation_hides_the_same_of_a_row_in_any_batch():
    settings = masked(symbols=7)
    x = jnp.asarray(np.random.RandomState(1).randint(0, 7, (6, 9)), jnp.float32)
    index = jnp.arange(6)
    (whole, _), model = loss_of(settings, Batch(x, index=index), None)
    graph, state = nnx.split(model)
    run = jax.jit(lambda rows: nnx.merge(graph, state).loss(Batch(x[rows], index=index[rows]))[0])
    halves = [run(jnp.array(rows)) for rows in ([5, 1, 0], [2, 4, 3])]
    assert float(whole) == pytest.approx(float(sum(halves)) / 2, rel=1e-5)


def test_hidden_hides_whole_squares_at_its_rate():
    x = jnp.ones((64, 8, 12, 3))
    found = Hidden(0.25, patch=4)(x, context(64))
    hidden = np.asarray(found.hidden)
    squares = hidden.reshape(64, 2, 4, 3, 4)
    assert hidden.shape == (64, 8, 12)
    assert (squares == squares[:, :, :1, :, :1]).all()
    assert hidden.mean() == pytest.approx(0.25, abs=0.07)
    np.testing.assert_array_equal(found.x, np.where(hidden[..., None], 0, np.ones(x.shape)))
    np.testing.assert_array_equal(found.weight, hidden.astype(np.float32))
    steps = Hidden(0.4, rest=0.5)(jnp.ones((500, 7, 2)), context(500))
    assert np.asarray(steps.hidden).shape == (500, 7)
    assert np.asarray(steps.hidden).mean() == pytest.approx(0.4, abs=0.03)
    np.testing.assert_array_equal(steps.weight, np.where(steps.hidden, np.float32(1), 0.5))
    with pytest.raises(ValueError, match=r"corruption.patch=5: must divide both sides"):
        Hidden(0.25, patch=5)(x, context(64))


def test_dropout_keeps_the_mean_draws_by_row_and_is_off_in_evaluation():
    settings = coder(dropout=0.5, encoder_layout="f", pool="mean")
    encoder = drawn(lambda rngs: settings.encoder((5, 3), 4, rngs))
    x = jnp.asarray(np.random.RandomState(0).randn(3, 5, 3), jnp.float32)
    graph, state = nnx.split(encoder)

    @jax.jit
    def stacked(keys):
        """What one block adds, before the last norm."""
        module = nnx.merge(graph, state)
        tokens = module._tokens(x, None, None)
        return module.stack.slots[0](tokens, None, keys) - tokens

    plain = np.asarray(stacked(None))
    many = np.stack([stacked(context(3, seed).keys) for seed in range(400)])
    left_out = many == 0
    assert left_out.mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(
        np.where(left_out, 2 * plain, many),
        np.broadcast_to(2 * plain, many.shape),
        rtol=1e-4,
        atol=1e-5,
    )

    def run(x, given):
        return jax.jit(lambda state, x: nnx.merge(graph, state)(x, None, None, given))(state, x)

    np.testing.assert_array_equal(run(x, evaluation(None)), run(x, None))
    whole = np.asarray(run(x, context(3)))
    assert not np.allclose(whole, run(x, None))
    # A row's draw is its own: alone it comes out the same.
    keys = context(3).keys[1:2]
    alone = Context(keys, jnp.int32(3), lambda values: values)
    found = run(x[1:2], alone)
    np.testing.assert_allclose(found[0], whole[1], rtol=1e-4, atol=1e-5)


def test_samples_of_a_code_are_dropped_differently_and_trained():
    settings = Autoencoder(coder(dropout=0.3), 4, Variational(samples=3), Gaussian(), None, None)
    batch = Batch(jnp.asarray(np.random.RandomState(0).randn(2, 5, 3), jnp.float32))
    (loss, _), model = loss_of(settings, batch, context(2))
    assert np.isfinite(loss)
    z = jnp.ones((3, 2, 4))
    graph, state = nnx.split(model.decoder)
    run = jax.jit(lambda z: nnx.merge(graph, state)(z, None, None, context(2)))
    out = np.asarray(run(z))
    assert out.shape == (3, 2, 5, 3, 1)
    assert not np.allclose(out[0], out[1])


def test_computing_blocks_again_changes_no_number():
    def run(remat):
        settings = masked(symbols=7, remat=remat, dropout=0.2)
        batch = Batch(jnp.asarray(np.random.RandomState(1).randint(0, 7, (5, 9)), jnp.float32))
        graph, state = nnx.split(drawn(lambda rngs: settings.init(rngs, batch)))
        loss = lambda state: nnx.merge(graph, state).loss(batch, context(5))[0]  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(state)

    for one, other in zip(jax.tree.leaves(run(False)), jax.tree.leaves(run(True)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_it_computes_in_the_type_of_its_parameters():
    settings = coder(patch=2)
    encoder = drawn(lambda rngs: settings.encoder((4, 6, 2), 5, rngs))
    exact = compiled(encoder, IMAGES, None, None)
    graph, state = nnx.split(encoder)
    half = nnx.merge(graph, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), state))
    found = half(jnp.asarray(IMAGES), None, None)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(found), exact, atol=0.03 * np.abs(exact).max() + 0.05)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"heads": 3}, "heads=3: must divide width=8"),
        (
            {"encoder_layout": "abc"},
            "encoder_layout=abc: must be letters of a, w, l, r, s, f, i, or inter",
        ),
        ({"decoder_layout": "par:1:4"}, "decoder_layout=par:1:4: P must be from 2 to the 8 blocks"),
        ({"positions": "sine"}, "positions=sine: must be learned or rotary or relative"),
        ({"positions": "relative", "patch": 2}, "positions=relative: is for sequences"),
        ({"symbols": 1}, r"symbols=1: must be 0 \(numbers\) or at least 2"),
        ({"symbols": 5, "patch": 2}, "patch=2: must be 0 with symbols=5"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
        ({"window": 0}, "window=0: must be at least 1"),
        ({"norm": "batch"}, "norm=batch: must be layer or rms"),
    ],
)
def test_settings_that_make_no_transformer_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        coder(**fields)


def test_rows_that_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match=r"patch=4: must divide both sides of images of 4 x 6, as"):
        coder(patch=4).encoder((4, 6, 2), 5, nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"patch=2: rows of shape \(6,\) are no images"):
        coder(patch=2).decoder(5, (6,), 1, nnx.Rngs(0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"coder": Dense()}, "latent_dim=0: needs model.coder=transformer"),
        ({"bottleneck": KSparse(1)}, "latent_dim=0: needs model.bottleneck=plain"),
        ({"corruption": Masking(0.3)}, "latent_dim=0: needs model.corruption=hidden"),
        ({"penalty": L1()}, "latent_dim=0: needs model.penalty=none"),
        ({"latent_dim": -1}, "latent_dim=-1: must be at least 0"),
        ({"likelihood": Categorical(9)}, "coder.symbols=7: must be model.likelihood.classes=9"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, said):
    settings = masked(symbols=7)
    settings.check(interval=False)
    for name, value in changes.items():
        setattr(settings, name, value)
    with pytest.raises(ValueError, match=said):
        settings.check(interval=False)


def test_heads_and_hidden_units_lie_over_the_tensor_axis():
    config = preset.get_config()
    config.mesh = Mesh(1, 2, 4)
    params = setup(config).state.params
    slots = params["encoder"]["stack"]["slots"]
    into, out = PartitionSpec("fsdp", "tensor"), PartitionSpec("tensor", "fsdp")
    for kind, arrays in (("a", slots[0]["block"]), ("f", slots[1]["block"])):
        first = arrays["into"] if kind == "a" else arrays["into"]["kernel"]
        assert first.sharding.spec == into and arrays["out"]["kernel"].sharding.spec == out
    # A device's piece of what goes into attention is whole heads: each 3 x 16 columns.
    block = slots[0]["block"]["into"]
    assert block.sharding.shard_shape(block.shape) == (32, 3 * 16)
