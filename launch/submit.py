"""Hands a program to a scheduler, as a job that goes on after preemption and time limits.

    python -m launch.submit --nodes=2 --gpus=8 --time=1-00:00:00 --partition=gpu -- \\
        train --config=deep --config.data.source=idx:FOLDER --workdir=runs/deep
    python -m launch.submit --at_once=4 -- sweep --config=dense --sweep='seed=0,1,2'
    python -m launch.submit --workers=20 --gpus=1 -- search --config=search_par
    python -m launch.submit --show -- evaluate --workdir=runs/deep
    python -m launch.submit --scheduler=jobset --nodes=2 --gpus=8 --image=IMAGE \\
        --volume=CLAIM:/shared -- train --config=deep --workdir=runs/deep

What stands behind -- is a program of aejax with its flags. train runs one process on each node (or
--tasks), which find one another; a sweep is an array, a task for each of its runs; other programs
run one process. With --workers a sweep or a search is an array of so many tasks that share its
runs. --show prints the script or the manifest and submits nothing.

Slurm: the job saves and is queued again when it is preempted, and --stop_seconds before its time
limit; scancel ends it for good. Its output goes to NAME-JOB.out, where it is submitted.
Kubernetes (jobset, job, trainjob) and skypilot: a process is a pod or a node with --image, and the
run's folder lies on --volume; docs/how-to/kubernetes.md says what starts again.
"""

import math
import re
import subprocess
import sys
import tempfile

from absl import flags

from aejax.errors import InputError
from launch import on_kubernetes, on_skypilot, on_slurm, program
from launch.command import PROGRAMS
from launch.flags import TRAIN, config_of
from launch.job import MOST_PROCESSES, SEVERAL, Job, shown, volume

flags.DEFINE_enum(
    "scheduler", "slurm", ["slurm", "jobset", "job", "trainjob", "skypilot"], "What runs jobs here."
)
flags.DEFINE_string("name", None, "The job's name. Default: aejax-PROGRAM.")
flags.DEFINE_integer("nodes", 1, "Nodes of the job.", lower_bound=1)
flags.DEFINE_integer("tasks", 1, "Processes on each node.", lower_bound=1)
flags.DEFINE_integer("gpus", 0, "GPUs of each node.", lower_bound=0)
flags.DEFINE_integer("cpus", None, "CPU cores of each process.", lower_bound=1)
flags.DEFINE_string("memory", None, "Memory of each node, such as 64G.")
flags.DEFINE_string("time", None, "Slurm: time limit, such as 12:00:00 or 1-00:00:00.")
flags.DEFINE_string("partition", None, "Slurm: partition.")
flags.DEFINE_string("account", None, "Slurm: account.")
flags.DEFINE_integer(
    "at_once", None, "Slurm, job: tasks of an array at a time. Default: all.", lower_bound=1
)
flags.DEFINE_integer(
    "workers", None, "Slurm, job: tasks that share the runs of a sweep or a search.", lower_bound=1
)
flags.DEFINE_integer(
    "stop_seconds",
    120,
    "How long saving may take: before the time limit, and from SIGTERM to SIGKILL.",
    lower_bound=1,
)
flags.DEFINE_multi_string("option", [], "Slurm: a further line of #SBATCH, as --qos=low; several.")
flags.DEFINE_multi_string(
    "setup", [], "Slurm, skypilot: a line of shell before the program starts; several."
)
flags.DEFINE_string("image", "", "Kubernetes, skypilot: the image that has aejax.")
flags.DEFINE_multi_string(
    "volume",
    [],
    "Kubernetes, skypilot: CLAIM:/PATH, a claim that is mounted there; several. Relative paths go"
    " from the first.",
)
flags.DEFINE_string("queue", "", "Kubernetes: a queue of Kueue, which starts the job.")
flags.DEFINE_integer(
    "restarts",
    3,
    "Kubernetes, skypilot: how often a job that failed is started again.",
    lower_bound=0,
    upper_bound=2**31 - 1,
)
flags.DEFINE_string("accelerator", "", "skypilot: the kind of the GPUs, such as H100.")
flags.DEFINE_bool("show", False, "Print the script or the manifest, and submit nothing.")

_TIME = r"(\d+-)?\d+(:\d\d){0,2}"
# Programs whose processes share work when they are started with the same command.
_WORKERS = ("sweep", "search")
_NOT_SUBMITTED = ("submit",)
_POD = (*on_kubernetes.KINDS, "skypilot")
# Which schedulers a flag is for, where it is not for all.
_FOR = {
    "time": ("slurm",),
    "partition": ("slurm",),
    "account": ("slurm",),
    "at_once": ("slurm", "job"),
    "workers": ("slurm", "job"),
    "option": ("slurm",),
    "setup": ("slurm", "skypilot"),
    "image": _POD,
    "volume": _POD,
    "queue": on_kubernetes.KINDS,
    "restarts": _POD,
    "accelerator": ("skypilot",),
}


def main(argv: list[str]) -> int | None:
    """Submits what the command line names; returns the exit code."""
    del argv
    given, words = flags.FLAGS, _split(sys.argv)[1]
    check(words)
    text = written(job_of(words))
    if given.show:
        print(text, end="")
        return None
    try:
        done = _hand_over(text)
    except FileNotFoundError as error:
        raise InputError(
            f"--scheduler={given.scheduler}: there is no {error.filename} here; --show prints the"
            f" {'script' if given.scheduler == 'slurm' else 'manifest'}"
        ) from None
    if done.returncode:
        said = " ".join(done.stderr.split())
        print(f"failed: {done.args[0]}: {said}", file=sys.stderr, flush=True)
        return 1
    if given.scheduler == "slurm":
        print(f"job {done.stdout.strip().partition(';')[0]}")
    else:
        print(done.stdout, end="")
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
    for name, schedulers in _FOR.items():
        if given[name].present and given.scheduler not in schedulers:
            value = given[name].value
            raise InputError(
                f"--{name}={value[0] if isinstance(value, list) else value}: is for"
                f" --scheduler={' or '.join(schedulers)}, not for {given.scheduler}"
            )
    if words[0] not in SEVERAL and given.nodes * given.tasks > 1:
        raise InputError(
            f"--nodes={given.nodes} --tasks={given.tasks}: {words[0]} is one process; must be 1"
        )
    for name, count in (("nodes", given.nodes * given.tasks), ("workers", given.workers or 0)):
        if count > MOST_PROCESSES:
            raise InputError(
                f"--{name}={given[name].value}: {count} processes; must be at most {MOST_PROCESSES}"
            )
    if given.workers is not None and words[0] not in _WORKERS:
        raise InputError(
            f"--workers={given.workers}: is for {' and '.join(_WORKERS)}, not for {words[0]}"
        )
    if given.at_once is not None and words[0] != "sweep" and given.workers is None:
        raise InputError(f"--at_once={given.at_once}: is for sweep, not for {words[0]}")
    if given.time is not None and not re.fullmatch(_TIME, given.time):
        raise InputError(f"--time={shown(given.time)}: must be minutes, HH:MM:SS or DAYS-HH:MM:SS")
    if given.workers and any(re.match("--?index=", word) for word in words):
        raise InputError(f"--workers={given.workers}: takes runs as they come; without --index")
    for name, word in (("partition", given.partition), ("account", given.account)):
        if word is not None:
            on_slurm.check_word(name, word)
    for name, lines in (("option", given.option), ("setup", given.setup)):
        for line in lines:
            on_slurm.check_line(name, line)
    if wrong := [value for value in given.option if not value.strip("- ") or value[0] != "-"]:
        raise InputError(f"--option={wrong[0]}: must be an option of sbatch, as --qos=low")
    if wrong := [word for word in words if not _is_text(word)]:
        raise InputError(f"-- {words[0]} {shown(wrong[0])}: is no text in UTF-8")
    own = [word for word in words if re.match("--?(coordinator|processes|process)\\b", word)]
    if own and given.scheduler != "slurm":
        raise InputError(
            f"-- {words[0]} {own[0]}: --scheduler={given.scheduler} says which they are"
        )
    if words[0] in ("train", "sweep"):
        config_of(words[1:], TRAIN)


def job_of(words: list[str]) -> Job:
    """The job that the flags describe.

    Args:
        words: the program's name and its flags.

    Raises:
        InputError: a volume, or a sweep, that is none.
    """
    given = flags.FLAGS
    return Job(
        name=given.name or f"aejax-{words[0]}",
        program=words[0],
        words=tuple(words[1:]),
        nodes=given.nodes,
        tasks=given.tasks,
        gpus=given.gpus,
        cpus=given.cpus,
        memory=given.memory,
        runs=given.workers or (_runs(words[1:]) if words[0] == "sweep" else 0),
        shared=given.workers is not None,
        at_once=given.at_once,
        stop_seconds=given.stop_seconds,
        setup=tuple(given.setup),
        image=given.image,
        volumes=tuple(volume(text) for text in given.volume),
        queue=given.queue,
        restarts=given.restarts,
        accelerator=given.accelerator,
    )


def written(job: Job) -> str:
    """What the scheduler reads: a script, a manifest or a task."""
    given = flags.FLAGS
    if given.scheduler == "slurm":
        pairs = {"time": given.time, "partition": given.partition, "account": given.account}
        options = [f"--{name}={value}" for name, value in pairs.items() if value is not None]
        return on_slurm.script(job, options + given.option)
    if given.scheduler == "skypilot":
        return on_skypilot.task(job)
    return on_kubernetes.manifest(given.scheduler, job)


def _hand_over(text: str) -> subprocess.CompletedProcess[str]:
    """Gives the scheduler's program what it reads."""
    scheduler = flags.FLAGS.scheduler
    if scheduler == "skypilot":  # which reads files alone
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            return _run(["sky", "jobs", "launch", "--yes", "--detach-run", file.name])
    command = ["sbatch", "--parsable"] if scheduler == "slurm" else ["kubectl", "create", "-f", "-"]
    return _run(command, text)


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def _is_text(word: str) -> bool:
    """Whether a word has no bytes that Python could not read as UTF-8."""
    return not re.search("[\ud800-\udfff]", word)


def _runs(words: list[str]) -> int:
    """How many runs a sweep has."""
    from aejax.sweeps import cells

    texts = [word.partition("=")[2] for word in words if re.match("--?sweep=", word)]
    if not texts:
        raise InputError("-- sweep: must have --sweep='SETTING=VALUE,VALUE' (with the = sign)")
    if any(re.match("--?(index|trials)=", word) for word in words):
        raise InputError(
            "-- sweep: --index and --trials are no part of an array with a task a run; --workers=N"
            " takes --trials"
        )
    return math.prod(len(cells.split_values(text)[1]) for text in texts)


def parse(argv: list[str]) -> list[str]:
    """Parses the flags before --; what stands after it is the program's."""
    own, _ = _split(argv)
    if any(program.is_help(word) for word in own[1:]):
        print(program.help_text(), flush=True)
        sys.exit(0)
    try:
        left = flags.FLAGS(own)
    except flags.UnrecognizedFlagError:
        _check_dashes(argv)
        raise
    if len(left) > 1:
        _check_dashes(argv)
        raise InputError(f"{left[1]}: flags of submit come first, then -- and a program")
    return left


def _check_dashes(argv: list[str]) -> None:
    """Refuses a program that stands without -- before it."""
    found = [word for word in argv[1:] if word in PROGRAMS and word not in _NOT_SUBMITTED]
    if found and "--" not in argv:
        raise InputError(
            f"{found[0]}: -- is missing before it; flags of submit come first, then -- and a"
            f" program: -- {found[0]}"
        )


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """The words before -- and those after it."""
    place = argv.index("--") if "--" in argv else len(argv)
    return argv[:place], argv[place + 1 :]


if __name__ == "__main__":
    program.run(main, parse)
