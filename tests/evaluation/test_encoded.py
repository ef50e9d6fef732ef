"""Codes and rows of a whole source, in the units that a task asks for."""

import numpy as np
import pytest

from aejax.config import Prepare
from aejax.evaluation.encoded import encode_rows, evenly

RANDOM = np.random.RandomState(0)
X = RANDOM.randint(0, 256, (1003, 6)).astype(np.uint8)
Y = RANDOM.randint(0, 10, 1003)


def test_rows_are_given_as_the_model_sees_them_or_before_centring(make):
    one = make(2, prepare=Prepare(centre="standardise"), x_train=X, x_test=X, y_train=Y, y_test=Y)
    scaled = X / np.float64(255)
    seen = (scaled - scaled.mean(0)) / scaled.std(0)
    for prepared, expected in ((False, scaled), (True, seen)):
        rows = encode_rows(one.model, one.test, prepared)
        np.testing.assert_allclose(rows.x, expected, atol=1e-5)
        np.testing.assert_allclose(rows.z, one.linear.encode(seen), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(rows.label, Y)
        assert (rows.z.dtype, rows.x.dtype) == (np.float64, np.float32)


@pytest.mark.parametrize("prepared", [False, True])
def test_padding_is_0(make, prepared):
    x = RANDOM.uniform(1, 2, (40, 6)).astype(np.float32)
    length = np.full(40, 6)
    length[3] = 4
    lengths = {"length_train": length, "length_test": length}
    one = make(2, prepare=Prepare(centre="mean"), x_train=x, x_test=x, **lengths)
    rows = encode_rows(one.model, one.test, prepared)
    assert rows.label is None
    assert np.argwhere(rows.x[:, 4:] == 0).tolist()[:2] == [[3, 0], [3, 1]]


def test_rows_are_taken_evenly():
    assert list(evenly(5, 10)) == [0, 1, 2, 3, 4]
    assert list(evenly(101, 5)) == [0, 25, 50, 75, 100]
