"""Searches for the layout of a transformer autoencoder: which slots need attention.

    python -m launch.search --config=search_par --workdir=runs/search_par
    python -m launch.search --list                          the searches, a line each
    python -m launch.search --config=search_plant --config.run.seed=3

The folder holds the supernet, the parent, the library of blocks and every layout as runs of their
own (each can be evaluated with launch.evaluate), layouts.json and report.html. The same command
again goes on where it was; processes on one file system that are started with it share the runs.
Ctrl-C and SIGTERM save first, and exit code 75 then says: start me again. Bad input is one line and
exit code 2.
"""

import os
import sys

from launch.early import stop_at_once
from launch.pages import huge_pages

if __name__ == "__main__":
    huge_pages()
    stop_at_once()

from absl import flags  # noqa: E402

from aejax.search.settings import Search, check_search  # noqa: E402
from launch import program  # noqa: E402
from launch.flags import Program, parse  # noqa: E402

flags.DEFINE_string("workdir", None, "The search's folder. Default: runs/PRESET.")
flags.DEFINE_string("parts", "", "Classes of your own parts, PACKAGE:CLASS, that a folder names.")
flags.DEFINE_bool("list", False, "Print the presets, a line each; then stop.")
flags.DEFINE_bool("download", False, "Let TFDS download a data set that is missing.")

SEARCH = Program(
    Search,
    "aejax.search.Search",
    check_search,
    "search_plant",
    "launch.search",
    (
        "run.data.source",
        "method",
        "run.duration",
        "supernet.duration",
        "run.batch_size",
        "price",
        "seeds",
        "run.seed",
    ),
)


def main(argv: list[str]) -> int | None:
    """Searches as the flags say; returns the exit code."""
    del argv
    settings, workdir = flags.FLAGS.config, flags.FLAGS.workdir
    program.check_folder(workdir)
    from aejax import cluster

    cluster.configure_jax(settings.run.deterministic, settings.run.compilation_cache)
    stop = cluster.StopRequest().install()
    from aejax.search import report
    from aejax.search.run import search

    found = search(settings, workdir, stop=stop, download=flags.FLAGS.download)
    if found is None:
        print("stopped, everything is saved; the same command goes on", file=sys.stderr, flush=True)
        os._exit(cluster.STOPPED)
    print(report.text(found))
    print(f"report: {report.write(workdir, settings, found)}")
    return None


if __name__ == "__main__":
    program.run(main, lambda argv: parse(argv, SEARCH))
