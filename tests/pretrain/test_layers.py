"""What stages learn is where the deep model begins: machines, convolutions, heads, few labels."""

import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import aejax
from aejax import config as settings
from aejax.config import Data
from aejax.data import order
from aejax.data.deform import stream_keys
from aejax.data.prepare import Preparation
from aejax.data.sources import open_source
from aejax.data.sources.base import Arrays
from aejax.models import RBM, Autoencoder, Batch, Classifier, DeepBelief
from aejax.models.bottlenecks import KSparse, Plain
from aejax.models.coders import Convolutional, ConvolutionalStage, Dense
from aejax.models.corruption import Masking
from aejax.models.likelihood import Bernoulli, Gaussian
from aejax.models.penalties import Activity, Contractive
from aejax.optimizer import Adam
from aejax.pretrain import Greedy
from aejax.runs import manifests
from aejax.training.step import row_keys
from tests.pretrain.test_greedy import same_bits, stacked
from tests.training.runs import train

ROWS = np.float32(open_source("digits", "test")[slice(0, 40)].x / 16.0)
SHAPE = (8, 8, 1)
SIGMOID = Dense((20, 12), "sigmoid")


def modules(config) -> list:
    """Untrained modules of the stages, with biases that are not 0."""
    found, shape = [], SHAPE
    for number, stage in enumerate(config.pretrain.stages(config)):
        settings.check(stage)
        module = stage.model.init(nnx.Rngs(number), Batch(jnp.zeros((4, *shape))))
        for path, value in nnx.to_flat_state(nnx.state(module, nnx.Param)):
            if "bias" in path[-1]:
                value.set_value(jnp.linspace(-0.5, 0.7, value[...].size).reshape(value.shape))
        found.append(module)
        shape = jax.eval_shape(module.encode, jnp.zeros((1, *shape))).shape[1:]
    return found


def deep(config, stages: list):
    """The deep model of these stages, with zeros for what they do not give."""
    found = config.pretrain.unrolled(config, SHAPE, stages)
    graph, state = nnx.split(found)
    filled = jax.tree.map(
        lambda leaf: leaf if isinstance(leaf, np.ndarray) else jnp.zeros(leaf.shape, leaf.dtype),
        state,
    )
    return nnx.merge(graph, filled)


def up(stages: list) -> jax.Array:
    h = jnp.asarray(ROWS)
    for stage in stages:
        h = stage.encode(h)
    return h


@pytest.mark.parametrize(
    ("model", "by"),
    [
        (Autoencoder(SIGMOID, 5, Plain("linear"), Bernoulli()), ("rbm",)),
        (Autoencoder(SIGMOID, 5, Plain("sigmoid"), Bernoulli()), ("rbm",)),
        (Autoencoder(SIGMOID, 5, Plain("linear"), Gaussian()), ("rbm",)),
        (Autoencoder(SIGMOID, 5, KSparse(2), Bernoulli()), ("rbm", "rbm", "autoencoder")),
        (Autoencoder(Convolutional((4, 6), hidden=(9,)), 5, Plain("linear")), ("autoencoder",)),
        (Autoencoder(Convolutional((4,), activation="sigmoid"), 5), ("autoencoder", "rbm")),
    ],
    ids=str,
)
def test_an_unrolled_autoencoder_is_its_stages_composed(model, by):
    config = stacked(model=model, pretrain=Greedy(by=by))
    stages = modules(config)
    kinds = [type(stage.model) for stage in config.pretrain.stages(config)]
    wanted = {"rbm": RBM, "autoencoder": Autoencoder}
    assert kinds == [wanted[each] for each in (by * len(kinds) if len(by) == 1 else by)]
    whole, z = deep(config, stages), up(stages)
    np.testing.assert_allclose(whole.encode(jnp.asarray(ROWS)), z, atol=1e-5)
    back = z
    for stage in reversed(stages):
        back = stage.decode(back)
    np.testing.assert_allclose(whole.decode(z), back, atol=1e-5)
    assert np.std(back) > 0.01


@pytest.mark.parametrize(
    "by", [("rbm",), ("autoencoder",), ("autoencoder", "rbm", "none")], ids=str
)
def test_a_classifier_has_the_encoders_of_its_stages(by):
    config = stacked(model=Classifier(SIGMOID, 6), pretrain=Greedy(by=by))
    stages = modules(config)
    assert len(stages) == 3 - by.count("none")
    whole = deep(config, stages)
    h = jnp.asarray(ROWS).reshape(len(ROWS), -1)
    for layer in whole.encoder.layers[: len(stages)]:
        h = jax.nn.sigmoid(layer(h))
    np.testing.assert_allclose(h, up(stages), atol=1e-5)
    assert not whole.head.kernel[...].any()  # it is no stage's


def test_settings_of_each_kind_of_stage():
    greedy = Greedy("7 steps", corruption=Masking(0.1), penalty=Contractive(0.2))
    model = Classifier(Convolutional((4, 6), kernel=5, activation="relu"), 9)
    config = stacked(model=model, pretrain=greedy, data=Data(labels="10%"))
    settings.check(config)
    first, second, third = greedy.stages(config)
    for stage in (first, second, third):
        settings.check(stage)
        assert stage.data.labels == "" and stage.duration == "7 steps"
        assert (stage.model.corruption, stage.model.penalty) == (Masking(0.1), Contractive(0.2))
    assert first.model.coder == second.model.coder == ConvolutionalStage(5)
    assert [stage.model.latent_dim for stage in (first, second, third)] == [4, 6, 9]
    assert (first.model.likelihood, third.model.coder) == (Bernoulli(), Dense())
    assert second.model.likelihood == third.model.likelihood == Gaussian(activation="relu")

    belief = stacked(model=DeepBelief((20, 12), 8), pretrain=Greedy(by=("rbm",), k=3))
    stages = belief.pretrain.stages(belief)
    assert [stage.model for stage in stages] == [
        RBM(size, k=3, persistent=False) for size in (20, 12, 8)
    ]
    real = stacked(model=Classifier(SIGMOID, 6), pretrain=Greedy(by=("rbm",)))
    real.data.prepare.centre = "standardise"
    visible = [stage.model.visible for stage in real.pretrain.stages(real)]
    assert visible == ["gaussian", "binary", "binary"]


def few_labels(**changes):
    """64-12-6-10 by machines, of which 10 % of the rows have labels."""
    return stacked(
        model=Classifier(Dense((12,), "sigmoid"), 6),
        data=Data(labels="10%"),
        pretrain=Greedy("60 steps", Adam(3e-3), by=("rbm",)),
        **changes,
    )


def test_a_run_that_is_cut_in_its_second_stage_ends_with_the_same_bits(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(few_labels(), whole).status == "done"
    first, second = (aejax.load(str(whole / name)) for name in ("stage1", "stage2"))
    assert first.run.rows == second.run.rows == 1437 and aejax.load(str(whole)).run.rows == 144
    config = cut / "stage2" / "config.json"
    assert train(few_labels(), cut, stop=config.exists).status == "stopped"
    assert manifests.steps(str(cut / "stage1")) and not manifests.steps(str(cut))
    assert train(few_labels(), cut).status == "done"
    same_bits(whole, cut)


@pytest.mark.parametrize(
    ("model", "greedy", "said"),
    [
        (Classifier(Dense((8,), "relu"), 4), Greedy(by=("rbm",)), "by=rbm: a layer of 8 has activ"),
        (Classifier(Convolutional((4,), activation="sigmoid"), 4), Greedy(by=("rbm",)), "a convol"),
        (Classifier(Convolutional((4,), activation="gelu"), 4), Greedy(), "coder.activation=gelu"),
        (
            Autoencoder(Dense((8,), "relu"), 4, Plain("linear")),
            Greedy(by=("autoencoder", "rbm")),
            r"what the layer of 4 reads has Gaussian.*relu.*must be sigmoid units",
        ),
        (
            Autoencoder(SIGMOID, 4, Plain("sigmoid"), Gaussian(variance="learned")),
            Greedy(by=("rbm",)),
            "reads has Gaussian.*variance=fixed",
        ),
        (Classifier(SIGMOID, 4), Greedy(by=("rbm", "none")), "one for each of the 3 layers"),
        (Classifier(SIGMOID, 4), Greedy(by=("none", "rbm", "rbm")), "above a layer with none"),
        (DeepBelief((8,), 4), Greedy(), "model=deep_belief are machines; must be rbm or none"),
        (
            Classifier(SIGMOID, 4),
            Greedy(by=("rbm",), corruption=Masking(0.1)),
            "config.pretrain.corruption=masking: is for stages by autoencoder, and .*by=rbm has",
        ),
        (
            Classifier(SIGMOID, 4),
            Greedy(by=("rbm", "none", "none"), penalty=Contractive(0.2)),
            "config.pretrain.penalty=contractive: is for stages by autoencoder",
        ),
        (Classifier(SIGMOID, 4), Greedy(by=("none",), tied=True), "config.pretrain.tied=True: is"),
        (
            Classifier(Convolutional((4,)), 4),
            Greedy(by=("autoencoder", "none"), tied=True),
            "tied=True: is for stages by autoencoder with a dense layer",
        ),
        (Classifier(SIGMOID, 4), Greedy(k=3), "config.pretrain.k=3: is for stages by rbm, and "),
        (Classifier(SIGMOID, 4), Greedy(persistent=True), "config.pretrain.persistent=True: is fo"),
        (
            Autoencoder(SIGMOID, 4, Plain("linear"), Gaussian()),
            Greedy(penalty=Activity()),
            "config.pretrain: stage 3: config.model.penalty: activity needs units between 0 and 1",
        ),
        (RBM(8), Greedy(), "greedy needs model.coder=dense or convolutional"),
        (
            Autoencoder(SIGMOID, 4, Plain("linear"), Gaussian()),
            Greedy(by=("none", "none", "none"), duration="ten"),
            "config.pretrain.duration='ten': not a duration",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_name(model, greedy, said, tmp_path):
    with pytest.raises(aejax.InputError, match=said):
        train(stacked(model=model, pretrain=greedy), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_run_that_began_with_a_setting_that_no_stage_looks_at_goes_on(
    tmp_path, monkeypatch, capsys
):
    """An earlier version took such settings."""
    greedy = Greedy("9 steps", by=("autoencoder", "none"), k=3)
    config = stacked(
        model=Classifier(Dense((8,), "sigmoid"), 4), pretrain=greedy, duration="9 steps"
    )
    stage = tmp_path / "stage1" / "config.json"
    with monkeypatch.context() as earlier:
        earlier.setattr(Greedy, "unused", lambda self, config: [])
        assert train(config, tmp_path, stop=stage.exists).status == "stopped"
    capsys.readouterr()
    assert train(config, tmp_path, quiet=False).status == "done"
    said = [line for line in capsys.readouterr().err.splitlines() if "config.pretrain" in line]
    assert said == [
        "config.pretrain.k=3: is for stages by rbm, and config.pretrain.by=autoencoder,none has"
        " none: ignored, as it was when this run began"
    ]


def test_methods_are_refused_by_name():
    with pytest.raises(ValueError, match="by=rmb: must be one or more of autoencoder, rbm, none"):
        Greedy(by=("rmb",))


@pytest.mark.parametrize("feed", ["resident", "streaming"])
def test_a_stage_sees_codes_of_rows_as_they_were_drawn(tmp_path, feed):
    """With a rate of 0 its loss is that of the frozen first stage's codes of deformed images."""
    data = Data(feed=feed)
    data.prepare.deform, data.prepare.binarise = 1.0, "sampled"
    coder = Dense((12,), "sigmoid")
    config = stacked(
        model=Autoencoder(coder, 6, Plain("linear")),
        data=data,
        pretrain=Greedy("12 steps", Adam(0.0)),
        duration="1 steps",
        log_every=1,
    )
    train(config, tmp_path)
    stages = [aejax.load(str(tmp_path / f"stage{k}")).module for k in (1, 2)]
    said = [json.loads(line) for line in (tmp_path / "stage2" / "metrics.jsonl").open()]
    found = [row["loss"] for row in said if row["split"] == "train"]
    assert len(found) == 12
    source = open_source("digits", "train")
    preparation = Preparation(data.prepare, source.spec, {})
    key, batch = jax.random.key(config.seed), config.batch_size
    for step in (0, 11):
        index = order.examples(config.seed, len(source), step * batch, (step + 1) * batch)
        keys = row_keys(key, jnp.int32(step), jnp.arange(batch, dtype=jnp.uint32))
        draws = jax.vmap(jax.random.fold_in, (0, None))(keys, zlib.crc32(b"prepare"))
        epochs = jnp.zeros(batch, jnp.uint32)  # the first: 768 of 1,437 rows
        stream = stream_keys(key, epochs, jnp.asarray(index))
        x = preparation(jnp.asarray(source[index].x), draws, stream)
        loss, _ = stages[1].loss(Batch(stages[0].encode(x)))
        assert found[step] == pytest.approx(float(loss), rel=1e-5)
        plain, _ = stages[1].loss(Batch(stages[0].encode(preparation(source[index].x))))
        assert abs(float(plain) - float(loss)) > 1e-4


def test_rows_with_a_length_each_are_not_drawn_anew(tmp_path):
    x = np.random.RandomState(0).rand(100, 6, 2).astype(np.float32)
    rows = Arrays(x, None, None, np.full(100, 4))
    config = stacked(batch_size=20)
    config.data.prepare.binarise = "sampled"
    with pytest.raises(aejax.InputError, match="config.pretrain with .*binarise=sampled"):
        train(config, tmp_path / "none", (rows, rows))
    assert not (tmp_path / "none" / "stage1").exists()
