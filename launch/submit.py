"""Hands a program to a scheduler, as a job that goes on after preemption and time limits.

    python -m launch.submit --nodes=2 --gpus=8 --time=1-00:00:00 --partition=gpu -- \\
        train --config=deep --config.data.source=idx:FOLDER --workdir=runs/deep
    python -m launch.submit --at_once=4 -- sweep --config=dense --sweep='seed=0,1,2'
    python -m launch.submit --workers=20 --gpus=1 -- search --config=search_par
    python -m launch.submit --show -- evaluate --workdir=runs/deep

What stands behind -- is a program of aejax with its flags. train runs one process on each node (or
--tasks), which find one another; a sweep is an array, a task for each of its runs; other programs
run one process. With --workers a sweep or a search is an array of so many tasks that share its
runs. --show prints the script and submits nothing.

The job saves and is queued again when it is preempted, and --stop_seconds before its time limit;
scancel ends it for good. Its output goes to NAME-JOB.out, where it is submitted.
"""

import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

from absl import flags

from aejax.errors import InputError
from launch import program
from launch.command import PROGRAMS
from launch.flags import TRAIN, config_of

flags.DEFINE_enum("scheduler", "slurm", ["slurm"], "What runs jobs here.")
flags.DEFINE_string("name", None, "The job's name. Default: aejax-PROGRAM.")
flags.DEFINE_integer("nodes", 1, "Nodes of the job.", lower_bound=1)
flags.DEFINE_integer("tasks", 1, "Processes on each node.", lower_bound=1)
flags.DEFINE_integer("gpus", 0, "GPUs of each node.", lower_bound=0)
flags.DEFINE_integer("cpus", None, "CPU cores of each process.", lower_bound=1)
flags.DEFINE_string("memory", None, "Memory of each node, such as 64G.")
flags.DEFINE_string("time", None, "Time limit, such as 12:00:00 or 1-00:00:00.")
flags.DEFINE_string("partition", None, "Partition.")
flags.DEFINE_string("account", None, "Account.")
flags.DEFINE_integer("at_once", None, "Tasks of an array at a time. Default: all.", lower_bound=1)
flags.DEFINE_integer(
    "workers", None, "Tasks that share the runs of a sweep or a search.", lower_bound=1
)
flags.DEFINE_integer("stop_seconds", 120, "Stop so long before the time limit.", lower_bound=1)
flags.DEFINE_multi_string("option", [], "A further line of #SBATCH, such as --qos=low; several.")
flags.DEFINE_multi_string("setup", [], "A line of shell before the program starts; several.")
flags.DEFINE_bool("show", False, "Print the script, and submit nothing.")

_TEMPLATE = Path(__file__).parent / "slurm" / "job.sbatch"
_TIME = r"(\d+-)?\d+(:\d\d){0,2}"
# Programs that take one of several processes' part.
_SEVERAL = ("train",)
# Programs whose processes share work when they are started with the same command.
_WORKERS = ("sweep", "search")
_NOT_SUBMITTED = ("submit",)


def main(argv: list[str]) -> int | None:
    """Submits what the command line names; returns the exit code."""
    del argv
    given, words = flags.FLAGS, _split(sys.argv)[1]
    check(words)
    text = script(words)
    if given.show:
        print(text, end="")
        return None
    try:
        done = subprocess.run(
            ["sbatch", "--parsable"], input=text, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise InputError(
            "--scheduler=slurm: there is no sbatch here; --show prints the script"
        ) from None
    if done.returncode:
        print(f"failed: sbatch: {' '.join(done.stderr.split())}", file=sys.stderr, flush=True)
        return 1
    print(f"job {done.stdout.strip().partition(';')[0]}")
    return None


def check(words: list[str]) -> None:
    """Raises InputError where the program or its settings cannot be, before anything waits."""
    given = flags.FLAGS
    programs = [name for name in PROGRAMS if name not in _NOT_SUBMITTED]
    if not words or words[0] not in programs:
        found = words[0] if words else ""
        raise InputError(
            f"-- {found}: must name a program and its flags, one of {', '.join(programs)}"
        )
    if words[0] not in _SEVERAL and given.nodes * given.tasks > 1:
        raise InputError(
            f"--nodes={given.nodes} --tasks={given.tasks}: {words[0]} is one process; must be 1"
        )
    if given.workers is not None and words[0] not in _WORKERS:
        raise InputError(
            f"--workers={given.workers}: is for {' and '.join(_WORKERS)}, not for {words[0]}"
        )
    if given.at_once is not None and words[0] != "sweep" and given.workers is None:
        raise InputError(f"--at_once={given.at_once}: is for sweep, not for {words[0]}")
    if given.time is not None and not re.fullmatch(_TIME, given.time):
        raise InputError(f"--time={given.time}: must be minutes, HH:MM:SS or DAYS-HH:MM:SS")
    if given.workers and any(re.match("--?index=", word) for word in words):
        raise InputError(f"--workers={given.workers}: takes cells as they come; without --index")
    if words[0] in ("train", "sweep"):
        config_of(words[1:], TRAIN)


def script(words: list[str]) -> str:
    """The batch script of a program.

    Args:
        words: the program's name and its flags.
    """
    import jinja2

    name, given = words[0], flags.FLAGS
    command = [sys.executable, "-u", "-m", f"launch.{name}", *words[1:]]
    text, options = shlex.join(command), _options(name)
    if _is_array(name):
        count = given.workers or _cells(words[1:])
        limit = f"%{given.at_once}" if given.at_once else ""
        options.append(f"--array=0-{count - 1}{limit}")
    if name == "sweep" and not given.workers:
        text += ' --index="$SLURM_ARRAY_TASK_ID"'
    environment = jinja2.Environment(keep_trailing_newline=True, autoescape=False)  # noqa: S701
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(options=options, setup=given.setup, command=text)


def _is_array(name: str) -> bool:
    """Whether a program is an array of tasks."""
    return name == "sweep" or flags.FLAGS.workers is not None


def _options(name: str) -> list[str]:
    """Slurm's options of a job."""
    given = flags.FLAGS
    job = given.name or f"aejax-{name}"
    out = [
        f"--job-name={job}",
        f"--output={job}-{'%A_%a' if _is_array(name) else '%j'}.out",
        "--open-mode=append",
        "--requeue",
        f"--nodes={given.nodes}",
        f"--ntasks-per-node={given.tasks}",
        f"--signal=B:USR1@{given.stop_seconds}",
    ]
    if given.gpus:
        out.append(f"--gpus-per-node={given.gpus}")
    for option, value in (
        ("cpus-per-task", given.cpus),
        ("mem", given.memory),
        ("time", given.time),
        ("partition", given.partition),
        ("account", given.account),
    ):
        if value is not None:
            out.append(f"--{option}={value}")
    return out + given.option


def _cells(words: list[str]) -> int:
    """How many runs a sweep has."""
    from aejax.sweeps import cells

    texts = [word.partition("=")[2] for word in words if re.match("--?sweep=", word)]
    if not texts:
        raise InputError("-- sweep: must have --sweep='SETTING=VALUE,VALUE' (with the = sign)")
    if any(re.match("--?(index|trials)=", word) for word in words):
        raise InputError(
            "-- sweep: --index and --trials are no part of an array with a task a cell; --workers=N"
            " takes --trials"
        )
    return math.prod(len(cells.split_values(text)[1]) for text in texts)


def parse(argv: list[str]) -> list[str]:
    """Parses the flags before --; what stands after it is the program's."""
    own, _ = _split(argv)
    if any(program.is_help(word) for word in own[1:]):
        print(program.help_text(), flush=True)
        sys.exit(0)
    left = flags.FLAGS(own)
    if len(left) > 1:
        raise InputError(f"{left[1]}: flags of submit come first, then -- and a program")
    return left


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """The words before -- and those after it."""
    place = argv.index("--") if "--" in argv else len(argv)
    return argv[:place], argv[place + 1 :]


if __name__ == "__main__":
    program.run(main, parse)
