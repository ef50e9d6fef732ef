"""A real run driven through faults: what it survives, and what each costs.

    python -m benchmarks.chaos [--kills=200] [--processes=2] [--steps=2000] [--seed=0]

prints one JSON line; what it is doing goes to standard error. A run of `--processes` processes is
started again and again, and each time one of these happens at a random moment of its start, its
steps or its saves:

    kill       SIGKILL to one process: the others must end within 15 s, or, where they have not met
               yet, once they have waited for it (--connect_seconds)
    freeze     SIGSTOP to one process: the same
    stop       SIGTERM to one process: all must end with 75
    full       no file may grow any more: all must end, and nothing that was committed is lost
    full soon  the same for a moment
    damage     SIGKILL, then a file of the newest checkpoint is flipped, cut or deleted: the next
               start must name the file, and go on from the checkpoint before it

Each start must go on from the newest checkpoint that was whole. When a run has come to its end it
is held against one that nothing disturbed: the same bits in every array and the same rows. Every
third run has another number of processes at each start (`--counts`): its rows must be the same
ones, each once, with losses within 1e-4. Then another run begins, until there were enough faults.
The exit code is 1 where a fault was not survived.
"""

import dataclasses
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging

from aejax.mesh import with_sharding
from aejax.runs import checkpoint, manifests
from benchmarks.turns import machine, say

_KILLS = flags.DEFINE_integer("kills", 200, "Faults to inject.", lower_bound=1)
_PROCESSES = flags.DEFINE_integer("processes", 2, "Of a run.", lower_bound=2)
_COUNTS = flags.DEFINE_list("counts", ["1", "2", "3"], "Of each start of every third run.")
_STEPS = flags.DEFINE_integer("steps", 2000, "Of a run, in hundreds.", lower_bound=1000)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments and kinds of faults.")

FLAGS = (
    "--config.model.latent_dim=8",
    "--config.batch_size=96",
    "--config.optimizer.ema=0.99",
    "--config.data.prepare.shift=1",
    "--config.log_every=100",
    "--config.evaluation.every=1000",
    "--config.checkpoint.every=250",
    "--config.trackers=",
    "--connect_seconds=15",
)
MEETING = 15.0  # the last of these
CLOCK = ("seconds", "examples_per_second")
# Kinds, and how often each comes.
KINDS = {"kill": 10, "freeze": 1, "stop": 3, "full": 2, "full soon": 2, "damage": 4}
END, CLOSE = 15.0, 1e-4
_PATIENCE = 120.0  # for what should end by itself
_SMALL = 2000  # bytes that no checkpoint's file stays under


class Gang:
    """The processes of one start of a run; what each says goes to a file."""

    def __init__(self, workdir: Path, count: int, steps: int):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
        self.logs = [workdir.with_name(f"{workdir.name}.{number}.log") for number in range(count)]
        self.began = time.monotonic()
        self.processes = []
        command = [sys.executable, "-m", "launch.train", f"--workdir={workdir}", *FLAGS]
        for number, log in enumerate(self.logs):
            who = (place, f"--processes={count}", f"--process={number}") if count > 1 else ()
            with log.open("w") as file:
                process = subprocess.Popen(
                    [*command, f"--config.duration={steps}", *who],
                    env={**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"},
                    stdout=subprocess.DEVNULL,
                    stderr=file,
                )
            self.processes.append(process)

    def codes(self) -> list[int | None]:
        """Exit codes; None of a process that lives."""
        return [process.poll() for process in self.processes]

    def ends_within(self, seconds: float, but: int = -1) -> bool:
        """Waits until all have ended, but for one."""
        end = time.monotonic() + seconds
        while True:
            if all(c is not None for number, c in enumerate(self.codes()) if number != but):
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.005)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def says(self) -> str:
        """What process 0 has said."""
        return self.logs[0].read_text(errors="replace")

    def met(self) -> bool:
        """Whether the processes have found one another; one is never alone."""
        return len(self.processes) == 1 or " processes x " in self.says()

    def limit(self, size: int) -> None:
        """No file of these processes may become longer."""
        for process in self.processes:
            if process.poll() is None:
                hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, hard))


@dataclasses.dataclass
class Tally:
    """What happened in all runs."""

    injected: Counter = dataclasses.field(default_factory=Counter)
    survived: Counter = dataclasses.field(default_factory=Counter)
    lost_commits: int = 0
    silent: int = 0  # damages that no start named
    wrong_starts: int = 0  # starts that did not go on from the newest whole checkpoint
    steps_lost: int = 0
    seconds_lost: float = 0.0
    slowest: dict[str, float] = dataclasses.field(default_factory=dict)
    runs: list[dict] = dataclasses.field(default_factory=list)
    starts: int = 0
    failed_starts: int = 0  # without a fault


def inject(kind: str, gang: Gang, workdir: Path, chance: random.Random) -> tuple[bool, str]:
    """Injects a fault and waits for what follows.

    Returns:
        Whether all ended as they should; a file that was damaged, or "".
    """
    which = chance.randrange(len(gang.processes))
    process, end = gang.processes[which], END if gang.met() else END + MEETING
    if kind == "kill":
        process.kill()
        return gang.ends_within(end), ""
    if kind == "freeze":
        process.send_signal(signal.SIGSTOP)
        ended = gang.ends_within(end, but=which)
        process.kill()
        return ended, ""
    if kind == "stop":
        process.send_signal(signal.SIGTERM)
        ended = gang.ends_within(end)
        # Before Python has set its handler the signal's own default ends a process, then the gang.
        early = -signal.SIGTERM in gang.codes()
        # One that had not come yet ends with 75, and the others wait for it in vain.
        return ended and (early or end > END or set(gang.codes()) <= {75, 0}), ""
    if kind == "full":
        gang.limit(_SMALL)
        return gang.ends_within(_PATIENCE), ""
    if kind == "full soon":
        gang.limit(_SMALL)
        time.sleep(chance.uniform(0.05, 0.5))
        gang.limit(resource.RLIM_INFINITY)
        if gang.ends_within(chance.uniform(0, 2)):
            return True, ""
        process.send_signal(signal.SIGTERM)
        return gang.ends_within(2 * END), ""
    gang.kill()
    if len(good := whole(workdir)) < 2:
        return True, ""
    root = Path(manifests.step_folder(str(workdir), good[-1]))
    manifest = root.with_name(root.name + ".json")
    file = chance.choice([*(one for one in root.rglob("*") if one.is_file()), manifest])
    data, how = bytearray(file.read_bytes()), chance.choice(["flip", "cut", "delete"])
    if how == "delete":
        file.unlink()
    elif not data:  # nothing to cut or to flip
        file.write_bytes(b"x")
    elif how == "cut":
        file.write_bytes(data[: len(data) // 2])
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
    return True, str(file)


def whole(workdir: Path) -> list[int]:
    """Steps whose checkpoints are as they were written, rising."""
    out = []
    for step in manifests.steps(str(workdir)):
        try:
            manifests.verify(str(workdir), step)
            out.append(step)
        except manifests.DamagedError:
            pass
    return out


def arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by part and name."""
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    parts = manifests.read(str(workdir), step)["arrays"]
    shapes = {
        part: with_sharding(manifests.shapes(str(workdir), step, part), one) for part in parts
    }
    read = checkpoint.load(str(workdir), step, shapes)
    return {f"{p}/{name}": np.asarray(each) for p in read for name, each in read[p].items()}


def rows(workdir: Path) -> list[dict]:
    """metrics.jsonl without what the clock said."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCK} for line in lines]


def same_bits(one: Path, other: Path, steps: int) -> bool:
    """Whether all arrays and rows are the same."""
    left, right = arrays(one, steps), arrays(other, steps)
    same = left.keys() == right.keys() and len(left) > 10
    return (
        same
        and all(left[name].tobytes() == right[name].tobytes() for name in left)
        and rows(one) == rows(other)
    )


def difference(one: Path, other: Path) -> float:
    """The largest relative difference of losses; infinite where rows are missing or come twice."""
    left, right = rows(one), rows(other)
    if [(r["step"], r["split"]) for r in left] != [(r["step"], r["split"]) for r in right]:
        return float("inf")
    pairs = zip(left, right, strict=True)
    return max(abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in pairs)


def last_row(workdir: Path) -> int:
    """The step of the last row of metrics.jsonl; 0 without one."""
    try:
        text = (workdir / "metrics.jsonl").read_text()
    except FileNotFoundError:
        return 0
    steps = re.findall(r'^\{"step": (\d+),.*\}$', text, re.MULTILINE)
    return int(steps[-1]) if steps else 0


class Run:
    """One run, from its first start to its end."""

    def __init__(self, workdir: Path, tally: Tally, chance: random.Random, wait: float):
        self.workdir, self.tally, self.chance, self.wait = workdir, tally, chance, wait
        self.damaged = ""

    def start(self, count: int) -> bool:
        """Starts the processes once, with a fault if more are due; returns whether it has ended."""
        tally, chance, workdir = self.tally, self.chance, self.workdir
        before, reached = whole(workdir)[-1:] or [0], last_row(workdir)
        gang = Gang(workdir, count, _STEPS.value)
        tally.starts += 1
        if self.damaged:  # it must have the time to say so
            end = time.monotonic() + _PATIENCE
            while "at step" not in gang.says() and time.monotonic() < end:
                if gang.ends_within(0.05):
                    break
            named = self.damaged.removesuffix(".json") in gang.says()
            tally.silent += not named
            self.damaged = ""
        due = sum(tally.injected.values()) < _KILLS.value
        if not due or gang.ends_within(chance.uniform(0.1, self.wait)):
            gang.ends_within(10 * _PATIENCE)
            if set(gang.codes()) == {0}:
                return True
            tally.failed_starts += 1
            say(f"exit codes {gang.codes()}: {gang.says()[-300:]}")
            if 2 in gang.codes():
                raise RuntimeError("a start was refused")
            gang.kill()
            return False
        kinds = [kind for kind in KINDS if count > 1 or kind != "freeze"]
        kind = chance.choices(kinds, [KINDS[kind] for kind in kinds])[0]
        began, met = time.monotonic(), gang.met()
        ended, self.damaged = inject(kind, gang, workdir, chance)
        took = time.monotonic() - began
        codes = gang.codes()
        gang.kill()
        tally.injected[kind] += 1
        if kind in ("kill", "freeze", "stop") and met:
            tally.slowest[kind] = max(tally.slowest.get(kind, 0.0), round(took, 2))
        after = whole(workdir)[-1:] or [0]
        lost = after < before and not self.damaged
        went_on = re.search(r"going on at step (\d+)", gang.says())
        wrong = went_on is not None and int(went_on[1]) != before[0]
        tally.lost_commits += lost
        tally.wrong_starts += wrong
        if went_on is not None:
            tally.steps_lost += max(0, reached - before[0])
        survived = ended and not lost and not wrong
        tally.survived[kind] += survived
        number = sum(tally.injected.values())
        say(
            f"{number}: {kind} of {count} processes at {began - gang.began:.1f} s, exit codes"
            f" {codes} after {took:.1f} s, checkpoint {before[0]} -> {after[0]}"
            + ("" if survived else f"  NOT SURVIVED: {gang.says()[-500:]}")
        )
        return False


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells every file that it reads
    chance, tally, steps = random.Random(_SEED.value), Tally(), _STEPS.value
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos") as folder:
        reference = Path(folder) / "undisturbed"
        gang = Gang(reference, _PROCESSES.value, steps)
        while not last_row(reference) and not gang.ends_within(0.02):
            pass
        starting = time.monotonic() - gang.began
        assert gang.ends_within(10 * _PATIENCE) and set(gang.codes()) == {0}, gang.says()
        training = time.monotonic() - gang.began - starting
        say(f"undisturbed: {starting:.1f} s to its first row, {training:.1f} s from there")
        while sum(tally.injected.values()) < _KILLS.value:
            number = len(tally.runs) + 1
            elastic = number % 3 == 0
            run = Run(Path(folder) / f"run{number}", tally, chance, starting + training / 4)
            count = _PROCESSES.value
            while not run.start(int(chance.choice(_COUNTS.value)) if elastic else count):
                pass
            kept = manifests.progress(str(run.workdir), steps).ledger or {}
            tally.seconds_lost += kept.get("lost", 0.0)
            if elastic:
                found = {"difference": difference(run.workdir, reference)}
            else:
                found = {"bits_equal": same_bits(run.workdir, reference, steps)}
            tally.runs.append({"starts": kept.get("starts"), **found})
            say(f"run {number} has ended: {tally.runs[-1]}")
    injected, survived = sum(tally.injected.values()), sum(tally.survived.values())
    bits = all(run.get("bits_equal", True) for run in tally.runs)
    close = max((run.get("difference", 0.0) for run in tally.runs), default=0.0)
    good = bits and close <= CLOSE and survived == injected
    good = good and not (tally.lost_commits or tally.silent or tally.wrong_starts)
    print(
        json.dumps(
            {
                "benchmark": "chaos",
                **machine(),
                "faults_injected": injected,
                "faults_survived": survived,
                "bits_equal": bits,
                "largest_difference_of_other_counts": close,
                "lost_commits": tally.lost_commits,
                "silent_damages": tally.silent,
                "wrong_starts": tally.wrong_starts,
                "steps_lost": tally.steps_lost,
                "seconds_lost": round(tally.seconds_lost, 1),
                "slowest_end_seconds": tally.slowest,
                "by_kind": dict(tally.injected),
                "starts": tally.starts,
                "failed_starts": tally.failed_starts,
                "runs": tally.runs,
                "seconds": round(time.monotonic() - began, 1),
                "met": good,
            }
        )
    )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    app.run(main)
