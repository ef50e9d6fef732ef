"""Which processes of a job were started together, as the variables of what started them say.

Everything here is a function of an environment, so that a table of environments tests it. Variables
that were seen: Slurm 22.05, Open MPI 4.1 and 5.0, MPICH 4.0. Those of TPU pods, of Kubernetes
(`JOB_COMPLETION_INDEX`) and of Kubeflow's trainer (`JAX_NUM_PROCESSES`) are as their documentation
has them. Half of the variables of a launcher is nothing: a shell inside of a Slurm allocation has
SLURM_JOB_ID and is one process.
"""

import glob
import importlib.util
import os
import re
import socket
import subprocess
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from aejax.errors import InputError

Environment = Mapping[str, str]

LOOPBACK = "127.0.0.1"
# Above the ports that Linux gives to connections (32768 to 60999), as JAX chooses them too.
_FIRST_PORT, _PORTS = 61440, 4096


@dataclass(frozen=True)
class Launch:
    """What a process knows of its job of several processes.

    Attributes:
        launcher: what started it, in words ("Slurm step 12.0").
        processes: how many there are.
        process: the number of this one.
        host: at which process 0 listens; "" where the launcher does not say.
        port: of process 0.
        local: the number of this process among those of its host, and how many those are.
        late: whether the name of the host may become known only when process 0 has started.
    """

    launcher: str
    processes: int
    process: int
    host: str = ""
    port: int = _FIRST_PORT
    local: tuple[int, int] = (0, 1)
    late: bool = False

    @property
    def place(self) -> str:
        """HOST:PORT of process 0."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def one_host(self) -> bool:
        """Whether all processes are on this host."""
        return self.local[1] == self.processes


def detect(
    environment: Environment,
    processes: int | None = None,
    own_name: Callable[[], str] = socket.getfqdn,
) -> Launch | None:
    """The job of this process; None where it is alone, or nothing says that it is not.

    `JAX_COORDINATOR_ADDRESS` (HOST:PORT) and `JAX_COORDINATOR_PORT`, which JAX reads too, come
    before the host and the port that follow from the launcher.

    Args:
        environment: of this process.
        processes: how many the user expects; a Job of Kubernetes does not tell its pods.
        own_name: gives the full name of this host, for Kubernetes.

    Raises:
        InputError: an address or a port that is none, or pods without a name.
    """
    launch = (
        _jax(environment)
        or _tpu(environment)
        or _open_mpi(environment)
        or _slurm(environment)
        or _pmi(environment)
        or _kubernetes(environment, processes, own_name)
    )
    if launch is None or launch.processes == 1:
        return None
    if address := environment.get("JAX_COORDINATOR_ADDRESS"):
        host, port = split_address("JAX_COORDINATOR_ADDRESS", address)
        return replace(launch, host=host, port=port)
    if port := environment.get("JAX_COORDINATOR_PORT"):
        return replace(launch, port=_port("JAX_COORDINATOR_PORT", port))
    return launch


def split_address(setting: str, address: str) -> tuple[str, int]:
    """HOST and PORT of "HOST:PORT"; an IPv6 address stands in brackets.

    Raises:
        InputError: something else; names the setting.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"{setting}={address}: must be HOST:PORT, the port 1 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def local_devices(environment: Environment, local: tuple[int, int]) -> list[int] | None:
    """Which of the GPUs that this process sees are its own; None for all of them.

    Processes of one host share the GPUs that they see in equal parts, in order; where their number
    is not known, each takes one. GPUs that Slurm bound to a task are already its own, and JAX's
    variable JAX_LOCAL_DEVICE_IDS comes before all.

    Args:
        environment: of this process.
        local: its number among the processes of its host, and how many those are.
    """
    number, processes = local
    if processes == 1 or environment.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    bound = environment.get("SLURM_GPU_BIND", "").rpartition(",")[2]
    by_task = ("SLURM_GPUS_PER_TASK", "SLURM_NTASKS_PER_GPU", "SLURM_TRES_PER_TASK")
    if bound not in ("", "none") or (not bound and any(environment.get(name) for name in by_task)):
        return None
    visible = environment.get("CUDA_VISIBLE_DEVICES", environment.get("ROCR_VISIBLE_DEVICES"))
    if visible is None:
        return [number]
    each = len([name for name in visible.split(",") if name.strip()]) // processes
    return list(range(number * each, number * each + each)) or None


def on_tpu_vm(environment: Environment) -> bool:
    """Whether this host has TPUs that JAX is to use, so that JAX itself can find a pod."""
    platforms = environment.get("JAX_PLATFORMS", "tpu")
    if "tpu" not in platforms or "TPU_SKIP_MDS_QUERY" in environment:
        return False
    chips = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def hint(environment: Environment) -> str:
    """Why no launcher was recognised, as the end of a sentence."""
    if job := environment.get("SLURM_JOB_ID"):
        return f" (this is a shell of Slurm job {job}, one process: start the program with srun)"
    return ", for nothing here says who belongs to the job"


def shared_launch(environment: Environment) -> list[str]:
    """What this process has in common with others that the same thing started, in words."""
    out = []
    if job := environment.get("SLURM_JOB_ID"):
        out.append(f"belong to Slurm job {job}")
    if job := _kubernetes_job(environment):
        out.append(f"belong to the Kubernetes Job {job}")
    parent = os.getppid()
    try:
        with open(f"/proc/{parent}/comm") as file:
            name = file.read().strip()
    except OSError:
        name = "a process"
    if parent > 1:
        out.append(f"were started by {name} (process {parent} of {socket.gethostname()})")
    return out


def slurm_address(node: str) -> str | None:
    """The address of a node that Slurm knows; None where Slurm cannot be asked."""
    command = ["scontrol", "show", "node", node, "--oneliner"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\bNodeAddr=(\S+)", said)
    return match[1] if match else None


def first_node(nodes: str) -> str:
    """The first of "n[01-03,7],m2", as Slurm writes lists of nodes."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^,\-\]]*)[^\]]*\]", r"\1", first[0] if first else "")


def _jax(environment: Environment) -> Launch | None:
    """Variables of the names of JAX's arguments, as Kubeflow's trainer sets them."""
    rank = _rank(environment, "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    if rank is None or not environment.get("JAX_COORDINATOR_ADDRESS"):
        return None
    return Launch("JAX_NUM_PROCESSES", *rank, late=True)


def _tpu(environment: Environment) -> Launch | None:
    """A pod, one process a host; several slices as Megascale numbers them."""
    hosts = [name for name in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if name]
    number = _number(environment, "TPU_WORKER_ID")
    if (
        not hosts
        or number is None
        or number >= len(hosts)
        or "TPU_PROCESS_ADDRESSES" in environment
    ):
        return None
    slices = _rank(environment, "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID") or (1, 0)
    host = hosts[0]
    if slices[0] > 1:
        host = environment.get("MEGASCALE_COORDINATOR_ADDRESS", "").partition(":")[0]
    count, own = len(hosts) * slices[0], len(hosts) * slices[1] + number
    return Launch("the TPU pod", count, own, host, late=True)


def _open_mpi(environment: Environment) -> Launch | None:
    rank = _rank(environment, "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
    local = _rank(environment, "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")
    job = environment.get("PMIX_NAMESPACE") or environment.get("OMPI_MCA_ess_base_jobid")
    if rank is None or local is None or not job:
        return None
    # Where mpirun runs, which starts process 0 beside it: its address (version 4) or name (5).
    address = re.search(
        r"tcp://([^,:]+)|tcp6://\[([^,\]]+)", environment.get("OMPI_MCA_orte_hnp_uri", "")
    )
    name = re.fullmatch(r"prterun-(.+)-\d+@\d+", job)
    if local[0] == rank[0]:
        host = LOOPBACK
    elif address:
        host = address[1] or address[2]
    else:
        host = name[1] if name else ""
    return Launch("Open MPI", *rank, host, _port_of(zlib.crc32(job.encode())), (local[1], local[0]))


def _slurm(environment: Environment) -> Launch | None:
    """A step of several tasks: what `srun` started.

    Scripts and shells have variables of a job and no step; those that were submitted from within a
    step have its variables too, which then do not fit those of the job.
    """
    rank = _rank(environment, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
    job, step = (_number(environment, name) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    nodes, local = environment.get("SLURM_STEP_NODELIST"), _number(environment, "SLURM_LOCALID")
    pairs = (("STEP_NUM_TASKS", "NTASKS"), ("STEP_NUM_NODES", "NNODES"))
    fits = all(environment.get(f"SLURM_{a}") == environment.get(f"SLURM_{b}") for a, b in pairs)
    if rank is None or job is None or step is None or not nodes or local is None or not fits:
        return None
    if _rank(environment, "PMI_SIZE", "PMI_RANK") not in (None, rank):
        return None  # the tasks are MPICH's own, one a node, which start the processes
    here = _tasks_here(environment, rank[0])
    host = LOOPBACK if here == rank[0] else first_node(nodes)
    starts = _number(environment, "SLURM_RESTART_COUNT") or 0
    port = _port_of(job + 97 * starts + 389 * step)
    return Launch(f"Slurm step {job}.{step}", *rank, host, port, (local, here))


def _tasks_here(environment: Environment, tasks: int) -> int:
    """How many of the tasks of a step are on this node: a place in "2(x3),1"."""
    counts = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        if match := re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part):
            counts += [int(match[1])] * int(match[2] or 1)
    node = _number(environment, "SLURM_NODEID")
    if node is not None and node < len(counts):
        return counts[node]
    return tasks if environment.get("SLURM_STEP_NUM_NODES") == "1" else 1


def _pmi(environment: Environment) -> Launch | None:
    """MPICH and Intel MPI: which processes there are, and nothing of where process 0 is."""
    rank = _rank(environment, "PMI_SIZE", "PMI_RANK")
    if rank is None:
        return None
    local = _rank(environment, "MPI_LOCALNRANKS", "MPI_LOCALRANKID") or (1, 0)
    return Launch("MPICH's mpirun", *rank, local=(local[1], local[0]))


def _kubernetes(
    environment: Environment, processes: int | None, own_name: Callable[[], str]
) -> Launch | None:
    """An Indexed Job, or the one Job of a JobSet, whose pods a headless Service gives names."""
    number, job = _number(environment, "JOB_COMPLETION_INDEX"), _kubernetes_job(environment)
    if job is None or number is None or processes is None or processes == 1:
        return None
    if number >= processes:
        raise InputError(
            f"--processes={processes}: this is pod {number} of the Kubernetes Job {job}, counted"
            " from 0; must be the Job's completions"
        )
    domain = own_name().partition(".")[2]
    if not domain:
        raise InputError(
            f"--processes={processes}: the pods of the Kubernetes Job {job} have no names for one"
            " another; needs a headless Service, and its name as subdomain in the pod's template"
        )
    words = f"the Kubernetes Job {job}"
    return Launch(words, processes, number, f"{job}-0.{domain}", late=True)


def _kubernetes_job(environment: Environment) -> str | None:
    """The Job of this pod, whose host is called JOB-INDEX."""
    number, host = environment.get("JOB_COMPLETION_INDEX"), environment.get("HOSTNAME", "")
    if not number or "KUBERNETES_SERVICE_HOST" not in environment:
        return None
    return host.removesuffix(f"-{number}") if host.endswith(f"-{number}") else None


def _number(environment: Environment, name: str) -> int | None:
    value = environment.get(name, "")
    return int(value) if value.isdecimal() else None


def _rank(environment: Environment, size: str, number: str) -> tuple[int, int] | None:
    """How many there are, and which this is; None where one is missing or they do not fit."""
    count, own = _number(environment, size), _number(environment, number)
    return None if count is None or own is None or own >= count else (count, own)


def _port_of(job: int) -> int:
    return _FIRST_PORT + job % _PORTS


def _port(setting: str, value: str) -> int:
    if not value.isdecimal() or not 0 < int(value) < 2**16:
        raise InputError(f"{setting}={value}: must be a port, 1 to 65535")
    return int(value)
