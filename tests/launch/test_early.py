"""Signals that come before a program has anything to save."""

import subprocess
import sys

import pytest

# Asked to stop where the first large import begins.
STOPPED = """
import os, runpy, signal, sys

class Finder:
    def find_spec(self, name, *others):
        if name == "absl":
            os.kill(os.getpid(), getattr(signal, sys.argv[2]))

sys.meta_path.insert(0, Finder())
runpy.run_module(f"launch.{sys.argv[1]}", run_name="__main__")
"""


@pytest.mark.parametrize("program", ["train", "sweep", "search"])
@pytest.mark.parametrize("asked", ["SIGINT", "SIGTERM"])
def test_a_program_that_is_still_importing_ends_with_75(monkeypatch, program, asked):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")  # not begun anew
    done = subprocess.run([sys.executable, "-c", STOPPED, program, asked], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (75, b"", b"")
