"""launch.encode over one's own pictures: what the file holds, and what is refused."""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import aejax
from aejax.config import Data, Prepare
from aejax.data.sources import open_source
from aejax.data.sources.base import Arrays, Spec, names
from aejax.errors import InputError
from aejax.evaluation import rows
from aejax.evaluation.encode import encode
from aejax.models import Autoencoder
from aejax.models.likelihood import Gaussian
from aejax.runs.folder import Run
from configs.dense import get_config
from tests.training.runs import small, train

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    config = get_config()
    config.duration, config.trackers, config.evaluation.every = "20 steps", (), ""
    train(config, str(path), quiet=True)
    return path


@pytest.fixture
def pictures(tmp_path) -> pathlib.Path:
    """Five pictures of 8 x 8 bytes, in two classes."""
    random = np.random.RandomState(0)
    for i in range(5):
        place = tmp_path / "pictures" / ("even" if i % 2 == 0 else "odd")
        place.mkdir(parents=True, exist_ok=True)
        image = random.randint(0, 256, (8, 8)).astype(np.uint8)
        Image.fromarray(image).save(place / f"{i}.png")
    return tmp_path / "pictures"


def start(*words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "launch.encode", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_pictures_of_ones_own(run, pictures, tmp_path):
    out = tmp_path / "codes.npz"
    words = (f"--workdir={run}", f"--source=images:{pictures}", f"--out={out}")
    process = start(*words)
    said, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    module = aejax.load(str(run)).module
    files = [pictures / name for name in ("even/0", "even/2", "even/4", "odd/1", "odd/3")]
    x = np.stack([np.asarray(Image.open(f"{path}.png")) for path in files]) / np.float32(255)
    x = x.reshape(5, 8, 8, 1)
    z = np.asarray(module.encode(x))
    made = np.asarray(module.decode(z))
    with np.load(out, allow_pickle=False) as found:
        own = ["classes", "error", "file", "index", "label", "reconstruction", "z"]
        assert sorted(found) == own
        assert found["classes"].tolist() == ["even", "odd"]
        names = ["even/0.png", "even/2.png", "even/4.png", "odd/1.png", "odd/3.png"]
        assert found["file"].tolist() == names
        np.testing.assert_allclose(found["z"], z, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["reconstruction"], made, rtol=1e-5, atol=1e-6)
        error = np.square(x - made, dtype=np.float64).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(found["error"], error, rtol=1e-5)
        np.testing.assert_array_equal(found["label"], [0, 0, 0, 1, 1])
        np.testing.assert_array_equal(found["index"], range(5))
    (line,) = said.splitlines()
    assert line.startswith("5 rows of images:") and f"{error.mean():.5g}" in line
    assert line.endswith(str(out))


def test_bad_input_is_one_line_and_exit_code_2(run, pictures, tmp_path):
    (tmp_path / "there.npz").write_bytes(b"kept")
    (tmp_path / "large").mkdir()
    Image.new("L", (16, 12)).save(tmp_path / "large" / "a.png")
    base = [f"--workdir={run}", f"--source=images:{pictures}"]
    out = f"--out={tmp_path}/codes.npz"
    cases = [
        ([out], ("--workdir is missing",)),
        (base, ("--out=", ".npz")),
        ([*base, f"--out={tmp_path}/there.npz"], ("exists", "--overwrite")),
        ([*base, f"--out={tmp_path}/not/there.npz"], ("there is no folder",)),
        (
            [*base, out, f"--source=images:{tmp_path}/large"],
            ("(12, 16, 1)", "(8, 8, 1)", "size=8x8"),
        ),
    ]
    processes = [(start(*words), said) for words, said in cases]
    for process, said in processes:
        text, err = process.communicate(timeout=120)
        assert (process.returncode, text) == (2, "")
        assert err.count("\n") == 1 and all(word in err for word in said), err
    assert (tmp_path / "there.npz").read_bytes() == b"kept"
    assert not (tmp_path / "codes.npz").exists()


class Piecewise:
    """Digits that can be read 100 at a time, the last of them perhaps not at all."""

    def __init__(self, broken: bool):
        self.rows, self.broken, self.most = open_source("digits", "test"), broken, 0
        self.spec = self.rows.spec

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        found = self.rows[index]
        self.most = max(self.most, len(found.x))
        if self.broken and index.stop >= 360:
            raise InputError("picture 359 cannot be read")
        return found


def test_rows_are_streamed_and_the_file_is_whole_or_not_there(run, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_ROWS_AT_A_TIME", 100)
    model, out = aejax.load(str(run)), tmp_path / "codes.npz"
    with pytest.raises(InputError, match="359"):
        encode(model, Piecewise(broken=True), str(out))
    assert list(tmp_path.iterdir()) == []
    source = Piecewise(broken=False)
    mean = encode(model, source, str(out)).error
    assert source.most == 100
    with np.load(out, allow_pickle=False) as found:
        assert found["reconstruction"].shape == (360, 8, 8, 1)
        assert found["error"].mean() == pytest.approx(mean)
        test = open_source("digits", "test")[:]
        np.testing.assert_array_equal(found["label"], test.label)
        np.testing.assert_allclose(found["z"], model.encode(test.x), rtol=1e-5, atol=1e-6)


def test_rows_without_labels_have_none_in_the_file(run, tmp_path):
    out = tmp_path / "codes.npz"
    x = open_source("digits", "test[:3]")[:].x
    encode(aejax.load(str(run)), Arrays(x, None, 16.0), str(out))
    with np.load(out) as found:
        assert sorted(found) == ["error", "index", "reconstruction", "z"]


def test_rows_without_a_finite_code_are_told_of(run, tmp_path):
    out = tmp_path / "codes.npz"
    rows = open_source("digits", "test[:6]")[:]
    model = aejax.load(str(run))
    spec = dataclasses.replace(model.run.spec, dtype="float32")
    preparation = dataclasses.replace(model.preparation, spec=spec)
    model = dataclasses.replace(model, preparation=preparation)
    x = rows.x.astype(np.float32)
    x[[1, 4], 0, 0, 0] = np.inf, -np.inf
    encoded = encode(model, Arrays(x, None, 16.0), str(out))
    assert encoded.lost.tolist() == [1, 4] and encoded.names is None
    with np.load(out) as found:
        lost = [0, 1, 0, 0, 1, 0]
        for name in ("z", "reconstruction", "error"):
            assert np.isnan(found[name].reshape(6, -1)).all(1).tolist() == lost, name
            assert np.isfinite(found[name].reshape(6, -1)).all(1).tolist() != lost
        np.testing.assert_allclose(found["z"][0], model.encode(rows.x[:1])[0], rtol=1e-5)
        assert encoded.error == pytest.approx(np.nanmean(found["error"]))
    out.unlink()
    x[:, 0, 0] = np.inf
    with pytest.raises(InputError, match="none of the 6 rows gave a finite code"):
        encode(model, Arrays(x, None, 16.0), str(out))
    assert list(tmp_path.iterdir()) == []


def test_new_pictures_have_the_options_of_the_runs_own(pictures, tmp_path):
    spec = Spec((8, 8, 3), "uint8", 255.0, True)
    config = get_config()
    config.data.source = f"images:{tmp_path}/gone?size=8&fit=pad&broken=skip"
    old = Run(config, spec, {}, 5)
    Image.new("L", (31, 17), 9).save(pictures / "large.png")
    (pictures / "broken.png").write_bytes(b"")
    chosen = rows.choose_rows(old, f"images:{pictures}?fit=stretch")
    assert chosen.name == f"images:{pictures}?fit=stretch&size=8&broken=skip&mode=rgb"
    assert chosen.source.spec.shape == (8, 8, 3)
    assert (chosen.source[:].x[3] == 9).all()  # no black edges
    assert names(chosen.source, np.array([3, 5])) == ["large.png", "odd/3.png"]
    # of another kind of source nothing is taken but what the model needs
    config.data.source = "digits"
    with pytest.raises(InputError, match="broken.png cannot be read"):
        rows.choose_rows(old, f"images:{pictures}")
    (pictures / "broken.png").unlink()
    with pytest.raises(InputError, match="large.png is 31x17"):
        rows.choose_rows(old, f"images:{pictures}")
    grey = dataclasses.replace(old, spec=dataclasses.replace(spec, shape=(8, 8, 1)))
    Image.new("RGB", (8, 8), (9, 9, 9)).save(pictures / "large.png")
    assert rows.choose_rows(grey, f"images:{pictures}").source.spec.shape == (8, 8, 1)
    deep = dataclasses.replace(grey.spec, dtype="uint16", maximum=65535.0)
    source = rows.choose_rows(dataclasses.replace(grey, spec=deep), f"images:{pictures}").source
    assert source[:].x[3, 0, 0, 0] == 9 * 257


@pytest.mark.slow
def test_rows_of_a_table_are_flagged_with_their_worst_columns(tmp_path):
    random, run = np.random.RandomState(0), tmp_path / "run"
    lines = [f"{random.rand():.4f},{random.rand():.4f}" for _ in range(100)]
    (tmp_path / "rows.csv").write_text("\n".join(["a,b", *lines, ""]))
    (tmp_path / "new.csv").write_text("a,b\n0.5,0.5\n0.5,70\n")
    config = small(
        model=Autoencoder(latent_dim=1, likelihood=Gaussian()),
        data=Data(
            source=f"table:{tmp_path}/rows.csv",
            prepare=Prepare(scale=False, centre="standardise"),
        ),
        duration="2 steps",
        batch_size=20,
    )
    train(config, str(run), quiet=True)
    aejax.evaluate(str(run), ["anomaly"], false_alarms=0.5, say=lambda line: None)
    out = tmp_path / "codes.npz"
    words = (f"--workdir={run}", f"--source=table:{tmp_path}/new.csv", f"--out={out}", "--flag")
    process = start(*words)
    said, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    with np.load(out) as found:
        assert found["flagged"][1] and found["file_row"].tolist() == [0, 1]
        assert found["columns"].tolist() == ["a", "b"]
        (low, second), (high, worst) = sorted(zip(found["column_error"][1], "ab", strict=True))
    line = next(line for line in said.splitlines() if line.startswith("row 1: score"))
    assert line.endswith(f"most error in {worst} {high:.3g}, {second} {low:.3g}")
