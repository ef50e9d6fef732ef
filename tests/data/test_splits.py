"""Splits by name and slice, and rows that are read on demand."""

import dataclasses
import re

import numpy as np
import pytest

from aejax.data.sources import open_source
from aejax.data.sources.base import Arrays, Spec, file_rows
from aejax.data.sources.labels import keep_labels
from aejax.data.sources.splits import cut, join, of_whole, parse, select, take
from aejax.errors import InputError


def numbers(rows: int) -> Arrays:
    return Arrays(np.arange(rows, dtype=np.float32)[:, None], np.arange(rows, dtype=np.int32), None)


def picked(rows: int, text: str) -> list[int]:
    return select({"train": lambda: numbers(rows)}, text)[:].x[:, 0].astype(int).tolist()


def test_slices_pick_the_rows_they_name():
    assert picked(10, "train") == list(range(10))
    assert picked(10, "train[:90%]") == list(range(9))
    assert picked(10, "train[90%:]") == [9]
    assert picked(10, "train[2:5]") == [2, 3, 4]
    assert picked(10, "train[-3:]") == [7, 8, 9]
    assert picked(10, "train[:-3]") == list(range(7))
    assert picked(10, "train[-50%:-1]") == [5, 6, 7, 8]
    assert picked(10, "train[:2] + train[8:]") == [0, 1, 8, 9]
    assert picked(10, "all") == list(range(10))


def test_percent_slices_share_no_row_and_leave_none_out():
    for rows in (1, 2, 3, 7, 10, 99, 101, 1437):
        for percent in range(1, 100):
            found = []
            for text in (f"train[:{percent}%]", f"train[{percent}%:]"):
                try:
                    found += picked(rows, text)
                except InputError as error:
                    assert "is empty" in str(error)
            assert found == list(range(rows))
    # nothing of three rows is 10 %, and nothing does not become all of them
    with pytest.raises(InputError, match="empty"):
        picked(3, "train[-10%:]")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tset", "no split tset; accepted: all, train"),
        ("train[5:5]", "is empty: rows 5 to 5 of 10"),
        ("train[7:3]", "is empty"),
        ("train[:11]", "outside the 10 rows"),
        ("train[-11:]", "outside the 10 rows"),
        ("train[:101%]", "outside -100%"),
        ("train[1.5:]", "cannot be read"),
        ("train[3]", "cannot be read"),
        ("train[:3", "cannot be read"),
        ("train+", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_splits_that_make_no_sense_are_refused(text, words):
    with pytest.raises(InputError, match=re.escape(words)):
        picked(10, text)


def test_splits_of_different_kind_are_not_joined():
    unlike = {
        "train": lambda: numbers(3),
        "test": lambda: Arrays(np.zeros((3, 2), np.float32), None, None),
    }
    words = (
        "splits cannot be joined: train has rows of shape 1, float32, with labels;"
        " test has rows of shape 2, float32"
    )
    with pytest.raises(InputError, match=f"^{re.escape(words)}$"):
        select(unlike, "train+test")


@pytest.mark.parametrize("labelled", [0, 1])
def test_labels_that_one_split_lacks_are_left_out_of_what_is_joined(labelled):
    halves = [numbers(3), numbers(2)]
    halves[labelled] = dataclasses.replace(halves[labelled], label=None)
    joined = join([("train", halves[0]), ("test", halves[1])])
    assert joined.spec == halves[labelled].spec and joined[:].label is None
    assert joined[:].x[:, 0].tolist() == [0, 1, 2, 0, 1]


def test_rows_are_described_in_plain_words():
    assert Spec((28, 28, 1), "uint8", 255.0, True).describe() == (
        "rows of shape 28x28x1, uint8 up to 255, with labels"
    )
    assert Spec((6,), "float32", None, True, True).describe() == (
        "rows of shape 6, float32, with labels and lengths"
    )


def test_a_whole_is_cut_after_one_fixed_shuffle_or_as_it_lies():
    splits = of_whole(lambda: numbers(10), shuffle=True)
    # the permutation of RandomState(0), whose stream never changes
    assert splits["train"]()[:].label.tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0]
    assert splits["test"]()[:].label.tolist() == [5]
    assert splits["all"]()[:].label.tolist() == list(range(10))
    splits = of_whole(lambda: numbers(10), shuffle=False)
    assert splits["train"]()[:].label.tolist() == list(range(9))
    assert splits["test"]()[:].label.tolist() == [9]


@pytest.mark.parametrize("text", ["train", "test", "test[1:]", "train[5:]+test", "all[3:7]"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_of_a_split_know_their_place_in_the_whole(text, shuffle):
    source = select(of_whole(lambda: numbers(30), shuffle), text)
    # each row's label is its number
    assert file_rows(source).tolist() == source[:].label.tolist()
    some = take(source, np.array([1, 0]))
    assert file_rows(some).tolist() == some[:].label.tolist()
    kept = keep_labels(source, (int(source[:].label[-1]),), text)
    assert file_rows(kept).tolist() == kept[:].label.tolist()


def test_rows_know_their_place_in_a_file_if_one_file_holds_them_all(tmp_path):
    label = np.arange(40)
    x = label[:, None].astype(np.float32)
    np.savez(tmp_path / "whole.npz", x=x)
    np.save(tmp_path / "rows.npy", x)
    (tmp_path / "rows.csv").write_text("a\n" + "".join(f"{row}\n" for row in label))
    (tmp_path / "rows.txt").write_bytes(label.astype(np.uint8).tobytes())
    files = ("npz:whole.npz", "table:rows.npy", "table:rows.csv", "text:rows.txt?length=1")
    for name in files:
        kind, _, path = name.partition(":")
        for split in ("train", "test", "all", "train[3:]+test"):
            source = open_source(f"{kind}:{tmp_path}/{path}", split)
            assert file_rows(source).tolist() == source[:].x[:, 0].tolist(), name
    np.savez(tmp_path / "two.npz", x_train=x, x_test=x)
    for name in (f"npz:{tmp_path}/two.npz", "digits"):
        assert file_rows(open_source(name, "test")) is None


def test_rows_that_are_too_few_for_two_splits_are_counted():
    with pytest.raises(InputError, match="it has 4 rows, too few .*at least 5, or the split all"):
        of_whole(lambda: numbers(4), shuffle=True)["test"]()
    assert len(of_whole(lambda: numbers(5), shuffle=True)["test"]()) == 1


def test_sources_that_are_read_on_demand_answer_like_arrays():
    class Lazy:
        """Rows that are no Arrays."""

        def __init__(self, rows):
            self.rows, self.spec = rows, rows.spec

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, index):
            assert not isinstance(index, slice)
            return self.rows[index]

    x = numbers(20)
    lazy = join([("a", cut(Lazy(x), parse("a[15:]")[0])), ("b", take(Lazy(x), slice(3, 6)))])
    plain = join([("a", cut(x, parse("a[15:]")[0])), ("b", take(x, slice(3, 6)))])
    assert isinstance(plain, Arrays) and not isinstance(lazy, Arrays)
    assert len(lazy) == len(plain) == 8
    assert lazy.spec == plain.spec
    for index in (slice(None), slice(2, 7, 2), np.array([7, 0, 5, 5, -1]), np.array([], int)):
        assert lazy[index].x.tolist() == plain[index].x.tolist()
        assert lazy[index].label.tolist() == plain[index].label.tolist()
    for bad in ([8], [-9]):
        with pytest.raises(IndexError):
            lazy[np.array(bad)]
