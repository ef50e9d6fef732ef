"""Whole processes from their start to their end: their seconds and their memory."""

import dataclasses
import os
import sys
from typing import Any

from benchmarks.peers import compare, processes, worker
from benchmarks.peers.compare import Measured
from benchmarks.peers.processes import Peer, Result
from benchmarks.peers.questions import Question
from benchmarks.turns import say, take_turns

_RATES = {"adadelta": 1.0, "adam": 1e-3}
_MEMORY = ("at most", 600.0)  # MiB of aejax above the data


def _command(settings: dict[str, Any], cache: str) -> tuple[str, ...]:
    """`launch.train` for aejax, as a user would call it, with as many updates as the others."""
    steps = settings["epochs"] * (
        len(worker.images(settings["data"], "train")) // worker.BATCH_SIZE
    )
    fields = {
        "data.source": f"idx:{settings['data']}",
        "data.feed": settings["feed"],
        "optimizer": settings["optimizer"],
        "optimizer.learning_rate": _RATES[settings["optimizer"]],
        "batch_size": worker.BATCH_SIZE,
        "duration": f"{steps} steps",
        "seed": settings["seed"],
        "compilation_cache": cache,
    }
    words = (f"--config.{name}={value}" for name, value in fields.items())
    return (sys.executable, "-m", "launch.train", "--config=dense", *words)


def _run(peer: Peer, folder: str) -> Result:
    """One whole run, with its test loss in nats a pixel."""
    if peer.program != "aejax_trainer":
        return processes.whole(peer, folder)
    command = _command(peer.settings, peer.cache)
    told = processes.whole(dataclasses.replace(peer, command=command), folder)
    last = [row for row in told.pop("metrics") if row["split"] == "test"][-1]
    pixels = worker.images(peer.settings["data"], "t10k").shape[1]
    versions = worker.versions("jax", "flax", "optax", "orbax-checkpoint")
    return told | {"loss": last["nll"] / pixels, "versions": versions}


def seconds(peers: list[Peer], rounds: int, folder: str) -> dict[str, Measured]:
    """Seconds of whole processes in turn, without a compilation cache (cold) and with one."""
    peers = peers + [
        dataclasses.replace(peer, name=f"{peer.name} warm", cache=os.path.join(folder, peer.name))
        for peer in peers
        if peer.name != "torch"
    ]
    measured: dict[str, Measured] = {peer.name: Measured({}) for peer in peers}
    seeds = {peer.name: peer.settings["seed"] for peer in peers}

    def side(peer: Peer):
        def run() -> float:
            seed = seeds[peer.name]
            seeds[peer.name] += 1
            settings = processes.initial(peer.settings | {"seed": seed}, folder)
            told = _run(dataclasses.replace(peer, settings=settings), folder)
            taken, own = told.pop("seconds"), measured[peer.name]
            own.losses.append(told.pop("loss"))
            own.about = {name: value for name, value in told.items() if name != "peak_mib"}
            return taken

        return run

    sides = {peer.name: side(peer) for peer in peers}
    for run in sides.values():  # fills the caches, and the system's cache of files
        run()
    for each in measured.values():
        each.losses.clear()
    for name, times in take_turns(sides, rounds, compare.PAUSE_SECONDS).items():
        measured[name].seconds = times
    return measured


def memory(peers: list[Peer], question: Question, folder: str) -> Result:
    """Peak resident memory of one whole run of each, and what is above the data's size."""
    data = sum(
        worker.images(peers[0].settings["data"], split).nbytes for split in ("train", "t10k")
    )
    measured = {}
    for peer in peers:
        told = _run(peer, folder)
        above = round(told["peak_mib"] - data / 2**20, 1)
        about = {"peak_mib": round(told["peak_mib"], 1), "above_data_mib": above}
        about |= compare.against(above, _MEMORY) if peer.program == "aejax_trainer" else {}
        measured[peer.name] = Measured(
            {"versions": told["versions"]} | about, losses=[told["loss"]]
        )
        say(f"{peer.name}: {told['peak_mib']:.0f} MiB, {above:.0f} above the data")
    return compare.result(measured, question) | {"data_mib": round(data / 2**20, 1)}
