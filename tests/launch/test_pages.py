"""A program starts once more for huge pages: as it was, and once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch import pages

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, sys
from launch.pages import huge_pages
print("begins", flush=True)
huge_pages()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])
"""


@pytest.mark.skipif(not pages._glibc(), reason="no glibc here")
@pytest.mark.parametrize(
    ("given", "becomes", "starts"),
    [
        ({}, "glibc.malloc.hugetlb=1", 2),
        (
            {"GLIBC_TUNABLES": "glibc.malloc.check=0"},
            "glibc.malloc.check=0:glibc.malloc.hugetlb=1",
            2,
        ),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, "glibc.malloc.hugetlb=0", 1),
        ({"AEJAX_HUGE_PAGES": "1"}, None, 1),  # where what was asked for was taken out on the way
    ],
)
def test_the_same_process_with_the_same_words(given, becomes, starts):
    ours = ("GLIBC_TUNABLES", "AEJAX_HUGE_PAGES")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    environment |= given
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--a=b c", "*"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    told = f"{process.pid} {becomes} {['--a=b c', '*']}\n"
    assert out == "begins\n" * starts + told
