"""Writes a checkpoint as files that other programs read without aejax, beside a model card.

    python -m launch.export --workdir=runs/dense --to=stablehlo,onnx,safetensors

stablehlo: `model.stablehlo`, functions for JAX. onnx: `model.onnx` and `decoder.onnx`. safetensors:
`model.safetensors`, parameters by name with the settings. The files take raw rows, as the run's
source stores them, in any number; what prepares them is inside. They give codes, reconstructions,
a score of how strange each row is, and whether it is above the threshold that
`launch.evaluate --tasks=anomaly` left in the run's folder; those of a classifier, codes and the
probability of each class. `card.md` says what the model is and how each file is read.
"""

from absl import flags

from aejax.errors import InputError
from launch import program

flags.DEFINE_string("workdir", "", "The run's folder, such as runs/dense.")
flags.DEFINE_list("parts", [], "Classes of your own parts, PACKAGE:CLASS, that a folder names.")
flags.DEFINE_string("step", "latest", "The checkpoint: a step, latest, or best.")
flags.DEFINE_list("to", ["stablehlo"], "Formats: stablehlo, onnx, safetensors.")
flags.DEFINE_string("out", "", "The folder to write; empty: export in the run's folder.")
flags.DEFINE_bool("overwrite", False, "Replace a folder that an export has written.")


def main(argv: list[str]) -> None:
    del argv
    given = flags.FLAGS
    if not given.workdir:
        raise InputError("--workdir is missing: the run's folder, such as runs/dense")
    program.use_parts(given.parts)

    from aejax.exporting.run import export

    step = int(given.step) if given.step.isdecimal() else given.step
    place = export(given.workdir, given.to, step, given.out, given.overwrite)
    print(f"{', '.join(given.to)} and card.md in {place}")


if __name__ == "__main__":
    program.run(main)
