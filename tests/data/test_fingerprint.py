"""A fingerprint of rows: the same for the same rows, another for whatever is changed of them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aejax.data import fingerprint as module
from aejax.data.fingerprint import combined, fingerprint
from aejax.data.sources import open_source
from aejax.data.sources.base import Arrays, Rows, Spec
from aejax.data.sources.splits import join, take

X = np.random.RandomState(0).randint(0, 255, (500, 4, 3)).astype(np.uint8)


@dataclasses.dataclass
class Lazy:
    """Rows that are read when they are asked for; counts them."""

    x: np.ndarray
    files: tuple[str, ...] = ()
    read: int = 0

    def paths(self):
        return self.files

    @property
    def spec(self):
        return Spec(self.x.shape[1:], str(self.x.dtype), 255.0, False)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        rows = self.x[index]
        self.read += len(rows)
        return Rows(rows)


def test_it_depends_on_every_value_of_rows_in_memory():
    before = fingerprint(Arrays(X, None, 255.0))
    assert before == fingerprint(Arrays(np.asfortranarray(X.copy()), None, 255.0))
    for place in ((0, 0, 0), (317, 2, 1), (499, 3, 2)):
        other = X.copy()
        other[place] ^= 1
        assert fingerprint(Arrays(other, None, 255.0)) != before


def test_it_depends_on_order_shape_type_labels_and_lengths():
    one = Arrays(X, None, 255.0)
    others = [
        Arrays(X[::-1], None, 255.0),
        Arrays(X[:-1], None, 255.0),
        Arrays(X.reshape(500, 3, 4), None, 255.0),
        Arrays(X.astype(np.float32), None, None),
        Arrays(X, np.arange(500, dtype=np.int32), 255.0),
        Arrays(X, np.ones(500, np.int32), 255.0),
        Arrays(X, None, 255.0, np.full(500, 2, np.int32)),
    ]
    assert len({fingerprint(each) for each in (one, *others)}) == len(others) + 1


@pytest.mark.parametrize("many", [False, True])
def test_of_large_sources_few_rows_are_read_and_all_sizes(tmp_path, monkeypatch, many):
    if many:
        monkeypatch.setattr(module, "_WHOLE_BYTES", X.nbytes - 1)
        source = Arrays(X, None, 255.0)
    else:
        source = Lazy(X)
    before = fingerprint(source)
    assert many or source.read == 64
    for row in (0, 499):  # the ends are among them
        other = X.copy()
        other[row] ^= 1
        assert fingerprint(Arrays(other, None, 255.0) if many else Lazy(other)) != before
    name = tmp_path / "a"
    name.write_bytes(b"12")
    sized = fingerprint(Lazy(X, (str(name),)))
    name.write_bytes(b"123")
    assert fingerprint(Lazy(X, (str(name),))) != sized


def test_a_file_that_was_not_sampled_is_noticed_by_its_size_in_a_cut_source_too(tmp_path):
    files = tuple(str(tmp_path / str(number)) for number in range(len(X)))
    for file in files:
        Path(file).write_bytes(b"12")
    train = take(Lazy(X, files), np.arange(len(X))[::-1][50:])
    both = join([("train", train), ("test", take(Lazy(X, files), slice(450, None)))])
    before = fingerprint(train), fingerprint(both)
    Path(files[101]).write_bytes(b"1")
    assert fingerprint(train) != before[0] and fingerprint(both) != before[1]


def test_pictures_are_known_by_their_sizes_and_samples(tmp_path):
    for number in range(12):
        Image.fromarray(X[number].reshape(4, 3)).save(tmp_path / f"{number:02d}.png")
    splits = [open_source(f"images:{tmp_path}", name) for name in ("train", "test")]
    before = [fingerprint(split) for split in splits]
    assert [fingerprint(open_source(f"images:{tmp_path}", name)) for name in ("train", "test")] == (
        before
    )
    Image.fromarray(255 - X[3].reshape(4, 3)).save(tmp_path / "03.png")
    after = [fingerprint(open_source(f"images:{tmp_path}", name)) for name in ("train", "test")]
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1


def test_rows_that_are_computed_say_what_they_come_from():
    class Computed(Lazy):
        def fingerprint(self):
            return combined("ab", np.arange(3))

    assert fingerprint(Computed(X)) == fingerprint(Computed(X + 1)) == combined("ab", np.arange(3))
    assert combined("ab", np.arange(3)) != combined("ab", np.arange(1, 4)) != combined("ac")
