"""A job as a batch script of Slurm."""

import re
import shlex
import sys

from aejax.errors import InputError
from launch.job import Job, render, shown

# How long before the time limit Slurm can send a signal, in seconds.
_MOST_SECONDS = 65_535


def script(job: Job, options: list[str]) -> str:
    """The batch script of a job.

    Args:
        options: further options of sbatch, as "--qos=low".

    Raises:
        InputError: a setting that a script cannot have; names it.
    """
    check(job)
    command = [sys.executable, "-u", "-m", f"launch.{job.program}", *job.words]
    text = shlex.join(command)
    if job.runs and not job.shared:
        text += ' --index="$SLURM_ARRAY_TASK_ID"'
    return render(
        "slurm/job.sbatch", options=_options(job) + options, setup=job.setup, command=text
    )


def check(job: Job) -> None:
    """Raises InputError where a job cannot be one of Slurm."""
    check_word("name", job.name)
    if job.memory is not None and not re.fullmatch("[1-9][0-9]*[KMGT]?", job.memory, re.I):
        raise InputError(
            f"--memory={shown(job.memory)}: must be a number with K, M, G or T, such as 64G"
        )
    if job.stop_seconds > _MOST_SECONDS:
        raise InputError(f"--stop_seconds={job.stop_seconds}: Slurm takes at most {_MOST_SECONDS}")


def check_word(flag: str, value: str) -> None:
    """Raises InputError for what is more than one word of a line of #SBATCH, or part of a path."""
    if not re.fullmatch(r"[\w.,+@:-]+", value, re.ASCII):
        raise InputError(f"--{flag}={shown(value)}: must be letters, digits and _ . , + @ : -")


def check_line(flag: str, value: str) -> None:
    """Raises InputError for what is more than a line, or has characters that no shell takes."""
    if not value.replace("\t", " ").isprintable():
        raise InputError(f"--{flag}={shown(value)}: must be one line, without control characters")


def _options(job: Job) -> list[str]:
    """Slurm's options of a job."""
    out = [
        f"--job-name={job.name}",
        f"--output={job.name}-{'%A_%a' if job.runs else '%j'}.out",
        "--open-mode=append",
        "--requeue",
        f"--nodes={job.nodes}",
        f"--ntasks-per-node={job.tasks}",
        f"--signal=B:USR1@{job.stop_seconds}",
    ]
    if job.gpus:
        out.append(f"--gpus-per-node={job.gpus}")
    if job.cpus is not None:
        out.append(f"--cpus-per-task={job.cpus}")
    if job.memory is not None:
        out.append(f"--mem={job.memory}")
    if job.runs:
        limit = f"%{job.at_once}" if job.at_once else ""
        out.append(f"--array=0-{job.runs - 1}{limit}")
    return out
