"""Every preset trains, resumes, shards and loads like any other, to the numbers that it had."""

import importlib
import json
import pkgutil

import jax
import numpy as np
import pytest

import aejax
import configs
from aejax.config import Config, Mesh
from aejax.data.sources import open_source
from aejax.models import Autoencoder
from aejax.models.bottlenecks import KSparse, Plain, Variational
from aejax.models.coders import Dense
from aejax.models.corruption import Masking, Noise, SaltAndPepper
from aejax.models.likelihood import Gaussian
from aejax.models.penalties import L1, Activity, Contractive
from tests.training import runs
from tests.training.runs import train

PRESETS = sorted(
    info.name for info in pkgutil.iter_modules(configs.__path__) if "search_" not in info.name
)
# They compile for ten seconds.
_LONG = ("transformer", "sequence_text")
# One of each coder, one that couples the rows of a batch and one that draws in each step: what all
# presets share is asked of these.
REPRESENTATIVE = ("convolutional", "sequence_text", "sparse", "transformer", "variational")
STEPS = 40

# Loss on the embedded digits' test split after STEPS steps: what a change must not move unseen.
GOLDEN = {
    "convolutional": 29.58933,
    "classifier": 1.04983,
    "contractive": 27.70662,
    "deep": 28.41403,
    "denoising": 27.24487,
    "deep_belief": 25.94230,
    "dense": 36.85862,
    "infinite_digits": 2.35317,
    "k_sparse": 42.88403,
    "linear": 39.65965,
    "oja": 38.63325,
    "rbm": 25.10906,
    "sequence": 27.92994,
    "sequence_text": 130.78438,
    "sparse": 121.22715,
    "stacked": 36.19448,
    "table": 103.37480,
    "transform": 31.72903,
    "transformer": 26.74500,
    "variational": 29.60623,
}


def preset(name: str, **changes) -> Config:
    config = importlib.import_module(f"configs.{name}").get_config()
    config.duration, config.trackers, config.log_every = f"{STEPS} steps", (), 10
    config.evaluation.every = config.checkpoint.every = "20 steps"
    config.batch_size = 64
    if name == "transformer":  # one block of each kind a stack
        config.model.coder.encoder_layout = config.model.coder.decoder_layout = "interleaved:1"
    if name == "deep":  # as deep, but not as wide: this is about sameness
        config.model.coder.hidden = (100, 50, 25)
    if config.pretrain is not None:
        stack = config.model if name == "deep_belief" else config.model.coder
        stack.hidden, config.pretrain.duration = (32, 16), "20 steps"
    if name.startswith("sequence"):
        config.model.coder.hidden = (32,)
    for field, value in changes.items():
        setattr(config, field, value)
    return config


def losses(workdir) -> list[float]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["split"] == "train"]


def one(workdir, config: Config, devices: int = 1):
    outcome = train(config, str(workdir), quiet=True, devices=jax.devices()[:devices])
    assert outcome.status == "done"
    return outcome


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in _LONG else name for name in PRESETS],
)
def test_a_preset_trains_to_the_loss_that_it_had(tmp_path, name):
    """And resumes and loads, if it is one of the representative ones."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    outcome = one(whole, preset(name))
    assert outcome.metrics["loss"] == pytest.approx(GOLDEN[name], rel=2e-3)
    if name not in REPRESENTATIVE:
        return
    if not _scheduled(name):
        one(cut, preset(name, duration="20 steps"))
        again = one(cut, preset(name))
        assert again.metrics == outcome.metrics and losses(cut) == losses(whole)
    model = aejax.load(str(whole))
    rows = open_source("digits", "test")[slice(0, 5)].x
    z = model.encode(rows)
    assert z.shape[0] == 5 and np.isfinite(z).all()
    assert model.decode(z).shape == rows.shape


def _scheduled(name: str) -> bool:
    """Whether its learning rate depends on the run's length."""
    optimizer = preset(name).optimizer
    return bool(optimizer.warmup) or type(optimizer.schedule).__name__ != "Constant"


# Transformers compile longest on a mesh; what only they have is in tests/training/test_mesh.py too.
_LARGE = ("sequence_text", "transformer")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in (*_LARGE, "convolutional") else name
        for name in REPRESENTATIVE
    ],
)
def test_a_preset_is_the_same_on_any_mesh_in_both_styles_and_with_both_feeds(name):
    alone, begun = runs.losses(preset(name), 10)
    assert alone[-1] < alone[0]
    streaming = preset(name)
    streaming.data.feed = "streaming"
    assert runs.losses(streaming, 10, 1, begun)[0] == alone
    for changes in ({"mesh": Mesh(2, 2, 2)}, {"parallel": "pmap"}):
        found, _ = runs.losses(preset(name, **changes), 10, 8, begun)
        np.testing.assert_allclose(found, alone, rtol=2e-5, err_msg=str(changes))


CORRUPTIONS = (None, Masking(0.3), SaltAndPepper(0.3, emphasis=2.0), Noise(0.2))
CODES = (Plain("sigmoid"), KSparse(4), Variational(), Variational(samples=3))
PENALTIES = (None, Contractive(), Contractive(method="estimate"), Activity(), L1())


# A Latin square: every pair of kinds stands in some combination.
COMBINATIONS = [
    (CORRUPTIONS[(i + j) % len(CORRUPTIONS)], code, penalty)
    for i, code in enumerate(CODES)
    for j, penalty in enumerate(PENALTIES)
]


@pytest.mark.parametrize(("corruption", "code", "penalty"), COMBINATIONS)
def test_parts_combine_freely_or_are_refused_by_name(corruption, code, penalty):
    """A few steps lower the loss of every combination."""
    model = Autoencoder(Dense((16,)), 12, code, corruption=corruption, penalty=penalty)
    config = preset("dense", model=model)
    if isinstance(penalty, Activity) and code != Plain("sigmoid"):
        with pytest.raises(aejax.InputError, match=r"config.model.penalty: activity needs"):
            runs.losses(config, 12)
        return
    found, _ = runs.losses(config, 12)
    assert np.mean(found[-4:]) < np.mean(found[:4])


def test_a_learned_variance_trains_to_a_better_likelihood_than_a_fixed_one(tmp_path):
    found = {}
    for variance in ("fixed", "learned"):
        model = Autoencoder(Dense((32,)), 8, Plain("linear"), Gaussian(variance=variance))
        config = preset("dense", duration="150 steps", log_every=50, model=model)
        found[variance] = one(tmp_path / variance, config).metrics["nll"]
        assert np.isfinite(losses(tmp_path / variance)).all()
    # Pixels vary by much less than sqrt(1/2), and those of the edge hardly at all.
    assert found["learned"] < found["fixed"] - 64 * 0.5
