"""Killed in any stage or between them, a stacked run ends with the same bits; two processes too."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.training.processes import assert_same_bits, rows, run, start
from tests.training.test_processes import FLAGS as JOB
from tests.training.test_processes import finish, pair

STEPS = 2000
COMMON = (
    "--config.model.coder.hidden=16",
    "--config.model.latent_dim=4",
    f"--config.pretrain.duration={STEPS}",
    f"--config.duration={STEPS}",
    "--config.batch_size=32",
    "--config.checkpoint.every=100",
    "--config.evaluation.every=500",
    "--config.trackers=()",
)
FLAGS = ("--config=stacked", *COMMON)
# Chains are state of the stages, and each step computes codes of images that it deforms.
MACHINES = (
    "--config=infinite_digits",
    "--config.pretrain.by=rbm",
    "--config.pretrain.persistent",
    "--config.data.labels=20%",
    *COMMON,
)


def kill_when(workdir: Path, flags: tuple[str, ...], *there: str) -> None:
    """Starts the run and kills it as soon as one of these files matches."""
    process = start(workdir, *flags)
    deadline = time.monotonic() + 120
    while not any(any(workdir.glob(name)) for name in there) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.soak
@pytest.mark.parametrize("flags", [FLAGS, MACHINES], ids=["autoencoders", "machines"])
def test_killed_in_stages_and_between_them_ends_with_the_same_bits(tmp_path, flags):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(whole, *flags)[0] == 0
    kill_when(cut, flags, "stage1/checkpoints/*.json")
    assert not (cut / "stage2").exists()
    kill_when(cut, flags, "stage2")  # just after stage 1
    kill_when(cut, flags, "stage2/checkpoints/*.json")
    kill_when(
        cut, flags, "checkpoints"
    )  # the run itself, before its first checkpoint or just after
    code, _, err = run(cut, *flags)
    assert code == 0, err
    for name in ("stage1", "stage2", "."):
        assert_same_bits(whole / name, cut / name, STEPS)


@pytest.mark.soak
def test_two_processes_train_the_stages_too(tmp_path):
    flags = [*FLAGS, "--config.pretrain.duration=40", "--config.duration=40"]
    flags += ["--config.log_every=20", "--config.evaluation.every="]
    ended = finish(pair(tmp_path / "two", *flags))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert run(tmp_path / "one", *JOB, *flags, devices=4)[0] == 0
    for name in ("stage1", "stage2", "."):
        two, one = (rows(tmp_path / which / name) for which in ("two", "one"))
        assert [row["step"] for row in two] == [row["step"] for row in one]
        np.testing.assert_allclose(
            [row["loss"] for row in two], [row["loss"] for row in one], rtol=1e-4
        )
