"""A folder of text: a row a file, its sub-folders as classes and splits."""

import json
import os

import numpy as np
import pytest

from aejax.data.sources import open_source
from aejax.errors import InputError
from aejax.models import Classifier
from aejax.models.coders import Recurrent
from aejax.optimizer import Adam
from tests.training.runs import small, train


def written(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return f"text:{folder}?length=8"


def test_each_file_is_a_row_and_its_folder_a_class(tmp_path):
    texts = {
        "sport/goal.txt": "goal",
        "news/long.txt": "a long story",
        "news/b.TXT": "short",
        "notes.md": "no text",
    }
    rows = open_source(written(tmp_path, texts), "all")
    assert rows.spec.shape == (8,) and rows.spec.padded and rows.spec.classes == ("news", "sport")
    found = rows[:]
    names = rows.names(np.arange(3))  # pyright: ignore - of a folder
    assert sorted(names) == ["news/b.TXT", "news/long.txt", "sport/goal.txt"]
    for row, name in enumerate(names):
        start = texts[name].encode()[:8]
        assert found.x[row].tobytes() == start.ljust(8, b"\0") and found.length[row] == len(start)
        assert found.label[row] == (name[0] == "s")
    np.testing.assert_array_equal(rows.labels(), found.label)  # pyright: ignore - of a folder


def test_folders_train_and_test_are_the_splits_and_without_classes_there_are_no_labels(tmp_path):
    source = written(
        tmp_path, {f"{split}/{i}.txt": split for split in ("train", "test") for i in "ab"}
    )
    for split in ("train", "test"):
        rows = open_source(source, split)
        assert not rows.spec.labelled and rows[:].label is None
        assert [
            x[:n].tobytes().decode() for x, n in zip(rows[:].x, rows[:].length, strict=True)
        ] == [split] * 2


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"a/empty.txt": "", "b/c.txt": "c"},
            "empty.txt is empty; accepted: files of at least one byte",
        ),
        ({"a/b.md": "b"}, "holds no text; accepted: .txt"),
    ],
)
def test_empty_files_and_other_endings_are_refused(tmp_path, files, said):
    with pytest.raises(InputError, match=said):
        open_source(written(tmp_path, files), "train")


def test_a_file_that_is_emptied_later_is_refused_by_name(tmp_path):
    source = open_source(written(tmp_path, {"a/b.txt": "b", "c/d.txt": "d"}), "all")
    (tmp_path / "a" / "b.txt").write_text("")
    with pytest.raises(InputError, match=r"b\.txt is empty"):
        source[:]


@pytest.mark.parametrize("name", ["x.txt", "x.png", "x.wav"])
def test_pipes_are_no_files_of_a_folder(tmp_path, name):
    os.mkfifo(tmp_path / name)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / name).symlink_to(tmp_path / name)
    kind = {"x.txt": "text", "x.png": "images", "x.wav": "sound"}[name]
    with pytest.raises(InputError, match="holds no (text|pictures|recordings); accepted"):
        open_source(f"{kind}:{tmp_path}", "all")


@pytest.mark.parametrize("target", ["nowhere", "b.txt"])
def test_a_link_that_leads_nowhere_is_refused_by_name(tmp_path, target):
    source = written(tmp_path, {"a.txt": "a"})
    (tmp_path / "b.txt").symlink_to(tmp_path / target)
    with pytest.raises(InputError) as caught:
        open_source(source, "train")
    assert str(caught.value).startswith(f"data.source={source}: {tmp_path}/b.txt cannot be read: ")


def test_a_classifier_learns_the_folders_of_text(tmp_path):
    letters = np.random.RandomState(0)
    texts = {
        f"{name}/{i}.txt": "".join(letters.choice(list(name), letters.randint(2, 12)))
        for name in ("abcd", "wxyz")
        for i in range(60)
    }
    model = Classifier(Recurrent("gru", (16,), symbols=256, embedding=16), 8, classes=2)
    config = small(model=model, optimizer=Adam(1e-2), batch_size=32, duration="40 steps")
    config.data.source = written(tmp_path / "texts", texts)
    config.data.prepare.scale = False
    config.evaluation.every = ""
    outcome = train(config, tmp_path / "run")
    assert outcome.metrics["error"] == 0
    data = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
    assert data["classes"] == ["abcd", "wxyz"]
