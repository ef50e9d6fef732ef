"""Evaluation of symbols: what is right, counted with NumPy from the model's own logits."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import special

import aejax
from aejax.config import Config, Data, Prepare
from aejax.data.sources import open_source
from aejax.errors import InputError
from aejax.evaluation import reconstruction
from aejax.evaluation.encode import encode
from aejax.models import Autoencoder
from aejax.models.coders import Recurrent
from aejax.models.likelihood import Categorical
from aejax.optimizer import Adam
from tests.training.runs import train

TEXT = b"the quick brown fox jumps over the lazy dog; " * 60


def configuration(source: str, **fields) -> Config:
    coder = Recurrent("lru", (16,), symbols=256, embedding=8, **fields)
    return Config(
        model=Autoencoder(coder, 12, likelihood=Categorical()),
        data=Data(source=source, prepare=Prepare(scale=False)),
        optimizer=Adam(learning_rate=1e-2),
        batch_size=32,
        duration="30 steps",
        trackers=(),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder of a run, its source)."""
    place = tmp_path_factory.mktemp("symbols")
    (place / "text").write_bytes(TEXT)
    source = f"text:{place / 'text'}?length=8"
    outcome = train(configuration(source), str(place / "run"), quiet=True)
    assert outcome.status == "done" and set(outcome.metrics) == {"loss", "nll", "wrong"}
    return place / "run", source, outcome.metrics


def test_text_comes_back_as_bytes_and_what_is_right_is_counted(run):
    folder, source, metrics = run
    test = open_source(source, "test")
    model = aejax.load(str(folder))
    rows = test[:].x
    z = model.encode(rows)
    made = model.decode(z)
    assert z.shape == (len(rows), 12) and np.array_equal(made, np.round(made))
    np.testing.assert_array_equal(model.reconstruct(rows), made)
    logits = np.asarray(model.module.decoder(z, None, None), np.float64)
    np.testing.assert_array_equal(made, logits.argmax(-1))
    log_p = special.log_softmax(logits, axis=-1)
    nll = -np.take_along_axis(log_p, rows[..., None].astype(int), -1).mean()
    result = reconstruction.task(model, test)
    values = result.values()
    assert set(values) == {"accuracy", "whole_rows", "nll"}
    right = made == rows
    assert 0.1 < right.mean() < 1
    assert values["accuracy"] == pytest.approx(right.mean())
    assert values["accuracy"] == pytest.approx(1 - metrics["wrong"])
    assert values["whole_rows"] == pytest.approx(right.all(axis=1).mean())
    assert values["nll"] == pytest.approx(nll, rel=1e-5)
    assert 8 * values["nll"] == pytest.approx(metrics["nll"], rel=1e-5)
    said = f"{str(rows[0].tobytes())[1:]} became {str(made[0].astype(np.uint8).tobytes())[1:]}."
    assert said in result.notes


def test_the_error_of_a_row_is_its_share_of_wrong_symbols(run, tmp_path):
    folder, source, metrics = run
    model, test = aejax.load(str(folder)), open_source(source, "test")
    out = tmp_path / "codes.npz"
    assert encode(model, test, str(out)).error == pytest.approx(metrics["wrong"])
    with np.load(out) as found:
        wrong = found["reconstruction"] != test[:].x
        np.testing.assert_allclose(found["error"], wrong.mean(axis=1))


def test_the_command_says_so(run, tmp_path):
    folder, _, metrics = run
    words = ["-m", "launch.encode", f"--workdir={folder}", f"--out={tmp_path / 'codes.npz'}"]
    said = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    assert f"share of wrong symbols {metrics['wrong']:.5g}" in said.stdout


@pytest.mark.parametrize(
    ("x", "prepare", "said"),
    [
        (np.arange(60).reshape(10, 6) + 200, Prepare(scale=False), "there is 256"),
        (np.full((10, 6), 0.5), Prepare(scale=False), "there is 0.5"),
        (np.full((10, 6), -1.0), Prepare(scale=False), "there is -1"),
        (np.full((10, 6), 1.0), Prepare(scale=False, centre="mean"), "prepare.centre=mean"),
        (np.full((10, 6), 1.0), Prepare(), "data.prepare.scale=False"),
    ],
)
def test_what_is_no_symbol_is_refused(tmp_path, x, prepare, said):
    dtype = np.uint16 if x.max() > 1 else np.float32
    np.savez(tmp_path / "rows.npz", x=x.astype(dtype))
    config = configuration(f"npz:{tmp_path / 'rows.npz'}")
    config.data.prepare, config.batch_size = prepare, 8
    with pytest.raises(InputError, match=said):
        train(config, str(tmp_path / "run"), quiet=True)


@pytest.mark.slow
def test_whole_numbers_of_any_type_are_symbols(tmp_path):
    x = np.random.RandomState(0).randint(0, 256, (40, 6))
    for dtype in (np.uint16, np.float32):
        np.savez(tmp_path / f"{np.dtype(dtype)}.npz", x=x.astype(dtype))
    losses = []
    for name in ("uint16", "float32"):
        config = configuration(f"npz:{tmp_path / name}.npz", teacher_forcing=0.5)
        config.duration = "3 steps"
        losses.append(train(config, str(tmp_path / name), quiet=True).metrics["loss"])
    assert losses[0] == losses[1]
