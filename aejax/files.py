"""Files by atomic rename: a reader sees the old one or the whole new one."""

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np


@contextlib.contextmanager
def atomic(name: str) -> Iterator[BinaryIO]:
    """A file to write to, which gets its name once it is whole, and is removed if it never is."""
    os.makedirs(os.path.dirname(os.path.abspath(name)), exist_ok=True)
    temporary = f"{name}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def write(name: str, content: str | bytes) -> None:
    """Writes a whole file; text as UTF-8."""
    with atomic(name) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_arrays(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz file."""
    with atomic(name) as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
