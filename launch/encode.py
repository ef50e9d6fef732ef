"""Runs a checkpoint over your own rows: codes, reconstructions and errors in one .npz file.

    python -m launch.encode --workdir=runs/dense --source=images:FOLDER --out=codes.npz

Rows must have the shape and type of those that the run was trained on. A source of the same kind as
the run's has its options (as ?size=64&fit=crop) where it does not give its own, so that pictures of
any size will do; pictures become greyscale or RGB as the run's are.

The file holds z [rows, latent], reconstruction [rows, ...], error [rows] (mean squared error of
each row), index [rows] (the row's number in its split; pictures are in the order of their paths),
file_row [rows] (its number in the file from which the split is drawn, from 0; a table's header is
not counted), file [rows] (pictures and recordings: their paths below the folder), label [rows]
where the source has labels, and classes (their names). Of a table, columns has the columns' names
and column_error [rows, columns] what each adds to the row's error: a row's sum is its error.
Reconstructions and errors are in [0, 1] where the run scales its data. With --flag, score [rows]
and flagged [rows] are by the threshold that `launch.evaluate --tasks=anomaly` left in the run's
folder; of a table's flagged rows the two columns with most error are printed. Rows that give no
finite code have NaN, and are told of.
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
flags.DEFINE_string("folder", "", "TFDS's data folder; empty: the run's.")
flags.DEFINE_string("out", "", "The file to write, such as codes.npz.")
flags.DEFINE_bool("flag", False, "Add each row's score, and whether it is above the threshold.")
flags.DEFINE_bool("overwrite", False, "Replace the file if it exists.")

_NAMED = 5


def main(argv: list[str]) -> None:
    del argv
    given = flags.FLAGS
    if not given.workdir:
        raise InputError("--workdir is missing: the run's folder, such as runs/dense")
    program.use_parts(given.parts)
    _check_out(given.out, given.overwrite)

    from aejax.evaluation.detector import flagged, why_flagged
    from aejax.evaluation.encode import encode
    from aejax.evaluation.rows import choose_rows, rescaled
    from aejax.evaluation.symbols import are_symbols
    from aejax.runs import folder
    from aejax.runs.loading import load

    rows = choose_rows(folder.read(given.workdir), given.source, given.split, given.folder)
    step = int(given.step) if given.step.isdecimal() else given.step
    model = load(given.workdir, step)
    kind = "share of wrong symbols" if are_symbols(model) else "mean squared error"
    model, more = rescaled(model, rows.source.spec), {}
    if given.flag:
        more = flagged(given.workdir, model, rows.source)
    encoded = encode(model, rows.source, given.out, more)
    print(
        f"{len(rows.source)} rows of {rows.name}, split {rows.split}, with step {model.step}"
        f" ({'EMA' if model.averaged else 'no EMA'}): {kind} {encoded.error:.5g}; {given.out}"
    )
    if more:
        print(f"{int(more['flagged'].sum())} of {len(rows.source)} rows are flagged")
    if more and encoded.column_error is not None:
        for line in why_flagged(rows.source, more, encoded.columns, encoded.column_error):
            print(line)
    if count := len(encoded.lost):
        named = (encoded.names or list(map(str, encoded.lost)))[:_NAMED]
        print(
            f"{count} of {len(rows.source)} rows gave no finite code and have NaN:"
            f" {'row ' * (encoded.names is None)}{', '.join(named)}{', ...' * (count > _NAMED)}"
        )


def _check_out(out: str, overwrite: bool) -> None:
    """Refuses a file that cannot be written, before anything is read."""
    if not out.endswith(".npz"):
        raise InputError(f"--out={out}: must be a file that ends in .npz, such as codes.npz")
    place = os.path.dirname(out) or os.curdir
    if not os.path.isdir(place):
        raise InputError(f"--out={out}: there is no folder {place}")
    if not os.access(place, os.W_OK):
        raise InputError(f"--out={out}: the folder {place} may not be written to")
    if os.path.isdir(out):
        raise InputError(f"--out={out}: is a folder; must be a file")
    if os.path.exists(out) and not overwrite:
        raise InputError(f"--out={out}: exists; give --overwrite to replace it")


if __name__ == "__main__":
    program.run(main)
