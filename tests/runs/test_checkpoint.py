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

from aejax.errors import InputError
from aejax.runs import checkpoint, lock, manifests
from aejax.runs.checkpoint import Saver
from aejax.runs.manifests import DamagedError
from aejax.runs.progress import Progress
from tests.training.processes import assert_same_bits, run
from tests.training.runs import small, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of 150 steps with checkpoints at 50, 100 and 150."""
    workdir = tmp_path_factory.mktemp("finished")
    train(small(), str(workdir), quiet=True)
    assert manifests.steps(str(workdir)) == [50, 100, 150]
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
        assert manifests.newest_good(str(copied), said.append) == 100
        assert len(said) == 1 and str(path) in said[0] and "contents changed" in said[0]
        path.write_bytes(whole)
    assert manifests.newest_good(str(copied), print) == 150


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
            manifests.verify(str(copied), 150)
        path.write_bytes(whole)


def test_a_manifest_vouches_for_itself(copied):
    name = copied / "checkpoints" / "000000150.json"
    data = json.loads(name.read_text())
    data["progress"]["step"] = 151
    name.write_text(json.dumps(data))
    with pytest.raises(DamagedError, match="own sha256"):
        manifests.verify(str(copied), 150)
    name.write_text("{")
    with pytest.raises(DamagedError, match="unreadable"):
        manifests.verify(str(copied), 150)


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
    with pytest.raises(InputError, match=r"all 3 checkpoints are damaged .*steps 50, 100, 150\)"):
        train(small(), str(copied), quiet=True)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_a_save_that_was_killed_does_not_count_and_is_made_again(finished, copied):
    os.remove(copied / "checkpoints" / "000000150.json")  # killed after Orbax's commit
    (copied / "checkpoints" / "000000150.unfinished").touch()
    stale = copied / "checkpoints" / "000000100.orbax-checkpoint-tmp-7"
    stale.mkdir()
    said: list[str] = []
    assert manifests.newest_good(str(copied), said.append) == 100 and not said
    train(small(), str(copied), quiet=True)
    assert_same_bits(finished, copied, 150)
    names = {path.name for path in (copied / "checkpoints").iterdir()}
    numbers = {f"{step:09d}{end}" for step in (50, 100, 150) for end in ("", ".json")}
    assert names == numbers


def test_a_step_that_lost_its_manifest_is_named_and_set_aside(finished, copied):
    os.remove(copied / "checkpoints" / "000000150.json")
    files = {path: path.read_bytes() for path in files_of(copied, 150)}
    said: list[str] = []
    assert manifests.newest_good(str(copied), said.append) == 100
    assert len(said) == 1 and "000000150 has lost its manifest" in said[0]
    train(small(), str(copied), quiet=True)
    assert_same_bits(finished, copied, 150)
    aside = copied / "checkpoints" / "000000150.damaged"
    for path, content in files.items():
        assert (aside / path.relative_to(copied / "checkpoints")).read_bytes() == content


def test_checkpoints_that_all_lost_their_manifests_are_refused_and_nothing_is_touched(copied):
    """A folder that was copied without its .json files does not begin anew over good steps."""
    for step in (50, 100, 150):
        os.remove(copied / "checkpoints" / f"{step:09d}.json")
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"lost their manifest \(steps 50, 100, 150\)"):
        train(small(), str(copied), quiet=True)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_what_killed_processes_left_is_swept_and_nothing_else(copied):
    root = copied / "checkpoints"
    for name in ("000000200.orbax-checkpoint-tmp-7", "000000200", "000000020.damaged", "000000010"):
        (root / name).mkdir()
    before = {path.name for path in root.iterdir()}
    (root / "000000200.unfinished").touch()  # killed between the commit and the manifest
    (root / "000000150.unfinished").touch()  # killed between the manifest and its end
    manifests.remove_incomplete(str(copied))
    gone = before - {path.name for path in root.iterdir()}
    assert gone == {"000000200.orbax-checkpoint-tmp-7", "000000200"}
    assert not list(root.glob("*.unfinished"))


def test_a_second_process_in_the_same_folder_is_refused(copied):
    before = (copied / "metrics.jsonl").read_bytes()
    with lock.locked(str(copied)):
        code, _, err = run(copied, "--config.duration=200")  # the folder's own settings, longer
    assert code == 2 and "another process is training in this folder" in err, err
    assert (copied / "metrics.jsonl").read_bytes() == before


def test_wrong_shapes_types_and_names_are_refused_before_orbax_casts(copied):
    stored = manifests.shapes(str(copied), 150, "params")
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
        saver.save(step, {"params": tree}, Progress())
        for _ in range(20):
            tree = bump(tree)
    saver.wait()
    for step in range(5):
        shapes = manifests.shapes(str(tmp_path), step, "params")
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


@pytest.mark.slow
def test_a_save_that_fails_is_told_and_the_exit_code_says_so(tmp_path):
    flags = (
        "--config.model.coder.hidden=512,512",
        "--config.duration=60",
        "--config.checkpoint.every=20",
    )
    code, _, err = run(tmp_path, *flags, prefix=SMALL_FILES_ONLY)
    assert code == 1
    assert "\nsaving step 6 failed" in err and "\nsaving step 12 failed" in err  # it went on
    last = err.splitlines()[-1]
    assert last.startswith("failed: 3 saves in a row failed, the last because saving step 18")
    assert "the newest checkpoint is none" in last
    assert os.listdir(tmp_path / "checkpoints") == []  # what failed leaves nothing behind
    code, _, err = run(tmp_path, *flags)
    assert code == 0, err
    assert manifests.steps(str(tmp_path))[-1] == 60


@pytest.mark.parametrize("at_most", [2**26, 0])
def test_saves_that_fail_are_cleaned_up_and_the_third_in_a_row_ends_the_run(
    tmp_path, monkeypatch, at_most
):
    monkeypatch.setattr(checkpoint, "_COPIED_BYTES", at_most)
    said: list[str] = []
    saver = Saver(str(tmp_path), keep=9, say=said.append)
    tree = {"params": {"w": jnp.zeros(3)}}
    saver.save(1, tree, Progress())
    saver.wait()
    begin = checkpoint._begin

    class Full:
        def result(self):
            raise OSError(28, "No space left on device")

    def full(root, arrays):
        Path(f"{root}.orbax-checkpoint-tmp").mkdir()
        checkpoint._TURN.acquire()
        return Full()

    def attempt(step: int) -> None:
        saver.save(step, tree, Progress())
        saver.wait_and_report()
        saver.poll()

    monkeypatch.setattr(checkpoint, "_begin", full)
    attempt(2)
    attempt(3)
    monkeypatch.setattr(checkpoint, "_begin", begin)
    attempt(4)  # there was room again: it counts from the beginning
    monkeypatch.setattr(checkpoint, "_begin", full)
    attempt(5)
    attempt(6)
    with pytest.raises(OSError, match="3 saves in a row failed.* newest checkpoint is step 4"):
        attempt(7)
    assert len(said) == 5 and all("No space left on device" in line for line in said)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"000000001", "000000001.json", "000000004", "000000004.json"}


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
            saver.save(step, {"params": {"w": jnp.full(100, 10.0 * number + step)}}, Progress())
            saver.wait()
        manifests.verify(workdir, 5)
        read = checkpoint.load(
            workdir, 5, {"params": {"w": jax.ShapeDtypeStruct((100,), "float32")}}
        )
        np.testing.assert_array_equal(read["params"]["w"], 10.0 * number + 5)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, range(4)))
