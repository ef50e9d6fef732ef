"""The rows that are evaluated: opened, checked against the run, and streamed through a model."""

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from aejax.data.fingerprint import fingerprint
from aejax.data.prepare import Preparation
from aejax.data.sources import ARRAYS, as_source, inherited, open_splits
from aejax.data.sources.base import Rows, Source, Spec
from aejax.data.sources.labels import keep_labels
from aejax.data.sources.splits import WHOLE, select
from aejax.errors import InputError
from aejax.models.batch import batch_mask
from aejax.pictures import is_image
from aejax.runs import folder
from aejax.runs.folder import Run
from aejax.runs.loading import Model

_ROWS_AT_A_TIME = 1000
# Chunks of large rows have fewer rows: 2^22 numbers are 16 MiB of float32.
_NUMBERS_AT_A_TIME = 2**22


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Rows, and the flags that name them.

    Attributes:
        source: the rows; of the run's own source only those with its `data.keep_labels`.
        name: the source, as --source takes it.
        split: as --split takes it.
        every: the rows of all labels; None if these are the same.
    """

    source: Source
    name: str
    split: str
    every: Source | None = None


class EvaluatedRows(NamedTuple):
    """A chunk of rows, and the results of a function; every leaf [rows, ...], in order."""

    first: int
    rows: Rows
    values: Any


def choose_rows(run: Run, source: Any = "", split: str = "", folder: str = "") -> Chosen:
    """Opens the rows to evaluate and checks that the run's model can take them.

    Args:
        run: contents of config.json.
        source: a source by name (with the options of the run's own source, if it is of the same
            kind and does not set them); "" for the run's own; or an array or `Source`.
        split: by name and slice; "" for the run's test split, or all of another source.
        folder: TFDS's data folder; "" for the run's own.

    Raises:
        InputError: no such rows, or rows of another shape or type than the model's.
    """
    if not isinstance(source, str):
        given = as_source("source", source)
        _check("source", given.spec, run)
        return Chosen(given, ARRAYS, split or WHOLE)
    data = run.config.data
    own = not source
    setting = "data.source" if own else "--source"
    split = split or (data.test if own else WHOLE)
    if own:
        name, (found, place, _) = data.source, run.location()
    else:
        name = found = inherited(source, data.source, run.spec)
        place = data.folder
    splits = open_splits(found, folder or place, setting=setting, like=run.spec)
    opened = select(splits, split)
    where = f"{setting}={name}, split {split}"
    _check(where, opened.spec, run)
    every = opened
    if own:
        opened = keep_labels(opened, data.keep_labels, f"split {split}")
    known = run.fingerprints.get("test")
    if own and split == data.test and known and known != fingerprint(opened):
        raise InputError(
            f"{where}: its rows are no longer those that the run was evaluated on; --source={name}"
            " takes them as they are now"
        )
    return Chosen(opened, name, split, None if every is opened else every)


def check_no_stage(workdir: str) -> None:
    """Refuses a stage of pre-training above the first: its rows are codes of the stages below.

    Raises:
        InputError: says what to evaluate instead.
    """
    parent, name = os.path.split(folder.path(workdir))
    if re.fullmatch(r"stage([2-9]|\d\d+)", name) and folder.exists(parent):
        where = os.path.relpath(parent)
        raise InputError(
            f"--workdir={workdir}: is a stage above the first, whose rows are codes of those below"
            f" and stand in no file: evaluate the run, --workdir={where}, or its first stage,"
            f" --workdir={os.path.join(where, 'stage1')}; codes as rows go by --source=npz:FILE"
        )


def _check(where: str, spec: Spec, run: Run) -> None:
    wanted = run.spec
    if spec.shape != wanted.shape:
        raise InputError(
            f"{where}: its rows have shape {spec.shape}; this model takes rows of {wanted.shape}"
            f"{_resized(where, wanted)}"
        )
    if spec.dtype != wanted.dtype:
        raise InputError(f"{where}: its rows are {spec.dtype}; this model takes {wanted.dtype}")
    if spec.maximum != wanted.maximum and not run.config.data.prepare.scale:
        raise InputError(
            f"{where}: its values go up to {spec.maximum:g}, those of the run's own data up to"
            f" {wanted.maximum:g}; accepted: the same range, since config.data.prepare.scale=False"
        )


def _resized(where: str, wanted: Spec) -> str:
    """The hint for pictures of another size."""
    if "=images:" not in where or not is_image(wanted.shape):
        return ""
    return f"; pictures fit with the option size={wanted.shape[1]}x{wanted.shape[0]}"


def rescaled(model: Model, spec: Spec) -> Model:
    """The model with a preparation for rows of this spec: they are scaled by their own maximum.

    For example, digits up to 16 and bytes up to 255 both become [0, 1]. Rows may have missing
    values even if the model was trained without.
    """
    if (spec.maximum, spec.missing) == (model.run.spec.maximum, model.run.spec.missing):
        return model
    preparation = Preparation(model.preparation.settings, spec, model.preparation.statistics)
    run = dataclasses.replace(model.run, spec=spec)
    return dataclasses.replace(model, run=run, preparation=preparation)


def stream(
    model: Model, source: Source, function: Callable[..., Any], numbered: bool = False
) -> Iterator[EvaluatedRows]:
    """Runs a function of (live module, raw rows, mask) over a whole source, in batches.

    The mask is bool [rows, length] if rows have lengths, [rows, *shape] if values may be missing,
    else None. One program is compiled for all batches. Matrix products have full float32 precision
    on every backend.

    Args:
        model: `rescaled` to the source.
        source: [rows, *shape].
        function: is jitted here; returns a tree of [rows, ...].
        numbered: also pass the rows' indices in the source [rows], for random numbers that depend
            only on the row.
    """
    graph, state = nnx.split(model.module)
    padded, size = source.spec.padded, batch_rows(source)

    def call(state: Any, x: jax.Array, *more: jax.Array) -> Any:
        mask = batch_mask(x, more[0] if padded else None, x.shape[1:], source.spec.missing)
        return function(nnx.merge(graph, state), x, mask, *more[padded:])

    # Parameters are an argument: closed over, they would be constants of the program.
    run = functools.partial(model.jit(call), state)
    for first in range(0, len(source), size):
        rows = source[slice(first, first + size)]
        given = [rows.x] if rows.length is None else [rows.x, rows.length]
        given += [np.arange(first, first + len(rows.x), dtype=np.int32)] * numbered
        with jax.default_matmul_precision("highest"):
            values = model.batched_apply(run, *given, size=size)
        yield EvaluatedRows(first, rows, values)


def real_elements(rows: Rows) -> np.ndarray:
    """0.0 for padding and missing values, else 1.0: float64 [rows, elements]."""
    return rows.real.reshape(len(rows.x), -1).astype(np.float64)


def batch_rows(source: Source) -> int:
    """How many rows are read and computed at a time."""
    elements = int(np.prod(source.spec.shape))
    return max(1, min(_ROWS_AT_A_TIME, len(source), _NUMBERS_AT_A_TIME // elements))
