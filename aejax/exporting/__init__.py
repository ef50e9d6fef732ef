"""A trained model as files that other programs read, and a card that says what it is."""

import dataclasses
from collections.abc import Callable

from aejax.exporting import onnx_model, stablehlo, tensors
from aejax.exporting.functions import Functions

__all__ = ["FORMATS", "Format"]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        build: the functions of a run -> {file name: what it holds}.
        packages: what has to be installed to write it.
        files: names of all that it may write.
        loading: Markdown that says how its files are read without aejax.
    """

    build: Callable[[Functions], dict[str, bytes]]
    packages: tuple[str, ...]
    files: tuple[str, ...]
    loading: str


FORMATS = {
    "stablehlo": Format(stablehlo.build, ("flatbuffers",), (stablehlo.FILE,), stablehlo.LOADING),
    "onnx": Format(
        onnx_model.build, ("onnx",), (onnx_model.FILE, onnx_model.DECODER), onnx_model.LOADING
    ),
    "safetensors": Format(tensors.build, ("safetensors",), (tensors.FILE,), tensors.LOADING),
}
