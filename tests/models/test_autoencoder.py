"""The autoencoder's objective, written out in NumPy."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special, stats

from aejax.models import Autoencoder, Batch, Context
from aejax.models.batch import evaluation, real_rows, row_mean
from aejax.models.bottlenecks import KSparse, Plain
from aejax.models.coders import Dense
from aejax.models.interfaces import Bottleneck, Code, Corrupted, Corruption, Penalty
from aejax.models.likelihood import Bernoulli, Gaussian

ROWS, SHAPE = 6, (4, 3, 1)
X = np.random.RandomState(0).uniform(size=(ROWS, *SHAPE)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), ROWS)
TRAINING = Context(KEYS, jnp.int32(3), lambda values: jnp.mean(values, axis=0))


def made(**parts) -> nnx.Module:
    settings = Autoencoder(**{"coder": Dense((8,), "tanh"), "latent_dim": 5, **parts})
    return settings.init(nnx.Rngs(0), Batch(jnp.asarray(X)))


def loss_of(module: nnx.Module, *batch: np.ndarray, training: bool = False):
    """The module's loss and terms, compiled as one program."""
    graph, state = nnx.split(module)
    context = TRAINING if training else None
    run = jax.jit(lambda state, batch: nnx.merge(graph, state).loss(Batch(*batch), context))
    return run(state, batch)


def in_numpy(module: nnx.Module, values: np.ndarray) -> np.ndarray:
    """A dense encoder's or decoder's numbers, in double precision."""
    *hidden, last = [
        (np.float64(layer.kernel[...]), np.float64(layer.bias[...])) for layer in module.layers
    ]
    for kernel, bias in hidden:
        values = np.tanh(values @ kernel + bias)
    return values @ last[0] + last[1]


def flat(x: np.ndarray) -> np.ndarray:
    return np.float64(x).reshape(len(x), -1)


def cross_entropy(logits: np.ndarray, x: np.ndarray) -> np.ndarray:
    """[..., elements] -> [...], nats."""
    each = x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits)
    return -each.sum(axis=-1)


def test_a_plain_model_minimises_the_cross_entropy_of_its_reconstruction():
    module = made(bottleneck=Plain("relu"))
    z = np.maximum(in_numpy(module.encoder, flat(X)), 0)
    logits = in_numpy(module.decoder, z)
    loss, terms = loss_of(module, X)
    assert loss.shape == () and terms.keys() == {"nll", "mse"}
    assert loss == pytest.approx(cross_entropy(logits, flat(X)).mean(), rel=1e-5)
    assert terms["nll"] == pytest.approx(float(loss), rel=1e-6)
    error = np.square(special.expit(logits) - flat(X)).mean()
    assert terms["mse"] == pytest.approx(error, rel=1e-5)
    loss, terms = loss_of(module, X, training=True)
    assert loss == pytest.approx(cross_entropy(logits, flat(X)).mean(), rel=1e-5)
    assert terms.keys() == {"nll"}


def test_a_gaussian_model_minimises_its_density():
    module = made(likelihood=Gaussian(0.5))
    means = in_numpy(module.decoder, in_numpy(module.encoder, flat(X)))
    loss, terms = loss_of(module, X)
    exact = -stats.norm.logpdf(flat(X), means, 0.5).sum(axis=1).mean()
    assert loss == pytest.approx(exact, rel=1e-5)
    assert terms["mse"] == pytest.approx(np.square(means - flat(X)).mean(), rel=1e-5)


def test_the_gradient_is_that_of_the_objective():
    module = made()
    graph, params = nnx.split(module)
    objective = jax.jit(jax.grad(lambda p: nnx.merge(graph, p).loss(Batch(X), TRAINING)[0]))
    slope = objective(params)
    layer = module.decoder.layers[-1]
    found = slope["decoder"]["layers"][1]["kernel"][...]
    exact = np.zeros(found.shape)
    kernel, step = np.asarray(layer.kernel[...]), 1e-3
    z = in_numpy(module.encoder, flat(X))
    first = module.decoder.layers[0]
    inner = np.tanh(z @ np.float64(first.kernel[...]) + np.float64(first.bias[...]))
    for i, j in itertools.product(range(kernel.shape[0]), range(kernel.shape[1])):
        sides = []
        for sign in (1, -1):
            moved = np.float64(kernel)
            moved[i, j] += sign * step
            logits = inner @ moved + np.float64(layer.bias[...])
            sides.append(cross_entropy(logits, flat(X)).mean())
        exact[i, j] = (sides[0] - sides[1]) / (2 * step)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)


@dataclasses.dataclass
class Sampled(Bottleneck):
    """Three codes of a row, with weights, and what they cost beside."""

    def encode(self, features):
        return features

    def __call__(self, features, context):
        z = jnp.stack([features, 2 * features, features - 1])
        weight = jnp.stack([0 * features[:, 0], features[:, 1], jnp.float32(-3) + features[:, 2]])
        return Code(z, weight, {"rows": jnp.square(features[:, 0]), "whole": jnp.float32(0.25)})


@dataclasses.dataclass
class Coupled(Penalty):
    """A penalty of the code's mean over rows, and one of each row."""

    def __call__(self, inputs, context):
        return {
            "coupled": jnp.sum(jnp.square(context.mean(inputs.z))),
            "each": jnp.sum(jnp.abs(inputs.encode(inputs.x)), axis=1),
        }


def sampled_in_numpy(module: nnx.Module, x: np.ndarray) -> dict[str, float]:
    features = in_numpy(module.encoder, flat(x))
    z = np.stack([features, 2 * features, features - 1])
    weight = np.stack([0 * features[:, 0], features[:, 1], features[:, 2] - 3])
    logits = in_numpy(module.decoder, z)
    log_p = -cross_entropy(logits, flat(x))
    terms = {
        "bound": -(special.logsumexp(log_p + weight, axis=0) - np.log(3)).mean(),
        "rows": np.square(features[:, 0]).mean(),
        "whole": 0.25,
        "coupled": np.square(z.mean(axis=0).mean(axis=0)).sum(),
        "each": np.abs(features).sum(axis=1).mean(),
    }
    mean = special.expit(logits).mean(axis=0)
    return {
        "loss": sum(terms.values()),
        "nll": -log_p.mean(),
        "mse": np.square(mean - flat(x)).mean(),
        **{name: terms[name] for name in ("rows", "whole", "coupled", "each")},
    }


def test_several_samples_weights_and_penalties_make_the_objective_of_the_docstring():
    module = made(bottleneck=Sampled(), penalty=Coupled())
    exact = sampled_in_numpy(module, X)
    loss, terms = loss_of(module, X)
    found = {"loss": loss, **terms}
    assert found.keys() == exact.keys()
    for name, value in exact.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    loss, terms = loss_of(module, X, training=True)
    assert loss == pytest.approx(exact["loss"], rel=1e-5)
    assert terms.keys() == exact.keys() - {"loss", "mse"}


def test_rows_that_are_masked_change_nothing():
    module = made(bottleneck=Sampled(), penalty=Coupled())
    exact = sampled_in_numpy(module, X)
    for filling, dtype in ((X[:1], bool), (X[:1] + 0.5, np.float32)):
        x = np.concatenate([X[:2], filling, X[2:], filling])
        mask = np.array([1, 1, 0, 1, 1, 1, 1, 0]).astype(dtype)
        loss, terms = loss_of(module, x, mask)
        for name, value in {"loss": loss, **terms}.items():
            assert value == pytest.approx(exact[name], rel=1e-5), name


MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1] * 4])


def padded_in_numpy(module: nnx.Module, x: np.ndarray) -> dict[str, float]:
    """Over the real elements of the real rows: all but the third row."""
    logits = in_numpy(module.decoder, in_numpy(module.encoder, flat(x)))
    weight = np.repeat(MASK, 3, axis=1)
    each = flat(x) * special.log_expit(logits) + (1 - flat(x)) * special.log_expit(-logits)
    nll = -(each * weight).sum() / 5
    error = (np.square(special.expit(logits) - flat(x)) * weight).sum() / weight.sum()
    return {"loss": nll, "nll": nll, "mse": error}


@pytest.mark.parametrize("dtype", [np.float32, bool])
def test_the_objective_is_over_real_elements_alone(dtype):
    module = made()
    x = X * MASK[..., None, None]
    loss, terms = loss_of(module, x, MASK.astype(dtype))
    exact = padded_in_numpy(module, x)
    for name, value in {"loss": loss, **terms}.items():
        assert value == pytest.approx(exact[name], rel=1e-5), name


def test_elements_that_are_padding_change_nothing():
    module = made()
    blank = X * MASK[..., None, None]
    loss, terms = loss_of(module, blank, MASK)
    other, others = loss_of(module, X, MASK)
    assert other == pytest.approx(float(loss), rel=1e-6)
    assert others["mse"] == pytest.approx(float(terms["mse"]), rel=1e-6)


@dataclasses.dataclass
class Blanked(Corruption):
    """Hides the first line of each image, and asks for that line alone."""

    def __call__(self, x, context):
        assert context.training
        return Corrupted(x.at[:, 0].set(0.0), weight=jnp.zeros(x.shape[:2]).at[:, 0].set(2.0))


def test_a_corruption_changes_the_input_and_the_weights_but_not_the_target():
    module = made(corruption=Blanked())
    noisy = X.copy()
    noisy[:, 0] = 0
    logits = in_numpy(module.decoder, in_numpy(module.encoder, flat(noisy)))
    weight = np.repeat([[2, 0, 0, 0]] * ROWS, 3, axis=1)
    each = flat(X) * special.log_expit(logits) + (1 - flat(X)) * special.log_expit(-logits)
    loss, _ = loss_of(module, X, training=True)
    assert loss == pytest.approx(-(each * weight).sum(axis=1).mean(), rel=1e-5)
    clean = made()
    loss, terms = loss_of(module, X)
    wanted, _ = loss_of(clean, X)
    assert loss == wanted and terms["nll"] == wanted


@pytest.mark.parametrize("bottleneck", [Plain("relu"), KSparse(2, test_scale=1.5)])
@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian()])
def test_encode_and_decode_are_deterministic_and_those_of_the_loss(bottleneck, likelihood):
    module = made(bottleneck=bottleneck, likelihood=likelihood, corruption=Blanked())
    z = module.encode(jnp.asarray(X))
    means = module.decode(z)
    assert z.shape == (ROWS, 5) and means.shape == X.shape
    assert np.array_equal(z, module.encode(jnp.asarray(X)))
    assert np.array_equal(means, module.decode(z))
    _, terms = loss_of(module, X)
    assert terms["mse"] == pytest.approx(np.square(np.float64(means) - X).mean(), rel=1e-5)
    np.testing.assert_allclose(module.decode(jnp.stack([z, 2 * z]))[0], means, rtol=1e-5, atol=1e-6)


def test_a_module_depends_on_its_seed_alone():
    settings = Autoencoder(coder=Dense((8,)), latent_dim=5)

    def params(seed, rows):
        module = settings.init(nnx.Rngs(seed), Batch(jnp.zeros((rows, *SHAPE))))
        return jax.tree.leaves(nnx.to_pure_dict(nnx.state(module)))

    one = params(0, 6)
    assert all(map(np.array_equal, one, params(0, 2)))
    assert not all(map(np.array_equal, one, params(1, 6)))


@pytest.mark.parametrize(
    ("settings", "interval", "said"),
    [
        (Autoencoder(latent_dim=0), True, "latent_dim=0: needs model.coder=transformer"),
        (Autoencoder(latent_dim=4, bottleneck=KSparse(5)), True, r"bottleneck\.k=5"),
        (Autoencoder(), False, r"likelihood: bernoulli needs data in \[0, 1\]"),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings, interval, said):
    with pytest.raises(ValueError, match=said):
        settings.check(interval)
    Autoencoder(likelihood=Gaussian()).check(interval)


@pytest.mark.parametrize(("tail", "dtype"), [((), bool), ((3,), np.float32), ((3, 2), np.int32)])
def test_the_mean_is_over_the_real_rows(tail, dtype):
    values = np.random.RandomState(1).randn(6, *tail).astype(np.float32)
    assert row_mean(values, None) == pytest.approx(values.mean(axis=0), rel=1e-5)
    mask = np.array([1, 0, 1, 1, 0, 1]).astype(dtype)
    exact = values[[0, 2, 3, 5]].mean(axis=0)
    np.testing.assert_allclose(row_mean(values, jnp.asarray(mask)), exact, rtol=1e-5, atol=1e-6)
    wide = jnp.asarray(np.stack([mask, 0 * mask], axis=1))
    np.testing.assert_allclose(row_mean(values, wide), exact, rtol=1e-5, atol=1e-6)
    context = evaluation(jnp.asarray(mask))
    np.testing.assert_allclose(context.mean(values), exact, rtol=1e-5, atol=1e-6)
    assert not context.training


def test_a_batch_without_real_rows_has_the_mean_0():
    assert row_mean(jnp.ones(4), jnp.zeros(4)) == 0


def test_a_row_is_real_if_anything_in_it_is():
    assert np.array_equal(real_rows(jnp.asarray(MASK)), [1, 1, 0, 1, 1, 1])
    assert np.array_equal(real_rows(jnp.array([0.0, 0.5, 1.0])), [0, 1, 1])
    assert real_rows(jnp.array([True])).dtype == jnp.float32


def test_each_part_draws_from_a_stream_of_its_own_and_none_in_evaluation():
    draws = [jax.random.key_data(TRAINING.draw(part)) for part in ("masking", "latent", "masking")]
    assert draws[0].shape[0] == ROWS
    assert np.array_equal(draws[0], draws[2])
    assert not (draws[0] == draws[1]).all(axis=1).any()
    assert len({tuple(key) for key in np.asarray(draws[0])}) == ROWS
    with pytest.raises(ValueError, match="latent: nothing is drawn"):
        evaluation(None).draw("latent")
