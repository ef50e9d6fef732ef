"""A search that is killed (SIGKILL) five times, as a process, ends with the same layouts file."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.training.processes import run, start


def flags(cache: Path) -> list[str]:
    return [
        "--config=search_copy",
        "--config.run.model.coder.encoder_layout=aa",
        "--config.run.duration=30 steps",
        "--config.run.checkpoint.every=10",
        "--config.supernet.duration=30 steps",
        "--config.supernet.patient=False",
        "--config.replacement.imitation=20 steps",
        "--config.replacement.tuning=10 steps",
        "--config.run.model.coder.width=8",
        "--config.learned=100",
        "--config.judged=100",
        "--config.seeds=0",
        f"--config.run.compilation_cache={cache}",
    ]


@pytest.mark.soak
def test_killed_five_times_it_ends_with_the_same_file(tmp_path):
    given = flags(tmp_path / "cache")
    code, _, error = run(tmp_path / "whole", *given, program="search")
    assert code == 0, error
    cut, draw, killed = tmp_path / "cut", np.random.RandomState(0), 0

    def entries() -> int:
        return len(list(cut.glob("*"))) + len(list(cut.glob("*/*/")))

    while killed < 5:
        process = start(cut, *given, program="search")
        before, more, deadline = entries(), draw.randint(1, 3), time.monotonic() + 120
        while entries() < before + more and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        killed += 1
    assert not (cut / "layouts.json").exists()
    code, _, error = run(cut, *given, program="search")
    assert code == 0, error
    for name in ("supernet.json", "replacement.json", "layouts.json"):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
