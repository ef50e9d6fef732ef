"""Exports a checkpoint of a run's folder: a folder of files that other programs read."""

import importlib.util
import os
from collections.abc import Callable, Sequence

import jax
from flax import nnx

from aejax import files
from aejax.errors import InputError, near
from aejax.evaluation import detector
from aejax.evaluation.result import need_autoencoder
from aejax.exporting import FORMATS, card
from aejax.exporting.functions import Classification, Functions, RowFunctions, check_detector
from aejax.runs import folder
from aejax.runs.loading import Model, load

FOLDER = "export"
_MOST_BYTES = 2**31  # the limit of Protocol Buffers and FlatBuffers for one file


def export(
    workdir: str,
    to: Sequence[str] = ("stablehlo",),
    step: int | str = "latest",
    out: str = "",
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> str:
    """Writes a checkpoint as files that need no aejax, beside a model card.

    Args:
        workdir: the run's folder.
        to: formats: stablehlo, onnx, safetensors.
        step: a number, "latest" or "best".
        out: the folder to write; "" for `export` in the run's folder.
        overwrite: replace a folder that an export has written.
        say: prints a line.

    Returns:
        The folder.

    Raises:
        InputError: an unknown format or a missing package, no such run or step, a model that cannot
            be exported or is too large, or a folder that exists already.
    """
    check_formats(to)
    run = folder.read(workdir)
    if not run.config.model.classes:
        need_autoencoder(run, f"--to={','.join(to)}")
    if run.spec.padded:
        raise InputError(
            f"--workdir={workdir}: its rows have a length each; export takes rows of one length"
        )
    place = folder.path(out) if out else folder.path(workdir, FOLDER)
    check_place(place, f"--out={out or place}", overwrite)
    model = load(workdir, step, say)
    check_size(model, to)
    functions = functions_of(workdir, model)
    formats = [FORMATS[name] for name in dict.fromkeys(to)]
    contents: dict[str, str | bytes] = {}
    for each in formats:
        contents |= each.build(functions)
    contents[card.FILE] = card.card(
        workdir, functions, [each.loading(functions) for each in formats]
    )
    files.write_folder(place, contents)
    return place


def functions_of(workdir: str, model: Model) -> RowFunctions:
    """The functions of a run's model, with the threshold that its folder keeps.

    Raises:
        InputError: a threshold of other parameters, or of a score that is drawn.
    """
    if model.run.config.model.classes:
        return Classification(model)
    kept = detector.read(workdir, model, f"--workdir={workdir}")
    check_detector(workdir, kept)
    return Functions(model, kept)


def check_formats(to: Sequence[str]) -> None:
    """Raises InputError for unknown formats, or whose packages are not installed."""
    if not to:
        raise InputError(f"--to is empty; accepted: {', '.join(FORMATS)}")
    for name in to:
        if name not in FORMATS:
            raise InputError(
                f"--to={','.join(to)}: there is no format {name!r}; accepted:"
                f" {', '.join(FORMATS)}{near(name, FORMATS)}"
            )
        for package in FORMATS[name].packages:
            if importlib.util.find_spec(package) is None:
                raise InputError(
                    f"--to={name}: needs the package {package}: pip install 'aejax[export]'"
                )


def check_size(model: Model, to: Sequence[str]) -> None:
    """Raises InputError for parameters that a format cannot hold."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model.module)))
    small = [name for name in to if name != "safetensors"]
    if small and size >= _MOST_BYTES:
        raise InputError(
            f"--to={','.join(small)}: the parameters take {size / 2**20:.0f} MiB; must be below"
            f" {_MOST_BYTES / 2**20:.0f} MiB, or --to=safetensors"
        )


def check_place(place: str, setting: str, overwrite: bool) -> None:
    """Raises InputError if a folder cannot be written, or holds anything but an export."""
    if not os.path.lexists(place):
        there = os.path.dirname(place)
        while not os.path.lexists(there):
            there = os.path.dirname(there)
        if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
            raise InputError(f"{setting}: the folder {there} may not be written to")
        return
    if not os.path.isdir(place):
        raise InputError(f"{setting}: is a file; must be a folder")
    own = {card.FILE, *(name for each in FORMATS.values() for name in each.files)}
    there = os.listdir(place)
    if others := set(there) - own:
        raise InputError(f"{setting}: holds {min(others)}, which no export wrote; use another")
    if there and not overwrite:
        raise InputError(f"{setting}: exists; give --overwrite to replace it")
