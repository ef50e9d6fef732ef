"""Files by atomic rename: a reader sees the old one or the whole new one."""

import contextlib
import glob
import os
import shutil
import socket
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np


@contextlib.contextmanager
def atomic(name: str) -> Iterator[BinaryIO]:
    """A file to write to, which gets its name once it is whole, and is removed if it never is.

    What processes that were killed left of earlier tries is removed as well.
    """
    os.makedirs(os.path.dirname(os.path.abspath(name)), exist_ok=True)
    for left in abandoned(name, ".tmp"):
        with contextlib.suppress(OSError):
            os.remove(left)
    temporary = owned(name, ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, name) from None
        raise


def owned(name: str, suffix: str = "") -> str:
    """A temporary name beside `name` that tells which process of which host it belongs to."""
    return f"{name}.{socket.gethostname()}.{os.getpid()}{suffix}"


def abandoned(name: str, suffix: str = "") -> list[str]:
    """What stands under names that `owned` gave to processes of this host which live no more."""
    found = []
    for path in glob.glob(f"{glob.escape(name)}.*{suffix}"):
        owner = path[len(name) + 1 : len(path) - len(suffix)]
        host, _, process = owner.rpartition(".")
        if host == socket.gethostname() and process.isdecimal() and not lives(int(process)):
            found.append(path)
    return found


def lives(process: int) -> bool:
    """Whether a process of this machine has not ended."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    try:  # one that has ended has its number until its parent looks
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True


def write(name: str, content: str | bytes) -> None:
    """Writes a whole file; text as UTF-8."""
    with atomic(name) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_arrays(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz file."""
    with atomic(name) as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]


def write_folder(name: str, contents: dict[str, str | bytes]) -> None:
    """Writes a folder of files, which gets its name once it is whole; one that is there goes.

    Args:
        name: of the folder.
        contents: {name of a file: what it holds}.
    """
    temporary, old = owned(name, ".tmp"), owned(name, ".old")
    for left in (*abandoned(name, ".tmp"), *abandoned(name, ".old"), temporary, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        for file, content in contents.items():
            write(os.path.join(temporary, file), content)
        with contextlib.suppress(FileNotFoundError):
            os.replace(name, old)
        os.replace(temporary, name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
