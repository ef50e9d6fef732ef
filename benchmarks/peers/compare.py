"""Times peers in turn, checks that their work is equal, and tells their ratios."""

import contextlib
import dataclasses
from collections.abc import Callable

from benchmarks.peers.processes import Failed, Peer, Process, Result
from benchmarks.peers.questions import Question
from benchmarks.turns import ratio, say, spread, take_turns

PAUSE_SECONDS = 0.3  # until threads that spin after their work are asleep
WARMUP = 2  # rounds that are not timed
_SAME_START = 1e-5


@dataclasses.dataclass
class Measured:
    """What is known of one peer.

    Attributes:
        about: versions, device and what it chose.
        seconds: of each round, for one epoch, step or run.
        losses: of each round.
    """

    about: Result
    seconds: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)


def in_turn(peers: list[Peer], rounds: int, folder: str) -> dict[str, Measured]:
    """Starts and warms up all peers, then times them round by round.

    Raises:
        Failed: a peer ended, did not answer, or does not start at the same loss as the others.
    """
    measured: dict[str, Measured] = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for peer in peers:
            peer = peer.with_settings(rounds=WARMUP + rounds)
            worker = workers[peer.name] = stack.enter_context(Process(peer, folder))
            measured[peer.name] = Measured(worker.answer())
        _check_start({name: each.about for name, each in measured.items()})
        sides = {peer.name: _round(peer, workers[peer.name], measured[peer.name]) for peer in peers}
        for name, run in sides.items():
            for _ in range(WARMUP):
                run()
            measured[name].losses.clear()
            say(f"{name} is warm")
        seconds = take_turns(sides, rounds, PAUSE_SECONDS)
        ends = {name: worker.ask("end")[0] for name, worker in workers.items()}
    for name, end in ends.items():
        each = measured[name]
        each.seconds, each.about = seconds[name], each.about | end
        each.losses = each.about.pop("losses", [])[WARMUP:] or each.losses
    return measured


def _round(peer: Peer, worker: Process, measured: Measured) -> Callable[[], float]:
    """Trains a round: seconds of an epoch or step, without an evaluation that should not count."""
    count = measured.about.get("steps") or peer.settings.get("steps") or peer.settings["epochs"]

    def run() -> float:
        answer, seconds = worker.ask("go")
        measured.losses.append(worker.ask("test")[0].get("loss", answer["loss"]))
        return (seconds - answer.get("evaluation", 0.0)) / count

    return run


def _check_start(about: dict[str, Result]) -> None:
    """Raises Failed where networks have other parameters, or another loss of the first batch."""
    known = {name: each for name, each in about.items() if "first_loss" in each}
    counts = {each["parameters"] for each in known.values()}
    losses = [each["first_loss"] for each in known.values()]
    if len(counts) > 1 or (losses and max(losses) - min(losses) > _SAME_START * min(losses)):
        told = {name: (each["parameters"], each["first_loss"]) for name, each in known.items()}
        raise Failed(f"networks differ in parameters or in the loss of the first batch: {told}")


def result(measured: dict[str, Measured], question: Question) -> Result:
    """What is told: the peers, the ratios, and whether the losses are equal.

    Losses are compared by the lowest of the rounds: with a rate of 1, Adadelta's test loss jumps up
    by one or two hundredths now and then, and comes back.
    """
    name, unit = {
        "epoch": ("seconds_an_epoch", 1.0),
        "step": ("milliseconds_a_step", 1e-3),
        "run": ("seconds_a_run", 1.0),
    }[question.unit]
    competitors = {}
    for peer, each in measured.items():
        competitors[peer] = each.about | {"loss": round(min(each.losses), 6)}
        if each.seconds:
            competitors[peer] |= {name: spread(each.seconds, unit)}
    lowest = [min(each.losses) for each in measured.values()]
    return {
        "competitors": competitors,
        "ratios": _ratios(measured, question),
        "losses_equal": max(lowest) <= (1 + question.tolerance) * min(lowest),
    }


def _ratios(measured: dict[str, Measured], question: Question) -> Result:
    out = {}
    for name, bar in question.ratios.items():
        above, below = name.split(" / ")
        if above in measured and below in measured:
            out[name] = ratio(measured[above].seconds, measured[below].seconds)
            out[name] |= against(out[name]["best"], bar) if bar else {}
    return out


def against(value: float, bar: tuple[str, float]) -> Result:
    """The bar in words, and whether a value meets it."""
    way, limit = bar
    met = value <= limit if way == "at most" else value >= limit
    return {"bar": f"{way} {limit:g}", "met": met}
