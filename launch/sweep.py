"""Trains a run for each combination of some settings' values, and compares them.

    python -m launch.sweep --config=dense --sweep='model.latent_dim=32,16,8' --sweep='seed=0,1,2,3'
    python -m launch.sweep --config=deep --sweep='model.coder.hidden=(256,64),(128)' --tasks=probe
    python -m launch.sweep --config=deep --sweep='data.keep_labels=0,1,2' --tasks=anomaly
    python -m launch.sweep --sweep='model.latent_dim=32,16' --index=$SLURM_ARRAY_TASK_ID
    python -m launch.sweep --sweep='model.latent_dim&model.coder.hidden=8&(64,),32&(256,)'
    python -m launch.sweep --sweep='optimizer.learning_rate=log:1e-4..1e-2' --trials=20

Values are those that --config.NAME takes, with commas between; a value with a comma of its own
stands in parentheses. Settings whose names are joined by & change together: their values are joined
in the same way. Each run is evaluated with --tasks (launch.evaluate).

The folder holds the runs, sweep.json, and report.html with a table (mean and deviation over seeds),
curves beside PCA's, learning curves and the row of reconstructed images of each size. Learning
curves are of --config.evaluation.metric, or of --curve=TERM, any term of metrics.jsonl; curves.csv
has their numbers. Where runs have stages (--config.pretrain), a table has the seconds of each.

The same command again goes on where it was, and trains nothing twice. Processes on one file system
that are started with the same command share the runs; the last one to end writes the report. With
--index it trains one run, for a job array.

With --trials settings may have a range, LOW..HIGH, log:LOW..HIGH or int:LOW..HIGH, and Optuna
chooses the values of each trial by the best test value of --config.evaluation.metric.
"""

import os
import sys

from launch.early import stop_at_once
from launch.pages import huge_pages

if __name__ == "__main__":
    huge_pages()
    stop_at_once()

import dataclasses  # noqa: E402

from absl import flags  # noqa: E402

from aejax.errors import InputError  # noqa: E402
from aejax.sweeps import cells  # noqa: E402
from launch import program  # noqa: E402
from launch.flags import PREFIX, TRAIN, config_of, parse  # noqa: E402

SWEEP = dataclasses.replace(TRAIN, parent="sweeps")

flags.DEFINE_string("workdir", None, "The sweep's folder. Default: sweeps/PRESET.")
flags.DEFINE_multi_string(
    "sweep", [], "SETTING=VALUE,VALUE,... or A&B=1&x,2&y; several, for a grid."
)
flags.DEFINE_list(
    "tasks",
    None,
    "Evaluates each run with these tasks; may be empty. Default: reconstruction, or of a classifier"
    " classify.",
)
flags.DEFINE_string(
    "curve", "", "Learning curves of this term of metrics.jsonl. Default: config.evaluation.metric."
)
flags.DEFINE_integer("index", None, "Train this run alone, from 0.")
flags.DEFINE_integer("trials", None, "Trials of an adaptive search, by Optuna.", lower_bound=1)
flags.DEFINE_string("parts", "", "Classes of your own parts, PACKAGE:CLASS, that a folder names.")
flags.DEFINE_bool("list", False, "Print the presets, a line each; then stop.")
flags.DEFINE_bool("download", False, "Let TFDS download a data set that is missing.")


def main(argv: list[str]) -> int | None:
    """Sweeps as the flags say; returns the exit code."""
    given = flags.FLAGS
    del argv
    grid = dict(cells.split_values(text) for text in given.sweep)
    if len(grid) < len(given.sweep):
        raise InputError("--sweep: a setting stands twice; must stand once, with all of its values")
    program.check_folder(given.workdir)
    from aejax import cluster

    config = given.config
    cluster.configure_jax(config.deterministic, config.compilation_cache)
    stop = cluster.StopRequest().install()
    from aejax.sweeps import report, study
    from aejax.sweeps.run import SweepFolder, default_tasks, run_cells

    def make_config(values: dict[str, str]):
        return config_of(
            [*sys.argv[1:], *(f"{PREFIX}{name}={text}" for name, text in values.items())]
        )

    tasks = given.tasks
    tasks = default_tasks(config) if tasks is None else [task for task in tasks if task]
    options = {"download": given.download, "curve": given.curve}
    job = SweepFolder(given.workdir, tasks, stop=stop, **options)
    try:
        if given.trials is not None:
            if given.index is not None:
                raise InputError(f"--index={given.index}: is for grids, without --trials")
            found = study.search(job, grid, make_config, given.trials)
        else:
            found = run_cells(job, cells.cells(grid, make_config), given.index, leave=True)
    except cluster.Stopped:
        print("stopped, everything is saved; the same command goes on", file=sys.stderr, flush=True)
        os._exit(cluster.STOPPED)
    if found is not None:
        print(report.text(found))
        print(f"report: {os.path.join(given.workdir, report.REPORT)}")
    return None


if __name__ == "__main__":
    program.run(main, lambda argv: parse(argv, SWEEP))
