"""Checkpoints: the only file that calls Orbax.

checkpoints/STEP is what Orbax commits, checkpoints/STEP.json its manifest: the sha256 of every
file, the arrays' shapes and types, and the run's progress. A step counts once its manifest stands,
and is verified before it is read, since Orbax keeps no checksum of array data. STEP.unfinished
stands while a step is being written or deleted: what a killed process left of it may be removed. A
step without a manifest and without this mark has lost its manifest: it is named, and kept.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax

from aejax import files, folder
from aejax.cluster import is_main
from aejax.errors import InputError
from aejax.training.sharding import flatten

FORMAT = 1
_HALF_WRITTEN = ".orbax-checkpoint-tmp"  # Orbax's own name for it
_UNFINISHED = ".unfinished"
# Saves that may fail one after the other before the run ends: a full disk may be emptied meanwhile.
_TRIES = 3
_REMOVALS = 100
_ITEM = "state"
# Devices that hold the same array share the writing of large ones alone: each slice is a program
# to compile (30 of them, 0.6 s, for the dense autoencoder on 8 devices).
_SHARED_BYTES = 2**24
# A state up to this is copied where it lies, so that a training of one process need not wait until
# Orbax has begun: ten milliseconds, in which small models make hundreds of steps.
_COPIED_BYTES = 2**26
# Orbax tells what it does apart by one number of the process, and a load beside a save has broken
# the save: runs side by side take turns.
_TURN = threading.Lock()
Arrays = dict[str, jax.Array]


def library() -> Any:
    """Orbax, imported where it is first needed, since that takes an eighth of a second."""
    from orbax.checkpoint import v1

    return v1


class DamagedError(InputError):
    """A checkpoint whose files are not those that were written; its text names them."""


def unflatten(tree: Any, arrays: Arrays) -> Any:
    """The tree with each leaf replaced by the array of its name."""
    names = list(flatten(tree))
    return jax.tree.unflatten(jax.tree.structure(tree), [arrays[name] for name in names])


def steps(workdir: str) -> list[int]:
    """Steps whose manifest stands, rising; read from the disk each time."""
    try:
        names = os.listdir(folder.path(workdir, "checkpoints"))
    except FileNotFoundError:
        return []
    return sorted(int(name[:-5]) for name in names if re.fullmatch(r"\d+\.json", name))


def lost(workdir: str) -> list[int]:
    """Steps that Orbax committed and whose manifest is missing, rising; see this file's head."""
    try:
        names = set(os.listdir(folder.path(workdir, "checkpoints")))
    except FileNotFoundError:
        return []
    return sorted(
        int(name)
        for name in names
        if re.fullmatch(r"\d+", name) and not {name + ".json", name + _UNFINISHED} & names
    )


def manifest(workdir: str, step: int) -> dict[str, Any]:
    """The manifest of a step.

    Raises:
        DamagedError: it is not the one that was written.
    """
    name = _path(workdir, step) + ".json"
    try:
        with open(name, "rb") as file:
            data = json.load(file)
        own = data.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DamagedError(f"{name}: unreadable ({error})") from None
    if own != _digest(data):
        raise DamagedError(f"{name}: damaged (its own sha256 does not match)")
    if data["format"] != FORMAT:
        raise InputError(f"{name}: format {data['format']}; this version reads format {FORMAT}")
    return data


def verify(workdir: str, step: int) -> dict[str, Any]:
    """Checks every file of a step against its manifest, which is returned.

    Raises:
        DamagedError: names every file that is missing or changed.
    """
    data, root = manifest(workdir, step), _path(workdir, step)
    wrong = []
    for name, (size, digest) in data["files"].items():
        path = os.path.join(root, name)
        try:
            if os.path.getsize(path) != size:
                wrong.append(f"{path} ({os.path.getsize(path)} bytes, not {size})")
            elif _file_digest(path) != digest:
                wrong.append(f"{path} (contents changed)")
        except OSError as error:
            wrong.append(f"{path} ({error.strerror})")
    if wrong:
        raise DamagedError(f"checkpoint of step {step} is damaged: {', '.join(wrong)}")
    return data


def newest_good(workdir: str, say: Callable[[str], None]) -> int | None:
    """The newest step that is whole; names each damaged one that it passes over."""
    for step in lost(workdir):
        root = _path(workdir, step)
        say(f"checkpoint {root} has lost its manifest {root}.json; passed over, and kept")
    for step in reversed(steps(workdir)):
        try:
            verify(workdir, step)
            return step
        except DamagedError as error:
            say(f"{error}; passed over, and kept for you to look at")
    return None


def load(workdir: str, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
    """Reads parts of a verified step.

    Args:
        workdir: the run's folder.
        step: one that `verify` accepted.
        abstract: {"params": tree of jax.ShapeDtypeStruct with shardings, ...}.

    Raises:
        InputError: arrays that the settings ask for and the checkpoint has not, or has in another
            shape or type (Orbax would cast in silence).
    """
    stored = manifest(workdir, step)["arrays"]
    wanted = {part: flatten(tree) for part, tree in abstract.items()}
    for part, arrays in wanted.items():
        have = stored.get(part, {})
        problems = [
            f"{part}/{name}: {_shape(have.get(name))} stored, {_shape(_describe(array))} wanted"
            for name, array in arrays.items()
            if have.get(name) != _describe(array)
        ]
        problems += [f"{part}/{name}: stored, not wanted" for name in have.keys() - arrays.keys()]
        if problems:
            more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
            raise InputError(
                f"{_path(workdir, step)} does not fit the settings: "
                f"{'; '.join(sorted(problems)[:3])}{more}"
            )
    targets = _joined(wanted)
    read = {}
    if targets:
        orbax = library()
        context = orbax.Context()
        context.pytree.loading.partial_load = True  # the other parts stay on the disk
        with _TURN, context:
            read = orbax.load_checkpointables(_path(workdir, step), {_ITEM: targets})[_ITEM]
    return {
        part: unflatten(tree, {name: read[f"{part}/{name}"] for name in wanted[part]})
        for part, tree in abstract.items()
    }


def _joined(parts: dict[str, Arrays]) -> Arrays:
    """{"part/name": array}: one item of Orbax's, since each takes ten milliseconds to begin."""
    return {f"{part}/{name}": array for part, tree in parts.items() for name, array in tree.items()}


def shapes(workdir: str, step: int, part: str) -> dict[str, jax.ShapeDtypeStruct]:
    """{name: shape and type} of the arrays of one part of a step."""
    stored = manifest(workdir, step)["arrays"].get(part, {})
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in stored.items()}


@dataclasses.dataclass
class Saver:
    """Writes checkpoints of one run, one at a time, beside the training.

    Attributes:
        workdir: the run's folder.
        keep: how many of the newest stay; the best one stays too.
        say: prints a line.
    """

    workdir: str
    keep: int
    say: Callable[[str], None]
    _thread: threading.Thread | None = None
    _error: BaseException | None = None
    _step: int | None = None
    _failed: int = 0  # saves in a row
    _reason: str = ""  # of the last of them

    def save(self, step: int, parts: dict[str, Any], progress: dict[str, Any]) -> None:
        """Starts to save {"params": tree, ...}; returns once the arrays may be donated.

        Waits for the save before it. The manifest, with `progress`, is written after the commit.
        """
        self.settle()
        root = _path(self.workdir, step)
        self._step = step
        if is_main():
            try:
                os.makedirs(os.path.dirname(root), exist_ok=True)
                sweep(self.workdir)  # a save that failed may have gone on writing for a moment
                _make_way(self.workdir, step)
            except OSError as error:
                if jax.process_count() > 1:  # the others would wait for this one
                    raise
                self._error = error
                self.settle()
                return
        arrays = {part: flatten(tree) for part, tree in parts.items()}
        described = {
            part: {name: _describe(array) for name, array in tree.items()}
            for part, tree in arrays.items()
        }
        joined = _joined(arrays)
        begun = None
        if (
            jax.process_count() == 1
            and sum(each.nbytes for each in joined.values()) <= _COPIED_BYTES
        ):
            joined = _copied(joined)
        else:
            # Several processes must all begin at the same place among their programs.
            begun = _begin(root, joined)
        progress = json.loads(json.dumps(progress))
        best = (progress.get("best") or {}).get("step")

        def finish():
            try:
                _commit(_begin(root, joined) if begun is None else begun)
                if is_main():
                    _write_manifest(self.workdir, step, described, progress)
                    _prune(self.workdir, self.keep, best)
            except BaseException as error:  # noqa: BLE001 - told at the next poll
                self._error = error
                if is_main():
                    _discard(self.workdir, step)

        self._thread = threading.Thread(target=finish)
        self._thread.start()

    def amend(self, step: int, progress: dict[str, Any]) -> None:
        """Replaces what a step that stands says of the run's progress; its arrays stay."""
        self.settle()
        if is_main() and step in steps(self.workdir):
            data = manifest(self.workdir, step)
            _write(self.workdir, step, {**data, "progress": json.loads(json.dumps(progress))})

    def poll(self) -> None:
        """Says so if a save has failed meanwhile; the run goes on, and tries again when due.

        Raises:
            OSError: three saves in a row have failed.
        """
        if self._thread is not None and not self._thread.is_alive():
            self.settle()
        if self._failed >= _TRIES:
            raise OSError(f"{_TRIES} saves in a row failed, the last because {self._reason}")

    def wait(self) -> None:
        """Waits until the running save stands; raises its error."""
        thread = self._thread
        if thread is not None:
            thread.join()
        if thread is not None or self._error is not None:
            self._failed = 0 if self._error is None else self._failed + 1
        self._thread, self._error, error = None, None, self._error
        if error is not None:
            good = steps(self.workdir)
            self._reason = (
                f"saving step {self._step} failed: {' '.join(str(error).split())[:300]};"
                f" the newest checkpoint is {f'step {good[-1]}' if good else 'none'}"
            )
            raise OSError(self._reason) from error

    def settle(self) -> None:
        """Waits until the running save stands or has failed; only says so if it failed."""
        try:
            self.wait()
        except OSError as error:
            self.say(str(error))


def _copied(arrays: Arrays) -> Arrays:
    """Copies where the arrays lie, which may then be donated; nothing is compiled for it."""
    places = {name: array.sharding for name, array in arrays.items()}
    return jax.device_put(arrays, places, may_alias=False)


def _begin(root: str, arrays: Arrays) -> Any:
    """Orbax's save, begun in its turn: the arrays may be donated; `_commit` must follow."""
    orbax = library()
    context = orbax.Context()
    context.array.saving.min_slice_bytes_for_replica_parallel = _SHARED_BYTES
    _TURN.acquire()
    try:
        with context:
            return orbax.save_checkpointables_async(root, {_ITEM: arrays})
    except BaseException:
        _TURN.release()
        raise


def _commit(begun: Any) -> None:
    """Waits until a save stands, and ends its turn."""
    try:
        begun.result()
    finally:
        _TURN.release()


def sweep(workdir: str) -> None:
    """Removes what killed processes left half-written or half-deleted."""
    parent = folder.path(workdir, "checkpoints")
    names = os.listdir(parent) if os.path.isdir(parent) else ()
    for name in names:
        if re.fullmatch(rf"\d+{re.escape(_HALF_WRITTEN)}.*", name):
            shutil.rmtree(os.path.join(parent, name))
    for name in names:
        if re.fullmatch(rf"\d+{re.escape(_UNFINISHED)}", name):
            _discard(workdir, int(name.removesuffix(_UNFINISHED)))


def set_aside(workdir: str, after: int, say: Callable[[str], None]) -> None:
    """Renames damaged steps above `after` to STEP.damaged, so that their names are free again."""
    for step in sorted({*steps(workdir), *lost(workdir)}):
        if step > after:
            say(f"checkpoint of step {step} is set aside as {_rename(workdir, step)}")


def _rename(workdir: str, step: int) -> str:
    root, number = _path(workdir, step), 0
    while os.path.exists(aside := f"{root}.damaged{number or ''}"):
        number += 1
    os.makedirs(aside)
    for name in (root, root + ".json"):
        if os.path.exists(name):
            os.replace(name, os.path.join(aside, os.path.basename(name)))
    return aside


def _make_way(workdir: str, step: int) -> None:
    """Marks a step as unfinished; what stands under its name is kept aside."""
    root = _path(workdir, step)
    if os.path.exists(root) or os.path.exists(root + ".json"):
        _rename(workdir, step)
    with open(root + _UNFINISHED, "w"):
        pass


def _discard(workdir: str, step: int) -> None:
    """Removes what stands of an unfinished step, then its mark; one with a manifest stays."""
    root = _path(workdir, step)
    parent, base = os.path.split(root)
    if not os.path.exists(root + ".json"):
        for _ in range(_REMOVALS):  # other arrays of a save that failed may still be written
            names = [
                n for n in os.listdir(parent) if n == base or n.startswith(base + _HALF_WRITTEN)
            ]
            if not names:
                break
            for name in names:
                shutil.rmtree(os.path.join(parent, name), ignore_errors=True)
            time.sleep(0.01)
    with contextlib.suppress(FileNotFoundError):
        os.remove(root + _UNFINISHED)


def _write_manifest(workdir: str, step: int, arrays: dict, progress: dict) -> None:
    root = _path(workdir, step)
    data = {
        "format": FORMAT,
        "step": step,
        "progress": progress,
        "arrays": arrays,
        "files": {
            os.path.relpath(path, root): [os.path.getsize(path), _file_digest(path)]
            for path in _files(root)
        },
    }
    _write(workdir, step, data)
    os.remove(root + _UNFINISHED)


def _write(workdir: str, step: int, manifest: dict[str, Any]) -> None:
    text = json.dumps({**manifest, "sha256": _digest(manifest)})
    files.write(_path(workdir, step) + ".json", text)


def _prune(workdir: str, keep: int, best: int | None) -> None:
    """Deletes all but the newest `keep` steps and the best; manifests first."""
    for step in steps(workdir)[:-keep]:
        if step != best:
            root = _path(workdir, step)
            # `sweep` ends it if this is killed here; a disk may be too full even for the mark.
            with contextlib.suppress(OSError), open(root + _UNFINISHED, "w"):
                pass
            os.remove(root + ".json")
            _discard(workdir, step)


def _path(workdir: str, step: int) -> str:
    return folder.path(workdir, "checkpoints", f"{step:09d}")


def _files(root: str) -> Iterable[str]:
    for directory, _, names in sorted(os.walk(root)):
        for name in sorted(names):
            yield os.path.join(directory, name)


def _file_digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _describe(array: Any) -> list[Any]:
    return [list(array.shape), str(array.dtype)]


def _shape(described: list[Any] | None) -> str:
    return f"{described[1]}{described[0]}" if described else "nothing"
