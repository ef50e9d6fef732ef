"""TFDS's data sets: read and written without TensorFlow and without the network."""

import json
import os
import shutil
import socket
import sys

import numpy as np
import pytest
from PIL import Image

from aejax.data.sources import open_source, open_splits, tfds_writer
from aejax.data.sources.base import Arrays
from aejax.errors import InputError

ROWS = Arrays(np.zeros((3, 1), np.float32), None, None)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"reached for the network: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def refused(text: str, *words: object, split: str = "train", folder: str = "", read: bool = False):
    """Asserts that opening (and reading) fails in one line with all these words in it."""
    with pytest.raises(InputError) as caught:
        source = open_source(text, split, folder)
        if read:
            source[:]
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"data.source={text}: ")
    for word in words:
        assert str(word) in message


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory) -> str:
    """A data folder with the digits in it."""
    folder = str(tmp_path_factory.mktemp("tfds"))
    sources = {name: read() for name, read in open_splits("digits").items()}
    tfds_writer.write(sources, "digits8", folder)
    return folder


def same(found, wanted) -> bool:
    return np.array_equal(found.x, wanted.x) and np.array_equal(found.label, wanted.label)


def test_tfds_gives_back_the_digits_bit_for_bit_without_tensorflow(tfds_folder):
    for split in ("train", "test", "all", "train[:10%]+test[-5:]"):
        found = open_source("tfds:digits8", split, tfds_folder)
        wanted = open_source("digits", split)
        assert found.spec == wanted.spec  # the maximum of 16 too
        assert same(found[:], wanted[:])
        some = np.array([7, 0, len(found) - 1, 7])
        assert same(found[some], wanted[some])
    assert "tensorflow" not in sys.modules


def test_slices_are_those_that_tfds_takes(tfds_folder):
    import tensorflow_datasets

    builder = tensorflow_datasets.builder_from_directory(f"{tfds_folder}/digits8/1.0.0")
    for split in ("test[:33%]", "test[33%:]", "test[-17%:]", "test[5:50]", "test[:-7]", "test"):
        theirs = builder.as_data_source(split)
        ours = open_source("tfds:digits8", split, tfds_folder)[:]
        assert [each["image"].tobytes() for each in theirs] == [x.tobytes() for x in ours.x]
        assert [int(each["label"]) for each in theirs] == ours.label.tolist()


def test_tfds_with_a_split_in_its_name_has_only_those_rows(tfds_folder):
    found = open_source("tfds:digits8:test[:20]", folder=tfds_folder)
    assert same(found[:], open_source("digits", "test[:20]")[:])
    refused(
        "tfds:digits8:test[:20]",
        "no split test; accepted: all, train",
        split="test",
        folder=tfds_folder,
    )


def test_tfds_sets_that_are_missing_say_how_to_write_them(tfds_folder, tmp_path, monkeypatch):
    command = f"python -m launch.prepare --from=... --name=mnist --folder={tfds_folder}"
    refused("tfds:mnist", "there: digits8", "array_record", command, folder=tfds_folder)
    refused("tfds:digits", "did you mean digits8?", folder=tfds_folder)
    refused(
        "tfds:digits8",
        "no split validation; accepted: all, train, test",
        split="validation",
        folder=tfds_folder,
    )
    refused("tfds:", "NAME", folder=tfds_folder)
    refused("tfds:../digits8", "not the name", folder=tfds_folder)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    refused("tfds:mnist", tmp_path / "none", "--name=mnist,")
    monkeypatch.setenv("TFDS_DATA_DIR", tfds_folder)
    assert len(open_source("tfds:digits8", "test")) == 360


def test_tfds_sets_in_another_format_say_so(tfds_folder, tmp_path):
    shutil.copytree(f"{tfds_folder}/digits8/1.0.0", tmp_path / "digits8" / "3.0.1")
    info = tmp_path / "digits8" / "3.0.1" / "dataset_info.json"
    content = json.loads(info.read_text())
    info.write_text(json.dumps(content | {"fileFormat": "tfrecord"}))
    command = f"python -m launch.prepare --from=... --name=digits8 --folder={tmp_path}"
    refused("tfds:digits8", "3.0.1 is stored as tfrecord", command, folder=str(tmp_path))
    # and that command works: what it writes stands beside the other and is found
    sources = {"test": open_source("digits", "test")}
    written = tfds_writer.write(sources, "digits8", str(tmp_path))
    assert written.path == str(tmp_path / "digits8" / "3.0.2")
    found = open_source("tfds:digits8", "test", str(tmp_path))
    assert same(found[:], open_source("digits", "test")[:])


def test_damage_to_a_tfds_set_is_found(tfds_folder, tmp_path):
    def damaged(name: str, change) -> None:
        shutil.rmtree(tmp_path / "digits8", ignore_errors=True)
        shutil.copytree(f"{tfds_folder}/digits8", tmp_path / "digits8")
        path = tmp_path / "digits8" / "1.0.0" / name
        content = path.read_bytes()
        path.unlink()
        if (content := change(content)) is not None:
            path.write_bytes(content)

    def fails(*words: str) -> None:
        refused("tfds:digits8", *words, folder=str(tmp_path), read=True)

    records = "digits8-train.array_record-00000"
    damaged(records, lambda content: None)
    fails(records, "missing")
    damaged(records, lambda content: content[:-70000])
    fails("cannot be read")
    at = 5000
    damaged(records, lambda content: content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    fails("cannot be read", "hash mismatch")
    for name in ("dataset_info.json", "features.json"):
        damaged(name, lambda content: content[:-9])
        fails("cannot be read")
    damaged("dataset_info.json", lambda content: None)  # never finished, so it is not there
    fails("no data set digits8")


def write_features(folder: str, name: str, features, examples: list[dict]) -> None:
    """Writes a TFDS set with features of its own, by TFDS alone."""
    import tensorflow_datasets as tfds

    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name,
        version=tfds.core.Version("2.0.0"),
        data_dir=os.path.join(folder, name, "2.0.0"),
        module_name="",
    )
    os.makedirs(identity.data_dir)
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, 1000, file_format="array_record")
    writer.initialize_splits(["train"])
    writer.add_examples({"train": examples})
    writer.close_all()


def test_tfds_finds_the_feature_that_holds_a_row(tmp_path):
    import tensorflow_datasets as tfds

    folder = str(tmp_path)
    tensor = tfds.features.Tensor(shape=(3,), dtype=np.float64)
    rows = [{"wave": np.arange(3.0) + n, "label": n, "name": f"row {n}"} for n in range(4)]
    features = {
        "wave": tensor,
        "label": tfds.features.ClassLabel(num_classes=4),
        "name": tfds.features.Text(),
    }
    write_features(folder, "waves", tfds.features.FeaturesDict(features), rows)
    found = open_source("tfds:waves", folder=folder)
    assert (found.spec.shape, found.spec.dtype, found.spec.maximum) == ((3,), "float32", None)
    assert found[:].x.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert found[:].label.tolist() == [0, 1, 2, 3]
    refused("tfds:waves", "no split test; accepted: all, train", folder=folder, split="test")

    both = tfds.features.FeaturesDict({"a": tensor, "b": tensor})
    write_features(folder, "pairs", both, [{"a": np.zeros(3), "b": np.ones(3)}])
    refused("tfds:pairs", "the features a, b, of which 2 are arrays", folder=folder)
    named = tfds.features.FeaturesDict({"a": tensor, "x": tensor})
    write_features(folder, "named", named, [{"a": np.zeros(3), "x": np.ones(3)}])
    assert open_source("tfds:named", folder=folder)[:].x.tolist() == [[1, 1, 1]]
    ragged = tfds.features.FeaturesDict({"x": tfds.features.Tensor(shape=(None,), dtype=np.uint8)})
    write_features(folder, "ragged", ragged, [{"x": np.zeros(3, np.uint8)}])
    refused("tfds:ragged", "shape (None,)", "fixed shape", folder=folder)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((5,), "float32"), ((4, 3, 3), "uint8"), ((4, 3, 4), "uint8"), ((4, 3, 2), "uint8")]
    + [((6,), "uint8"), ((2, 3), "uint16")],
)
def test_rows_of_every_kind_come_back_bit_for_bit(tmp_path, monkeypatch, shape, dtype):
    random = np.random.RandomState(0)
    bits = random.randint(0, 256, (600, int(np.prod(shape)) * np.dtype(dtype).itemsize))
    x = bits.astype(np.uint8).view(dtype).reshape(600, *shape)
    maximum = None if dtype == "float32" else float(np.iinfo(dtype).max)
    source = Arrays(x, random.randint(-1, 9, 600).astype(np.int32), maximum)
    # several files, the last of them not full, and blocks that straddle them
    monkeypatch.setattr(tfds_writer, "SHARD_BYTES", 250 * x[0].nbytes)
    written = tfds_writer.write({"train": source}, "rows", str(tmp_path))
    assert written.rows == {"train": 600}
    assert len(list(tmp_path.glob("rows/1.0.0/*array_record*"))) == 3
    found = open_source("tfds:rows", folder=str(tmp_path))
    assert found.spec == source.spec
    assert found[:].x.tobytes() == x.tobytes()  # not-a-numbers are compared by their bits too
    assert found[:].label.tolist() == source.label.tolist()


def test_classes_keep_their_names(tmp_path):
    for name in ("cat", "owl"):
        for number in range(5):
            path = tmp_path / "pictures" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (3, 2), number).save(path)
    source = open_source(f"images:{tmp_path}/pictures", "all")
    tfds_writer.write({"train": source}, "pictures", str(tmp_path))
    found = open_source("tfds:pictures", "train", str(tmp_path))
    assert found.spec.classes == ("cat", "owl")
    assert found[:].label.tolist() == source[:].label.tolist()


def test_a_failed_write_leaves_nothing(tmp_path):
    class Breaks:
        spec = ROWS.spec

        def __len__(self):
            return 1000

        def __getitem__(self, index):
            if index.start:
                raise InputError("row 256 cannot be read")
            return Arrays(np.zeros((256, 1), np.float32), None, None)[:]

    with pytest.raises(InputError, match="row 256"):
        tfds_writer.write({"train": Breaks()}, "rows", str(tmp_path))
    assert list(tmp_path.glob("rows/*")) == []
    with pytest.raises(InputError, match="cannot be written"):
        (tmp_path / "file").write_text("")
        tfds_writer.write({"train": ROWS}, "rows", str(tmp_path / "file"))
    with pytest.raises(InputError, match="split test has no rows"):
        empty = Arrays(ROWS.x[:0], None, None)
        tfds_writer.write({"train": ROWS, "test": empty}, "rows", str(tmp_path))
    with pytest.raises(InputError, match="splits differ"):
        sources = {"train": ROWS, "test": Arrays(np.zeros((3, 4), np.uint8), None, 255)}
        tfds_writer.write(sources, "rows", str(tmp_path))
    with pytest.raises(InputError, match="splits differ"):  # the same rows, another maximum
        sources = {"train": Arrays(np.zeros((3, 4), np.uint8), None, 16)}
        sources["test"] = Arrays(np.zeros((3, 4), np.uint8), None, 255)
        tfds_writer.write(sources, "rows", str(tmp_path))
