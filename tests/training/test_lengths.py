"""Rows of several lengths: their padding has no influence, from the source to the evaluation."""

import json

import jax
import numpy as np
import pytest

import aejax
from aejax.config import Data, Prepare
from aejax.data.prepare import Preparation, statistics
from aejax.data.sources import open_source
from aejax.data.sources.base import Arrays
from aejax.errors import InputError
from aejax.evaluation import reconstruction, symbols
from aejax.evaluation.encode import encode
from aejax.models import Autoencoder
from aejax.models.coders import Dense, Recurrent, Transformer
from aejax.models.likelihood import Categorical, Gaussian
from aejax.runs import checkpoint
from aejax.training.setup import setup

from .runs import small, train

ROWS, STEPS, SIZE = 200, 6, 3
FILL = 9.96921e36  # netCDF's, whose square is no float32


def sequences(padding: float, symbols: bool = False) -> Arrays:
    draw = np.random.RandomState(0)
    length = draw.randint(1, STEPS + 1, ROWS).astype(np.int32)
    if symbols:
        x = draw.randint(0, 5, (ROWS, STEPS)).astype(np.uint8)
    else:
        x = draw.standard_normal((ROWS, STEPS, SIZE)).astype(np.float32)
    x[np.arange(STEPS) >= length[:, None]] = padding
    return Arrays(x, draw.randint(0, 2, ROWS).astype(np.int32), 255.0 if symbols else None, length)


def config(coder, **changes):
    model = Autoencoder(coder=coder, latent_dim=4, likelihood=Gaussian())
    return small(model=model, duration="30 steps", batch_size=40, **changes)


def trained(settings, workdir, padding: float, symbols: bool = False):
    source = sequences(padding, symbols)
    train(settings, str(workdir), (source, source), quiet=True)
    shapes = setup(settings, (source, source)).state.params
    end = checkpoint.load(str(workdir), 30, {"params": shapes})["params"]
    with open(workdir / "metrics.jsonl") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        for name in ("seconds", "examples_per_second"):
            row.pop(name, None)
    return end, rows


@pytest.mark.parametrize(
    "coder",
    [
        Recurrent(hidden=(8,), bidirectional=True),
        Dense(hidden=(8,)),
        pytest.param(
            Transformer(width=8, heads=2, feed_forward=8, encoder_layout="af", decoder_layout="af"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["recurrent", "dense", "transformer"],
)
def test_padding_has_no_influence_on_a_bit_of_training(tmp_path, coder):
    ends = [trained(config(coder), tmp_path / name, x) for name, x in (("a", 0.0), ("b", FILL))]
    assert ends[0][1] == ends[1][1]
    for one, other in zip(*(jax.tree.leaves(end[0]) for end in ends), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("padding", [np.nan, np.inf, FILL, -0.0])
def test_padding_is_0_wherever_rows_are_read(tmp_path, padding):
    zeros, source = sequences(0.0), sequences(padding)
    for index in (slice(None), np.array([7, 3, 3])):
        assert source[index].x.tobytes() == zeros[index].x.tobytes()
    real = zeros[:].real
    np.savez(
        tmp_path / "rows.npz", x=np.where(real, np.float64(zeros.x), padding), length=zeros.length
    )
    assert open_source(f"npz:{tmp_path}/rows.npz", "all")[:].x.tobytes() == zeros.x.tobytes()
    for settings in (Prepare(), Prepare(scale=False, centre="standardise")):
        assert statistics(settings, source) == statistics(settings, zeros)
    wrong = source.x.copy()
    wrong[5, 0] = np.nan
    np.savez(tmp_path / "rows.npz", x=wrong, length=source.length)
    with pytest.raises(InputError, match="not finite in float32, first in row 5: nan"):
        open_source(f"npz:{tmp_path}/rows.npz", "all")


@pytest.mark.slow
def test_symbols_end_where_they_end(tmp_path):
    model = Autoencoder(
        coder=Recurrent(hidden=(8,), symbols=5), latent_dim=4, likelihood=Categorical(classes=5)
    )
    settings = small(
        model=model, duration="30 steps", batch_size=40, data=Data(prepare=Prepare(scale=False))
    )
    one = trained(settings, tmp_path / "a", 0, symbols=True)
    # Padding need not even be a symbol.
    other = trained(settings, tmp_path / "b", 200, symbols=True)
    assert one[1] == other[1]
    source = sequences(200, symbols=True)
    model = aejax.load(str(tmp_path / "b"))
    numbers = symbols.result(model, source).numbers
    made = model.reconstruct(source.x, source.length)
    real = np.arange(STEPS) < source.length[:, None]
    right = (made == source.x)[real]
    assert numbers["accuracy"].value == pytest.approx(right.mean())
    whole = ((made == source.x) | ~real).all(axis=1).mean()
    assert numbers["whole_rows"].value == pytest.approx(whole)
    assert numbers["nll"].value == pytest.approx(one[1][-1]["nll"] * ROWS / real.sum(), rel=1e-5)


@pytest.mark.parametrize("feed", ["resident", "streaming"])
def test_every_feed_and_style_gives_the_same(tmp_path, feed):
    coder = Recurrent(hidden=(8,))
    whole = config(coder)
    cut = config(coder, micro_batches=5, parallel="pmap")
    cut.data.feed = feed
    _, rows = trained(whole, tmp_path / "whole", 0.0)
    _, others = trained(cut, tmp_path / "cut", np.nan)
    for row, other in zip(rows, others, strict=True):
        for name in ("loss", "nll", "mse"):
            if name in row:
                assert row[name] == pytest.approx(other[name], rel=1e-4)


def test_numbers_of_an_evaluation_are_of_what_is_real(tmp_path):
    settings = config(Recurrent(hidden=(8,)))
    _, rows = trained(settings, tmp_path / "run", np.nan)
    source, model = sequences(np.nan), aejax.load(str(tmp_path / "run"))
    x, real = model.prepare(source.x), sequences(0).length[:, None] > np.arange(STEPS)
    square = np.square(x.astype(np.float64) - model.reconstruct(source.x, source.length))[real]
    assert rows[-1]["mse"] == pytest.approx(square.mean(), rel=1e-5)
    numbers = reconstruction.task(model, source).numbers
    assert numbers["mse"].value == pytest.approx(square.mean(), rel=1e-5)
    assert numbers["squared_error"].value == pytest.approx(square.sum() / ROWS, rel=1e-5)
    assert encode(model, source, str(tmp_path / "codes.npz")).error > 0
    with np.load(tmp_path / "codes.npz") as found:
        each = [
            np.square(x[i, :n] - found["reconstruction"][i, :n]).mean()
            for i, n in enumerate(source.length)
        ]
        np.testing.assert_allclose(found["error"], each, rtol=1e-4)
        np.testing.assert_array_equal(found["length"], source.length)
        np.testing.assert_array_equal(found["z"], model.encode(source.x, source.length))
    with pytest.raises(InputError, match="from 1 to 6"):
        model.encode(source.x, source.length + 6)


def test_statistics_leave_padding_out():
    source = sequences(1e9)
    settings = Prepare(centre="standardise")
    found = statistics(settings, source)
    real = [source.x[i, :n] for i, n in enumerate(source.length)]
    assert found["low"] == min(one.min() for one in real)
    assert found["high"] == max(one.max() for one in real)
    x = np.asarray(Preparation(settings, source.spec, found)(source.x))
    for step in range(STEPS):
        there = x[source.length > step, step]
        np.testing.assert_allclose(there.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(there.std(axis=0), 1, atol=1e-4)


def test_lengths_come_from_files_and_stay_with_their_rows(tmp_path):
    source = sequences(0.0)
    np.savez(tmp_path / "rows.npz", x=source.x, y=source.label, length=source.length)
    name = f"npz:{tmp_path}/rows.npz"
    np.testing.assert_array_equal(open_source(name, "all")[:].length, source.length)
    for split in ("train", "test[1:]+train[:50%]"):
        rows = open_source(name, split)[:]
        last = [np.flatnonzero(x.any(axis=1)).max() + 1 for x in rows.x]
        np.testing.assert_array_equal(rows.length, last)
    for wrong, said in ((source.length - 1, "0 to 5"), (source.length + 1, "2 to 7")):
        np.savez(tmp_path / "rows.npz", x=source.x, length=wrong)
        with pytest.raises(InputError, match=f"reaches {said}; accepted: 1 to 6"):
            open_source(name, "all")
    np.savez(tmp_path / "rows.npz", x=source.x, length=source.length[1:])
    with pytest.raises(InputError, match=r"200 rows, length has shape \(199,\)"):
        open_source(name, "all")
