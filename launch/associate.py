"""Tests which associations an encoder has learned between sets of images (iEAT).

    python -m launch.associate --workdir=runs/images --stimuli=FOLDER --tests=tests.json --out=bias
    python -m launch.associate --embeddings=codes.npz --tests=tests.json --out=bias

tests.json names for each test two sets of targets and two of attributes, as {"Insect-Flower":
["flower", "insect", "pleasant", "unpleasant"]}. With --workdir a set is a folder of pictures below
--stimuli, which the run's encoder turns into codes. With --embeddings it is an array of an .npz
file, [images, numbers], with __ in its name for /, or the rows of a .csv file whose column
`category` has its name: embeddings of any encoder.

The folder --out gets association.csv (effect size d, one-sided p, p adjusted for the number of
tests), association.json and report.html. p is exact where there are at most 10,000 partitions, else
from 9,999 drawn ones.
"""

import os

from absl import flags

from aejax.errors import InputError
from launch import program

flags.DEFINE_string("tests", "", "A JSON file, {NAME: [X, Y, A, B]}.")
flags.DEFINE_string("embeddings", "", "An .npz or a .csv file with the embeddings of each set.")
flags.DEFINE_string("workdir", "", "A run's folder, whose encoder gives the embeddings.")
flags.DEFINE_list("parts", [], "Classes of your own parts, PACKAGE:CLASS, that a folder names.")
flags.DEFINE_string("step", "latest", "The run's checkpoint: a step, latest, or best.")
flags.DEFINE_string("stimuli", "", "A folder with a folder of pictures for each set.")
flags.DEFINE_string("out", "", "The folder to write to.")
flags.DEFINE_integer("seed", 0, "Of the partitions, where these are drawn.", lower_bound=0)


def main(argv: list[str]) -> None:
    del argv
    given = flags.FLAGS
    for name in ("tests", "out"):
        if not given[name].value:
            raise InputError(f"--{name} is missing; see --help")
    if bool(given.embeddings) == bool(given.workdir):
        raise InputError("--embeddings and --workdir: give one of them")
    if bool(given.workdir) != bool(given.stimuli):
        raise InputError("--stimuli: is for --workdir, which needs it")
    program.use_parts(given.parts)
    program.check_folder(given.out)

    from aejax.evaluation import association, association_report

    tests = association.read_tests(given.tests)
    if given.embeddings:
        found = association.read_embeddings(given.embeddings)
        where = f"--embeddings={given.embeddings}"
    else:
        step = int(given.step) if given.step.isdecimal() else given.step
        names = sorted({name for sets in tests.values() for name in sets})
        found = association_report.encode_stimuli(given.workdir, step, given.stimuli, names)
        where = f"--stimuli={given.stimuli}"
    for sets in tests.values():  # all that is missing is said before anything is tested
        for name in sets:
            association.category(found, where, name)
    results = association.run_tests(tests, found.__getitem__, given.seed)
    encoder = given.embeddings or f"{given.workdir}, step {given.step}"
    print(association_report.write(given.out, encoder, tests, results))
    print(f"report: {os.path.join(given.out, 'report.html')}")


if __name__ == "__main__":
    program.run(main)
