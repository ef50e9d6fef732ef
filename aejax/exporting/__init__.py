"""Export of a trained model as files for other programs, with a model card."""

import dataclasses
from collections.abc import Callable

from aejax.exporting import onnx_model, stablehlo, tensors
from aejax.exporting.functions import Functions

__all__ = ["FORMATS", "Format"]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        build: the functions of a run -> {file name: contents}.
        packages: packages that it needs.
        files: names of all files that it may write.
        loading: Markdown that says how to read its files without aejax.
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
