"""aejax against other libraries: the same network, the same updates, in rounds that take turns.

    python -m benchmarks.peers --what=dense --data=FOLDER --peers_python=PEERS/bin/python

prints one JSON line; what it is doing goes to standard error. FOLDER has MNIST's (or
Fashion-MNIST's) IDX files. Each peer is a program of `benchmarks/peers` in a process of its own,
which waits while the others run; its docstring says what form it takes. A peer whose packages
--peers_python has not is left out: null, and a line on standard error.

--what=dense        784-32-784, relu code, cross-entropy of Bernoulli pixels, batch 256, Adadelta
                    with rate 1 and Adam with rate 0.001: seconds an epoch of a bare scan, aejax's
                    public trainer with everything on, Keras and PyTorch.
--what=process      The same from starting Python to its end (aejax by `launch.train`), without a
                    compilation cache and with a filled one (warm).
--what=streaming    aejax reading its rows as it goes against the data on the device.
--what=memory       Peak resident memory of one whole run of each, and how much is above the data.
--what=convolution  A step of the preset `convolutional` with 512 hidden units, batch 128, Adam with
                    rate 0.002, against PyTorch.
--what=variational  An epoch of the preset `variational` against pythae's trainer.
--what=attention    One attention, forward and with its gradients: aejax's, JAX's and PyTorch's.

The exit code is 1 when the lowest losses of the rounds differ by more than the question's
tolerance (0.01 of them, of `convolution` 0.03): the work was not equal, and no ratio means
anything. PyTorch's threads wait for each other actively: where another program wants a core, its
rounds take many times as long. Take its figures from a machine that does nothing else.
"""

import functools
import json
import os
import platform
import sys
import tempfile
from importlib import metadata
from typing import Any

from absl import app, flags

from benchmarks.peers import compare, processes, whole, worker
from benchmarks.peers.processes import Failed, Peer, Result
from benchmarks.peers.questions import QUESTIONS, Question
from benchmarks.turns import say

# rows, length, heads, size
SHAPES = {"64": (8, 64, 8, 32), "512": (8, 512, 8, 32), "1024": (8, 1024, 4, 32)}
LARGE = {"64": (512, 64, 8, 64), "512": (64, 512, 8, 64), "1024": (32, 1024, 8, 64)}

_WHAT = flags.DEFINE_enum("what", "dense", list(QUESTIONS), "What is compared.")
_DATA = flags.DEFINE_string(
    "data", None, "Folder with MNIST's IDX files. Default: mnist/ in the folder AEJAX_DATA."
)
_PEERS_PYTHON = flags.DEFINE_string(
    "peers_python", sys.executable, "Interpreter of the other libraries. Default: this one."
)
_COMPETITORS = flags.DEFINE_multi_string("competitor", [], "Who takes part, one a flag; else all.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Timed rounds.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", None, "Of a round, or of a whole process.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 100, "Of a round; convolution.", lower_bound=1)
_OPTIMIZERS = flags.DEFINE_multi_enum(
    "optimizer", ["adadelta", "adam"], ["adadelta", "adam"], "Of the dense network."
)
_EXECUTION = flags.DEFINE_multi_integer(
    "steps_per_execution", [1, 32, 117, 234], "Of Keras; the quickest is taken."
)
_LENGTHS = flags.DEFINE_list("lengths", list(SHAPES), "Of attention.")
_LARGE = flags.DEFINE_bool("large", False, "Attention with as many rows as suit a GPU.")
_COMPUTE = flags.DEFINE_enum("compute", "float32", ["float32", "bfloat16"], "Of attention.")
_THREADS = flags.DEFINE_integer("threads", os.cpu_count(), "Of PyTorch in attention.")
_SEED = flags.DEFINE_integer("seed", 0, "Of parameters and order.", lower_bound=0)
_TIMEOUT = flags.DEFINE_integer("timeout", 600, "Seconds that an answer may take.", lower_bound=1)


class BadFlag(ValueError):
    """A flag has a value that is not accepted."""


def _check(words: list[str], question: Question) -> None:
    if words:
        raise BadFlag(f"stray word: {words[0]!r}")
    accepted = {"competitor": (_COMPETITORS.value, question.programs)}
    accepted["lengths"] = (_LENGTHS.value, SHAPES)
    for flag, (values, known) in accepted.items():
        for value in values:
            if value not in known:
                raise BadFlag(f"--{flag}={value}: must be one of {', '.join(known)}")


def _settings(question: Question) -> dict[str, Any]:
    """What all programs are given."""
    given: dict[str, Any] = {"seed": _SEED.value, "network": question.network} | question.settings
    if question.unit == "step":
        given["steps"] = _STEPS.value
    else:
        given["epochs"] = _EPOCHS.value or question.epochs
    if question.network:
        data = _DATA.value or os.path.join(os.environ.get("AEJAX_DATA", ""), "mnist")
        given["data"] = os.path.abspath(os.path.expanduser(data))
        try:
            worker.images(given["data"], "train")
        except FileNotFoundError as error:
            name = os.path.basename(error.filename).removesuffix(".gz")
            raise BadFlag(f"--data={data}: there is no {name}, nor with .gz") from None
    return given


def _cases(question: Question) -> dict[str, dict[str, Any]]:
    """Settings of each comparison, by its name in the results."""
    if question.network == "dense":
        return {name: {"optimizer": name} for name in dict.fromkeys(_OPTIMIZERS.value)}
    if question.network:
        return {question.network: {}}
    shapes = LARGE if _LARGE.value else SHAPES
    common = {"compute": _COMPUTE.value, "threads": _THREADS.value}
    return {
        f"{length} {kind}": {"shape": shapes[length], "kind": kind} | common
        for length in _LENGTHS.value
        for kind in ("forward", "gradients")
    }


def _present(question: Question) -> tuple[list[str], list[str]]:
    """Who takes part, and whose packages are missing."""
    names = list(dict.fromkeys(_COMPETITORS.value or question.programs))
    missing = []
    for name in names:
        needs = processes.NEEDS.get(question.programs[name][0])
        if needs and not processes.has(_PEERS_PYTHON.value, needs):
            packages = " and ".join(needs)
            say(f"{name} is left out: --peers_python={_PEERS_PYTHON.value} has no {packages}")
            missing.append(name)
    return [name for name in names if name not in missing], missing


def _peer(question: Question, name: str, given: dict[str, Any]) -> Peer:
    program, own = question.programs[name]
    python = _PEERS_PYTHON.value if program in processes.NEEDS else sys.executable
    steps = {"steps_per_execution": _EXECUTION.value[0]} if name == "keras" else {}
    return Peer(name, program, python, given | own | steps, _TIMEOUT.value)


def _measure(
    question: Question, names: list[str], missing: list[str], given: dict[str, Any]
) -> Result:
    """One comparison."""
    with tempfile.TemporaryDirectory() as folder:
        if question.network:
            given = whole.initial(given, folder)
        peers = [_peer(question, name, given) for name in names]
        if _WHAT.value == "memory":
            return whole.memory(peers, question, missing, folder)
        if _WHAT.value == "process":
            measured = whole.seconds(peers, _ROUNDS.value, _EXECUTION.value, folder)
        else:
            short = functools.partial(compare.short_round, folder=folder)
            peers = compare.with_quickest_steps(peers, _EXECUTION.value, short)
            measured = compare.in_turn(peers, _ROUNDS.value, folder)
        return compare.result(measured, question, missing)


def main(argv: list[str]) -> int | None:
    """Measures what --what says and prints one line."""
    question, results = QUESTIONS[_WHAT.value], {}
    try:
        _check(argv[1:], question)
        given, (names, missing) = _settings(question), _present(question)
        if not names:
            raise Failed("nobody takes part")
        for case, own in _cases(question).items():
            say(f"{_WHAT.value}, {case}")
            results[case] = _measure(question, names, missing, given | own)
    except (Failed, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except BadFlag as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    line = {
        "benchmark": "peers",
        "what": _WHAT.value,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "jax": metadata.version("jax"),
        "rounds": _ROUNDS.value,
        "settings": given,
        "results": results,
    }
    print(json.dumps(line), flush=True)
    unequal = [case for case, result in results.items() if not result["losses_equal"]]
    if unequal:
        print(f"failed: losses differ: {', '.join(unequal)}", file=sys.stderr)
        return 1
    return None


if __name__ == "__main__":
    app.run(main)
