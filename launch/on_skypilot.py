"""A job as a task of SkyPilot, for `sky jobs launch`: nodes of any cloud, or of Kubernetes.

The keys are those of SkyPilot 0.14. Exit code 75 starts all again and counts nothing; any other
failure, bad input too, does so `restarts` times.
"""

import math
import re
import shlex

from aejax.errors import InputError
from launch.job import (
    CONNECT_SECONDS,
    SEVERAL,
    Job,
    check_image,
    check_name,
    check_volumes,
    mebibytes,
    render,
    shown,
)

_PORT = 61440
# What a block of YAML cannot hold: control characters, and what YAML takes for the end of a line.
_NOT_IN_YAML = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]"
# Nodes have an address for one another and a number, by variables of SkyPilot.
_TOGETHER = (
    f'--coordinator="$(echo "$SKYPILOT_NODE_IPS" | head -n 1):{_PORT}"'
    ' --processes="$SKYPILOT_NUM_NODES" --process="$SKYPILOT_NODE_RANK"'
    f" --connect_seconds={CONNECT_SECONDS}"
)


def task(job: Job) -> str:
    """The task of a job, as YAML.

    Raises:
        InputError: a setting that a task cannot have; names it.
    """
    check(job)
    return render(
        "kubernetes/skypilot.yaml",
        job=job,
        command=command(job),
        folder=shlex.quote(job.volumes[0][1]),
        gibibytes=None if job.memory is None else math.ceil(mebibytes(job.memory) / 2**10),
    )


def check(job: Job) -> None:
    """Raises InputError where a job cannot be a task."""
    check_name(job.name, 63)
    if job.runs:
        raise InputError(f"-- {job.program}: is an array; --scheduler=skypilot has none")
    if job.tasks > 1:
        raise InputError(f"--tasks={job.tasks}: --scheduler=skypilot starts one process on a node")
    if job.gpus and not job.accelerator:
        raise InputError(f"--gpus={job.gpus}: --scheduler=skypilot needs --accelerator, as H100")
    if job.accelerator and not job.gpus:
        raise InputError(f"--accelerator={job.accelerator}: needs --gpus, how many a node has")
    if job.accelerator and not re.fullmatch("[A-Za-z0-9][-.A-Za-z0-9_]*", job.accelerator):
        raise InputError(
            f"--accelerator={shown(job.accelerator)}: must be a kind of GPU, as H100 or A100-80GB"
        )
    if job.image:
        check_image(job.image)
    if not job.volumes:
        raise InputError(
            "--volume=: --scheduler=skypilot needs NAME:/PATH, a volume of SkyPilot that outlives"
            " the nodes, for the run's folder"
        )
    check_volumes(job)
    for word in job.words:
        if re.search(_NOT_IN_YAML, word):
            raise InputError(
                f"-- {job.program} {shown(word)}: has a control character, which a task of"
                " --scheduler=skypilot cannot hold; must have none but tabs and ends of lines"
            )


def command(job: Job) -> str:
    """The program as a line of shell."""
    several = job.program in SEVERAL and job.processes > 1
    together = f" {_TOGETHER}" if several else ""
    return f"aejax {job.program}{together} {shlex.join(job.words)}".rstrip()
