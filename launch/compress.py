"""Compresses rows with a checkpoint into one file, and back.

    python -m launch.compress --workdir=runs/dense --source=images:FOLDER --out=rows.aejax
    python -m launch.compress --workdir=runs/dense --decompress=rows.aejax --out=rows.npz

The file holds quantised codes, entropy-coded; --bits chooses their step. It takes the table that
`launch.evaluate --tasks=compress` left in the run's folder, and is read by the same checkpoint
alone. The .npz file has x: uint8 [rows, height, width, channels] of images, float32
[rows, samples] in -1 to 1 of sound.
"""

import os

from absl import flags

from aejax.errors import InputError
from launch import program

flags.DEFINE_string("workdir", "", "The run's folder, such as runs/dense.")
flags.DEFINE_list("parts", [], "Classes of your own parts, PACKAGE:CLASS, that a folder names.")
flags.DEFINE_string("step", "latest", "The checkpoint: a step, latest, or best.")
flags.DEFINE_string("source", "", "The rows, such as images:FOLDER; empty: the run's own.")
flags.DEFINE_string("split", "", "Their split; empty: all, or the test split of the run's own.")
flags.DEFINE_string("decompress", "", "A compressed file to read, in place of rows.")
flags.DEFINE_integer("bits", 4, "The step: the range of training codes over 2^bits, 1 to 12.")
flags.DEFINE_string("out", "", "The file to write.")
flags.DEFINE_bool("overwrite", False, "Replace the file if it exists.")


def main(argv: list[str]) -> None:
    del argv
    given = flags.FLAGS
    if not given.workdir:
        raise InputError("--workdir is missing: the run's folder, such as runs/dense")
    program.use_parts(given.parts)
    if not given.out:
        raise InputError("--out is missing: the file to write, such as rows.aejax")
    if os.path.exists(given.out) and not given.overwrite:
        raise InputError(f"--out={given.out}: exists; give --overwrite to replace it")
    if given.decompress and not given.out.endswith(".npz"):
        raise InputError(f"--out={given.out}: must be a file that ends in .npz, such as rows.npz")

    import math

    import numpy as np

    from aejax import files
    from aejax.evaluation import compress
    from aejax.evaluation.rows import choose_rows, rescaled
    from aejax.runs import folder
    from aejax.runs.loading import load

    compress.check_bits(given.bits)
    run = folder.read(given.workdir)
    data = _bytes(given.decompress) if given.decompress else b""
    codes = _table(folder.path(given.workdir, compress.ARRAYS), given.workdir)
    step = int(given.step) if given.step.isdecimal() else given.step
    if given.decompress:
        model = load(given.workdir, step)
        found = compress.coder(model, codes).read(given.decompress, data)
        files.write_arrays(given.out, {"x": compress.decoded(model, found)})
        print(f"{len(found)} rows of {given.decompress}; {given.out}")
        return
    rows = choose_rows(run, given.source, given.split)
    spec = rows.source.spec
    compress.check(run, spec)
    model = rescaled(load(given.workdir, step), spec)
    coder = compress.coder(model, codes)
    count, size = len(rows.source), 1000
    z = [model.encode(rows.source[slice(i, i + size)].x) for i in range(0, count, size)]
    data = coder.write(np.concatenate(z).reshape(count, -1), coder.step(given.bits))
    files.write(given.out, data)
    what, elements = ("sample", spec.shape) if spec.rate else ("pixel", spec.shape[:2])
    rate = 8 * len(data) / (count * math.prod(elements))
    print(f"{count} rows in {len(data)} bytes, {rate:.4g} bits a {what}; {given.out}")


def _bytes(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"--decompress={name}: {error.strerror}") from None


def _table(name: str, workdir: str):
    """Training codes that `--tasks=compress` kept."""
    import numpy as np

    advice = f"python -m launch.evaluate --workdir={workdir} --tasks=compress writes it"
    try:
        with np.load(name) as arrays:
            return arrays["codes"]
    except FileNotFoundError:
        raise InputError(f"{name} is missing; {advice}") from None
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise InputError(f"{name}: damaged ({error}); {advice}") from None


if __name__ == "__main__":
    program.run(main)
