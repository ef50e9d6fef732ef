"""Greedy training: each stage learns the codes below it, and the stack is the deep model's start."""

import json

import jax
import numpy as np
import pytest

import aejax
from aejax import config as settings
from aejax import folder
from aejax.config import Checkpoint, Config, Evaluation
from aejax.data.sources import open_source
from aejax.models import Autoencoder
from aejax.models.bottlenecks import KSparse, Plain, Variational
from aejax.models.coders import Convolutional, Dense
from aejax.models.corruption import Masking
from aejax.models.likelihood import Bernoulli, Gaussian
from aejax.pretrain import Greedy
from aejax.pretrain.run import train
from aejax.train import loop
from aejax.train.optimizer import Adam

ACTIVATIONS = {
    "linear": lambda x: x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
}
HIDDEN, LATENT = (20, 12), 5


def stacked(activation: str = "sigmoid", **changes) -> Config:
    """64-20-12-5 on the digits: 60 steps a stage, and 50 after."""
    changes = {
        "model": Autoencoder(Dense(HIDDEN, activation), LATENT, Plain("linear"), Bernoulli()),
        "pretrain": Greedy("60 steps", Adam(3e-3)),
        "optimizer": Adam(1e-3),
        "batch_size": 64,
        "duration": "50 steps",
        "evaluation": Evaluation(every="50 steps"),
        "checkpoint": Checkpoint(every="20 steps"),
        "log_every": 10,
        "tensorboard": False,
        **changes,
    }
    return Config(**changes)


def one(workdir, config: Config, **options):
    return train(config, str(workdir), quiet=True, devices=jax.devices()[:1], **options)


def test_rows(split: str = "test") -> np.ndarray:
    return open_source("digits", split)[slice(None)].x


def weights(layer) -> tuple[np.ndarray, np.ndarray]:
    kernel = np.asarray(layer.kernel[...], np.float64)
    bias = np.zeros(kernel.shape[1]) if layer.bias is None else layer.bias[...]
    return kernel, np.asarray(bias, np.float64)


def stack(workdir, count: int):
    """Encoders and decoders of the stages, (kernel, bias) each in float64."""
    modules = [aejax.load(str(workdir / f"stage{k + 1}")).module for k in range(count)]
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


@pytest.mark.parametrize(
    ("activation", "coder", "likelihood"),
    [
        ("sigmoid", {}, Bernoulli()),
        ("tanh", {"tied": True}, Gaussian()),
        ("relu", {"bias": False}, Bernoulli()),
    ],
)
def test_the_unrolled_model_is_the_stages_composed(tmp_path, activation, coder, likelihood):
    """A step of rate 0 leaves the deep model where it began."""
    model = Autoencoder(Dense(HIDDEN, activation, **coder), LATENT, Plain("linear"), likelihood)
    config = stacked(model=model, optimizer=Adam(0.0), duration="1 steps")
    one(tmp_path, config)
    deep = aejax.load(str(tmp_path))
    rows = test_rows()[:50]
    output = "sigmoid" if isinstance(likelihood, Bernoulli) else "linear"
    encoders, decoders = stack(tmp_path, 3)
    code, reconstruction = composed(encoders, decoders, rows, activation, output)
    assert np.abs(code).max() > 0.1
    np.testing.assert_allclose(deep.encode(rows), code, atol=1e-5)
    np.testing.assert_allclose(deep.reconstruct(rows), reconstruction, atol=1e-5)
    kernels = [layer.kernel[...] for layer in deep.module.encoder.layers]
    for kernel, (exact, _) in zip(kernels, encoders, strict=True):
        assert np.array_equal(kernel, np.float32(exact))
    if coder.get("tied"):
        for into, out in zip(encoders, decoders, strict=True):
            assert np.array_equal(into[0].T, out[0])


def test_each_stage_learns_the_codes_of_those_below(tmp_path):
    """What a stage says of itself on the test split is what NumPy finds on the codes below it."""
    one(tmp_path, stacked("tanh"))
    encoders, decoders = stack(tmp_path, 3)
    h = test_rows().reshape(-1, 64) / 16.0
    for k, (into, out) in enumerate(zip(encoders, decoders, strict=True)):
        text = (tmp_path / f"stage{k + 1}" / "metrics.jsonl").read_text()
        said = [json.loads(line) for line in text.splitlines()]
        assert [row["step"] for row in said if row["split"] == "train"] == list(range(10, 61, 10))
        code = h @ into[0] + into[1]
        code = code if k == 2 else np.tanh(code)
        back = code @ out[0] + out[1]
        back = np.tanh(back) if k else 1 / (1 + np.exp(-back))
        error = np.square(back - h)
        assert said[-1]["split"] == "test" and said[-1]["step"] == 60
        assert said[-1]["mse"] == pytest.approx(error.mean(), rel=1e-4)
        if k:  # a Gaussian of deviation sqrt(1/2): the squared error and a constant
            nll = error.sum(1).mean() + 0.5 * np.log(np.pi) * h.shape[1]
            assert said[-1]["loss"] == pytest.approx(nll, rel=1e-4)
        h = code


def test_fine_tuning_begins_at_the_stack_and_moves_every_layer(tmp_path):
    start = stacked(optimizer=Adam(0.0), duration="1 steps")
    begun = one(tmp_path / "begun", start)
    ended = one(tmp_path / "ended", stacked())
    alone = one(tmp_path / "alone", stacked(pretrain=None))
    assert ended.metrics["loss"] < begun.metrics["loss"] < alone.metrics["loss"]
    before, after = (aejax.load(str(tmp_path / name)).module for name in ("begun", "ended"))
    for coder in ("encoder", "decoder"):
        layers = zip(getattr(before, coder).layers, getattr(after, coder).layers, strict=True)
        for old, new in layers:
            for left, right in zip(weights(old), weights(new), strict=True):
                assert np.abs(left - right).max() > 1e-3


def files(workdir) -> dict[str, tuple[int, int]]:
    """{file: size and time of change} of a folder."""
    found = [path for path in workdir.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_a_finished_stage_is_not_trained_again(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    one(whole, stacked())
    second = cut / "stage2" / "metrics.jsonl"
    outcome = one(cut, stacked(), stop=second.exists)
    assert outcome.status == "stopped" and 0 <= outcome.step < 60
    assert not (cut / "stage3").exists()
    assert folder.read(str(cut)).config == stacked()  # the folder alone can be gone on with
    finished = files(cut / "stage1")
    assert one(cut, stacked()).status == "done"
    assert files(cut / "stage1") == finished
    same_bits(whole, cut)
    stages = files(cut)
    assert one(cut, stacked()).status == "complete"
    assert files(cut) == stages
    # The run itself goes on without its stages.
    for k in (1, 2, 3):
        (cut / f"stage{k}").rename(tmp_path / f"away{k}")
    longer = one(cut, stacked(duration="70 steps"))
    assert (longer.status, longer.step) == ("done", 70)
    assert not (cut / "stage1").exists()


def same_bits(one, other) -> None:
    for name in (".", "stage1", "stage2", "stage3"):
        left, right = (aejax.load(str(workdir / name)) for workdir in (one, other))
        assert left.step == right.step
        for mine, its in zip(*map(jax.tree.leaves, map(state, (left, right))), strict=True):
            assert np.asarray(mine).tobytes() == np.asarray(its).tobytes()


def state(model):
    from flax import nnx

    return nnx.state(model.module)


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


def test_a_k_sparse_or_variational_code_is_learned_by_the_last_stage(tmp_path):
    for name, code in (("k_sparse", KSparse(2)), ("variational", Variational())):
        model = Autoencoder(Dense((10,), "relu"), 6, code)
        config = stacked(model=model, duration="1 steps", optimizer=Adam(0.0))
        config.pretrain.corruption = Masking(0.2)
        one(tmp_path / name, config)
        deep, last = (aejax.load(str(tmp_path / name / place)) for place in (".", "stage2"))
        codes = aejax.load(str(tmp_path / name / "stage1")).encode(test_rows()[:9])
        np.testing.assert_allclose(deep.encode(test_rows()[:9]), last.encode(codes), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": Autoencoder(Dense(()), 5)}, "config.pretrain: greedy needs .* hidden layers"),
        ({"model": Autoencoder(Convolutional(), 5)}, "model.coder=dense"),
        ({"init_from": "elsewhere"}, "config.init_from=elsewhere does too"),
        ({"pretrain": Greedy("ten")}, "config.pretrain.duration='ten': not a duration"),
        (
            {"pretrain": Greedy(optimizer=Adam(-1.0))},
            "config.pretrain.optimizer.learning_rate=-1.0: must be at least 0",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(aejax.InputError, match=message):
        one(tmp_path / "none", stacked(**changes))
    assert not (tmp_path / "none").exists()


def test_stages_may_not_change_under_a_run(tmp_path):
    second = tmp_path / "stage2" / "metrics.jsonl"
    one(tmp_path, stacked(), stop=second.exists)
    with pytest.raises(aejax.InputError, match="config.pretrain.duration: '60 steps' -> '80 st"):
        one(tmp_path, stacked(pretrain=Greedy("80 steps", Adam(3e-3))))


def test_the_loop_alone_does_not_pass_over_the_stages(tmp_path):
    with pytest.raises(aejax.InputError, match="aejax.train trains its stages"):
        loop.train(stacked(), str(tmp_path), quiet=True)
