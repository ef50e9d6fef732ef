"""Each stage learns the codes below it, and the deep model starts as the stack of all stages."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

import aejax
from aejax import config as settings
from aejax.config import Checkpoint, Config, Evaluation
from aejax.data.sources import open_source
from aejax.models import Autoencoder, Batch
from aejax.models.bottlenecks import KSparse, Plain, Variational
from aejax.models.coders import Dense, Recurrent
from aejax.models.corruption import Masking
from aejax.models.likelihood import Bernoulli, Gaussian
from aejax.optimizer import Adam
from aejax.pretrain import Greedy
from aejax.runs import folder, manifests
from tests.training.runs import train

ACTIVATIONS = {
    "linear": lambda x: x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
}
HIDDEN, LATENT = (20,), 5
STAGES = 2


def stacked(activation: str = "sigmoid", **changes) -> Config:
    """64-20-5 on the digits: 60 steps a stage, and 50 after."""
    changes = {
        "model": Autoencoder(Dense(HIDDEN, activation), LATENT, Plain("linear"), Bernoulli()),
        "pretrain": Greedy("60 steps", Adam(3e-3)),
        "optimizer": Adam(1e-3),
        "batch_size": 64,
        "duration": "50 steps",
        "evaluation": Evaluation(every="50 steps"),
        "checkpoint": Checkpoint(every="20 steps"),
        "log_every": 10,
        "trackers": (),
        **changes,
    }
    return Config(**changes)


def one(workdir, config: Config, **options):
    return train(config, workdir, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with its stages."""
    workdir = tmp_path_factory.mktemp("whole")
    assert one(workdir, stacked()).status == "done"
    return workdir


def digits() -> np.ndarray:
    return open_source("digits", "test")[slice(None)].x


def weights(layer) -> tuple[np.ndarray, np.ndarray]:
    kernel = np.asarray(layer.kernel[...], np.float64)
    bias = np.zeros(kernel.shape[1]) if layer.bias is None else layer.bias[...]
    return kernel, np.asarray(bias, np.float64)


def trained(workdir) -> list:
    return [aejax.load(str(workdir / f"stage{k}")).module for k in range(1, STAGES + 1)]


def layers(modules) -> tuple[list, list]:
    """Encoders and decoders of the stages, (kernel, bias) each in float64."""
    return (
        [weights(module.encoder.layers[0]) for module in modules],
        [weights(module.decoder.layers[0]) for module in modules],
    )


def composed(encoders, decoders, rows: np.ndarray, activation: str, output: str):
    """Code and reconstruction: the stages' encoders one after the other, and back, in float64."""
    f = ACTIVATIONS[activation]
    h = rows.reshape(len(rows), -1) / 16.0
    for k, (kernel, bias) in enumerate(encoders):
        h = h @ kernel + bias
        h = h if k == len(encoders) - 1 else f(h)
    code = h
    for k, (kernel, bias) in reversed(list(enumerate(decoders))):
        h = h @ kernel + bias
        h = f(h) if k else ACTIVATIONS[output](h)
    return code, h.reshape(rows.shape)


def fresh(config: Config) -> list:
    """Untrained stages, whose biases are not 0."""
    modules, shape = [], (8, 8, 1)
    for stage in config.pretrain.stages(config):
        row = jax.ShapeDtypeStruct((1, *shape), np.float32)
        module = stage.model.init(nnx.Rngs(len(modules)), Batch(row))
        biases = (module.encoder.layers[0].bias, module.decoder.layers[0].bias)
        for number, bias in enumerate(bias for bias in biases if bias is not None):
            bias.set_value(np.linspace(-1, 1 + number, len(bias[...]), dtype=np.float32))
        modules.append(module)
        shape = (stage.model.latent_dim,)
    return modules


@pytest.mark.parametrize("code", [Plain("linear"), KSparse(2), Variational()])
@pytest.mark.parametrize(
    ("activation", "coder", "likelihood"),
    [
        ("sigmoid", {}, Bernoulli()),
        ("tanh", {"tied": True}, Gaussian()),
        ("relu", {"bias": False}, Bernoulli()),
    ],
)
def test_the_unrolled_model_is_the_stages_composed(activation, coder, likelihood, code):
    if coder.get("tied") and isinstance(code, Variational):
        return  # refused: two features a unit have no mirror
    config = stacked(
        model=Autoencoder(Dense((20, 12), activation, **coder), LATENT, code, likelihood)
    )
    modules = fresh(config)
    deep = config.pretrain.unrolled(config, (8, 8, 1), modules)
    rows = np.float32(digits()[:50] / 16.0)
    output = "sigmoid" if isinstance(likelihood, Bernoulli) else "linear"
    (encoders, decoders), features = layers(modules), np.float64(rows).reshape(50, -1)
    for kernel, bias in encoders[:-1]:
        features = ACTIVATIONS[activation](features @ kernel + bias)
    features = features @ encoders[-1][0] + encoders[-1][1]
    exact = np.asarray(config.model.bottleneck.encode(np.float32(features)))
    z = deep.encode(rows)
    np.testing.assert_allclose(z, exact, atol=1e-5)
    back = np.asarray(z, np.float64)
    for k, (kernel, bias) in reversed(list(enumerate(decoders))):
        back = ACTIVATIONS[activation if k else output](back @ kernel + bias)
    np.testing.assert_allclose(deep.decode(z), back.reshape(rows.shape), atol=1e-5)
    assert np.std(back) > 0.01
    if coder.get("tied"):
        assert deep.encoder.layers[0].weight is deep.decoder.layers[-1].kernel


def test_a_run_begins_at_its_stages(whole, tmp_path):
    """A step of rate 0 leaves the model where it began: at what the stages learned."""
    for k in range(1, STAGES + 1):
        shutil.copytree(whole / f"stage{k}", tmp_path / f"stage{k}")
    one(tmp_path, stacked(optimizer=Adam(0.0, ema=0.9), duration="1 steps"))
    began = aejax.load(str(tmp_path))
    assert began.averaged  # the average begins there too
    modules = trained(whole)
    for k in range(STAGES):
        deep = (began.module.encoder.layers[k], began.module.decoder.layers[STAGES - 1 - k])
        stage = (modules[k].encoder.layers[0], modules[k].decoder.layers[0])
        for mine, its in zip(deep, stage, strict=True):
            for left, right in zip(weights(mine), weights(its), strict=True):
                np.testing.assert_allclose(left, right, rtol=1e-6)  # averaging rounds
                assert np.std(left) > 0
    code, back = composed(*layers(modules), digits(), "sigmoid", "sigmoid")
    np.testing.assert_allclose(began.encode(digits()), code, atol=1e-5)
    np.testing.assert_allclose(began.reconstruct(digits()), back, atol=1e-5)


def cross_entropy(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Nats a row."""
    return -np.sum(x * np.log(p) + (1 - x) * np.log1p(-p), axis=1)


def test_each_stage_learns_the_codes_of_those_below(whole):
    """What a stage says of itself on the test split is what NumPy finds on the codes below it."""
    h, sigmoid = digits().reshape(-1, 64) / 16.0, ACTIVATIONS["sigmoid"]
    for k, (into, out) in enumerate(zip(*layers(trained(whole)), strict=True)):
        text = (whole / f"stage{k + 1}" / "metrics.jsonl").read_text()
        said = [json.loads(line) for line in text.splitlines()]
        losses = [row["loss"] for row in said if row["split"] == "train"]
        assert len(losses) == 6 and losses[-1] < losses[0]
        code = h @ into[0] + into[1]
        code = code if k == STAGES - 1 else sigmoid(code)
        back = sigmoid(code @ out[0] + out[1])
        assert said[-1]["split"] == "test" and said[-1]["step"] == 60
        assert said[-1]["mse"] == pytest.approx(np.square(back - h).mean(), rel=1e-4)
        assert said[-1]["loss"] == pytest.approx(cross_entropy(h, back).mean(), rel=1e-4)
        h = code


def test_fine_tuning_lowers_the_loss_and_moves_every_layer(whole):
    ended, modules = aejax.load(str(whole)), trained(whole)
    rows, x = digits(), digits().reshape(-1, 64) / 16.0
    _, start = composed(*layers(modules), rows, "sigmoid", "sigmoid")
    end = np.float64(ended.reconstruct(rows))
    losses = [cross_entropy(x, back.reshape(x.shape)).mean() for back in (start, end)]
    assert losses[1] < losses[0] - 0.2
    for k in range(STAGES):
        deep = (ended.module.encoder.layers[k], ended.module.decoder.layers[STAGES - 1 - k])
        stage = (modules[k].encoder.layers[0], modules[k].decoder.layers[0])
        for mine, its in zip(deep, stage, strict=True):
            for left, right in zip(weights(mine), weights(its), strict=True):
                assert np.abs(left - right).max() > 1e-3


def files(workdir) -> dict[str, tuple[int, int]]:
    """{file: size and time of change} of a folder."""
    found = [path for path in workdir.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_a_finished_stage_is_not_trained_again(whole, tmp_path):
    cut = tmp_path / "cut"
    second = cut / "stage2" / "config.json"
    outcome = one(cut, stacked(), stop=second.exists)
    assert outcome.status == "stopped" and 0 <= outcome.step < 60
    assert not manifests.steps(str(cut))
    assert folder.read(str(cut)).config == stacked()  # the folder alone can be gone on with
    finished = files(cut / "stage1")
    assert one(cut, stacked()).status == "done"
    assert files(cut / "stage1") == finished
    same_bits(whole, cut)
    stages = files(cut)
    assert one(cut, stacked()).status == "complete"
    assert files(cut) == stages
    # The run itself goes on without its stages.
    for k in range(1, STAGES + 1):
        (cut / f"stage{k}").rename(tmp_path / f"away{k}")
    longer = one(cut, stacked(duration="70 steps"))
    assert (longer.status, longer.step) == ("done", 70)
    assert not (cut / "stage1").exists()


def same_bits(one, other) -> None:
    for name in (".", "stage1", "stage2"):
        left, right = (aejax.load(str(workdir / name)) for workdir in (one, other))
        assert left.step == right.step
        leaves = [jax.tree.leaves(nnx.state(model.module)) for model in (left, right)]
        for mine, its in zip(*leaves, strict=True):
            assert np.asarray(mine).tobytes() == np.asarray(its).tobytes()


def test_settings_of_the_stages(tmp_path):
    model = Autoencoder(Dense((30, 20), "tanh"), 4, Variational(), Gaussian(1.0))
    greedy = Greedy(corruption=Masking(0.1), tied=True, duration="7 steps")
    config = stacked(model=model, pretrain=greedy)
    config.data.prepare.shift, config.data.prepare.centre = 1, "mean"
    config.mesh.rules, config.evaluation.metric = ("decoder/layers/2/kernel=tensor -",), "kl"
    first, second, third = greedy.stages(config)
    assert [stage.model.latent_dim for stage in (first, second, third)] == [30, 20, 4]
    for stage in (first, second, third):
        settings.check(stage)
        assert stage.model.coder == Dense(tied=True) and stage.model.corruption == Masking(0.1)
        assert (stage.duration, stage.optimizer, stage.pretrain) == ("7 steps", Adam(), None)
        assert (stage.mesh.rules, stage.evaluation.metric) == ((), "loss")
        assert (stage.batch_size, stage.seed) == (config.batch_size, config.seed)
    assert first.model.likelihood == Gaussian(1.0)
    assert first.data.prepare == config.data.prepare
    assert second.model.likelihood == Gaussian(activation="tanh")
    assert not second.data.prepare.scale and second.data.prepare.shift == 0
    assert second.model.bottleneck == Plain("tanh") and third.model.bottleneck == Variational()
    of_sigmoid = Greedy().stages(stacked("sigmoid"))[1]
    assert of_sigmoid.model.likelihood == Bernoulli() and of_sigmoid.data.prepare.scale


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": Autoencoder(Dense(()), 5)}, "config.pretrain: greedy needs .* hidden layers"),
        ({"model": Autoencoder(Recurrent(), 5)}, "model.coder=dense"),
        ({"init_from": "elsewhere"}, "config.init_from=elsewhere does too"),
        ({"pretrain": Greedy("ten")}, "config.pretrain.duration='ten': not a duration"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(aejax.InputError, match=message):
        one(tmp_path / "none", stacked(**changes))
    assert not (tmp_path / "none").exists()


def test_stages_may_not_change_under_a_run(whole, tmp_path):
    shutil.copy(whole / "config.json", tmp_path)
    with pytest.raises(aejax.InputError, match="config.pretrain.duration: '60 steps' -> '80 st"):
        one(tmp_path, stacked(pretrain=Greedy("80 steps", Adam(3e-3))))
    assert not (tmp_path / "stage1").exists()


def test_a_stage_above_the_first_is_refused_with_what_to_evaluate_instead(whole, monkeypatch):
    monkeypatch.chdir(whole.parent)
    with pytest.raises(aejax.InputError) as error:
        aejax.evaluate(str(whole / "stage2"))
    assert f"evaluate the run, --workdir={whole.name}, or its first stage" in str(error.value)
    assert f"--workdir={whole.name}/stage1;" in str(error.value)
