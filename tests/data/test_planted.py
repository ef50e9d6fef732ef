"""Planted rows: what is promised of them holds."""

import numpy as np
import pytest

from aejax.data.sources import open_source
from aejax.errors import InputError


def test_either_half_of_a_copy_tells_the_other_and_nothing_else_does():
    train, test = (open_source("planted:copy", split)[:].x for split in ("train", "test"))
    for rows in (train, test):
        assert rows.dtype == np.uint8 and rows.shape[1:] == (16,) and rows.max() == 15
        assert np.array_equal(rows[:, :8], rows[:, 8:])
    # Every symbol, and every pair of places but a token and its copy, is even and independent.
    counts = np.bincount(train[:, :8].ravel(), minlength=16) / train[:, :8].size
    assert np.all(abs(counts - 1 / 16) < 5 * np.sqrt(1 / 16 / train[:, :8].size))
    for i, j in ((0, 1), (2, 7)):
        alike = np.mean(train[:, i] == train[:, j])
        assert abs(alike - 1 / 16) < 5 * np.sqrt(1 / 16 / len(train))
    assert not {row.tobytes() for row in test} & {row.tobytes() for row in train}


def test_counting_is_each_time_the_same():
    rows = open_source("planted:counting", "test")[:].x
    assert np.all(rows == np.arange(16))


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match=r"data.source=planted:cpy: .* did you mean copy\?"):
        open_source("planted:cpy")
