"""launch.prepare as its users run it: a process, its exit code and what it prints."""

import functools
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from aejax.data.sources import open_source
from aejax.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "launch.prepare", *words]


def prepare(*words: str, start=None) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*words), cwd=ROOT, capture_output=True, text=True, timeout=60, preexec_fn=start
    )


def test_digits_are_written_and_read_by_tfds_alone(tmp_path):
    ran = prepare("--from=digits", "--name=digits8", f"--folder={tmp_path}")
    assert (ran.returncode, ran.stderr) == (0, "")
    path = tmp_path / "digits8" / "1.0.0"
    size = sum(file.stat().st_size for file in path.iterdir())
    assert ran.stdout.splitlines() == [
        "train: 1,437 rows",
        "test: 360 rows",
        f"{size:,} bytes in {path}",
        "train on it with: python -m launch.train --config.data.source=tfds:digits8"
        f" --config.data.folder={tmp_path}",
    ]

    code = f"""
import sys, tensorflow_datasets as tfds
rows = tfds.builder_from_directory({str(path)!r}).as_data_source("test")
sys.stdout.buffer.write(b"".join(row["image"].tobytes() + bytes([row["label"]]) for row in rows))
"""
    read = subprocess.run([sys.executable, "-c", code], capture_output=True)
    wanted = open_source("digits", "test")[:]
    pairs = zip(wanted.x, wanted.label, strict=True)
    assert read.stdout == b"".join(x.tobytes() + bytes([y]) for x, y in pairs), read.stderr

    before = {file: file.read_bytes() for file in path.iterdir()}
    ran = prepare("--from=digits", "--name=digits8", f"--folder={tmp_path}")
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1 and f"{path} exists" in ran.stderr
    assert {file: file.read_bytes() for file in path.iterdir()} == before


def test_a_source_without_splits_is_cut_as_it_is_read(tmp_path):
    rows = np.random.RandomState(0).randn(50, 3).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=rows)
    source = f"npz:{tmp_path}/rows.npz"
    ran = prepare(f"--from={source}", "--name=rows", f"--folder={tmp_path}")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("train: 45 rows\ntest: 5 rows\n")
    for split in ("train", "test"):
        found = open_source("tfds:rows", split, str(tmp_path))
        assert found.spec == open_source(source, split).spec
        assert found[:].x.tobytes() == open_source(source, split)[:].x.tobytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--form=digits", "--name=a"], "from"),
        (["digits", "--name=a"], "digits"),
        (["--name=a"], "--from is missing"),
        (["--from=digits"], "--name="),
        (["--from=digits", "--name=../a"], "--name=../a"),
        (["--from=idx:/not/there", "--name=a"], "--from=idx:/not/there: there is no folder"),
        (["--from=digit", "--name=a"], "did you mean digits?"),
        (["--from=tfds:a", "--name=b"], "there is no data set a"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, words, said):
    ran = prepare(*words, f"--folder={tmp_path}")
    assert ran.returncode == 2
    assert ran.stdout == "" and ran.stderr.count("\n") == 1 and said in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_leaves_nothing(tmp_path):
    def start():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    ran = prepare("--from=digits", "--name=a", f"--folder={tmp_path}", start=start)
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1 and "a/1.0.0 cannot be written" in ran.stderr
    assert list(tmp_path.glob("a/*")) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_write_is_no_data_set(tmp_path, number):
    x = np.random.RandomState(0).randint(0, 256, (30000, 28, 28, 1)).astype(np.uint8)
    np.savez(tmp_path / "rows.npz", x=x)
    words = (f"--from=npz:{tmp_path}/rows.npz", "--name=rows", f"--folder={tmp_path}")
    # A shell that starts the tests in the background has them ignore SIGINT; this one must not.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command(*words), cwd=ROOT, stderr=subprocess.DEVNULL, preexec_fn=listen
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("rows/*/*array_record*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, number)
    assert process.wait(30) != 0
    with pytest.raises(InputError, match="no data set rows"):
        open_source("tfds:rows", folder=str(tmp_path))
    left = list(tmp_path.glob("rows/*"))
    assert all(path.name.startswith("incomplete.") for path in left)
    assert number == signal.SIGKILL or not left
    # what is left behind does not stand in the way, and is swept
    np.savez(tmp_path / "rows.npz", x=x[:20])
    assert prepare(*words).returncode == 0
    assert [path.name for path in tmp_path.glob("rows/*")] == ["1.0.0"]
    assert len(open_source("tfds:rows", folder=str(tmp_path))) == 18
