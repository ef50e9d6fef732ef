"""What the peers' programs share: the rounds that the driver asks for, the data, the versions.

NumPy and the standard library alone, because it runs in the interpreter of other libraries.

A program gets its settings as one JSON object and answers in JSON lines:

    at its start         {"versions": ..., "device": ..., what there is to compare}
    driver: go           {"loss": ...}     it trained a round
    driver: test         {"loss": ...}     a loss to compare, or {} where `go` told it
    driver: end          what it tells at the end; the process ends

With the setting "serve" false it trains one round at once, and prints one line with all of these.
"""

import gzip
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any, Protocol, TextIO

import numpy as np

Settings = dict[str, Any]
BATCH_SIZE = 256  # of the dense network
LATENT_DIM = 32
TEST_BATCH_SIZE = 1000


class Competitor(Protocol):
    """A network in training.

    Attributes:
        about: its device, and where both are known `parameters` (their number) and `first_loss`.
    """

    about: dict[str, Any]

    def train(self) -> float | None:
        """Trains a round, and returns once the last update is made; the loss, where it is known."""

    def test_loss(self) -> float:
        """The loss that is compared."""


class Driver:
    """The program that asks, over standard input and output.

    Whatever else is printed goes to standard error, so that no library's output is read as an
    answer.
    """

    def __init__(self):
        self._answers: TextIO = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def tell(self, **answer: Any) -> None:
        """Prints one JSON line."""
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    def wait(self) -> str:
        """Waits to be asked, and returns the word; ends the process when the driver is gone."""
        word = sys.stdin.readline().strip()
        if not word:
            os._exit(1)
        return word

    def wait_for_round(self) -> None:
        """Waits for `go` or `end`; answers `test` with nothing."""
        while self.wait() == "test":
            self.tell()


def settings() -> Settings:
    """The settings that the driver gave."""
    return json.loads(sys.argv[1])


def run(make: Callable[[Settings], Competitor], *packages: str) -> None:
    """Trains the competitor as the driver asks."""
    driver, given = Driver(), settings()
    competitor = make(given)
    about = {"versions": versions(*packages), **competitor.about}
    if not given["serve"]:
        competitor.train()
        driver.tell(loss=competitor.test_loss(), **about)
        return
    driver.tell(**about)
    while (word := driver.wait()) != "end":
        driver.tell(loss=competitor.test_loss() if word == "test" else competitor.train())
    driver.tell()


def images(folder: str, split: str) -> np.ndarray:
    """Images of an IDX file as flat bytes, uint8 [rows, pixels]; split is train or t10k."""
    name = os.path.join(folder, f"{split}-images-idx3-ubyte")
    if os.path.exists(name):
        with open(name, "rb") as file:
            data = file.read()
    else:
        with gzip.open(name + ".gz", "rb") as file:
            data = file.read()
    rows = int.from_bytes(data[4:8], "big")
    return np.frombuffer(data, np.uint8, offset=16).reshape(rows, -1)


def initial(given: Settings) -> dict[str, np.ndarray]:
    """The parameters that all start at, with the names and shapes of aejax."""
    with np.load(given["initial"]) as file:
        return dict(file)


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of these packages."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }
