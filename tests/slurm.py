"""A Slurm of two nodes on this machine's loopback: munge, one controller, two daemons."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

_NEEDED = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "sinfo")
_CONF = """
ClusterName=test
SlurmctldHost={machine}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=2,bf_interval=5,defer_batch=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
NodeName=n1 NodeHostname={machine} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname={machine} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=low Nodes=n[1-2] Default=YES MaxTime=60 State=UP PriorityTier=1 GraceTime=8
PartitionName=high Nodes=n[1-2] MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str:
    """Why there can be no Slurm here; "" where there can be one."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [name for name in _NEEDED if shutil.which(name, path=path) is None]
    if missing:
        return f"Slurm is not installed here ({missing[0]} is missing)"
    return "" if os.geteuid() == 0 else "Slurm's daemons are started by root alone"


class Slurm:
    """Starts it in a folder of a short path; `stop` ends what was started."""

    def __init__(self, folder: Path):
        self._folder = folder
        for name in ("munge", "state", "spool-n1", "spool-n2"):
            (folder / name).mkdir(mode=0o700)
        ports = [_free_port() for _ in range(3)]
        conf = _CONF.format(folder=folder, machine=socket.gethostname(), ports=ports)
        (folder / "slurm.conf").write_text(conf)
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        self.variables = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        munge = {"key": key, "socket": folder / "munge" / "socket", "pid": folder / "munged.pid"}
        munge |= {"log": folder / "munge" / "log", "seed": folder / "munge" / "seed"}
        files = [
            f"--{name}{'' if name == 'socket' else '-file'}={file}" for name, file in munge.items()
        ]
        try:
            self.call("munged", "--force", *files)
            self.call("slurmctld", "-c")
            for node in ("n1", "n2"):
                self.call("slurmd", "-N", node)
            self._await_nodes()
        except BaseException:
            self._end_daemons()
            raise

    def call(self, *command: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs a command of Slurm."""
        return subprocess.run(
            command,
            env={**os.environ, **self.variables},
            timeout=seconds,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=(self._folder / "out").open("w"),
            stderr=(self._folder / "err").open("w"),
        )

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints."""
        self.call(*command)
        return (self._folder / "out").read_text()

    def stop(self) -> None:
        """Ends the daemons, by the numbers that they wrote down, once no step is left to them."""
        with contextlib.suppress(TimeoutError, OSError):
            self._await_nodes()
        self._end_daemons()

    def _end_daemons(self) -> None:
        for name in ("slurmd-n1", "slurmd-n2", "slurmctld", "munged"):
            file = self._folder / f"{name}.pid"
            if file.exists() and file.read_text().strip().isdecimal():
                os.kill(int(file.read_text()), signal.SIGTERM)

    def _await_nodes(self) -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            # Each node once for each of its partitions.
            if {*self.ask("sinfo", "--noheader", "--Node", "--format=%t").split()} == {"idle"}:
                return
            time.sleep(0.1)
        raise TimeoutError(f"Slurm's nodes did not come up: {self._folder}/slurmctld.log")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
