"""Applies a checkpoint to rows, and writes codes, reconstructions and errors to an .npz file."""

import collections
import dataclasses
import zipfile
from typing import Any

import jax
import numpy as np

from aejax import files
from aejax.data.sources.base import Source, file_rows, names
from aejax.errors import InputError
from aejax.evaluation.result import need_autoencoder
from aejax.evaluation.row_errors import by_column
from aejax.evaluation.rows import real_elements, stream
from aejax.evaluation.symbols import are_symbols
from aejax.runs.loading import Model


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A summary of encoded rows.

    Attributes:
        error: mean over the rows with a finite code.
        lost: indices of the rows without one.
        names: names of these rows, if the source has names.
        columns: names of a table's columns; empty for other sources.
        column_error: [rows, columns], what each column adds to its row's error; None without any.
    """

    error: float
    lost: np.ndarray
    names: list[str] | None
    columns: list[str]
    column_error: np.ndarray | None


def encode(
    model: Model, source: Source, out: str, more: dict[str, np.ndarray] | None = None
) -> Encoded:
    """Writes z, reconstruction, error, index, and what else there is: labels, lengths, names, ...

    Reconstructions are written in chunks, so that memory holds only some of them. A row whose code
    or reconstruction is not finite has NaN in both.

    Args:
        model: `rows.rescaled` to the source.
        source: rows of the model's shape.
        out: the file; it is renamed to this when it is complete. z [rows, latent] and
            reconstruction [rows, *shape] are float32, the latter in units of `preparation.inverse`;
            error [rows] is the mean squared error of each row's elements in units of
            `preparation.measured` (for symbols, the share of wrong ones), without padding; index
            [rows] is a row's index in the source, file_row [rows] in the file from which a split is
            drawn; file [rows] has the rows' names and classes those of the labels 0, 1, ..., as
            text. Of a table, columns has the columns' names and column_error [rows, columns] what
            each adds to the row's error (`row_errors.by_column`).
        more: further arrays [rows, ...] by name.

    Raises:
        InputError: a model without encode and decode, rows that cannot be read, or of which none
            has a finite code.
    """
    need_autoencoder(model.run, "launch.encode")
    preparation = model.preparation

    def run(module: Any, raw: jax.Array, mask: jax.Array | None) -> dict[str, jax.Array]:
        x = preparation(raw)
        z = module.encode(x, mask)
        decoded = module.decode(z, mask)
        measured = {"x": preparation.measured(x), "decoded": preparation.measured(decoded)}
        return {"z": z, "reconstruction": preparation.inverse(decoded), **measured}

    columns = [column.name for column in source.spec.columns]
    kept = collections.defaultdict[str, list[np.ndarray]](list)
    shape = (len(source), *source.spec.shape)
    with files.atomic(out) as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open("reconstruction.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for batch in stream(model, source, run):
                z, decoded = (
                    np.array(batch.values[name], np.float32) for name in ("z", "reconstruction")
                )
                real = real_elements(batch.rows)
                finite = np.isfinite(decoded.reshape(real.shape)) | (real == 0)
                lost = ~(finite.all(axis=1) & np.isfinite(z.reshape(len(z), -1)).all(axis=1))
                z[lost] = decoded[lost] = np.nan
                member.write(np.ascontiguousarray(decoded, "<f4").tobytes())
                x, decoded = (batch.values[name].astype(np.float64) for name in ("x", "decoded"))
                error = x != decoded if are_symbols(model) else np.square(x - decoded)
                error = error.reshape(real.shape)
                if columns:
                    by = by_column(error, real, source.spec)
                    kept["column_error"].append(np.where(lost[:, None], np.nan, by))
                error = np.average(error, axis=1, weights=real)
                kept["error"].append(np.where(lost, np.nan, error))
                kept["z"].append(z)
                for name in source.spec.numbers:
                    kept[name].append(getattr(batch.rows, name))
        arrays = {name: np.concatenate(batches) for name, batches in kept.items()}
        lost = np.flatnonzero(np.isnan(arrays["error"]))
        if len(lost) == len(source):
            raise InputError(f"none of the {len(source)} rows gave a finite code")
        arrays |= {"index": np.arange(len(source)), **(more or {})}
        if (called := names(source, arrays["index"])) is not None:
            arrays["file"] = np.array(called)
        if (rows := file_rows(source)) is not None:
            arrays["file_row"] = rows
        if columns:
            arrays["columns"] = np.array(columns)
        if source.spec.classes:
            arrays["classes"] = np.array(source.spec.classes)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    error = float(np.delete(arrays["error"], lost).mean())
    return Encoded(error, lost, names(source, lost), columns, arrays.get("column_error"))
