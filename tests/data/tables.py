"""Files of tables, written for a test and opened as a user opens them."""

from pathlib import Path

import pytest

from aejax.data.sources import Source, Spec, open_source, open_splits
from aejax.data.sources.splits import select
from aejax.errors import InputError


def written(folder: Path, text: str | bytes, name: str = "rows.csv") -> str:
    """The source of a file with this text."""
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return f"table:{folder / name}"


def opened(source: str, like: Spec | None = None) -> Source:
    """All rows of a table, read by the columns that a model knows."""
    return (
        open_source(source, "all")
        if like is None
        else select(open_splits(source, like=like), "all")
    )


def refused(source: str, *words: str, like: Spec | None = None) -> None:
    """Asserts that opening is refused in one line with the file's name and these words."""
    with pytest.raises(InputError) as caught:
        opened(source, like)
    message = str(caught.value)
    assert "\n" not in message
    for word in (source.partition("?")[0].removeprefix("table:"), *words):
        assert word in message, message
