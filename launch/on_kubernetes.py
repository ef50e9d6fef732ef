"""A job as objects of Kubernetes: a JobSet, a Job, or a TrainJob of Kubeflow.

A process is a pod with a part of its node's GPUs and memory. Exit codes decide what follows
(`launch/program.py`): 75, and pods that were evicted, start all again and count nothing; 2 ends the
job; after any other failure all start again, `restarts` times.

Fields are those of JobSet v1alpha2 since 0.10 (onJobFailureMessagePatterns), of Jobs since
Kubernetes 1.29 (backoffLimitPerIndex) and of Trainer v1alpha1 since 2.2 (mlPolicy.jax).
"""

from aejax.errors import InputError
from launch.job import (
    CONNECT_SECONDS,
    SEVERAL,
    Job,
    check_image,
    check_name,
    check_queue,
    check_volumes,
    mebibytes,
    render,
)

KINDS = ("jobset", "job", "trainjob")
# The replicated Job of a JobSet; Trainer looks for this name.
NODE = "node"
_LABEL = 63  # characters of a host's name


def manifest(kind: str, job: Job) -> str:
    """The objects of a job, as YAML.

    Raises:
        InputError: a setting that these objects cannot have; names it.
    """
    check(kind, job)
    return render(
        f"kubernetes/{kind}.yaml",
        job=job,
        node=NODE,
        container=NODE if kind == "trainjob" else "aejax",
        command=command(job),
        pods=job.runs or job.processes,
        parallel=min(job.at_once or job.runs, job.runs) or job.processes,
        limits=limits(job),
        requests=requests(job),
    )


def check(kind: str, job: Job) -> None:
    """Raises InputError where a job cannot be one of this kind."""
    last = (job.runs or job.processes) - 1
    added = f"-{last}" if kind == "job" else f"-{NODE}-0-{last}-abcde"  # JobSet's and the pods' own
    check_name(job.name, _LABEL - len(added))
    if not job.image:
        raise InputError(f"--image=: --scheduler={kind} needs the image that has aejax")
    check_image(job.image)
    if job.queue:
        check_queue(job.queue)
    if not job.volumes:
        raise InputError(
            f"--volume=: --scheduler={kind} needs CLAIM:/PATH, a claim that outlives the pods, for"
            " the run's folder"
        )
    check_volumes(job)
    if job.runs and kind != "job":
        raise InputError(
            f"-- {job.program}: is an array; --scheduler={kind} has none, --scheduler=job has"
        )
    if job.gpus % job.tasks:
        raise InputError(
            f"--gpus={job.gpus} --tasks={job.tasks}: a process is a pod with GPUs of its own; must"
            " be a multiple"
        )
    requests(job)


def command(job: Job) -> list[str]:
    """The words of a container's command.

    Kubernetes puts variables in for $(NAME), and one $ for two.
    """
    out = ["aejax", job.program]
    if job.program in SEVERAL and job.processes > 1:
        out += [f"--processes={job.processes}", f"--connect_seconds={CONNECT_SECONDS}"]
    out += [word.replace("$", "$$") for word in job.words]
    numbered = job.runs and not job.shared
    return [*out, "--index=$(JOB_COMPLETION_INDEX)"] if numbered else out


def requests(job: Job) -> dict[str, str]:
    """Cores and memory of a pod."""
    out = {}
    if job.cpus is not None:
        out["cpu"] = str(job.cpus)
    if job.memory is not None:
        out["memory"] = f"{max(mebibytes(job.memory) // job.tasks, 1)}Mi"
    return out


def limits(job: Job) -> dict[str, str]:
    """What a pod may not exceed: its memory, and its GPUs, of which each is one pod's alone."""
    out = {name: amount for name, amount in requests(job).items() if name == "memory"}
    if job.gpus:
        out["nvidia.com/gpu"] = str(job.gpus // job.tasks)
    return out
