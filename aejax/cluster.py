"""What this job runs on: the processes, and being asked to stop."""

import contextlib
import dataclasses
import ipaddress
import json
import math
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from aejax import launchers, rendezvous
from aejax.errors import InputError
from aejax.launchers import Launch
from aejax.rendezvous import NotJoined

# Exit code of a run that stopped on request with everything saved: start me again (EX_TEMPFAIL).
STOPPED = 75
_POLL_SECONDS = 0.05
_watch: rendezvous.Watch | None = None  # of the other processes of the job


class Stopped(Exception):
    """The run was asked to stop while it waited for something."""


class StopRequest:
    """Set by SIGTERM and Ctrl-C; a second Ctrl-C ends the process at once."""

    def __init__(self):
        self._asked = False

    def __call__(self) -> bool:
        """Whether the run has been asked to stop."""
        return self._asked

    def ask(self) -> None:
        """Asks the run to stop, as a signal does."""
        self._asked = True

    def install(self) -> "StopRequest":
        """Listens for both signals; call from the main thread."""
        signal.signal(signal.SIGTERM, lambda *_: self.ask())
        signal.signal(signal.SIGINT, self._interrupt)
        return self

    def _interrupt(self, *_) -> None:
        if self._asked:
            os._exit(130)
        self.ask()
        # Written past Python's buffers, which may be in use where the signal struck.
        os.write(2, b"\nstopping: saving first (Ctrl-C again ends at once and saves nothing)\n")


def never() -> bool:
    """A stop request that never comes."""
    return False


@contextlib.contextmanager
def ctrl_c_stops(stop: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """A stop request that Ctrl-C makes, in place of `never`; any other comes back as it is.

    The second Ctrl-C is a KeyboardInterrupt again. A notebook's interrupt is a Ctrl-C too.
    """
    own = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if stop is not never or not own or before is not signal.default_int_handler:
        yield stop
        return
    request = StopRequest()

    def ask(*_) -> None:
        request.ask()
        signal.signal(signal.SIGINT, before)
        os.write(2, b"\nstopping: saving first (Ctrl-C again interrupts at once)\n")

    signal.signal(signal.SIGINT, ask)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, before)


def interruptible(stop: Callable[[], bool], function: Callable[[], Any]) -> Any:
    """Runs `function` beside this thread, so that a signal is noticed while it compiles.

    Raises:
        Stopped: asked to stop; `function` goes on, and dies with the process.
    """
    if stop is never:
        return function()
    out: dict[str, Any] = {}

    def work():
        try:
            out["value"] = function()
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
            out["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait = 0.001
    while thread.is_alive():
        if stop():
            raise Stopped
        thread.join(wait)
        wait = min(2 * wait, _POLL_SECONDS)
    if "error" in out:
        raise out["error"]
    return out["value"]


def connect(
    coordinator: str = "",
    processes: int | None = None,
    process: int | None = None,
    name: str = "",
    seconds: float = 60,
) -> str:
    """Joins the processes of one job; call before anything looks for devices.

    Which they are is said by the arguments, or else by the environment (`aejax.launchers`). From
    then on this process ends with one line when another of them is gone.

    Args:
        coordinator: HOST:PORT at which process 0 listens; "" for what the launcher says, "none"
            for a job of this process alone, whatever started it.
        processes: how many there are; beside a launcher that says it too, it must be the same.
        process: the number of this one; the same holds.
        name: of the job, the same in all its processes.
        seconds: how long to wait for the others.

    Returns:
        What started the job and where process 0 is, in words; "" for a job of one process.

    Raises:
        InputError: numbers that do not fit, or a host that has no address.
        NotJoined: others are missing, or the port cannot be had.
    """
    if processes is not None and processes < 1:
        raise InputError(f"--processes={processes}: must be at least 1")
    if not seconds > 0:
        raise InputError(f"--connect_seconds={seconds:g}: must be above 0")
    if coordinator == "none":
        if processes not in (None, 1) or process not in (None, 0):
            raise InputError("--coordinator=none: this process alone, without --processes")
        return ""
    by_hand = bool(coordinator) and None not in (processes, process)
    launch = None if by_hand else launchers.detect(os.environ, processes)
    if launch is not None:
        _check_numbers(launch, processes, process)
    elif coordinator:
        launch = Launch("", processes or 1, process or 0)
        if not 0 <= launch.process < launch.processes:
            raise InputError(
                f"--process={launch.process}: must be 0 to {launch.processes - 1} (--processes - 1)"
            )
    elif launchers.on_tpu_vm(os.environ) and (launch := _join_tpu_pod(seconds)):
        _check_numbers(launch, processes, process)
        return launch.launcher if launch.processes > 1 else ""
    elif (processes or 1) != 1 or process:
        raise InputError(
            f"--processes={processes or 1} --process={process or 0}: needs --coordinator=HOST:PORT"
            f"{launchers.hint(os.environ)}"
        )
    else:
        return ""
    if coordinator:
        host, port = launchers.split_address("--coordinator", coordinator)
        launch = dataclasses.replace(launch, host=host, port=port)
    place = _join(launch, name, seconds)
    return f"{launch.launcher}, process 0 at {place}".removeprefix(", ")


def devices_in_words(job: str) -> str:
    """ "2 processes x 4 devices = 8 (Slurm step 12.0, process 0 at n1:61452)".

    Raises:
        InputError: processes have different numbers of devices; the same in all of them.
    """
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        said = ", ".join(f"process {number} {count}" for number, count in sorted(counts.items()))
        raise InputError(f"processes have different numbers of devices: {said}")
    total = jax.device_count()
    return f"{len(counts)} processes x {total // len(counts)} devices = {total} ({job})"


def _check_numbers(launch: Launch, processes: int | None, process: int | None) -> None:
    """Refuses what a user expects and the launcher says otherwise."""
    pairs = {"processes": (processes, launch.processes), "process": (process, launch.process)}
    for flag, (given, said) in pairs.items():
        if given not in (None, said):
            raise InputError(
                f"--{flag}={given}: {launch.launcher} says {said} (--coordinator=none: this process"
                " alone)"
            )


def _join(launch: Launch, name: str, seconds: float) -> str:
    """Meets the other processes, then starts JAX's runtime; returns where process 0 is."""
    global _watch
    if not launch.host:
        raise InputError(
            f"{launch.launcher} started {launch.processes} processes and does not say where process"
            " 0 listens: needs --coordinator=HOST:PORT, the same for all; for runs of their own,"
            " --coordinator=none"
        )
    host = _resolved(launch)
    launch = dataclasses.replace(launch, host=host)
    listen = _listen(launch) if launch.process == 0 else host
    job = rendezvous.Job(host, launch.port, launch.processes, launch.process, name, seconds, listen)
    try:
        _watch = rendezvous.Watch(job.process, rendezvous.meet(job))
    except NotJoined as error:
        raise NotJoined(f"{launch.launcher}: {error}" if launch.launcher else str(error)) from None
    _watch.start()
    # Where JAX aborts all the same its own message is the last; absl would list modules after it.
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    try:
        jax.distributed.initialize(
            job.place,
            job.processes,
            job.process,
            launchers.local_devices(os.environ, launch.local),
            cluster_detection_method="deactivate",
            coordinator_bind_address=job.place if job.listen else f"[::]:{job.port}",
            initialization_timeout=60,
            heartbeat_timeout_seconds=20,  # after `Watch`, which says who is gone
            shutdown_timeout_seconds=10,
        )
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise NotJoined(f"--coordinator={job.place}: JAX cannot start there: {reason}") from None
    return job.place


def _resolved(launch: Launch) -> str:
    """The host of process 0, by a name or a number that has an address here."""
    try:
        rendezvous.addresses(launch.host, launch.port)
    except (OSError, UnicodeError) as error:
        slurm = launch.launcher.startswith("Slurm")
        if slurm and (address := launchers.slurm_address(launch.host)):
            return address
        if not launch.late or launch.process == 0 or isinstance(error, UnicodeError):
            raise InputError(
                f"--coordinator={launch.place}: {launch.host} has no address ({error})"
            ) from None
    return launch.host


def _listen(launch: Launch) -> str:
    """Where process 0 listens; "" for all addresses of its host.

    Many machines give their own name a loopback address, where those of other hosts cannot come.
    """
    numbers = {address[0] for *_, address in rendezvous.addresses(launch.host, launch.port)}
    loopback = all(ipaddress.ip_address(number).is_loopback for number in numbers)
    by_name = launch.host not in numbers and launch.host != "localhost"
    return "" if loopback and by_name and not launch.one_host else launch.host


def _join_tpu_pod(seconds: float) -> Launch | None:
    """As JAX finds the hosts of a pod, by asking its metadata server; None where it finds none."""
    try:
        jax.distributed.initialize(
            initialization_timeout=math.ceil(seconds),
            heartbeat_timeout_seconds=20,
            shutdown_timeout_seconds=10,
        )
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise NotJoined(f"the TPU pod: JAX cannot start there: {reason}") from None
    except (ValueError, ImportError, OSError):  # no pod, or no metadata server
        return None
    return Launch("the TPU pod", jax.process_count(), jax.process_index())


def notify_exit(code: int) -> None:
    """Tells the other processes of the job that this one ends on purpose, with this exit code."""
    if _watch is not None and code:
        _watch.leave()
    elif _watch is not None:
        _watch.done()


def exit_if_peer_died() -> None:
    """After an error: where it came from the end of another process, ends with that line alone."""
    if _watch is not None:
        _watch.exit_if_peer_died()


def synchronise_control(stop: bool, steps: int, save: bool) -> tuple[bool, int, bool]:
    """What all processes do next: stop if any was asked to; the rest as process 0 says."""
    if jax.process_count() == 1:
        return stop, steps, save
    said = multihost_utils.process_allgather(np.array([stop, steps, save], np.int64))
    return bool(said[:, 0].any()), int(said[0, 1]), bool(said[0, 2])


def check_same(settings: dict[str, Any]) -> None:
    """Refuses, in all processes, settings that are not those of process 0.

    Args:
        settings: {name: value that JSON can hold}.

    Raises:
        InputError: one has another value somewhere; names it with both values.
    """
    if jax.process_count() == 1:
        return
    own = np.frombuffer(json.dumps(settings).encode(), np.uint8)
    sizes = np.ravel(multihost_utils.process_allgather(np.array(own.size)))
    padded = np.pad(own, (0, int(sizes.max()) - own.size))
    every = multihost_utils.process_allgather(padded)
    first, *others = (
        json.loads(row[:size].tobytes()) for row, size in zip(every, sizes, strict=True)
    )
    for process, other in enumerate(others, 1):
        for name in sorted({*first, *other}):
            if first.get(name) != other.get(name):
                raise InputError(
                    f"{name}: {first.get(name)!r} in process 0 and {other.get(name)!r} in process"
                    f" {process}; must be the same in all processes"
                )


def barrier(name: str) -> None:
    """Waits until all processes have come to the place of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def is_main() -> bool:
    """Whether this process writes files and talks to people."""
    return jax.process_index() == 0


def configure_jax(deterministic: bool, compilation_cache: str) -> None:
    """Sets what must be set before JAX looks for devices.

    Args:
        compilation_cache: folder that keeps compiled programs from one start to the next; "" for
            none. JAX's own variable JAX_COMPILATION_CACHE_DIR, where it is set, comes before it.
        deterministic: the same bits every time on a GPU: no atomics in scatters and reductions,
            and no choice of kernels by timing. A CPU gives the same bits anyway.
    """
    if compilation_cache:
        folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.path.expanduser(
            compilation_cache
        )
        jax.config.update("jax_compilation_cache_dir", folder)
        # Small programs too: a start is made of many of them.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if deterministic:
        wanted = "--xla_gpu_deterministic_ops=true"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {wanted}".strip()


def cores() -> int:
    """CPU cores that this process may use: what Slurm or taskset left it of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def clock() -> float:
    """Seconds since some moment; never goes backwards."""
    return time.monotonic()
