"""The classifier: its loss against NumPy, dropout, few labels, and what gives it an encoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special

import aejax
from aejax.config import Data, Prepare
from aejax.data.sources import open_source
from aejax.data.sources.base import Arrays
from aejax.data.sources.splits import take
from aejax.errors import InputError
from aejax.models import Autoencoder, Batch, Classifier, Context
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Convolutional, ConvolutionalStage, Dense, Recurrent
from aejax.models.likelihood import Categorical
from aejax.nn.dropout import dropout
from aejax.optimizer import Adam
from aejax.training.setup import setup
from tests.training.runs import losses, small, train

ROWS, CLASSES = 12, 5
X = np.random.RandomState(0).rand(ROWS, 4, 4, 1).astype(np.float32)
LABEL = np.random.RandomState(1).randint(0, CLASSES, ROWS).astype(np.int32)


def module(**changes):
    settings = Classifier(Dense((7,), "tanh"), 6, CLASSES, **changes)
    made = settings.init(nnx.Rngs(2), Batch(jnp.asarray(X), None, jnp.asarray(LABEL)))
    for layer in (*made.encoder.layers, made.head):
        layer.bias.set_value(jnp.linspace(-1, 1, layer.bias.shape[0]))
    return made


def context(rows: int = ROWS) -> Context:
    keys = jax.random.split(jax.random.key(1), rows)
    return Context(keys, jnp.zeros((), jnp.int32), lambda v: jnp.mean(v, axis=0))


def in_numpy(made, x: np.ndarray) -> np.ndarray:
    """log p(label given x) [rows, classes] in float64."""
    h = x.reshape(len(x), -1).astype(np.float64)
    for layer in made.encoder.layers:
        h = np.tanh(h @ np.asarray(layer.kernel, np.float64) + np.asarray(layer.bias[...]))
    logits = h @ np.asarray(made.head.kernel[...], np.float64) + np.asarray(made.head.bias[...])
    return special.log_softmax(logits, axis=1)


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_the_cross_entropy_of_the_labels(training):
    made = module()
    mask = None if training else jnp.asarray(np.arange(ROWS) < 9, jnp.float32)
    real = slice(0, ROWS if training else 9)
    batch = Batch(jnp.asarray(X), mask, jnp.asarray(LABEL))
    loss, terms = made.loss(batch, context() if training else None)
    log_p = in_numpy(made, X)[real]
    wanted = -log_p[np.arange(len(log_p)), LABEL[real]].mean()
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    assert float(terms["error"]) == pytest.approx(np.mean(log_p.argmax(1) != LABEL[real]))
    np.testing.assert_allclose(made.classify(X), np.exp(in_numpy(made, X)), atol=1e-6)


def test_dropout_keeps_the_mean_and_leaves_evaluation_alone():
    x, keys = jnp.full((400, 50), 3.0), jax.random.split(jax.random.key(0), 400)
    found = np.asarray(dropout(x, 0.25, keys))
    assert set(np.unique(found)) == {0.0, 4.0}
    assert np.mean(found == 0) == pytest.approx(0.25, abs=0.02)
    assert len({row.tobytes() for row in found}) > 390  # each row has its own draws
    settings = {"dropout": 0.5, "input_dropout": 0.2}
    batch = Batch(jnp.asarray(X), None, jnp.asarray(LABEL))
    plain, dropped = module(), module(**settings)
    assert plain.loss(batch)[0] == dropped.loss(batch)[0]
    assert plain.loss(batch, context())[0] != dropped.loss(batch, context())[0]


def test_hidden_layers_lose_units_in_training_alone():
    plain, lossy = (Dense((64,), "relu", dropout=rate) for rate in (0.0, 0.9))
    rows = jnp.asarray(X)
    ones = [coder.encoder((4, 4, 1), 3, nnx.Rngs(0)) for coder in (plain, lossy)]
    evaluated = [each(rows, None, None, None) for each in ones]
    np.testing.assert_array_equal(*evaluated)
    trained = [np.asarray(each(rows, None, None, context())) for each in ones]
    np.testing.assert_array_equal(trained[0], evaluated[0])
    assert np.abs(trained[1] - trained[0]).max() > 0.1


@pytest.mark.parametrize(
    "coder", [Dense((32,), "relu", dropout=0.3), Convolutional((4,), activation="relu")], ids=str
)
def test_training_is_the_same_on_any_devices(coder):
    config = small(model=Classifier(coder, 16, dropout=0.3), batch_size=64)
    wanted = losses(config, 3)[0]
    config.micro_batches = 2
    np.testing.assert_allclose(losses(config, 3, devices=8)[0], wanted, rtol=2e-5)
    config.parallel = "pmap"
    np.testing.assert_allclose(losses(config, 3, devices=8)[0], wanted, rtol=2e-5)


def test_an_autoencoder_gives_its_encoder(tmp_path):
    coder = Dense((20,), "sigmoid")
    model = Autoencoder(coder, 10, Plain("sigmoid"))
    train(small(model=model, duration="20 steps"), tmp_path / "first")
    config = small(model=Classifier(coder, 10), duration="1 steps", init_from=f"{tmp_path}/first")
    config.optimizer.learning_rate = 0.0
    train(config, tmp_path / "second")
    first, second = (aejax.load(str(tmp_path / name)) for name in ("first", "second"))
    rows = open_source("digits", "test")[slice(0, 30)].x
    np.testing.assert_array_equal(first.encode(rows), second.encode(rows))
    assert second.classify(rows).shape == (30, 10)
    np.testing.assert_allclose(second.classify(rows).sum(axis=1), 1, rtol=1e-5)
    with pytest.raises(InputError, match="classify: model=autoencoder has no classes"):
        first.classify(rows)
    with pytest.raises(InputError, match="reconstruct: model=classifier has no decoder"):
        second.reconstruct(rows)


def test_few_labels_train_and_all_rows_prepare(tmp_path):
    data = Data(labels="100", labels_seed=2)
    data.prepare.centre = "standardise"
    config = small(model=Classifier(Dense((16,)), 8), data=data, batch_size=48)
    found, whole = setup(config), open_source("digits", "train")
    assert len(found.train) == 100 and len(found.all_train) == len(whole)
    assert found.run().rows == 100
    plain = small(model=config.model, data=Data(prepare=data.prepare))
    assert found.preparation.statistics == setup(plain).preparation.statistics
    assert found.fingerprints == setup(plain).fingerprints
    assert train(config, tmp_path).status == "done"
    config.data.labels = "200"
    with pytest.raises(InputError, match="config.data.labels: '100' -> '200'"):
        train(config, tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": Classifier(classes=9)}, r"classes=9: config.data.train=train has the label 9"),
        ({"data": Data(labels="0")}, "config.data.labels=0: 0 rows; must be from 1 to 1437"),
        ({"data": Data(labels="40")}, "config.batch_size=64: .* 40 rows .* config.data.labels=40"),
        ({"model": Autoencoder(), "data": Data(labels="1%")}, "learns from rows alone"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes, said, tmp_path):
    with pytest.raises(InputError, match=said):
        train(small(**{"model": Classifier(), **changes}), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_rows_without_labels_are_refused(tmp_path):
    rows = Arrays(np.zeros((100, 4), np.float32) + np.arange(4, dtype=np.float32), None, None)
    with pytest.raises(InputError, match=r"config.data.train=train: has no labels"):
        train(small(model=Classifier()), tmp_path, (rows, rows))


def test_rows_and_labels_from_python_train(tmp_path):
    rows = open_source("digits", "train")[:]
    config = small(model=Classifier(Dense(()), 16), duration="5 steps")
    train(config, tmp_path / "pair", ((rows.x, rows.label), (rows.x[:99], rows.label[:99])))
    assert aejax.load(str(tmp_path / "pair")).classify(rows.x[:3]).shape == (3, 10)
    for labels, said in (
        (rows.label[:99], r"train=...\): the labels has shape \(99,\); accepted: one label a row"),
        (rows.label / 2, r"train=...\): the labels has dtype float64; accepted: whole numbers"),
        (np.eye(10, dtype=int)[rows.label], r"the labels has shape \(1437, 10\)"),
    ):
        with pytest.raises(InputError, match=said):
            train(config, tmp_path / "none", ((rows.x, labels), (rows.x, rows.label)))
    with pytest.raises(InputError, match=r"label has shape \(99,\); must be \(1437,\)"):
        Arrays(rows.x, rows.label[:99])


def written() -> Arrays:
    """Rows of 12 letters, with the label 1 where the last of them comes before the first."""
    x = np.random.RandomState(0).randint(97, 123, (600, 12)).astype(np.uint8)
    return Arrays(x, (x[:, -1] < x[:, 0]).astype(np.int32), 255.0)


def test_text_with_labels_is_classified_by_what_read_it_as_an_autoencoder(tmp_path):
    rows, coder = written(), Recurrent(cell="gru", hidden=(16,), symbols=256, embedding=8)
    data = Data(prepare=Prepare(scale=False))
    reader = Autoencoder(coder, 8, bottleneck=Plain("linear"), likelihood=Categorical())
    pair = (rows, take(rows, slice(100)))
    train(small(model=reader, data=data, duration="2 steps"), tmp_path / "reader", pair)
    config = small(model=Classifier(coder, 8, 2), optimizer=Adam(1e-2), data=data)
    config.duration, config.init_from = "1 step", str(tmp_path / "reader")
    config.optimizer.learning_rate = 0.0
    train(config, tmp_path / "same", pair)
    before, after = (aejax.load(str(tmp_path / name)) for name in ("reader", "same"))
    np.testing.assert_array_equal(before.encode(rows.x[:30]), after.encode(rows.x[:30]))
    config.duration, config.optimizer.learning_rate = "150 steps", 1e-2
    train(config, tmp_path / "run", pair)
    quiet = {"say": lambda line: None, "source": pair[1]}
    found = aejax.evaluate(str(tmp_path / "run"), **quiet)["tasks"]["classify"]
    p = aejax.load(str(tmp_path / "run")).classify(rows.x[:100])
    assert found["wrong"] == np.sum(p.argmax(axis=1) != rows.label[:100])
    assert found["error"] < 25
    for changes, said in (
        ({"model": Classifier(coder, 8, 2, input_dropout=0.1)}, "input_dropout=0.1: must be 0"),
        ({"data": Data()}, "prepare.scale=True: 256 symbols are whole numbers from 0 to 255 as"),
        ({"model": Classifier(Recurrent(symbols=99), 8, 2)}, "99 symbols are .* there is 1"),
    ):
        with pytest.raises(InputError, match=said):
            train(dataclasses.replace(config, **changes), tmp_path / "none", pair)


def test_a_code_of_any_shape_is_classified():
    losses(small(model=Classifier(ConvolutionalStage(), 4)), 1)


def test_a_label_that_is_given_no_probability_has_a_finite_likelihood():
    made = module()
    made.head.kernel.set_value(1e4 * made.head.kernel[...])
    assert (np.asarray(made.classify(X)) == 0).any()
    assert np.isfinite(made.log_prob(X)).all()
