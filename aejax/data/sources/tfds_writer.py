"""Writes sources as TFDS data sets in ArrayRecord, without TensorFlow."""

import contextlib
import dataclasses
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from aejax import files
from aejax.data.sources import tfds
from aejax.data.sources.base import Source, Spec
from aejax.errors import InputError

FIRST_VERSION = "1.0.0"
BLOCK_ROWS, BLOCK_BYTES = 256, 64 * 2**20
SHARD_BYTES = 256 * 2**20
# PNG keeps these bit for bit, and every tool can show them.
PNG_CHANNELS = (1, 3, 4)


@dataclasses.dataclass(frozen=True)
class Written:
    """What has been written.

    Attributes:
        path: folder of the version, DATA_FOLDER/NAME/1.0.0.
        rows: rows of each split.
        size: bytes of all files.
    """

    path: str
    rows: dict[str, int]
    size: int


def write(sources: Mapping[str, Source], name: str, folder: str) -> Written:
    """Writes a data set whose splits are `sources`, with their rows in order.

    Images of bytes become the feature `image` (PNG), other rows `x` (their bytes); labels become
    `label`. The set is written to a temporary folder and moved at the end, so that it is never
    incomplete.

    Args:
        sources: {split: its rows}, of one spec.
        name: the set's name.
        folder: TFDS's data folder; "" for its default.

    Raises:
        InputError: the set is there already, the splits differ, are empty or have padding, or the
            folder cannot be written.
    """
    check_new(name, folder)
    path = _free(os.path.join(tfds.data_folder(folder), name))
    specs = {split: source.spec for split, source in sources.items()}
    spec = next(iter(specs.values()))
    if any(each != spec for each in specs.values()):
        found = "; ".join(f"{split} has {each.describe()}" for split, each in specs.items())
        raise InputError(f"splits differ in their rows: {found}")
    if spec.missing:
        raise InputError("values are missing in these rows; accepted: whole rows")
    if spec.padded:
        raise InputError("rows have a length each; accepted: whole rows, which TFDS sets hold here")
    if empty := [split for split, source in sources.items() if not len(source)]:
        raise InputError(f"split {empty[0]} has no rows; accepted: sources with rows in each")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with _moved_at_end(path) as partial:
            _write(sources, spec, name, os.path.basename(path), partial)
    except (OSError, RuntimeError) as error:  # ArrayRecord's writer raises the latter: disk full
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be written: {reason}") from None
    sizes = [entry.stat().st_size for entry in os.scandir(path)]
    return Written(path, {split: len(source) for split, source in sources.items()}, sum(sizes))


def check_new(name: str, folder: str) -> None:
    """Raises InputError if a set of this name can be read already."""
    there = tfds.versions(os.path.join(tfds.data_folder(folder), name))
    if usable := [path for path, formats in there.items() if tfds.FORMAT in formats]:
        raise InputError(
            f"--name={name}: {usable[-1]} exists and is not overwritten; accepted: another name"
            " or --folder, or remove it first"
        )


def _free(path: str) -> str:
    """The folder for a new version: the first, or after existing ones in TensorFlow's format."""
    there = list(tfds.versions(path))
    if not there:
        return os.path.join(path, FIRST_VERSION)
    *start, last = os.path.basename(there[-1]).split(".")
    return os.path.join(path, ".".join([*start, str(int(last) + 1)]))


@contextlib.contextmanager
def _moved_at_end(path: str) -> Iterator[str]:
    """A temporary folder that is renamed to `path` on success, and removed on failure."""
    # not a version's name, so that nothing reads what a killed process leaves behind
    name = os.path.join(os.path.dirname(path), "incomplete")
    partial = files.owned(name)
    for left in (*files.abandoned(name), partial):
        shutil.rmtree(left, ignore_errors=True)
    os.mkdir(partial)
    try:
        yield partial
        os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write(sources: Mapping[str, Source], spec: Spec, name: str, version: str, path: str) -> None:
    with tfds.quiet():
        import tensorflow_datasets as library

        info = _info(library, spec, name, version, path)
        row_bytes = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
        # TFDS's GeneratorBasedBuilder needs TensorFlow for splits over 1 GiB; this one does not
        writer = library.core.SequentialWriter(
            info, max_examples_per_shard=max(1, SHARD_BYTES // row_bytes), file_format=tfds.FORMAT
        )
        block = max(1, min(BLOCK_ROWS, BLOCK_BYTES // row_bytes))
        writer.initialize_splits(list(sources))
        for split, source in sources.items():
            with tqdm(total=len(source), desc=split, unit=" rows", disable=None) as bar:
                for start in range(0, len(source), block):
                    examples = _examples(source, slice(start, start + block))
                    writer.add_examples({split: examples})
                    bar.update(len(examples))
            writer.close_splits([split])


def _info(library: Any, spec: Spec, name: str, version: str, path: str) -> Any:
    """TFDS's description of the set."""
    features = library.features
    if _as_png(spec):
        row = features.Image(shape=spec.shape, dtype=np.uint8, encoding_format="png")
    else:
        # encoded as bytes: otherwise each element would be stored as an int64
        row = features.Tensor(shape=spec.shape, dtype=np.dtype(spec.dtype), encoding="bytes")
    kind = features.ClassLabel(names=spec.classes) if spec.classes else features.Scalar(np.int64)
    label = {"label": kind} if spec.labelled else {}
    identity = library.core.dataset_info.DatasetIdentity(
        name=name, version=library.core.Version(version), data_dir=path, module_name=__name__
    )
    return library.core.DatasetInfo(
        builder=identity,
        description=f"{name}, written by launch.prepare.",
        features=features.FeaturesDict({_key(spec): row, **label}),
        supervised_keys=(_key(spec), "label") if spec.labelled else None,
        disable_shuffling=True,
        metadata=library.core.MetadataDict({tfds.MAXIMUM: spec.maximum}),
    )


def _examples(source: Source, part: slice) -> list[dict[str, Any]]:
    rows = source[part]
    key = _key(source.spec)
    encode = _png if _as_png(source.spec) else np.ascontiguousarray
    examples: list[dict[str, Any]] = [{key: encode(x)} for x in rows.x]
    if rows.label is not None:
        for example, label in zip(examples, rows.label, strict=True):
            example["label"] = int(label)
    return examples


def _as_png(spec: Spec) -> bool:
    return spec.dtype == "uint8" and len(spec.shape) == 3 and spec.shape[2] in PNG_CHANNELS


def _key(spec: Spec) -> str:
    return "image" if _as_png(spec) else "x"


def _png(x: np.ndarray) -> io.BytesIO:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(x[..., 0] if x.shape[2] == 1 else x).save(stream, "png")
    stream.seek(0)
    return stream
