"""Checkpoints: the only file that calls Orbax; what stands on the disk is `manifests`'s.

Orbax writes; `reading` reads, in less memory.
"""

import dataclasses
import logging
import math
import os
import threading
from collections.abc import Callable
from typing import Any

import jax

from aejax.cluster import is_main
from aejax.errors import InputError
from aejax.runs import manifests, reading
from aejax.runs.arrays import Arrays, describe, flatten, unflatten
from aejax.runs.progress import Progress

# Saves that may fail one after the other before the run ends: a full disk may be emptied meanwhile.
_TRIES = 3
_ITEM = "state"
# Devices that hold the same array share the writing of large ones alone: each slice is a program
# to compile (30 of them, 0.6 s, for the dense autoencoder on 8 devices).
_SHARED_BYTES = 2**24
# Arrays are compressed in chunks of at most so many bytes, and at least a quarter of it: reading
# an array needs memory for some chunks beside the array itself (`reading`).
_CHUNK_BYTES = 2**22
# A state up to this is copied where it lies, so that a training of one process need not wait until
# Orbax has begun: ten milliseconds, in which small models make hundreds of steps.
_COPIED_BYTES = 2**26
# Orbax tells what it does apart by one number of the process: runs side by side save in turn.
_TURN = threading.Lock()


def library() -> Any:
    """Orbax, imported where it is first needed, since that takes an eighth of a second."""
    from orbax.checkpoint import v1

    # An error of its threads is raised, and told in one line; here it comes with eight tracebacks.
    logging.getLogger("absl").addFilter(_is_not_raised_too)
    return v1


def _is_not_raised_too(record: logging.LogRecord) -> bool:
    return "_SignalingThread.run()" not in str(record.msg)


def load(workdir: str, step: int, abstract: dict[str, Any], shared: bool = False) -> dict[str, Any]:
    """Reads parts of a verified step.

    Args:
        workdir: the run's folder.
        step: one that `verify` accepted.
        abstract: {"params": tree of jax.ShapeDtypeStruct with shardings, ...}.
        shared: on CPUs, whether devices may share the memory of equal shards; not for arrays that
            are donated later.

    Raises:
        InputError: arrays that the settings ask for and the checkpoint has not, or has in another
            shape or type (Orbax would cast in silence).
    """
    stored, root = manifests.read(workdir, step)["arrays"], manifests.step_folder(workdir, step)
    wanted = {part: flatten(tree) for part, tree in abstract.items()}
    for part, arrays in wanted.items():
        have = stored.get(part, {})
        problems = [
            f"{part}/{name}: {_shape(have.get(name))} stored, {_shape(one)} wanted"
            for name, array in arrays.items()
            if have.get(name) != (one := describe(array))
        ]
        problems += [f"{part}/{name}: stored, not wanted" for name in have.keys() - arrays.keys()]
        if problems:
            more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
            raise InputError(
                f"{root} does not fit the settings: {'; '.join(sorted(problems)[:3])}{more}"
            )
    read = reading.read(os.path.join(root, _ITEM), _joined(wanted), shared)
    return {
        part: unflatten(tree, {name: read[f"{part}/{name}"] for name in wanted[part]})
        for part, tree in abstract.items()
    }


def _joined(parts: dict[str, Arrays]) -> Arrays:
    """{"part/name": array}: one item of Orbax's, since each takes ten milliseconds to begin."""
    return {f"{part}/{name}": array for part, tree in parts.items() for name, array in tree.items()}


@dataclasses.dataclass
class Saver:
    """Writes checkpoints of one run, one at a time, beside the training.

    Attributes:
        workdir: the run's folder.
        keep: how many of the newest stay; the best one stays too.
        say: prints a line.
        saved: is called with each step whose checkpoint is complete.
        failed: how many saves have failed in a row, up to the last one that was waited for.
    """

    workdir: str
    keep: int
    say: Callable[[str], None]
    saved: Callable[[int], None] = lambda step: None
    _thread: threading.Thread | None = None
    _error: BaseException | None = None
    _step: int | None = None
    failed: int = 0  # saves in a row
    _reason: str = ""  # of the last of them

    def save(self, step: int, parts: dict[str, Any], progress: Progress) -> None:
        """Starts to save {"params": tree, ...}; returns once the arrays may be donated.

        Waits for the save before it. The manifest, with `progress`, is written after the commit.
        """
        self.wait_and_report()
        saved = progress.to_dict()  # the run goes on changing it
        best = None if progress.best is None else progress.best["step"]
        root = manifests.step_folder(self.workdir, step)
        self._step = step
        if is_main():
            try:
                os.makedirs(os.path.dirname(root), exist_ok=True)
                # A save that failed may have gone on writing for a moment.
                manifests.remove_incomplete(self.workdir)
                manifests.mark_unfinished(self.workdir, step)
            except OSError as error:
                if jax.process_count() > 1:  # the others would wait for this one
                    raise
                self._error = error
                return
        arrays = {part: flatten(tree) for part, tree in parts.items()}
        described = {
            part: {name: describe(array) for name, array in tree.items()}
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

        def finish():
            try:
                _commit(_begin(root, joined) if begun is None else begun)
                if is_main():
                    manifests.write(self.workdir, step, described, saved)
                    manifests.prune(self.workdir, self.keep, best)
            except BaseException as error:  # noqa: BLE001 - told at the next poll
                self._error = error
                if is_main():
                    manifests.discard(self.workdir, step)

        self._thread = threading.Thread(target=finish)
        self._thread.start()

    def update_progress(self, step: int, progress: Progress) -> None:
        """Replaces what a step that stands says of the run's progress; its arrays stay."""
        self.wait_and_report()
        if is_main() and step in manifests.steps(self.workdir):
            data = manifests.read(self.workdir, step)
            manifests.update_progress(self.workdir, step, {**data, "progress": progress.to_dict()})

    def poll(self) -> None:
        """Says so if a save has failed meanwhile; the run goes on, and tries again when due.

        Raises:
            OSError: three saves in a row have failed; of several processes one.
        """
        if self._thread is None or not self._thread.is_alive():
            self.wait_and_report()
        if self.failed and jax.process_count() > 1:
            # In the others Orbax waits for this one: they end when this one does.
            raise OSError(self._reason)
        if self.failed >= _TRIES:
            raise OSError(f"{_TRIES} saves in a row failed, the last because {self._reason}")

    def wait(self) -> None:
        """Waits until the running save stands; raises its error."""
        thread = self._thread
        if thread is not None:
            thread.join()
        if thread is not None or self._error is not None:
            self.failed = 0 if self._error is None else self.failed + 1
        self._thread, self._error, error = None, None, self._error
        if error is not None:
            good = manifests.steps(self.workdir)
            self._reason = (
                f"saving step {self._step} failed: {' '.join(str(error).split())[:300]};"
                f" the newest checkpoint is {f'step {good[-1]}' if good else 'none'}"
            )
            raise OSError(self._reason) from error
        if thread is not None and self._step is not None:
            self.saved(self._step)

    def wait_and_report(self) -> None:
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
    saving = context.array.saving
    saving.min_slice_bytes_for_replica_parallel = _SHARED_BYTES
    storage = orbax.options.ArrayOptions.Saving.StorageOptions
    saving.scoped_storage_options_creator = lambda _, array: storage(
        chunk_byte_size=_chunk_bytes(array)
    )
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


def _chunk_bytes(array: jax.Array) -> int | None:
    """The size of the chunks in which an array is to be stored; None for one chunk a shard.

    Orbax takes the next smaller divisor of the largest dimension (of one that is sharded, as long
    as there is any) until a chunk is small enough. A dimension that is a large prime would become
    1, and the chunks far too many: this says where to stop.
    """
    shard = array.sharding.shard_shape(array.shape)
    sides, elements = list(shard), math.prod(shard)
    most = _CHUNK_BYTES // array.dtype.itemsize
    while elements > most:
        axes = [axis for axis, size in enumerate(array.shape) if 1 < sides[axis] < size]
        axis = max(axes or range(len(sides)), key=lambda axis: sides[axis])
        side = max(each for each in _divisors(shard[axis]) if each < sides[axis])
        smaller = elements // sides[axis] * side
        if smaller < most // 4:
            break
        sides[axis], elements = side, smaller
    return elements * array.dtype.itemsize if elements < math.prod(shard) else None


def _divisors(number: int) -> list[int]:
    low = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return low + [number // each for each in low]


def _shape(described: list[Any] | None) -> str:
    return f"{described[1]}{described[0]}" if described else "nothing"
