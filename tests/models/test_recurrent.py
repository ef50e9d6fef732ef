"""The recurrent coder against NumPy, which runs each cell step by step from its equations."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special

from aejax.models import Autoencoder, Batch
from aejax.models.batch import Context
from aejax.models.bottlenecks import Plain, Variational
from aejax.models.coders import Recurrent
from aejax.models.corruption import Masking, Noise
from aejax.models.likelihood import Bernoulli, Categorical, Gaussian
from aejax.models.penalties import Contractive
from aejax.nn.recurrence import CELLS, recurrence

SHAPE = (6, 3, 1)
RANDOM = np.random.RandomState(0)
ROWS = RANDOM.randn(4, *SHAPE).astype(np.float32)
WORDS = RANDOM.randint(0, 7, (4, 6)).astype(np.float32)
CODES = RANDOM.randn(4, 5).astype(np.float32)


def drawn(build: Callable[[nnx.Rngs], nnx.Module], seed: int = 5) -> nnx.Module:
    """The module with numbers of NumPy's, biases too: nothing is compiled to draw them."""
    random = np.random.RandomState(seed)
    graph, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

    def draw(leaf):
        scale = 1 / math.sqrt(leaf.shape[0]) if len(leaf.shape) > 1 else 0.5
        return np.float32(scale * random.randn(*leaf.shape))

    return nnx.merge(graph, jax.tree.map(draw, state))


def compiled(module: nnx.Module, *inputs) -> np.ndarray:
    graph, state = nnx.split(module)
    run = jax.jit(lambda state, inputs: nnx.merge(graph, state)(*inputs))
    return np.asarray(run(state, [None if x is None else jnp.asarray(x) for x in inputs]))


def encoder_of(coder: Recurrent, shape=SHAPE):
    return drawn(lambda rngs: coder.encoder(shape, 5, rngs))


def decoder_of(coder: Recurrent, shape=SHAPE, outputs=1):
    return drawn(lambda rngs: coder.decoder(5, shape, outputs, rngs))


def exact(parameter) -> np.ndarray:
    return np.float64(parameter[...])


def step_in_numpy(cell: str, layer, state: list, inputs: np.ndarray) -> list:
    """One step from W x + b, float64."""
    if cell == "lru":
        h = (state[0] + 1j * state[1]) * np.exp(
            -np.exp(exact(layer.decay)) + 1j * exact(layer.angle)
        )
        h = h + inputs[:, : layer.hidden] + 1j * inputs[:, layer.hidden :]
        return [h.real, h.imag]
    parts = [inputs[:, k * layer.hidden : (k + 1) * layer.hidden] for k in range(4)]
    before = state[-1] @ exact(layer.recurrent)
    befores = [before[:, k * layer.hidden : (k + 1) * layer.hidden] for k in range(4)]
    if cell == "lstm":
        i, f, o = (special.expit(parts[k] + befores[k]) for k in range(3))
        c = f * state[0] + i * np.tanh(parts[3] + befores[3])
        return [c, o * np.tanh(c)]
    r, u = (special.expit(parts[k] + befores[k]) for k in range(2))
    return [u * state[0] + (1 - u) * np.tanh(parts[2] + r * befores[2])]


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def run_in_numpy(cell, layer, x, state, order) -> tuple[list, np.ndarray | None]:
    """x [length, rows, n] in this order of steps -> last state, outputs [length, rows, m]."""
    outputs = [np.zeros(0)] * len(x)
    for t in order:
        bias = exact(layer.bias)
        inputs = x[t] @ exact(layer.kernel) + (bias[t] if bias.ndim == 2 else bias)
        state = step_in_numpy(cell, layer, state, inputs)
        outputs[t] = state[-1]
        if cell == "lru" and layer.readout is not None:
            v, a = exact(layer.readout.kernel), exact(layer.readout.bias)
            outputs[t] = gelu(np.concatenate(state, axis=1) @ v + a)
    return state, np.stack(outputs)


def encoder_in_numpy(coder: Recurrent, module, steps: np.ndarray) -> np.ndarray:
    """steps [length, rows, n], float64."""
    length, rows = steps.shape[:2]
    for i, layer in enumerate(module.layers):
        zero = [np.zeros((rows, layer.hidden))] * layer.arrays
        ways = [run_in_numpy(coder.cell, layer, steps, zero, range(length))]
        if coder.bidirectional:
            back = range(length)[::-1]
            ways.append(run_in_numpy(coder.cell, module.backward[i], steps, zero, back))
        state = np.concatenate([array for state, _ in ways for array in state], axis=1)
        steps = np.concatenate([outputs for _, outputs in ways], axis=-1)
    return state @ exact(module.code.kernel) + exact(module.code.bias)


def decoder_in_numpy(coder: Recurrent, module, z: np.ndarray) -> np.ndarray:
    """[length, rows, outputs of a step]."""
    start = np.float64(z) @ exact(module.start.kernel) + exact(module.start.bias)
    steps = np.repeat(np.float64(z)[None], module.length, axis=0)
    order = range(module.length)[:: -1 if coder.reverse else 1]
    for layer in module.layers:
        state = [start[:, k * layer.hidden :][:, : layer.hidden] for k in range(layer.arrays)]
        start = start[:, layer.arrays * layer.hidden :]
        _, steps = run_in_numpy(coder.cell, layer, steps, state, order)
    return steps @ exact(module.output.kernel) + exact(module.output.bias)


SETTINGS = [
    Recurrent(cell, **fields)
    for cell in CELLS
    for fields in (
        {"hidden": (4,), "positions": False},
        {"hidden": (4, 3), "bidirectional": True, "reverse": False},
    )
]


@pytest.mark.parametrize("coder", SETTINGS, ids=str)
def test_both_ways_are_the_equations_step_by_step(coder):
    encoder, decoder = encoder_of(coder), decoder_of(coder)
    steps = np.float64(ROWS.reshape(4, 6, 3)).swapaxes(0, 1)
    wanted = encoder_in_numpy(coder, encoder, steps)
    np.testing.assert_allclose(compiled(encoder, ROWS, None, None), wanted, rtol=1e-4, atol=1e-5)
    wanted = decoder_in_numpy(coder, decoder, CODES).swapaxes(0, 1).reshape(4, *SHAPE, 1)
    found = compiled(decoder, CODES, None, None)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_symbol_is_its_row_of_the_table():
    coder = Recurrent("gru", (4,), symbols=7, embedding=3)
    encoder, decoder = encoder_of(coder, (6,)), decoder_of(coder, (6,), 7)
    steps = exact(encoder.steps.table)[WORDS.astype(int)].swapaxes(0, 1)
    wanted = encoder_in_numpy(coder, encoder, steps)
    np.testing.assert_allclose(compiled(encoder, WORDS, None, None), wanted, rtol=1e-4, atol=1e-5)
    wanted = decoder_in_numpy(coder, decoder, CODES).swapaxes(0, 1)
    found = compiled(decoder, CODES, None, None)
    assert found.shape == (4, 6, 7)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    # Of rows with several axes each element is a symbol.
    square = encoder_of(coder, (2, 3))
    np.testing.assert_array_equal(
        compiled(square, WORDS.reshape(4, 2, 3), None, None), compiled(encoder, WORDS, None, None)
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_padding_leaves_the_state_bit_for_bit(cell, reverse):
    layer = drawn(lambda rngs: recurrence(cell, 3, 4, 6, positions=True, rngs=rngs))
    x = np.float32(RANDOM.randn(6, 4, 3))
    graph, weights = nnx.split(layer)

    # As users compile it: the quick code of tests adds in another order for another length.
    @functools.partial(
        jax.jit,
        compiler_options={
            "xla_backend_optimization_level": 3,
            "xla_cpu_use_fusion_emitters": True,
        },
    )
    def run(weights, x, real):
        layer = nnx.merge(graph, weights)
        inputs, zero = layer.inputs(x), layer.start(4, jnp.float32)
        whole, _ = layer(inputs, zero, real, reverse)
        return whole, layer(inputs[:4], zero, real[:4], reverse)[0]

    real = np.zeros((6, 4, 1), bool)
    real[:4] = True
    padded, short = run(weights, x, real)
    for one, other in zip(padded, short, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("coder", SETTINGS, ids=str)
def test_what_stands_in_padding_and_hidden_places_has_no_influence(coder):
    encoder, mask = encoder_of(coder), np.ones((4, 6), np.float32)
    mask[1, 4:], mask[2, 1:], mask[3] = 0, 0, 0
    broken = np.where(mask[:, :, None, None] != 0, ROWS, np.nan)
    found = compiled(encoder, ROWS, None, mask)
    np.testing.assert_array_equal(compiled(encoder, broken, None, mask), found)
    # A row without padding is as it is without a mask.
    whole = compiled(encoder, ROWS, None, None)
    np.testing.assert_allclose(found[0], whole[0], rtol=1e-5, atol=1e-6)
    assert np.abs(found[1:] - whole[1:]).max() > 1e-3
    hidden = np.zeros((4, 6), bool)
    hidden[:, 2] = True
    one = compiled(encoder, ROWS, hidden, None)
    np.testing.assert_array_equal(
        one, compiled(encoder, np.where(hidden[..., None, None], 0, ROWS), None, None)
    )


@pytest.mark.parametrize("cell", CELLS)
def test_reversed_targets_are_the_same_steps_in_the_other_order(cell):
    forth, back = (
        decoder_of(Recurrent(cell, (4,), positions=False, reverse=reverse))
        for reverse in (False, True)
    )
    one, other = (compiled(decoder, CODES, None, None) for decoder in (forth, back))
    np.testing.assert_allclose(one, other[:, ::-1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_shown_its_own_outputs_it_gives_what_it_gives_freely(cell, reverse, masked):
    mask = np.ones((4, 6), np.float32)
    mask[1, 4:], mask[2, 2:] = 0, 0
    mask = mask if masked else None
    fields = {"hidden": (5, 4), "reverse": reverse, "teacher_forcing": 1.0}
    words = decoder_of(Recurrent(cell, symbols=7, **fields), (6,), 7)
    words.likelihood = nnx.static(Categorical(7))
    freely = compiled(words, 3 * CODES, None, mask)
    own = np.argmax(freely, axis=-1).astype(np.float32)
    assert len(np.unique(own)) > 1
    np.testing.assert_allclose(compiled(words, 3 * CODES, own, mask), freely, rtol=1e-4, atol=1e-4)
    other = compiled(words, 3 * CODES, (own + 1) % 7, mask)
    assert not np.allclose(other, freely, atol=1e-2)
    # The first step has nothing before it.
    first = -1 if reverse else 0
    np.testing.assert_allclose(other[0, first], freely[0, first], rtol=1e-4, atol=1e-4)

    images = decoder_of(Recurrent(cell, **fields))
    images.likelihood = nnx.static(Bernoulli())
    freely = compiled(images, CODES, None, mask)
    own = special.expit(freely[..., 0])
    np.testing.assert_allclose(compiled(images, CODES, own, mask), freely, rtol=1e-4, atol=1e-4)


def test_samples_of_a_code_are_shown_the_same_rows():
    decoder = decoder_of(Recurrent("gru", (4,), teacher_forcing=1.0))
    z = np.stack([CODES, CODES + 1, 2 * CODES])
    mask = np.ones((4, 6), np.float32)
    mask[2, 3:] = 0
    found = compiled(decoder, z, ROWS, mask)
    assert found.shape == (3, 4, *SHAPE, 1)
    for one, codes in zip(found, z, strict=True):
        np.testing.assert_allclose(one, compiled(decoder, codes, ROWS, mask), rtol=1e-5, atol=1e-6)


def context(rows: int) -> Context:
    keys = jax.random.split(jax.random.key(3), rows)
    return Context(keys, jnp.int32(0), lambda values: jnp.mean(values, axis=0))


def test_the_share_of_teacher_forcing_is_what_is_shown_in_training_alone():
    x = jnp.asarray(np.float32(RANDOM.randn(400, *SHAPE)))
    assert Recurrent().teacher_inputs(x, context(400)) is None
    assert Recurrent(teacher_forcing=1.0).teacher_inputs(x, context(400)) is x
    shown = np.asarray(Recurrent(teacher_forcing=0.3).teacher_inputs(x, context(400)))
    seen = ~np.isnan(shown)
    # Whole steps, drawn for each row.
    assert (seen == seen[:, :, :1]).all()
    assert seen.mean() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 2400))
    np.testing.assert_array_equal(shown[seen], np.asarray(x)[seen])
    settings = Autoencoder(Recurrent("gru", (4,), teacher_forcing=0.5), 5, likelihood=Gaussian())
    batch = Batch(jnp.asarray(ROWS))
    module = drawn(lambda rngs: settings.init(rngs, batch))
    graph, state = nnx.split(module)

    @jax.jit
    def losses(state):
        module = nnx.merge(graph, state)
        freely = module.decoder(module.encode(batch.x), None, None)
        return module.loss(batch)[0], module.loss(batch, context(4))[0], freely

    evaluated, trained, freely = losses(state)
    log_p = settings.likelihood.log_prob(freely, batch.x)
    assert evaluated == pytest.approx(-float(np.sum(log_p)) / 4, rel=1e-5)
    assert abs(evaluated - trained) > 1e-2


@pytest.mark.parametrize("cell", CELLS)
def test_its_gradient_is_the_slope_of_the_loss(cell):
    """In double precision, which the parameters' type alone decides."""
    with jax.enable_x64(True):
        coder = Recurrent(cell, (4, 3), bidirectional=True, teacher_forcing=1.0)
        graphs, states = zip(
            nnx.split(encoder_of(coder)), nnx.split(decoder_of(coder)), strict=True
        )
        states = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), states)
        x, mask = np.float64(ROWS), np.ones((4, 6))
        mask[1, 4:] = 0

        def error(states):
            encoder, decoder = map(nnx.merge, graphs, states)
            made = decoder(encoder(x, None, mask), x, mask)[..., 0]
            return jnp.sum(mask[..., None, None] * jnp.square(made - x))

        error = jax.jit(error)
        assert error(states).dtype == jnp.float64
        gradient = jax.jit(jax.grad(error))(states)
        leaves, tree = jax.tree.flatten(states)
        random, step = np.random.RandomState(0), 1e-5
        for i, slope in enumerate(jax.tree.leaves(gradient)):
            way = random.randn(*slope.shape)

            def at(distance, i=i, way=way):
                moved = [*leaves[:i], leaves[i] + distance * way, *leaves[i + 1 :]]
                return float(error(jax.tree.unflatten(tree, moved)))

            expected = (at(step) - at(-step)) / (2 * step)
            assert np.sum(np.asarray(slope) * way) == pytest.approx(expected, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("cell", CELLS)
def test_it_computes_in_the_type_of_its_parameters(cell):
    coder = Recurrent(cell, (4,), symbols=7, teacher_forcing=1.0)
    for module, inputs in (
        (encoder_of(coder, (6,)), (WORDS, None, None)),
        (decoder_of(coder, (6,), 7), (CODES, WORDS, None)),
        (decoder_of(coder, (6,), 7), (CODES, None, None)),
    ):
        if hasattr(module, "likelihood"):
            module.likelihood = nnx.static(Categorical(7))
        exactly = compiled(module, *inputs)
        graph, state = nnx.split(module)
        half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), state)
        found = compiled(nnx.merge(graph, half), *inputs)
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(found), exactly, atol=0.1)


def test_gates_remember_for_as_long_as_sequences_are():
    """Tallec and Ollivier 2018: the time that a forget gate keeps is even over 1 .. length."""
    layer = recurrence("lstm", 3, 500, 40, positions=False, rngs=nnx.Rngs(0))
    i, f, o, g = np.split(np.asarray(layer.bias[...]), 4)
    steps = np.exp(f)
    assert steps.min() >= 1 and steps.max() <= 39 and abs(steps.mean() - 20) < 3
    np.testing.assert_array_equal(i, -f)
    assert not o.any() and not g.any()


def test_the_linear_cell_starts_as_the_spectrum_of_its_inputs():
    layer = recurrence("lru", 1, 8, 16, positions=False, rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.concatenate([jnp.ones((1, 8)), jnp.zeros((1, 8))], axis=1)
    layer.decay[...] = jnp.full(8, -30.0)
    x = np.float32(RANDOM.randn(16, 2, 1))
    (real, imaginary), _ = layer(layer.inputs(x), layer.start(2, jnp.float32))
    angles = np.pi * (np.arange(8) + 0.5) / 8
    turns = np.exp(1j * np.outer(15 - np.arange(16), angles))
    spectrum = np.float64(x[..., 0]).T @ turns
    np.testing.assert_allclose(real + 1j * imaginary, spectrum, rtol=1e-4, atol=1e-4)
    # As many numbers as there are steps, and none says what others say.
    singular = np.linalg.svd(np.concatenate([turns.real, turns.imag], axis=1))[1]
    assert singular.min() > 0.9 * singular.max()


def test_what_cannot_be_is_refused_by_name():
    for fields, said in (
        ({"cell": "rnn"}, "cell=rnn: must be lstm or gru or lru"),
        ({"hidden": ()}, r"hidden=\(\): must be one number or more"),
        ({"symbols": 1}, "symbols=1: must be 0 .* or at least 2"),
        ({"embedding": 0}, "embedding=0: must be at least 1"),
        ({"teacher_forcing": 1.5}, "teacher_forcing=1.5: must be from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=said):
            Recurrent(**fields)
    words, numbers = Recurrent(symbols=7), Recurrent()
    for parts, interval, said in (
        ({"coder": words}, True, "coder.symbols=7 needs model.likelihood=categorical"),
        (
            {"coder": numbers, "likelihood": Categorical(7)},
            False,
            "coder.symbols=0: must be model.likelihood.classes=7",
        ),
        ({"coder": words, "likelihood": Categorical(7)}, True, "data.prepare.scale=False"),
        (
            {"coder": words, "likelihood": Categorical(7), "corruption": Noise()},
            False,
            "corruption: noise and salt_and_pepper are for numbers",
        ),
        (
            {"coder": words, "likelihood": Categorical(7), "penalty": Contractive()},
            False,
            "penalty: contractive needs numbers",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            Autoencoder(**parts).check(interval)
    Autoencoder(words, likelihood=Categorical(7), corruption=Masking()).check(False)
    Autoencoder(numbers, penalty=Contractive()).check(True)


@pytest.mark.parametrize("code", [Plain("tanh"), Variational(samples=3)], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_symbols_go_with_other_parts(cell, code):
    """The loss falls along its gradient."""
    coder = Recurrent(cell, (8,), symbols=7, teacher_forcing=0.5)
    settings = Autoencoder(coder, 5, code, Categorical(7), Masking(0.3))
    batch = Batch(jnp.asarray(WORDS))
    graph, state = nnx.split(drawn(lambda rngs: settings.init(rngs, batch)))

    @jax.jit
    def step(state):
        loss = lambda state: nnx.merge(graph, state).loss(batch, context(4))[0]  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(state)
        return value, loss(jax.tree.map(lambda a, g: a - 1e-3 * g, state, gradient))

    before, after = step(state)
    assert after < before
    terms = nnx.merge(graph, state).loss(batch)[1]
    assert 0 <= terms["wrong"] <= 1 and "mse" not in terms
