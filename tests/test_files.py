"""Files by atomic rename, and what processes that were killed leave of them."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from aejax import files


@pytest.fixture
def dead() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a folder" / "name.json"
    files.write(str(path), "old")
    with pytest.raises(KeyboardInterrupt), files.atomic(str(path)) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    files.write_arrays(str(path), {"x": np.arange(3)})
    with np.load(path) as found:
        assert found["x"].tolist() == [0, 1, 2]
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_stays(tmp_path, monkeypatch):
    path = tmp_path / "exported"
    files.write_folder(str(path), {"a.txt": "one", "b.bin": b"two"})
    assert (path / "a.txt").read_text() == "one" and (path / "b.bin").read_bytes() == b"two"

    def fail(name, content):
        raise OSError("no space")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(files, "write", fail)
        files.write_folder(str(path), {"c.txt": "three"})
    assert sorted(each.name for each in path.iterdir()) == ["a.txt", "b.bin"]
    files.write_folder(str(path), {"c.txt": "three"})
    assert [each.name for each in path.iterdir()] == ["c.txt"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_swept_at_the_next_write(tmp_path, dead):
    host, name = socket.gethostname(), str(tmp_path / "codes [1].npz")
    stay = [
        f"{name}.{host}.{os.getppid()}.tmp",  # its owner lives
        f"{name}.another-host.{dead}.tmp",  # nobody here knows
        f"{name}.mine.tmp",
        f"{name}x.{host}.{dead}.tmp",  # another file's
        f"{name}.{host}.{dead}",
    ]
    left = f"{name}.{host}.{dead}.tmp"
    for path in (*stay, left):
        with open(path, "w") as file:
            file.write("half")
    files.write(name, "whole")
    found = {str(path) for path in tmp_path.iterdir()}
    assert found == {*stay, name}


def test_a_process_that_is_killed_leaves_its_own_name(tmp_path):
    code = f"""
import os, signal
from aejax import files
with files.atomic({str(tmp_path / "a")!r}) as file:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    assert process.wait() != 0
    (left,) = tmp_path.iterdir()
    assert left.name == f"a.{socket.gethostname()}.{process.pid}.tmp"
    files.write(str(tmp_path / "a"), "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_process_that_has_ended_does_not_live_though_its_parent_has_not_looked():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert files.lives(process.pid) and files.lives(os.getpid())
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not files.lives(process.pid)
    process.wait()
    assert not files.lives(process.pid)
