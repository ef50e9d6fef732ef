"""The steps of a run on the disk: which count, which are damaged, and what may be removed.

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
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax

from aejax import files
from aejax.config import Config
from aejax.errors import InputError
from aejax.runs import folder
from aejax.runs.progress import Progress

FORMAT = 1
_HALF_WRITTEN = ".orbax-checkpoint-tmp"  # Orbax's own name for it
_UNFINISHED = ".unfinished"
_REMOVALS = 100


class DamagedError(InputError):
    """A checkpoint whose files are not those that were written; its text names them."""


def steps(workdir: str) -> list[int]:
    """Steps whose manifest stands, rising; read from the disk each time."""
    try:
        names = os.listdir(folder.path(workdir, "checkpoints"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name[:-5]) for name in names if re.fullmatch(r"\d+\.json", name))


def lost(workdir: str) -> list[int]:
    """Steps that Orbax committed and whose manifest is missing, rising; see this file's head."""
    try:
        names = set(os.listdir(folder.path(workdir, "checkpoints")))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(
        int(name)
        for name in names
        if re.fullmatch(r"\d+", name) and not {name + ".json", name + _UNFINISHED} & names
    )


def read(workdir: str, step: int) -> dict[str, Any]:
    """The manifest of a step.

    Raises:
        DamagedError: it is not the one that was written.
    """
    name = step_folder(workdir, step) + ".json"
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


def identity(workdir: str, step: int) -> str:
    """A digest of a step's manifest: a step that was trained anew has another one."""
    text = json.dumps(read(workdir, step), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def progress(workdir: str, step: int) -> Progress:
    """How far the run had come at a step, by its manifest."""
    return dataclasses.replace(Progress.of(read(workdir, step)["progress"]), step=step)


def is_complete(workdir: str, config: Config) -> bool:
    """Whether the folder's newest step is the end of its run with these settings.

    Raises:
        InputError: the run has other settings.
    """
    run, there = folder.read_to_resume(workdir, config), steps(workdir)
    if run is None or not there or run.config.duration != config.duration:
        return False
    try:
        last = progress(workdir, there[-1])
    except DamagedError:
        return False
    return last.total is not None and last.is_finished(last.total)


def verify(workdir: str, step: int) -> dict[str, Any]:
    """Checks every file of a step against its manifest, which is returned.

    Raises:
        DamagedError: names every file that is missing or changed.
    """
    data, root = read(workdir, step), step_folder(workdir, step)
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
    """The newest step that is whole; names each damaged one that it passes over.

    Where a run that goes on has removed a step meanwhile, its newer ones are looked at.
    """
    for step in lost(workdir):
        root = step_folder(workdir, step)
        say(f"checkpoint {root} has lost its manifest {root}.json; passed over, and kept")
    for step in reversed(steps(workdir)):
        try:
            verify(workdir, step)
            return step
        except DamagedError as error:
            if step not in steps(workdir):
                return newest_good(workdir, say)
            say(f"{error}; passed over, and kept for you to look at")
    return None


def shapes(workdir: str, step: int, part: str) -> dict[str, jax.ShapeDtypeStruct]:
    """{name: shape and type} of the arrays of one part of a step."""
    stored = read(workdir, step)["arrays"].get(part, {})
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in stored.items()}


def remove_incomplete(workdir: str) -> None:
    """Removes what killed processes left half-written or half-deleted."""
    parent = folder.path(workdir, "checkpoints")
    names = os.listdir(parent) if os.path.isdir(parent) else ()
    for name in names:
        if re.fullmatch(rf"\d+{re.escape(_HALF_WRITTEN)}.*", name):
            shutil.rmtree(os.path.join(parent, name))
    for name in names:
        if re.fullmatch(rf"\d+{re.escape(_UNFINISHED)}", name):
            discard(workdir, int(name.removesuffix(_UNFINISHED)))


def set_aside(workdir: str, after: int, say: Callable[[str], None]) -> None:
    """Renames damaged steps above `after` to STEP.damaged, so that their names are free again."""
    for step in sorted({*steps(workdir), *lost(workdir)}):
        if step > after:
            say(f"checkpoint of step {step} is set aside as {_rename(workdir, step)}")


def _rename(workdir: str, step: int) -> str:
    root, number = step_folder(workdir, step), 0
    while os.path.exists(aside := f"{root}.damaged{number or ''}"):
        number += 1
    os.makedirs(aside)
    for name in (root, root + ".json"):
        if os.path.exists(name):
            os.replace(name, os.path.join(aside, os.path.basename(name)))
    return aside


def mark_unfinished(workdir: str, step: int) -> None:
    """Marks a step as unfinished; what stands under its name is kept aside."""
    root = step_folder(workdir, step)
    if os.path.exists(root) or os.path.exists(root + ".json"):
        _rename(workdir, step)
    with open(root + _UNFINISHED, "w"):
        pass


def discard(workdir: str, step: int) -> None:
    """Removes what stands of an unfinished step, then its mark; one with a manifest stays."""
    root = step_folder(workdir, step)
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


def write(workdir: str, step: int, arrays: dict, progress: dict) -> None:
    """Writes the manifest of a step that Orbax has committed; from now on it counts."""
    root = step_folder(workdir, step)
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
    update_progress(workdir, step, data)
    os.remove(root + _UNFINISHED)


def update_progress(workdir: str, step: int, manifest: dict[str, Any]) -> None:
    """Writes a manifest, in place of the one that stands."""
    text = json.dumps({**manifest, "sha256": _digest(manifest)})
    files.write(step_folder(workdir, step) + ".json", text)


def prune(workdir: str, keep: int, best: int | None) -> None:
    """Deletes all but the newest `keep` steps and the best; manifests first."""
    for step in steps(workdir)[:-keep]:
        if step != best:
            root = step_folder(workdir, step)
            # `remove_incomplete` ends it if this is killed here; a full disk may take no mark.
            with contextlib.suppress(OSError), open(root + _UNFINISHED, "w"):
                pass
            os.remove(root + ".json")
            discard(workdir, step)


def step_folder(workdir: str, step: int) -> str:
    """The folder of a step."""
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
