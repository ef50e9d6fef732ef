"""Two real processes train one run: the same batches, one writer, and one process goes on."""

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
import pytest

from aejax.data import order
from aejax.data.feed import Resident
from aejax.data.sources import open_source
from aejax.data.sources.base import Rows
from aejax.data.streaming import Streaming
from aejax.runs import checkpoint, folder, manifests
from aejax.training.setup import setup
from tests.training.processes import ROOT, rows, run, start
from tests.training.runs import small, train

FLAGS = (
    "--config.model.latent_dim=8",
    "--config.batch_size=64",
    "--config.log_every=20",
    "--config.evaluation.every=50",
    "--config.checkpoint.every=50",
    "--config.data.prepare.shift=1",
)

# What Gloo itself prints, from several threads into one another's lines.
GLOO = {"Gloo", "Rank", "is", "connected", "to", "peer", "ranks", "Expected", "number", "of"}


def job_of_two() -> tuple[str, str]:
    """The flags of a job at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"--coordinator=127.0.0.1:{free.getsockname()[1]}", "--processes=2"


def pair(workdir: Path, *flags: str):
    """Starts two processes of two devices each."""
    job = job_of_two()
    return [
        start(workdir, *FLAGS, *flags, *job, f"--process={number}", devices=2)
        for number in range(2)
    ]


def finish(processes: Iterable[subprocess.Popen]) -> list[tuple[int, str, str]]:
    processes = list(processes)
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:  # those that hang
        for process in processes:
            process.kill()
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> tuple[list[dict], list[dict]]:
    """The rows of one process of four devices, and those after it went on with one."""
    workdir = tmp_path_factory.mktemp("one")
    assert run(workdir, *FLAGS, "--config.duration=100", devices=4)[0] == 0
    first = rows(workdir)
    code, _, err = run(workdir, *FLAGS, "--config.duration=150", devices=1)
    assert code == 0 and "going on at step 100 of 150" in err
    return first, rows(workdir)


@pytest.mark.parametrize("feed", ["resident", pytest.param("streaming", marks=pytest.mark.slow)])
def test_two_processes_train_and_one_goes_on(one, tmp_path, feed):
    ended = finish(pair(tmp_path / "two", f"--config.data.feed={feed}", "--config.duration=100"))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert "test after 100 steps" in ended[0][1]
    assert set(re.findall(r"[A-Za-z]+", ended[1][1])) <= GLOO  # the other says nothing
    first, longer = one
    two = rows(tmp_path / "two")
    assert [(row["step"], row["split"]) for row in two] == [
        (row["step"], row["split"]) for row in first
    ]
    np.testing.assert_allclose(
        [row["loss"] for row in two], [row["loss"] for row in first], rtol=1e-5
    )
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1
    # One process with one device goes on from what two wrote.
    code, _, err = run(tmp_path / "two", *FLAGS, "--config.duration=150", devices=1)
    assert code == 0 and "going on at step 100 of 150" in err
    np.testing.assert_allclose(rows(tmp_path / "two")[-1]["loss"], longer[-1]["loss"], rtol=1e-5)


def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path):
    processes = pair(tmp_path, "--config.duration=100000000", "--config.evaluation.every=")
    deadline = time.monotonic() + 60
    while not manifests.steps(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    asked = time.monotonic()
    ended = finish(processes)
    assert time.monotonic() - asked < 30  # four cores' work on two
    assert [code for code, _, _ in ended] == [75, 75], ended
    assert f"stopped at step {manifests.steps(str(tmp_path))[-1]}" in ended[0][2]


WITH_A_CALLBACK = """
import sys
import jax
address, process, workdir = sys.argv[1:]
jax.distributed.initialize(address, 2, int(process))
from aejax.config import Evaluation
from tests.training.runs import small, train
told = []
settings = small(duration="60 steps", log_every=5, evaluation=Evaluation(every=""))
callbacks = [told.append] if process == "0" else []
outcome = train(settings, workdir, devices=jax.devices(), callbacks=callbacks)
print(outcome.status, outcome.step, [row["step"] for row in told])
"""


def test_a_callback_in_process_0_alone_leaves_the_processes_together(tmp_path):
    address = job_of_two()[0].removeprefix("--coordinator=")
    ended = finish(
        subprocess.Popen(
            [sys.executable, "-c", WITH_A_CALLBACK, address, str(number), str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    )
    told = [*range(5, 65, 5), 60]
    assert [out.splitlines()[-1] for _, out, _ in ended] == [
        f"done 60 {told}",
        "done 60 []",
    ], ended


def test_bad_addresses_are_refused_at_once(tmp_path):
    asked = time.monotonic()
    for flags, message in (
        (("--coordinator=nowhere.invalid:1234", "--processes=2"), "has no address"),
        (("--coordinator=nowhere", "--processes=2"), "must be HOST:PORT"),
        (("--processes=2",), "needs --coordinator=HOST:PORT"),
        (("--coordinator=localhost:1", "--processes=2", "--process=2"), "must be 0 to 1"),
    ):
        code, _, err = run(tmp_path / "none", *flags)
        assert code == 2 and message in err and err.count("\n") == 1
    assert time.monotonic() - asked < 30
    assert not (tmp_path / "none").exists()


def test_settings_that_differ_between_processes_are_refused_by_both(tmp_path):
    job = job_of_two()
    flags = ("--config.model.latent_dim=8", "--config.model.latent_dim=3")
    each = [start(tmp_path, flags[n], *job, f"--process={n}") for n in range(2)]
    for code, _, err in finish(each):
        assert code == 2
        assert (
            "error: config.model.latent_dim: 8 in process 0 and 3 in process 1; must be the same"
        ) in err
    assert not (tmp_path / "config.json").exists()


def test_a_process_that_waits_in_vain_says_for_whom(tmp_path):
    code, out, err = run(tmp_path / "none", *job_of_two(), "--connect_seconds=0.5")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert err.startswith("failed: process 1 of 2 did not come to 127.0.0.1:")


def test_a_process_that_comes_back_after_the_others_have_ended_finds_the_run_complete(tmp_path):
    """As a pod of a plain Job that died when the others had ended with 0."""
    config = small(duration="20 steps")
    assert train(config, tmp_path, stop=lambda: manifests.steps(str(tmp_path)) == []).step == 0
    assert not manifests.is_complete(str(tmp_path), config)
    assert train(config, tmp_path).status == "done"
    assert manifests.is_complete(str(tmp_path), config)
    assert not manifests.is_complete(str(tmp_path), dataclasses.replace(config, duration="9 steps"))
    code, out, err = run(tmp_path, *job_of_two(), "--process=1", "--connect_seconds=0.5")
    assert (code, out) == (0, "") and f"{tmp_path} is complete; process 0 of 2 was not at" in err


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_processes_come_back_one_after_the_other_and_go_on(tmp_path, killed):
    """As the pods of a plain Job, each of which is started again for itself."""
    flags = ("--config.checkpoint.every=20", "--config.evaluation.every=", "--config.duration=")
    processes = pair(tmp_path, *flags[:2], flags[2] + "100000000")
    deadline = time.monotonic() + 60
    while not manifests.steps(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[killed].kill()
    at = time.monotonic()
    codes = [code for code, _, _ in finish(processes)]
    assert codes[1 - killed] == 1 and time.monotonic() - at < 10
    before = manifests.steps(str(tmp_path))[-1]
    job, again = job_of_two(), []
    for number in (1 - killed, killed):
        more = (*FLAGS, *flags[:2], f"{flags[2]}{before + 40}", *job, f"--process={number}")
        again.append(start(tmp_path, *more, devices=2))
        time.sleep(3)
    ended = finish(again)
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert f"going on at step {before} of {before + 40}" in ended[killed == 0][2]


def test_where_a_process_is_killed_the_other_ends_with_one_sentence(tmp_path):
    first, second = pair(
        tmp_path,
        "--config.duration=100000000",
        "--config.evaluation.every=",
        "--config.log_every=1",
    )
    metrics = Path(folder.path(str(tmp_path), "metrics.jsonl"))
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    second.kill()
    killed = time.monotonic()
    _, err = first.communicate(timeout=60)
    assert time.monotonic() - killed < 10
    assert first.returncode == 1
    assert err.splitlines()[-1] == "process 1 is gone; start all again"
    second.communicate()


class Counting:
    """A source that remembers which of its rows were read."""

    def __init__(self, source):
        self.source, self.spec, self.read = source, source.spec, []

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index) -> Rows:
        self.read.append(np.asarray(index))
        return self.source[index]


def test_a_process_reads_only_its_own_rows(monkeypatch):
    source = Counting(open_source("digits", "train"))
    sharding = setup(small()).block_sharding

    def half(self, shape):
        """As a process sees it whose devices are the last four of eight."""
        return {
            device: index for device, index in all_indices(self, shape).items() if device.id >= 4
        }

    all_indices = type(sharding).devices_indices_map
    monkeypatch.setattr(type(sharding), "addressable_devices_indices_map", half)
    feed = Streaming(source, seed=0, shape=(2, 32), steps=12, sharding=sharding, threads=2)
    assert (feed.first_row, feed.last_row) == (16, 32)
    for step in range(12):
        index, rows = feed._read(step)
        own = order.examples(0, len(source), step * 64, step * 64 + 64).reshape(2, 32)[:, 16:]
        np.testing.assert_array_equal(index, own.ravel())
        np.testing.assert_array_equal(source.read[-1], own.ravel())
        assert len(rows.x) == 32
    feed.close()


def test_streaming_and_resident_give_the_same_bits(tmp_path):
    ends = []
    for feed in ("resident", "streaming"):
        config = small(duration="90 steps", micro_batches=2)
        config.data.feed = feed
        config.data.prepare.shift = 1
        train(config, str(tmp_path / feed), quiet=True)
        shapes = setup(config).state.params
        ends.append(checkpoint.load(str(tmp_path / feed), 90, {"params": shapes})["params"])
    assert rows(tmp_path / "resident") == rows(tmp_path / "streaming")
    for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_the_feed_is_chosen_by_size(tmp_path):
    config = small()
    feed = setup(config).open_feed()
    assert isinstance(feed, Resident) and feed.data is not None
    config.data.resident_mib = 0
    feed = setup(config).open_feed()
    assert isinstance(feed, Streaming) and feed.data is None
    feed.close()
