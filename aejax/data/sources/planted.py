"""Synthetic rows for which it is known what a model needs to predict a hidden half."""

import functools

import numpy as np

from aejax.data.sources import checks
from aejax.data.sources.base import Arrays, Source
from aejax.data.sources.splits import Splits
from aejax.errors import InputError
from aejax.kinds import near

FORM = "planted:copy or planted:counting"
SYMBOLS = 16
LENGTH = 16
_ROWS = {"train": 20_000, "test": 1_000}
_KINDS = ("copy", "counting")


def splits(argument: str) -> Splits:
    """Rows of 16 symbols out of 16, uint8 [16].

    copy: eight uniformly drawn symbols, twice: a hidden token can be predicted from its copy, eight
    positions away, and from nothing else. counting: 0 to 15 in each row: a model needs to know a
    token's position and nothing else.

    Raises:
        InputError: another kind.
    """
    argument, _ = checks.options(argument, FORM)
    if argument not in _KINDS:
        raise InputError(f"there is no {argument!r}; accepted: {FORM}{near(argument, _KINDS)}")
    return {name: functools.partial(_rows, argument, name) for name in _ROWS}


def _rows(kind: str, split: str) -> Source:
    count = _ROWS[split]
    if kind == "counting":
        return Arrays(np.tile(np.arange(LENGTH, dtype=np.uint8), (count, 1)), None, 255.0)
    draw = np.random.RandomState(sorted(_ROWS).index(split))
    half = draw.randint(SYMBOLS, size=(count, LENGTH // 2), dtype=np.uint8)
    return Arrays(np.tile(half, (1, 2)), None, 255.0)
