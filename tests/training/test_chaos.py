"""Twenty faults at random moments, of two processes: python -m pytest -m soak."""

import json
import subprocess
import sys

import pytest

from tests.training.processes import ROOT


@pytest.mark.soak
def test_twenty_faults_are_survived():
    command = [sys.executable, "-m", "benchmarks.chaos", "--kills=20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["faults_survived"] == found["faults_injected"] == 20
    assert found["bits_equal"] and not found["lost_commits"] and not found["silent_damages"]
