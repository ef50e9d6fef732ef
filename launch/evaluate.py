"""Evaluates checkpoints: numbers, pictures and a report, from the run's folder alone.

    python -m launch.evaluate --workdir=runs/dense
    python -m launch.evaluate --workdir=runs/dense --step=best --tasks=reconstruction
    python -m launch.evaluate --workdir=runs/dense --follow
    python -m launch.evaluate --workdir=runs/dense --source=images:pictures
    python -m launch.evaluate --workdir=runs/variational --tasks=likelihood --split=test[:1000]

Rows of another --source have the options of the run's own source where they are of the same kind
and do not give them, so that pictures of any size will do.

Tasks: reconstruction (cross-entropy, squared error, PSNR, SSIM, pictures); latent (codes.npz and
what the codes look like, on --maps=pca,tsne); pca (a linear model beside the principal components);
likelihood (log p(x) of a variational model by --samples importance samples a row, and its bound);
probe (error of logistic regression on the codes, fitted to the split --train); generate (what the
decoder makes of codes of the prior and of a mixture of --components normals, its Frechet distance
to real rows, and pictures of codes between rows and of single numbers); cluster (k-means on codes,
principal components and pixels against the labels, in --clusters clusters); denoise (PSNR and SSIM
of reconstructions of noisy images, beside filters); anomaly (how strange each row is, by several
scores, and a threshold at the rate of --false_alarms); compress (codes as bytes beside JPEG, WebP
and AVIF); rbm (log p(x) of a restricted Boltzmann machine, with log Z by --chains of annealed
importance sampling over --temperatures, exact for a small one; samples and weights); classify (the
errors of a classifier with their interval, by class, and its worst rows).

Everything is written to the run's folder: evaluation.json keeps the numbers of every step that was
evaluated; report.html, figures/*.png and codes.npz are those of the last one. The averaged (EMA)
parameters are taken where the run keeps them.

With --follow it waits beside a training that runs, evaluates each checkpoint once, and ends with
the run (exit code 0) or on Ctrl-C (75: start me again).
"""

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from absl import flags

from aejax.errors import InputError
from launch import program

_OPTIONS = (  # of tasks
    "samples",
    "train",
    "clusters",
    "components",
    "chains",
    "temperatures",
    "maps",
    "normal",
    "score",
    "false_alarms",
    "bits",
)

flags.DEFINE_string("workdir", "", "The run's folder, such as runs/dense.")
flags.DEFINE_list("parts", [], "Classes of your own parts, PACKAGE:CLASS, that a folder names.")
flags.DEFINE_string("step", "latest", "The checkpoint: a step, latest, or best.")
flags.DEFINE_list(
    "tasks",
    None,
    "What to evaluate, in this order. Default: reconstruction,latent, or of a classifier classify.",
)
flags.DEFINE_bool("follow", False, "Evaluate every new checkpoint until the run is complete.")
flags.DEFINE_string("source", "", "Rows to evaluate on, such as images:FOLDER; empty: the run's.")
flags.DEFINE_string(
    "split", "", "Their split; empty: the run's test split, or all rows of another source."
)
flags.DEFINE_string("folder", "", "TFDS's data folder; empty: the run's.")
flags.DEFINE_integer("samples", None, "Samples a row of the task likelihood; 5000 without it.")
flags.DEFINE_integer(
    "clusters", None, "Clusters of the task cluster; as many as classes without it."
)
flags.DEFINE_integer(
    "components", None, "Normals in the mixture of the task generate; 10 without it."
)
flags.DEFINE_integer("chains", None, "Chains that the task rbm anneals; 100 without it.")
flags.DEFINE_integer(
    "temperatures", None, "Temperatures of the task rbm; 1000 without it, 14500 as published."
)
flags.DEFINE_string("maps", "", "Maps that the task latent draws: pca (without it), tsne.")
flags.DEFINE_string("train", "", "Split that the task probe fits; empty: the run's, or train.")
flags.DEFINE_string(
    "normal", "", "Labels (3,5) or classes (ok) normal to anomaly; empty: the run's."
)
flags.DEFINE_integer("bits", None, "A step of compress's own: range of codes / 2^bits.")
flags.DEFINE_string("score", "", "Of anomaly's threshold: error, mahalanobis, knn or elbo.")
flags.DEFINE_float("false_alarms", None, "Rate that anomaly's threshold keeps; 0.05 without it.")


def main(argv: list[str]) -> int:
    del argv
    given = flags.FLAGS
    if not given.workdir:
        raise InputError("--workdir is missing: the run's folder, such as runs/dense")
    program.use_parts(given.parts)
    if given.follow and given.step != "latest":
        raise InputError(f"--step={given.step}: --follow evaluates every step; give one of them")

    stop = _stop_request() if given.follow else None

    from aejax.cluster import STOPPED, Stopped
    from aejax.evaluation import checkpoints

    rows = (given.source, given.split, given.folder)
    options = {name: given[name].value for name in _OPTIONS}
    asked = checkpoints.check_request(given.workdir, given.tasks, *rows, **options)
    if stop is None:
        step = int(given.step) if given.step.isdecimal() else given.step
        asked = dataclasses.replace(asked, watch=_watched)
        checkpoints.evaluate_request(asked, step, _say)
    else:
        try:
            count = checkpoints.follow(asked, _say, stop=stop)
        except Stopped:
            return STOPPED
        _say(f"the run is complete; {count} checkpoints were evaluated")
    _say(f"report: {given.workdir.rstrip('/')}/{checkpoints.REPORT}")
    return 0


def _watched(tasks: Sequence[str]) -> Iterator[str]:
    """The tasks one after the other: a bar on a terminal, in a log a line for each that has ended.

    Both go to stderr.
    """
    from tqdm import tqdm

    with tqdm(tasks, unit=" tasks", leave=False, disable=None) as bar:
        for name in bar:
            bar.set_description(name)
            started = time.perf_counter()
            yield name
            if bar.disable:
                seconds = time.perf_counter() - started
                print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)


def _stop_request() -> Callable[[], bool]:
    """Whether Ctrl-C or SIGTERM has come; a second one ends the process at once.

    Python's own KeyboardInterrupt can strike while a checkpoint is read, and leave a process
    behind that waits for its reader's threads.
    """
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        if asked:
            os._exit(128 + number)
        asked.append(number)
        os.write(2, b"\nstopping after this checkpoint (Ctrl-C again ends at once)\n")

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    return lambda: bool(asked)


def _say(line: str) -> None:
    print(line, flush=True)  # a follower's output is often a file


if __name__ == "__main__":
    program.run(main)
