"""launch.encode over one's own pictures: what the file holds, and what is refused."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import aejax
from aejax.data.sources import open_source
from aejax.data.sources.base import Arrays
from aejax.errors import InputError
from aejax.evaluate import rows
from aejax.evaluate.encode import encode
from aejax.train.loop import train
from configs.dense import get_config

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    config = get_config()
    config.duration, config.tensorboard, config.evaluation.every = "20 steps", False, ""
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
        assert sorted(found) == ["error", "index", "label", "reconstruction", "z"]
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
        ([*base, out, f"--source=images:{tmp_path}/large"], ("(12, 16, 1)", "(8, 8, 1)")),
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
    mean = encode(model, source, str(out))
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
