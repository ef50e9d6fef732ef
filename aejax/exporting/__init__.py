"""Export of a trained model as files for other programs, with a model card."""

import dataclasses
from collections.abc import Callable

from aejax.exporting import onnx_model, stablehlo, tensors
from aejax.exporting.functions import RowFunctions

__all__ = ["FORMATS", "Format"]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        build: the functions of a run -> {file name: contents}.
        packages: packages that it needs.
        files: names of all files that it may write.
        loading: the functions of a run -> Markdown that says how to read its files without aejax.
    """

    build: Callable[[RowFunctions], dict[str, bytes]]
    packages: tuple[str, ...]
    files: tuple[str, ...]
    loading: Callable[[RowFunctions], str]


FORMATS = {
    "stablehlo": Format(stablehlo.build, ("flatbuffers",), (stablehlo.FILE,), stablehlo.loading),
    "onnx": Format(
        onnx_model.build, ("onnx",), (onnx_model.FILE, onnx_model.DECODER), onnx_model.loading
    ),
    "safetensors": Format(tensors.build, ("safetensors",), (tensors.FILE,), tensors.loading),
}
