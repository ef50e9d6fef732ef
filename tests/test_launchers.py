"""Environments as launchers leave them, and the job that a process finds there."""

import re
import socket

import pytest

from aejax import cluster, launchers, rendezvous
from aejax.errors import InputError
from aejax.launchers import Launch


def slurm(tasks: int, process: int, nodes: int, **others: str) -> dict[str, str]:
    """What srun of Slurm 22.05 leaves to a task, one or several to a node."""
    each = tasks // nodes
    names = f"n[1-{nodes}]" if nodes > 1 else "n1"
    counts = f"{each}(x{nodes})" if nodes > 1 else str(each)
    return {
        "SLURM_JOB_ID": "12",
        "SLURM_JOB_NODELIST": "n[1-8]",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": names,
        "SLURM_STEP_NUM_NODES": str(nodes),
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_TASKS_PER_NODE": counts,
        "SLURM_NTASKS": str(tasks),
        "SLURM_NNODES": str(nodes),
        "SLURM_NODEID": str(process // each),
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process % each),
        **others,
    }


# A script of sbatch, one of salloc, and one that sbatch was given from within a step of two tasks.
BATCH = {
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
SALLOC = {"SLURM_JOB_ID": "12", "SLURM_NTASKS": "2", "SLURM_NNODES": "2"}
NESTED = {**slurm(2, 0, 2), "SLURM_NNODES": "1"}
INTERACTIVE = {**slurm(1, 0, 1), "SLURM_STEP_ID": "4294967290"}


def open_mpi(version: int, processes: int, process: int, hosts: int) -> dict[str, str]:
    """What mpirun of Open MPI 4.1 or 5.0 leaves to a process."""
    each = processes // hosts
    uri = "1333002240.0;tcp://192.0.2.2,172.17.0.1:52363;tcp6://[fd00::2]:38171"
    own = {
        4: {"PMIX_NAMESPACE": "1333002241", "OMPI_MCA_orte_hnp_uri": uri},
        5: {"PMIX_NAMESPACE": "prterun-node-7-15938@1", "PRTE_LAUNCHED": "1"},
    }
    return {
        "OMPI_COMM_WORLD_SIZE": str(processes),
        "OMPI_COMM_WORLD_RANK": str(process),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(each),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(process % each),
        "PMIX_RANK": str(process),
        **own[version],
    }


MPICH = {"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1"}
TPU = {"TPU_WORKER_HOSTNAMES": "t-0.x,t-1.x", "TPU_WORKER_ID": "1"}
SLICES = {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_COORDINATOR_ADDRESS": "s-0.x:8080"}
POD = {
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "JOB_COMPLETION_INDEX": "1",
    "HOSTNAME": "aejax-1",
}
JAX = {
    "JAX_COORDINATOR_ADDRESS": "a:5000",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "3",
}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        (slurm(2, 1, 2), Launch("Slurm step 12.0", 2, 1, "n1", 61452)),
        (
            slurm(8, 6, 2, SLURM_STEP_ID="1", SLURM_RESTART_COUNT="2"),
            Launch("Slurm step 12.1", 8, 6, "n1", 61452 + 389 + 2 * 97, (2, 4)),
        ),
        (slurm(4, 3, 1), Launch("Slurm step 12.0", 4, 3, "127.0.0.1", 61452, (3, 4))),
        (
            slurm(2, 0, 2, JAX_COORDINATOR_ADDRESS="10.0.0.7:5000"),
            Launch("Slurm step 12.0", 2, 0, "10.0.0.7", 5000),
        ),
        (
            slurm(2, 0, 2, JAX_COORDINATOR_PORT="5001"),
            Launch("Slurm step 12.0", 2, 0, "n1", 5001),
        ),
        (slurm(2, 0, 2, PMI_RANK="0", PMI_SIZE="2"), Launch("Slurm step 12.0", 2, 0, "n1", 61452)),
        (TPU, Launch("the TPU pod", 2, 1, "t-0.x", late=True)),
        (
            {**TPU, **SLICES, "MEGASCALE_SLICE_ID": "1"},
            Launch("the TPU pod", 4, 3, "s-0.x", late=True),
        ),
        (JAX, Launch("JAX_NUM_PROCESSES", 4, 3, "a", 5000, late=True)),
        (MPICH, Launch("MPICH's mpirun", 2, 1, local=(1, 2))),
        # MPICH in an allocation of Slurm: the step has one task a node, which starts two processes.
        (
            {**slurm(2, 1, 2), **MPICH, "PMI_SIZE": "4", "PMI_RANK": "3"},
            Launch("MPICH's mpirun", 4, 3, local=(1, 2)),
        ),
    ],
)
def test_what_is_found(environment, found):
    assert launchers.detect(environment) == found


@pytest.mark.parametrize(
    ("version", "hosts", "host"),
    [(4, 1, "127.0.0.1"), (5, 1, "127.0.0.1"), (4, 2, "192.0.2.2"), (5, 2, "node-7")],
)
def test_open_mpi_of_both_versions(version, hosts, host):
    # Its own step of Slurm, which starts one daemon a node, is not the job.
    around = slurm(2, 1, 2) if hosts == 2 else {}
    found = [launchers.detect(around | open_mpi(version, 4, n, hosts)) for n in range(4)]
    assert [(each.processes, each.process, each.host) for each in found] == [
        (4, n, host) for n in range(4)
    ]
    each = 4 // hosts
    assert [one.local for one in found] == [(n % each, each) for n in range(4)]
    assert len({one.port for one in found}) == 1 and 61440 <= found[0].port < 65536


@pytest.mark.parametrize(
    "environment",
    [
        {},
        BATCH,
        SALLOC,
        NESTED,
        INTERACTIVE,
        slurm(1, 0, 1),
        {**slurm(2, 1, 2), "SLURM_PROCID": "2"},
        {key: value for key, value in slurm(2, 1, 2).items() if key != "SLURM_STEP_NODELIST"},
        open_mpi(4, 1, 0, 1),
        # One process of mpirun in an allocation, beside the step of its daemons.
        slurm(2, 1, 2) | open_mpi(4, 1, 0, 1),
        {"OMPI_COMM_WORLD_SIZE": "2", "PMIX_NAMESPACE": "1"},
        {**MPICH, "PMI_SIZE": "1", "PMI_RANK": "0"},
        {"PMI_RANK": "1"},
        {**TPU, "TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
        {"TPU_WORKER_HOSTNAMES": "a,b"},
        POD,
        {"JAX_COORDINATOR_ADDRESS": "a:5000"},
        {**JAX, "JAX_PROCESS_ID": "4"},
    ],
)
def test_one_process_and_half_of_an_environment_are_alone(environment):
    assert launchers.detect(environment) is None


def test_pods_of_a_job_find_the_first_by_its_name():
    def named(name):
        return lambda: name

    full = "aejax-1.aejax.default.svc.cluster.local"
    first = "aejax-0.aejax.default.svc.cluster.local"
    found = launchers.detect(POD, 2, named(full))
    assert found == Launch("the Kubernetes Job aejax", 2, 1, first, late=True)
    # A JobSet's pods are called SET-JOB-NUMBER-INDEX, below the name of the set.
    pod = {**POD, "HOSTNAME": "aejax-w-0-1"}
    found = launchers.detect(pod, 2, named("aejax-w-0-1.aejax.ns.svc.cluster.local"))
    assert found is not None and found.host == "aejax-w-0-0.aejax.ns.svc.cluster.local"
    with pytest.raises(InputError, match="needs a headless Service"):
        launchers.detect(POD, 2, named("aejax-1"))
    with pytest.raises(InputError, match="--processes=2: this is pod 5 of the Kubernetes Job"):
        launchers.detect({**POD, "JOB_COMPLETION_INDEX": "5", "HOSTNAME": "j-5"}, 2, named(full))
    assert launchers.detect(POD, 1, named(full)) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("n[1-2]", "n1"),
        ("gpu[007-010,12],cpu3", "gpu007"),
        ("gpu[3,5-7]-ib,x", "gpu3-ib"),
        ("r[1-2]n[04-09]", "r1n04"),
    ],
)
def test_first_node(nodes, first):
    assert launchers.first_node(nodes) == first


@pytest.mark.parametrize(
    ("environment", "local", "own"),
    [
        ({}, (0, 1), None),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, (0, 1), None),
        ({}, (1, 2), [1]),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (1, 2), [2, 3]),
        ({"ROCR_VISIBLE_DEVICES": "4,5"}, (1, 2), [1]),
        ({"CUDA_VISIBLE_DEVICES": ""}, (1, 2), None),
        ({"CUDA_VISIBLE_DEVICES": "3"}, (1, 2), None),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "2"}, (1, 2), None),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPU_BIND": "verbose,single:1"}, (1, 2), None),
        (
            {
                "CUDA_VISIBLE_DEVICES": "0,1",
                "SLURM_GPU_BIND": "none",
                "SLURM_GPUS_PER_TASK": "1",
            },
            (1, 2),
            [1],
        ),
        ({"JAX_LOCAL_DEVICE_IDS": "0"}, (1, 2), None),
    ],
)
def test_gpus_are_shared_by_the_processes_of_a_host(environment, local, own):
    assert launchers.local_devices(environment, local) == own


@pytest.fixture
def variables(monkeypatch):
    """Sets variables of a launcher."""

    def setenv(given: dict[str, str]) -> None:
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return setenv


@pytest.mark.parametrize(
    ("environment", "settings", "said"),
    [
        (slurm(2, 1, 1), {"processes": 3}, "--processes=3: Slurm step 12.0 says 2"),
        (slurm(2, 1, 1), {"processes": 1}, "--processes=1: Slurm step 12.0 says 2"),
        (slurm(2, 1, 1), {"process": 0}, "--process=0: Slurm step 12.0 says 1"),
        (
            BATCH,
            {"processes": 2},
            "shell of Slurm job 12, one process: start the program with srun",
        ),
        (MPICH, {}, "MPICH's mpirun started 2 processes and does not say where process 0 listens"),
        ({}, {"processes": 2}, "nothing here says who belongs to the job"),
        (slurm(2, 1, 1, JAX_COORDINATOR_PORT="x"), {}, "JAX_COORDINATOR_PORT=x: must be a port"),
        (
            slurm(2, 1, 1, JAX_COORDINATOR_ADDRESS="n1"),
            {},
            "JAX_COORDINATOR_ADDRESS=n1: must be HOST:PORT",
        ),
        ({}, {"coordinator": "none", "processes": 2}, "this process alone, without --processes"),
        (slurm(2, 1, 2), {}, "n1 has no address"),
    ],
)
def test_what_was_expected_otherwise_is_refused(
    variables, monkeypatch, environment, settings, said
):
    def nowhere(*_):
        raise socket.gaierror(-2, "Name or service not known")

    variables(environment)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(rendezvous, "addresses", nowhere)
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        cluster.connect(**settings)
    assert "\n" not in str(caught.value)


def test_none_is_this_process_alone_whatever_started_it(variables):
    variables(slurm(2, 1, 2))
    assert cluster.connect("none") == "" == cluster.connect("none", 1, 0)


def test_slurm_knows_the_address_of_a_node_that_has_no_name_here(tmp_path, monkeypatch):
    fake = tmp_path / "scontrol"
    fake.write_text('#!/bin/sh\necho "NodeName=$3 Arch=x86_64 NodeAddr=10.1.2.3 NodeHostName=a"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launchers.slurm_address("n1") == "10.1.2.3"
    fake.write_text('#!/bin/sh\necho "Node $3 not found"; exit 1\n')
    assert launchers.slurm_address("n1") is None
    fake.unlink()
    assert launchers.slurm_address("n1") is None


@pytest.mark.parametrize(
    ("host", "numbers", "local", "listens"),
    [
        ("n1", ["127.0.1.1"], (0, 1), ""),
        ("n1", ["127.0.1.1", "10.0.0.1"], (0, 1), "n1"),
        ("n1", ["10.0.0.1"], (0, 1), "n1"),
        ("n1", ["127.0.1.1"], (0, 2), "n1"),
        ("localhost", ["::1", "127.0.0.1"], (0, 1), "localhost"),
        ("127.0.0.1", ["127.0.0.1"], (0, 1), "127.0.0.1"),
    ],
)
def test_a_name_of_this_machine_alone_is_not_where_others_come(
    monkeypatch, host, numbers, local, listens
):
    monkeypatch.setattr(
        rendezvous, "addresses", lambda *_: [(0, 0, 0, "", (number, 0)) for number in numbers]
    )
    assert cluster._listen(Launch("Slurm step 12.0", 2, 0, host, local=local)) == listens


def test_listening_everywhere_is_reached_by_any_address():
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    job = rendezvous.Job("n1", port, 2, 0, "", 1, listen="")
    with rendezvous._listener(job), socket.create_connection(("127.0.0.2", port), 1):
        pass


def test_jax_finds_the_pod_of_a_tpu_machine(monkeypatch):
    asked = []
    monkeypatch.setattr(launchers, "on_tpu_vm", lambda _: True)
    monkeypatch.setattr(cluster.jax.distributed, "initialize", lambda **how: asked.append(how))
    monkeypatch.setattr(cluster.jax, "process_count", lambda: 4)
    assert cluster.connect(processes=4, seconds=30) == "the TPU pod"
    assert asked[0]["initialization_timeout"] == 30
    with pytest.raises(InputError, match="--processes=2: the TPU pod says 4"):
        cluster.connect(processes=2)
    monkeypatch.setattr(cluster.jax, "process_count", lambda: 1)
    assert cluster.connect() == ""

    def no_pod(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(cluster.jax.distributed, "initialize", no_pod)
    assert cluster.connect() == ""


def test_a_machine_without_tpus_asks_nobody():
    assert not launchers.on_tpu_vm({"JAX_PLATFORMS": "cpu"})
    assert not launchers.on_tpu_vm({"TPU_SKIP_MDS_QUERY": "1"})
