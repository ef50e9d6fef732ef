"""Data sets in TFDS's folders, read without TensorFlow: those that are stored as ArrayRecord.

Only folders are searched. TFDS's own search by name may use the network, and is therefore used only
to download a set, when that is allowed.
"""

import contextlib
import dataclasses
import functools
import glob
import json
import os
import re
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np

from aejax.data.sources import checks
from aejax.data.sources.base import Rows, Source, Spec
from aejax.data.sources.splits import Splits, select
from aejax.errors import InputError
from aejax.kinds import near

FORM = "tfds:NAME or tfds:NAME:SPLIT"
FORMAT = "array_record"
INFO = "dataset_info.json"
# The key of a set's metadata under which the largest value that its format can hold is kept.
MAXIMUM = "maximum"

_VERSION = re.compile(r"([0-9]+)\.([0-9]+)\.([0-9]+)")


@dataclasses.dataclass(frozen=True)
class Records:
    """One split of a TFDS data set, decoded when it is read.

    Attributes:
        records: TFDS's data source.
        key: the feature that holds a row.
        spec: what one row is.
        name: the set, for messages.
    """

    records: Any
    key: str
    spec: Spec
    name: str

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        """Reads and decodes the records at `index`.

        Raises:
            InputError: a record that cannot be read, or is not of the set's shape.
        """
        index = checks.positions(index, len(self))
        x = np.empty((len(index), *self.spec.shape), self.spec.dtype)
        label = np.empty(len(index), np.int32) if self.spec.labelled else None
        try:
            with quiet():
                examples = self.records.__getitems__(index.tolist())
            for row, example in enumerate(examples):
                if example[self.key].shape != self.spec.shape:
                    raise ValueError(f"row {index[row]} has shape {example[self.key].shape}")
                if not checks.exact(example[self.key], self.spec.dtype).all():
                    raise ValueError(f"row {index[row]} has whole numbers beyond {checks.EXACT}")
                x[row] = example[self.key]
                if label is not None:
                    label[row] = int(example["label"])  # raises where int32 cannot hold it
        except Exception as error:  # array_record, protobuf and Pillow each raise their own
            raise InputError(
                f"data.source=tfds:{self.name}: a record cannot be read: {_reason(error)}"
            ) from None
        return Rows(x, label)


def splits(argument: str, folder: str, download: bool) -> Splits:
    """The splits of a prepared TFDS data set.

    A row is the feature `image`, or `x`, or the only array besides the label; the label is the
    feature `label`, if it is an integer. With SPLIT, its rows become the only split, called train.

    Args:
        argument: NAME, NAME/CONFIG or NAME/VERSION, and :SPLIT, a split's name and slice.
        folder: the data folder; "" for TFDS's default.
        download: let TFDS fetch and prepare a set that is missing.

    Raises:
        InputError: the set is missing, stored in another format, or has no such feature.
    """
    argument, _ = checks.options(argument, FORM)
    name, _, split = argument.partition(":")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.+-]*)*", name, re.ASCII):
        raise InputError(f"{name!r} is not the name of a data set; accepted: {FORM}")
    folder = data_folder(folder)
    path = _located(name, folder) if not download else _downloaded(name, folder)
    builder, key, spec = _opened(path)
    found: Splits = {
        each: functools.partial(_records, builder, each, key, spec, name)
        for each in builder.info.splits
    }
    if not split:
        return found
    return {"train": lambda: select(found, split)}


def data_folder(folder: str) -> str:
    """The folder of TFDS's data sets: this one, or TFDS's default."""
    default = os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")
    return os.path.abspath(os.path.expanduser(folder or default))


def versions(path: str) -> dict[str, set[str]]:
    """{path of a version: the formats in which it is stored}, of a data set, oldest first.

    A version without its description is incomplete, and left out.

    Raises:
        InputError: a description that cannot be read.
    """
    found = {}
    inner = os.listdir(path) if os.path.isdir(path) else []
    for version in [path, *(os.path.join(path, name) for name in sorted(inner, key=_number))]:
        info = os.path.join(version, INFO)
        if _VERSION.fullmatch(os.path.basename(version)) and os.path.isfile(info):
            found[version] = _formats(info)
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps TFDS's warnings (about OpenCV, the network, ...) off the terminal."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _located(name: str, folder: str) -> str:
    """The newest version of a set that is stored as ArrayRecord."""
    path = os.path.join(folder, name)
    found = versions(path)
    usable = [version for version, formats in found.items() if FORMAT in formats]
    if usable:
        return usable[-1]
    write = f"write it as {FORMAT} with: {_command(name, folder)}"
    if found:
        version, formats = list(found.items())[-1]
        raise InputError(
            f"{version} is stored as {', '.join(sorted(formats))}, which needs TensorFlow;"
            f" accepted: {FORMAT}; {write}"
        )
    there = _names(path) if os.path.isdir(path) else _names(folder)
    raise InputError(
        f"there is no data set {name} in {folder} (there: {', '.join(there) or 'none'}"
        f"{near(name, there)}); {write}, or let TFDS fetch it with --download"
    )


def _downloaded(name: str, folder: str) -> str:
    with contextlib.suppress(InputError):
        return _located(name, folder)
    try:
        with quiet():
            import tensorflow_datasets

            builder = tensorflow_datasets.builder(name, data_dir=folder, file_format=FORMAT)
            builder.download_and_prepare()
    except Exception as error:  # network, missing TensorFlow, or the set itself
        raise InputError(
            f"TFDS could not download {name} and write it as {FORMAT}: {_reason(error)}; accepted:"
            f" a set that TFDS can prepare here, or your own files, with: {_command(name, folder)}"
        ) from None
    return str(builder.data_dir)


def _command(name: str, folder: str) -> str:
    words = f"python -m launch.prepare --from=... --name={name.partition('/')[0]}"
    return words if folder == data_folder("") else f"{words} --folder={shlex.quote(folder)}"


def _names(folder: str) -> list[str]:
    """Names of the sets (or of a set's configurations) in a folder."""
    found = [
        path
        for depth in ("*", os.path.join("*", "*"))
        for path in glob.glob(os.path.join(depth, "[0-9]*", INFO), root_dir=folder)
    ]
    return sorted({path.split(os.sep)[0] for path in found})


def _number(version: str) -> tuple[int, ...]:
    match = _VERSION.fullmatch(version)
    return tuple(map(int, match.groups())) if match else ()


def _formats(path: str) -> set[str]:
    try:
        with open(path, encoding="utf-8") as stream:
            info = json.load(stream)
        # early versions of TFDS, with a single format, do not write it
        return {info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}") from None


def _opened(path: str) -> tuple[Any, str, Spec]:
    """The set's builder, the feature that holds a row, and what a row is."""
    try:
        with quiet():
            import tensorflow_datasets

            builder: Any = tensorflow_datasets.builder_from_directory(path)
            features = dict(builder.info.features.items())
            metadata = dict((builder.info.metadata or {}).items())
    except Exception as error:  # TFDS raises errors of many kinds on damaged descriptions
        raise InputError(f"{path} cannot be read by TFDS: {_reason(error)}") from None
    key = _row_key(features, path)
    shape = features[key].shape
    if None in shape:
        raise InputError(f"{path}: {key} has shape {shape}; accepted: rows of one fixed shape")
    dtype, maximum = checks.stored_type(np.dtype(features[key].np_dtype), f"{path}: {key}")
    kept = metadata.get(MAXIMUM)
    if isinstance(kept, int | float) and maximum is not None:
        maximum = float(kept)
    label = features.get("label")
    classes = tuple(getattr(label, "names", None) or ())  # of TFDS's ClassLabel
    spec = Spec(tuple(shape), str(dtype), maximum, _is_label(label), classes=classes)
    return builder, key, spec


def _row_key(features: dict[str, Any], path: str) -> str:
    arrays = [name for name, feature in features.items() if name != "label" and _is_array(feature)]
    for name in ("image", "x"):
        if name in arrays:
            return name
    if len(arrays) != 1:
        raise InputError(
            f"{path} has the features {', '.join(sorted(features))}, of which {len(arrays)} are"
            " arrays; accepted: image, x, or one array beside the label"
        )
    return arrays[0]


def _is_array(feature: Any) -> bool:
    shape = feature.shape
    return isinstance(shape, tuple) and len(shape) > 0 and _kind(feature) in "buif"


def _is_label(feature: Any) -> bool:
    return feature is not None and feature.shape == () and _kind(feature) in "bui"


def _kind(feature: Any) -> str:
    return "O" if isinstance(feature.np_dtype, dict) else np.dtype(feature.np_dtype).kind


def _records(builder: Any, split: str, key: str, spec: Spec, name: str) -> Source:
    try:
        with quiet():
            paths = map(os.fspath, builder.info.splits[split].filepaths)
            if lost := [path for path in paths if not os.path.isfile(path)]:
                raise FileNotFoundError(f"{lost[0]} is missing")
            records = builder.as_data_source(split)
    except Exception as error:  # missing or damaged files of records
        raise InputError(f"{builder.data_dir} cannot be read: {_reason(error)}") from None
    return Records(records, key, spec, name)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
