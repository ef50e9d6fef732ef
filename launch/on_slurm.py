"""A job as a batch script of Slurm."""

import shlex
import sys

from launch.job import Job, render


def script(job: Job, options: list[str]) -> str:
    """The batch script of a job.

    Args:
        options: further options of sbatch, as "--qos=low".
    """
    command = [sys.executable, "-u", "-m", f"launch.{job.program}", *job.words]
    text = shlex.join(command)
    if job.runs and not job.shared:
        text += ' --index="$SLURM_ARRAY_TASK_ID"'
    return render(
        "slurm/job.sbatch", options=_options(job) + options, setup=job.setup, command=text
    )


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
