"""Runs a checkpoint over rows and keeps codes, reconstructions and errors in one .npz file."""

import zipfile
from typing import Any

import jax
import numpy as np

from aejax import files
from aejax.data.sources.base import Source
from aejax.evaluate.result import need
from aejax.evaluate.rows import real_elements, stream
from aejax.evaluate.symbols import are_symbols
from aejax.loading import Model


def encode(model: Model, source: Source, out: str) -> float:
    """Writes z, reconstruction, error, index and, where there are any, label and length.

    Reconstructions go to the file as they come, so that memory holds some rows and the codes.

    Args:
        model: `rows.fitted` to the source.
        source: rows of the model's shape.
        out: the file; it gets its name once it is whole. z [rows, latent] and reconstruction
            [rows, *shape] are float32, the latter in units after `preparation.undo`, as is error
            [rows], the mean squared error of each row's elements (of symbols, the share that is
            wrong), padding left out; index [rows] is a row's number.

    Returns:
        The mean error.

    Raises:
        InputError: a model without encode and decode, or rows that cannot be read.
    """
    need(model.module, ("encode", "decode"), "launch.encode")
    preparation = model.preparation

    def run(module: Any, raw: jax.Array, mask: jax.Array | None) -> dict[str, jax.Array]:
        x = preparation(raw)
        z = module.encode(x, mask)
        made = preparation.undo(module.decode(z, mask))
        return {"z": z, "reconstruction": made, "x": preparation.undo(x)}

    kept: dict[str, list[np.ndarray]] = {"z": [], "error": [], "label": [], "length": []}
    shape = (len(source), *source.spec.shape)
    with files.atomic(out) as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open("reconstruction.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for piece in stream(model, source, run):
                made = piece.values["reconstruction"]
                member.write(np.ascontiguousarray(made, "<f4").tobytes())
                x = piece.values["x"].astype(np.float64)
                error = x != made if are_symbols(model) else np.square(x - made)
                real = real_elements(piece.rows)
                kept["error"].append(np.average(error.reshape(real.shape), axis=1, weights=real))
                kept["z"].append(piece.values["z"])
                for name in source.spec.numbers:
                    kept[name].append(getattr(piece.rows, name))
        arrays = {name: np.concatenate(pieces) for name, pieces in kept.items() if pieces}
        arrays["index"] = np.arange(len(source))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return float(arrays["error"].mean())
