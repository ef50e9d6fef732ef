"""Writes a source as a TFDS data set that is read without TensorFlow (ArrayRecord).

    python -m launch.prepare --from=idx:FOLDER --name=mnist [--folder=DATA_FOLDER]

All its splits are written, in their order; sources without splits of their own are cut into train
(90 %) and test (10 %). Afterwards `tfds:mnist` reads the same rows, bit for bit, and so does
`tfds.builder_from_directory(FOLDER).as_data_source()`.
"""

import re
import shlex

from absl import flags

from aejax.data.sources import FORMS, open_splits, tfds_writer
from aejax.data.sources.splits import WHOLE
from aejax.errors import InputError
from launch import program

flags.DEFINE_string("from", "", f"The source: {', '.join(FORMS)}.")
flags.DEFINE_string("name", "", "Name of the data set to write: small letters, digits, _.")
flags.DEFINE_string("folder", "", "TFDS's data folder; empty for its default.")
flags.DEFINE_bool("download", False, "Let TFDS fetch a tfds:NAME that is missing.")


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS.flag_values_dict()
    text, name, folder = values["from"], values["name"], values["folder"]
    if not text:
        raise InputError(f"--from is missing; accepted: {', '.join(FORMS)}")
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise InputError(f"--name={name}: accepted: small letters, digits and _, from a letter on")
    tfds_writer.check_new(name, folder)
    splits = open_splits(text, folder, values["download"], setting="--from")
    sources = {split: read() for split, read in splits.items() if split != WHOLE}
    written = tfds_writer.write(sources, name, folder)
    for split, rows in written.rows.items():
        print(f"{split}: {rows:,} rows")
    print(f"{written.size:,} bytes in {written.path}")
    place = f" --config.data.folder={shlex.quote(folder)}" if folder else ""
    print(f"train on it with: python -m launch.train --config.data.source=tfds:{name}{place}")


if __name__ == "__main__":
    program.run(main)
