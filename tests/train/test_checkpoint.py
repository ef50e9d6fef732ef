"""Checkpoints: what is damaged is named and passed over, and nothing is lost."""

import json
import os
import random
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import folder
from aejax.errors import InputError
from aejax.train import checkpoint
from aejax.train.checkpoint import DamagedError, Saver
from tests.train.processes import assert_same_bits, run
from tests.train.runs import small, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of 150 steps with checkpoints at 50, 100 and 150."""
    workdir = tmp_path_factory.mktemp("finished")
    train(small(), str(workdir), quiet=True)
    assert checkpoint.steps(str(workdir)) == [50, 100, 150]
    return workdir


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def files_of(workdir: Path, step: int) -> list[Path]:
    root = workdir / "checkpoints" / f"{step:09d}"
    return sorted(path for path in root.rglob("*") if path.is_file())


def flip_a_bit(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def test_a_flipped_bit_in_any_file_is_named_and_the_step_before_is_used(copied):
    chance = random.Random(0)
    files = [path for path in files_of(copied, 150) if path.stat().st_size]
    assert len(files) > 8
    for path in files:
        whole = path.read_bytes()
        flip_a_bit(path, chance)
        said: list[str] = []
        assert checkpoint.newest_good(str(copied), said.append) == 100
        assert len(said) == 1 and str(path) in said[0] and "contents changed" in said[0]
        path.write_bytes(whole)
    assert checkpoint.newest_good(str(copied), print) == 150


@pytest.mark.parametrize("damage", ["truncated", "deleted", "emptied"])
def test_other_damage_is_named_too(copied, damage):
    for path in files_of(copied, 150):
        if not path.stat().st_size:
            continue
        whole = path.read_bytes()
        if damage == "deleted":
            path.unlink()
        else:
            path.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"")
        with pytest.raises(DamagedError, match=path.name):
            checkpoint.verify(str(copied), 150)
        path.write_bytes(whole)


def test_a_manifest_vouches_for_itself(copied):
    name = copied / "checkpoints" / "000000150.json"
    data = json.loads(name.read_text())
    data["progress"]["step"] = 151
    name.write_text(json.dumps(data))
    with pytest.raises(DamagedError, match="own sha256"):
        checkpoint.verify(str(copied), 150)
    name.write_text("{")
    with pytest.raises(DamagedError, match="unreadable"):
        checkpoint.verify(str(copied), 150)


def test_training_goes_on_from_the_step_before_and_deletes_nothing(finished, copied):
    chance = random.Random(1)
    broken = next(path for path in files_of(copied, 150) if "/d/" in str(path))
    flip_a_bit(broken, chance)
    damaged = broken.read_bytes()
    outcome = train(small(), str(copied), quiet=True)
    assert outcome.status == "done"
    assert_same_bits(finished, copied, 150)
    aside = copied / "checkpoints" / "000000150.damaged"
    kept = aside / "000000150" / broken.relative_to(copied / "checkpoints" / "000000150")
    assert kept.read_bytes() == damaged
    assert (aside / "000000150.json").exists()


def test_all_checkpoints_damaged_is_refused_and_nothing_is_touched(copied):
    for step in (50, 100, 150):
        flip_a_bit(next(p for p in files_of(copied, step) if "/d/" in str(p)), random.Random(2))
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"all 3 checkpoints are damaged \(steps 50, 100, 150\)"):
        train(small(), str(copied), quiet=True)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_a_step_without_manifest_does_not_count_and_is_written_again(finished, copied):
    os.remove(copied / "checkpoints" / "000000150.json")  # killed after Orbax's commit
    stale = copied / "checkpoints" / "000000100.orbax-checkpoint-tmp-7"
    stale.mkdir()
    assert checkpoint.newest_good(str(copied), print) == 100
    train(small(), str(copied), quiet=True)
    assert_same_bits(finished, copied, 150)


def test_what_killed_processes_left_is_swept_and_nothing_else(copied):
    root = copied / "checkpoints"
    for name in ("000000100.orbax-checkpoint-tmp-7", "000000010.pruned", "000000020.damaged"):
        (root / name).mkdir()
    before = {path.name for path in root.iterdir()}
    checkpoint.sweep(str(copied))
    gone = before - {path.name for path in root.iterdir()}
    assert gone == {"000000100.orbax-checkpoint-tmp-7", "000000010.pruned"}


def test_a_second_process_in_the_same_folder_is_refused(copied):
    before = (copied / "metrics.jsonl").read_bytes()
    with folder.locked(str(copied)):
        code, _, err = run(copied, "--config.duration=200")  # the folder's own settings, longer
    assert code == 2 and "another process is training in this folder" in err, err
    assert (copied / "metrics.jsonl").read_bytes() == before


def test_wrong_shapes_types_and_names_are_refused_before_orbax_casts(copied):
    stored = checkpoint.shapes(str(copied), 150, "params")
    name = "encoder/layers/0/weight"
    assert stored[name].shape == (8, 64)
    for wrong in (jax.ShapeDtypeStruct((9, 64), jnp.float32), _half(stored[name])):
        with pytest.raises(InputError, match=rf"params/{name}: float32\[8, 64\] stored"):
            checkpoint.load(str(copied), 150, {"params": {**stored, name: wrong}})
    fewer = {key: value for key, value in stored.items() if key != name}
    with pytest.raises(InputError, match=f"params/{name}: stored, not wanted"):
        checkpoint.load(str(copied), 150, {"params": fewer})


def _half(array: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, jnp.float16)


@pytest.mark.parametrize("at_most", [2**26, 0])
def test_what_is_saved_is_the_state_at_the_call_though_buffers_are_donated_after(
    tmp_path, monkeypatch, at_most
):
    monkeypatch.setattr(checkpoint, "_COPIED_BYTES", at_most)
    saver = Saver(str(tmp_path), keep=9, say=print)
    bump = jax.jit(lambda tree: jax.tree.map(lambda a: a + 1, tree), donate_argnums=0)
    tree = {"w": jnp.zeros((300, 300)), "n": jnp.zeros((), jnp.int32)}
    for step in range(5):
        saver.save(step, {"params": tree}, {"best": None})
        for _ in range(20):
            tree = bump(tree)
    saver.wait()
    for step in range(5):
        shapes = checkpoint.shapes(str(tmp_path), step, "params")
        read = checkpoint.load(str(tmp_path), step, {"params": shapes})["params"]
        assert int(read["n"]) == 20 * step
        np.testing.assert_array_equal(read["w"], 20.0 * step)


# Runs a command that cannot write files of more than 400 kB.
SMALL_FILES_ONLY = (
    sys.executable,
    "-c",
    "import os, resource, sys;"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000));"
    "os.execv(sys.argv[1], sys.argv[1:])",
)


def test_a_save_that_fails_is_told_and_the_exit_code_says_so(tmp_path):
    flags = (
        "--config.model.coder.hidden=512,512",
        "--config.duration=60",
        "--config.checkpoint.every=20",
    )
    code, _, err = run(tmp_path, *flags, prefix=SMALL_FILES_ONLY)
    assert code == 1
    assert "saving step 20 failed" in err  # the run went on meanwhile
    assert "failed: saving step 60 failed" in err and "the newest checkpoint is none" in err
    assert checkpoint.steps(str(tmp_path)) == []
    code, _, err = run(tmp_path, *flags)
    assert code == 0, err
    assert checkpoint.steps(str(tmp_path))[-1] == 60


@pytest.mark.parametrize("at_most", [2**26, 0])
def test_runs_side_by_side_save_whole_checkpoints(tmp_path, monkeypatch, at_most):
    """Orbax's own saves, begun together in one process, get in each other's way."""
    monkeypatch.setattr(checkpoint, "_COPIED_BYTES", at_most)
    begin = threading.Barrier(4)

    def save(number: int) -> None:
        workdir = str(tmp_path / str(number))
        saver = Saver(workdir, keep=1, say=print)
        for step in range(1, 6):
            begin.wait(60)
            saver.save(step, {"params": {"w": jnp.full(100, 10.0 * number + step)}}, {})
            saver.wait()
        checkpoint.verify(workdir, 5)
        read = checkpoint.load(
            workdir, 5, {"params": {"w": jax.ShapeDtypeStruct((100,), "float32")}}
        )
        np.testing.assert_array_equal(read["params"]["w"], 10.0 * number + 5)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, range(4)))
