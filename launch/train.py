"""Trains an autoencoder; started again, it goes on where it was.

    python -m launch.train                                  the dense one on embedded digits
    python -m launch.train --list                           the presets, a line each
    python -m launch.train --config=dense --config.model.latent_dim=16 --workdir=runs/d16
    python -m launch.train --config.data.source=idx:FOLDER --config.duration=50epochs
    python -m launch.train --config.optimizer=adadelta --config.optimizer.learning_rate=0.5
    python -m launch.train --dry_run                        shapes, memory and FLOPs; then stops

The run's folder holds config.json, metrics.jsonl, tensorboard/, checkpoints/ and figures/. The same
command again says that the run is complete; with a longer --config.duration it goes on. A folder
alone (--workdir=runs/d16) goes on with its own settings. Ctrl-C and SIGTERM save first; exit code
75 then says: start me again. Bad input is one line and exit code 2.
"""

import os
import sys
import time
import traceback

from launch.early import stop_at_once
from launch.pages import huge_pages

if __name__ == "__main__":
    huge_pages()
    stop_at_once()
_STARTED = time.monotonic()

from typing import TYPE_CHECKING, Any  # noqa: E402

from absl import flags  # noqa: E402

from aejax.errors import InputError  # noqa: E402
from launch import program  # noqa: E402
from launch.flags import parse  # noqa: E402

if TYPE_CHECKING:
    from aejax import Config

# Settings that may differ between the processes of a job.
_OF_A_HOST = ("config.compilation_cache", "config.data.folder", "config.data.threads")

flags.DEFINE_string("workdir", None, "The run's folder. Default: runs/PRESET.")
flags.DEFINE_bool("dry_run", False, "Print shapes, shardings, memory and FLOPs; then stop.")
flags.DEFINE_string("parts", "", "Classes of your own parts, PACKAGE:CLASS, that a folder names.")
flags.DEFINE_bool("list", False, "Print the presets, a line each; then stop.")
flags.DEFINE_string(
    "coordinator",
    "",
    "HOST:PORT of process 0, for a job of several processes. Default: what srun, mpirun or"
    " Kubernetes say; none: this process alone.",
)
flags.DEFINE_integer("processes", None, "How many processes the job has.")
flags.DEFINE_integer("process", None, "The number of this one.")
flags.DEFINE_bool(
    "accept_changed_data",
    False,
    "Go on though the rows are not those that the run began with; its statistics stay.",
)
flags.DEFINE_float("connect_seconds", 60, "How long the processes wait for one another at start.")
flags.DEFINE_bool("download", False, "Let TFDS download a data set that is missing.")


def main(argv: list[str]) -> int | None:
    """Trains the run that the flags describe; returns the exit code."""
    del argv
    given = flags.FLAGS
    config, workdir = given.config, given.workdir
    if not given.dry_run:
        program.check_folder(workdir)
    from aejax import cluster

    cluster.configure_jax(config.deterministic, config.compilation_cache)
    try:
        job = cluster.connect(
            given.coordinator, given.processes, given.process, workdir, given.connect_seconds
        )
    except cluster.NotJoined as error:
        from aejax.runs import manifests

        if manifests.is_complete(workdir, config):  # the others have ended with 0, and come no more
            print(f"{workdir} is complete; {error}", file=sys.stderr, flush=True)
            program.leave(0)
        print(f"failed: {error}", file=sys.stderr, flush=True)
        program.leave(1)
    # After JAX's own handler, which would keep the signal to itself.
    stop = cluster.StopRequest().install()
    from aejax.runs.tracking import metrics_line
    from aejax.training.loop import NotFinite
    from aejax.training.trainer import Trainer

    try:
        if job:
            told = cluster.devices_in_words(job)
            if cluster.is_main():
                print(told, file=sys.stderr, flush=True)
            cluster.check_same(_shared_settings(config))
        if given.dry_run:
            from aejax.training.dry_run import report

            print(report(config, given.download))
            return None
        trainer = Trainer(
            config,
            workdir,
            download=given.download,
            accept_changed_data=given.accept_changed_data,
        )
        outcome = trainer.fit(stop=stop, started=_STARTED)
    except NotFinite as error:  # in all processes
        cluster.exit_if_peer_died()
        print(f"failed: {error}", file=sys.stderr, flush=True)
        program.leave(1)
    except InputError:
        raise
    except OSError as error:  # a full disk, a folder that went away
        cluster.exit_if_peer_died()
        print(f"failed: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    except Exception:
        cluster.exit_if_peer_died()
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # without a word to the other processes: they end too
    if not cluster.is_main():
        if outcome.status == "stopped":
            program.leave(cluster.STOPPED)
        return None
    if outcome.status == "stopped":
        where = f"at step {outcome.step}, saved" if outcome.step else "before its first step"
        print(f"stopped {where}; the same command goes on", file=sys.stderr)
        # Not sys.exit: a compilation may still be running in a thread that cannot be stopped.
        program.leave(cluster.STOPPED)
    if outcome.status == "complete":
        print(f"{workdir} is complete: {outcome.step} steps; a longer --config.duration goes on")
    shown = metrics_line(outcome.metrics, config.model.shares)
    print(f"test after {outcome.step} steps: {shown or 'no finite number'}")
    if os.path.exists(picture := os.path.join(workdir, "figures", "reconstruction.png")):
        print(f"test rows above their reconstructions: {picture}")
    print(outcome.ledger)
    return None


def _shared_settings(config: "Config") -> dict[str, Any]:
    """{dotted name: value} of all settings but those that are a host's own."""
    from aejax import kinds

    flat: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{name}.{key}", inner)
        else:
            flat[name] = value

    add("config", kinds.to_dict(config))
    return {name: value for name, value in flat.items() if name not in _OF_A_HOST}


if __name__ == "__main__":
    program.run(main, parse)
