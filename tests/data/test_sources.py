"""Sources: what they read, how they are split, and what they say about files that are damaged."""

import bz2
import gzip
import hashlib
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from aejax.data.sources import Arrays, open_source
from aejax.errors import InputError

DATA = os.environ.get("AEJAX_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="AEJAX_DATA names no folder of real data")


def refused(text: str, *words: object, split: str = "train", read: bool = False) -> str:
    """Asserts that opening (and reading) fails in one line with all these words in it."""
    with pytest.raises(InputError) as caught:
        source = open_source(text, split)
        if read:
            source[:]
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"data.source={text}: ")
    for word in words:
        assert str(word) in message
    return message


# --- names ---


def test_unknown_source_lists_what_there_is():
    refused("digit", "did you mean digits?", "idx:FOLDER", "tfds:NAME")
    refused("csv:rows.csv", "'csv'", "text:FILE?length=64")
    refused("digits:0", "no argument")
    for kind in ("idx", "images", "npz", "text"):
        refused(f"{kind}:", "no path")
        refused(f"{kind}:/not/there", "/not/there", f"{kind}:")


def test_listing_the_sources_imports_nothing_heavy():
    code = """
import sys
from aejax.data.sources import open_splits
heavy = {"sklearn", "PIL", "tensorflow_datasets", "jax"}
print(sorted(heavy & set(sys.modules)))
"""
    root = pathlib.Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    # jax may come with the package itself, never with the sources
    assert ran.stdout.strip() in ("[]", "['jax']"), ran.stderr


# --- digits ---


def test_digits_are_all_of_scikit_learns():
    train, test, whole = (open_source("digits", split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(whole)) == (1437, 360, 1797)
    assert train.spec == test.spec
    assert (train.spec.shape, train.spec.dtype) == ((8, 8, 1), "uint8")
    assert (train.spec.maximum, train.spec.labelled) == (16, True)
    rows = whole[:]
    assert rows.x.max() == 16
    found = sorted((x.tobytes(), int(y)) for x, y in zip(rows.x, rows.label, strict=True))
    images, target = load_digits(return_X_y=True)
    wanted = sorted(
        (x.astype(np.uint8).tobytes(), int(y)) for x, y in zip(images, target, strict=True)
    )
    assert found == wanted
    assert len(np.unique(test[:].label)) == 10  # shuffled: they are not the last writers' only


# --- IDX ---


@needs_data
def test_mnist_is_mnist():
    train, test = (open_source(f"idx:{DATA}/mnist", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (60000, 10000)
    assert train.spec == test.spec
    assert (train.spec.shape, train.spec.dtype, train.spec.maximum) == ((28, 28, 1), "uint8", 255)
    rows = train[:]
    header = struct.pack(">4I", 0x803, 60000, 28, 28)
    assert hashlib.sha256(header + rows.x.tobytes()).hexdigest().startswith("ba891046")
    assert rows.label[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(rows.label).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert test[np.array([0, 1, -1])].label.tolist() == [7, 2, 6]


def idx(array: np.ndarray, magic: int | None = None) -> bytes:
    magic = 0x800 + array.ndim if magic is None else magic
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def write_idx(folder, prefix: str = "train", images: int = 6, labels: int = 6) -> np.ndarray:
    x = np.arange(images * 12).reshape(images, 4, 3).astype(np.uint8)
    y = np.arange(labels, dtype=np.uint8)
    (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(x)))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(y))
    return x


def test_idx_reads_plain_and_compressed_files(tmp_path):
    x = write_idx(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(x[:2]))
    train, test = (open_source(f"idx:{tmp_path}", split) for split in ("train", "test"))
    assert train[:].x[..., 0].tolist() == x.tolist()
    assert train[:].label.tolist() == [0, 1, 2, 3, 4, 5]
    assert test[:].x[..., 0].tolist() == x[:2].tolist()
    assert not test.spec.labelled and test[:].label is None


def test_idx_names_the_file_that_is_wrong(tmp_path):
    source = f"idx:{tmp_path}"
    images, labels = tmp_path / "train-images-idx3-ubyte.gz", tmp_path / "train-labels-idx1-ubyte"
    refused(source, tmp_path, "train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
    x = write_idx(tmp_path)
    refused(source, "no split test; accepted: all, train", split="test")
    whole = images.read_bytes()
    images.write_bytes(whole[: len(whole) // 2])
    refused(source, images, "cut off")
    images.write_bytes(whole[:-8] + bytes(8))
    refused(source, images, "CRC")
    images.write_bytes(b"no gzip at all")
    refused(source, images, ".gz")
    images.write_bytes(gzip.compress(idx(x, magic=0x801)))
    refused(source, images, "0x00000801", "0x00000803")
    images.write_bytes(gzip.compress(idx(x) + b"!"))
    refused(source, images, "73 bytes", "6x4x3 = 72")
    images.write_bytes(gzip.compress(idx(x)[:9]))
    refused(source, images, "9 bytes", "16")
    images.write_bytes(gzip.compress(idx(x[:0])))
    refused(source, images, "(0, 4, 3, 1)")
    images.write_bytes(gzip.compress(idx(x)))
    labels.write_bytes(idx(np.arange(5, dtype=np.uint8)))
    refused(source, labels, "5 labels", images, "6 images")


# --- npz ---


def test_npz_with_and_without_splits_of_its_own(tmp_path):
    path = tmp_path / "rows.npz"
    x = np.random.RandomState(1).randn(10, 3, 2)
    np.savez(path, x_train=x, y_train=np.arange(10), x_test=x[:4].astype(np.float16))
    train, test = (open_source(f"npz:{path}", split) for split in ("train", "test"))
    assert (train.spec.shape, train.spec.dtype, train.spec.maximum) == ((3, 2), "float32", None)
    assert train[:].x.tolist() == x.astype(np.float32).tolist()
    assert train[:].label.tolist() == list(range(10)) and train[:].label.dtype == np.int32
    assert test.spec.dtype == "float32" and not test.spec.labelled
    np.savez_compressed(path, x=np.arange(20, dtype=np.uint16).reshape(10, 2), y=np.arange(10))
    train, test = (open_source(f"npz:{path}", split) for split in ("train", "test"))
    assert train.spec.maximum == 65535
    assert train[:].label.tolist() + test[:].label.tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
    assert test[:].x.tolist() == [[10, 11]]
    np.savez(path, x=np.eye(3, dtype=bool))
    bits = open_source(f"npz:{path}", "all")
    assert (bits.spec.dtype, bits.spec.maximum) == ("uint8", 1)
    assert bits[:].x.tolist() == np.eye(3).tolist()


@needs_data
def test_npz_of_others_is_refused_with_its_keys():
    refused(f"npz:{DATA}/ieat/random.npz", "accepted: x (and y, length)", "...")


def test_wide_whole_numbers_become_float32_in_every_split_whatever_they_hold(tmp_path):
    x = np.arange(-3, 57).reshape(20, 3)
    np.savez(tmp_path / "rows.npz", x_train=x, x_test=x[1:2] % 2)
    for split in ("train", "test"):
        assert (
            open_source(f"npz:{tmp_path}/rows.npz", split).spec
            == Arrays(x.astype(np.float32), None, None).spec
        )


GOOD = np.ones((4, 2), np.float32)
RAGGED = np.array([[1], [1, 2]], dtype=object)
HOLED = np.array([[1.0], [np.nan], [2.0]])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": GOOD}, "has the keys images; accepted: x (and y, length), or x_train"),
        ({"x": GOOD, "x_train": GOOD}, "has the keys x, x_train"),
        ({"x": RAGGED}, "Python objects"),
        ({"x": GOOD[:0]}, "x has shape (0, 2)"),
        ({"x": GOOD[:, 0]}, "x has shape (4,)"),
        ({"x": HOLED}, "not finite in float32, first in row 1"),
        ({"x": np.full((2, 2), 1e300)}, "not finite in float32, first in row 0"),
        (
            {"x": np.array([[0, 2**24], [1, 2**24 + 1]])},
            "float32 would round, first in row 1: 16777217",
        ),
        ({"x": GOOD.astype(str)}, "x holds text (dtype <U32); accepted: bool, whole numbers"),
        ({"x": GOOD.astype(complex)}, "x holds complex numbers"),
        ({"x": GOOD.astype("M8[s]")}, "x holds dates"),
        ({"x": np.zeros((4, 2), [("a", "f4"), ("b", "u1")])}, "x holds records"),
        ({"x": GOOD, "y": np.arange(5)}, "x has 4 rows, y has shape (5,)"),
        ({"x": GOOD, "y": np.eye(4)}, "y has dtype float64; accepted: whole numbers"),
        ({"x": GOOD, "y": np.eye(4, dtype=int)}, "y has shape (4, 4)"),
        ({"x": GOOD, "y": np.full(4, 2**40)}, "accepted: int32"),
    ],
)
def test_npz_that_cannot_train_is_refused(tmp_path, arrays, words):
    path = tmp_path / "rows.npz"
    np.savez(path, **arrays)
    refused(f"npz:{path}", path, words)


def test_files_that_are_no_npz_are_refused(tmp_path):
    path = tmp_path / "rows.npz"
    path.write_bytes(b"")
    refused(f"npz:{path}", path, "is no .npz")
    path.write_text("x = 1")
    refused(f"npz:{path}", path, "is no .npz")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    line = refused(f"npz:{tmp_path}/t.csv", "is no .npz", f"or table:{tmp_path}/t.csv")
    assert "pickle" not in line
    np.save(tmp_path / "rows.npy", GOOD)
    refused(f"npz:{tmp_path}/rows.npy", "single array")
    np.savez(path, x=np.arange(4096.0).reshape(64, 64))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    refused(f"npz:{path}", path, "cannot be read as .npz")
    path.write_bytes(whole[:2000] + b"!" + whole[2001:])
    refused(f"npz:{path}", path, "CRC")


# --- text ---


def test_text_is_cut_into_windows_that_do_not_overlap(tmp_path):
    data = bytes(range(256)) * 2 + b"the rest"
    for name, content in (
        ("plain.txt", data),
        ("packed.gz", gzip.compress(data)),
        ("packed.bz2", bz2.compress(data)),
    ):
        (tmp_path / name).write_bytes(content)
        source = open_source(f"text:{tmp_path}/{name}?length=32", "all")
        assert (source.spec.shape, source.spec.dtype, source.spec.maximum) == ((32,), "uint8", 255)
        assert not source.spec.labelled
        assert source[:].x.tobytes() == data[:512]
        parts = [open_source(f"text:{tmp_path}/{name}?length=32", s) for s in ("train", "test")]
        assert b"".join(part[:].x.tobytes() for part in parts) == data[:512]
        assert list(map(len, parts)) == [14, 2]
    assert open_source(f"text:{tmp_path}/plain.txt", "all").spec.shape == (64,)


def test_text_that_cannot_be_cut_is_refused(tmp_path):
    path = tmp_path / "short.txt"
    path.write_bytes(b"x" * 63)
    refused(f"text:{path}", path, "63 bytes", "length=64")
    assert len(open_source(f"text:{path}?length=63", "train")) == 1
    refused(f"text:{path}?length=63", "it has 1 row, too few", split="test")
    for value in ("0", "-1", "many", "", "1.5"):
        refused(f"text:{path}?length={value}", f"length={value}: must be a whole number")
    refused(f"text:{path}?lenght=8", "'lenght'", "did you mean length?")
    path.write_bytes(b"")
    refused(f"text:{path}", "0 bytes")
    packed = tmp_path / "text.gz"
    packed.write_bytes(gzip.compress(os.urandom(5000))[:3000])
    refused(f"text:{packed}", packed, "cut off")
    packed = tmp_path / "text.bz2"
    packed.write_bytes(b"BZh9 and then nothing of the kind")
    refused(f"text:{packed}", packed, ".bz2")


@needs_data
def test_real_text_reads_as_itself():
    path = pathlib.Path(DATA, "tinyshakespeare", "input.txt")
    source = open_source(f"text:{path}?length=100", "all")
    assert source[:].x.tobytes() == path.read_bytes()[: len(source) * 100]
    assert len(source) == path.stat().st_size // 100
