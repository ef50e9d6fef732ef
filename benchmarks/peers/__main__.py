"""aejax against other libraries: the same network, the same updates, in rounds that take turns.

    python -m benchmarks.peers --what=dense --data=FOLDER --peers_python=PEERS/bin/python

prints one JSON line; what it is doing goes to standard error. FOLDER has MNIST's (or
Fashion-MNIST's) IDX files. Each peer is a program of `benchmarks/peers` in a process of its own,
which waits while the others run; its docstring says what form it takes. A peer whose packages
--peers_python has not is left out: null, and a line on standard error.

`questions.py` says what each --what compares, and where the ratios should stand.

The exit code is 1 when the lowest losses of the rounds differ by more than the question's
tolerance (0.01 of them, of `convolution` 0.03): the work was not equal, and no ratio means
anything. PyTorch's threads wait for each other actively: where another program wants a core, its
rounds take many times as long. Take its figures from a machine that does nothing else.
"""

import json
import os
import platform
import re
import shutil
import sys
import tempfile
from importlib import metadata
from typing import Any

from absl import app, flags

from benchmarks.peers import compare, processes, whole, worker
from benchmarks.peers.processes import Failed, Peer, Result
from benchmarks.peers.questions import QUESTIONS, Question
from benchmarks.turns import say

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
_EXECUTION = flags.DEFINE_integer("steps_per_execution", 32, "Of Keras.", lower_bound=1)
_SHAPES = flags.DEFINE_multi_string(
    "shape", ["8,64,8,32", "8,512,8,32", "8,1024,4,32"], "Rows, length, heads, size of attention."
)
_COMPUTE = flags.DEFINE_enum("compute", "float32", ["float32", "bfloat16"], "Of attention.")
_TIMEOUT = flags.DEFINE_integer("timeout", 600, "Seconds that an answer may take.", lower_bound=1)


class BadFlag(ValueError):
    """A flag has a value that is not accepted."""


def _check(words: list[str], question: Question) -> None:
    if words:
        raise BadFlag(f"stray word: {words[0]!r}")
    if shutil.which(_PEERS_PYTHON.value) is None:
        raise BadFlag(f"--peers_python={_PEERS_PYTHON.value}: must be an interpreter of Python")
    for name in _COMPETITORS.value:
        if name not in question.programs:
            known = ", ".join(question.programs)
            raise BadFlag(f"--competitor={name}: with --what={_WHAT.value} one of {known}")
    for shape in _SHAPES.value:
        if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*){3}", shape):
            raise BadFlag(f"--shape={shape}: must be four numbers, as in 8,64,8,32")


def _settings(question: Question) -> dict[str, Any]:
    """What all programs are given."""
    given: dict[str, Any] = {"seed": 0, "network": question.network} | question.settings
    if question.unit == "step":
        given["steps"] = _STEPS.value
    else:
        given["epochs"] = _EPOCHS.value or question.epochs
        given["steps_per_execution"] = _EXECUTION.value
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
    return {
        f"{shape} {kind}": {
            "shape": [int(word) for word in shape.split(",")],
            "kind": kind,
            "compute": _COMPUTE.value,
        }
        for shape in _SHAPES.value
        for kind in ("forward", "gradients")
    }


def _missing(program: str) -> str:
    """The packages of this program that --peers_python has not; "" where it has all."""
    needs = processes.NEEDS.get(program, ())
    return "" if not needs or processes.has(_PEERS_PYTHON.value, needs) else " and ".join(needs)


def _peers(question: Question, given: dict[str, Any]) -> list[Peer]:
    """Those that take part and whose packages are there."""
    peers = []
    for name in _COMPETITORS.value or question.programs:
        program, own = question.programs[name]
        if packages := _missing(program):
            say(f"{name} is left out: --peers_python={_PEERS_PYTHON.value} has no {packages}")
            continue
        python = _PEERS_PYTHON.value if program in processes.NEEDS else sys.executable
        peers.append(Peer(name, program, python, given | own, _TIMEOUT.value))
    return peers


def _measure(question: Question, given: dict[str, Any]) -> Result:
    """One comparison; those that are left out are null."""
    with tempfile.TemporaryDirectory() as folder:
        given = processes.initial(given, folder) if question.network else given
        peers = _peers(question, given)
        if not peers:
            raise Failed("nobody takes part")
        if _WHAT.value == "memory":
            result = whole.memory(peers, question, folder)
        elif _WHAT.value == "process":
            result = compare.result(whole.seconds(peers, _ROUNDS.value, folder), question)
        else:
            result = compare.result(compare.in_turn(peers, _ROUNDS.value, folder), question)
    everyone = dict.fromkeys(_COMPETITORS.value or question.programs)
    return result | {"competitors": everyone | result["competitors"]}


def main(argv: list[str]) -> int | None:
    """Measures what --what says and prints one line."""
    question, results = QUESTIONS[_WHAT.value], {}
    try:
        _check(argv[1:], question)
        given = _settings(question)
        for case, own in _cases(question).items():
            say(f"{_WHAT.value}, {case}")
            results[case] = _measure(question, given | own)
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
