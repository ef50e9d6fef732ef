"""The 8x8 digits that scikit-learn carries with it: the data set that is always there."""

import functools
from typing import Any

import numpy as np

from aejax.data.sources import checks
from aejax.data.sources.base import Arrays, Source
from aejax.data.sources.splits import Splits
from aejax.errors import InputError

FORM = "digits"
TRAIN_ROWS = 1437
MAXIMUM = 16.0


def splits(argument: str) -> Splits:
    """1,437 training and 360 test images: uint8 [8, 8, 1] of 0 .. 16, with labels 0 .. 9.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998),
    its test part, as in `sklearn.datasets.load_digits`.

    Raises:
        InputError: an argument is given.
    """
    argument, _ = checks.options(argument, FORM)
    if argument:
        raise InputError(f"the digits take no argument; accepted: {FORM}")

    @functools.cache
    def read() -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import load_digits

        found: Any = load_digits()
        # stored in the order of their writers, so that one fixed shuffle comes before the cut
        order = np.random.RandomState(0).permutation(len(found.images))
        x = found.images[order].astype(np.uint8)[..., None]
        return x, found.target[order].astype(np.int32)

    def rows(part: slice) -> Source:
        x, label = read()
        return Arrays(x[part], label[part], MAXIMUM)

    return {
        "train": lambda: rows(slice(TRAIN_ROWS)),
        "test": lambda: rows(slice(TRAIN_ROWS, None)),
    }
