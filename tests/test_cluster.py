"""What a process is told about the machine that it runs on."""

import os
import subprocess
import sys

import pytest

_ALONE = """
import os
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
from aejax import cluster
print(cluster.cores())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_cores_are_those_that_the_process_was_left():
    done = subprocess.run([sys.executable, "-c", _ALONE], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr
