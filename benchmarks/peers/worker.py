"""What the competitors share: the command line, the data, and the rounds that the driver asks for.

NumPy and the standard library alone, because it runs in the peers' interpreter. All minimise the
cross-entropy in nats a row, summed over pixels: for its mean over pixels the gradients are so small
that Adadelta's eps slows it down, and the work would not be equal.

A competitor trains for --epochs epochs and prints one JSON line; with --serve it stays alive and
trains so many epochs each time a line "go" comes, so that competitors can take turns:

    competitor: {"ready": true}
    driver: go          competitor: {"done": true}     as often as --rounds says
    driver: test        competitor: {"test_loss": ...} after a round; aejax tells all at the end
    driver: end         competitor: {"test_loss": ..., "versions": {...}, ...}
"""

import argparse
import gzip
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any, Protocol, TextIO

import numpy as np

BATCH_SIZE = 256
LATENT_DIM = 32
TEST_BATCH_SIZE = 1000


class Competitor(Protocol):
    """A network in training.

    Attributes:
        device: what it runs on.
    """

    device: str

    def train(self, epochs: int) -> None:
        """Trains, and returns once the last update is made."""

    def test_loss(self) -> float:
        """Binary cross-entropy on the test split, nats a pixel."""


class Driver:
    """The program that asks for rounds, over standard input and output.

    Whatever else is printed goes to standard error, so that no library's chatter is read as an
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


def arguments(description: str) -> argparse.Namespace:
    """Parses what the driver gives to every competitor."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", required=True, help="folder with MNIST's IDX files")
    parser.add_argument("--optimizer", choices=("adadelta", "adam"), default="adadelta")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of a round")
    parser.add_argument("--rounds", type=int, default=1, help="that will be asked for, aejax alone")
    parser.add_argument("--serve", action="store_true", help="wait for the driver's rounds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--initial", required=True, help="file of the parameters that all start at")
    parser.add_argument("--steps_per_execution", type=int, default=1, help="Keras alone")
    parser.add_argument("--feed", choices=("resident", "streaming"), default="resident")
    parser.add_argument("--save_initial", action="store_true", help="write --initial, aejax alone")
    parser.add_argument("--workdir", default="", help="folder of a run, aejax alone")
    return parser.parse_args()


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


def initial(file: str) -> tuple[np.ndarray, np.ndarray]:
    """The kernels that all start at: encoder [pixels, code], decoder [code, pixels]."""
    with np.load(file) as arrays:
        return arrays["encoder"], arrays["decoder"]


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of these packages."""
    found = {package: metadata.version(package) for package in packages}
    return {"python": platform.python_version(), **found}


def run(
    settings: argparse.Namespace,
    make: Callable[[argparse.Namespace], Competitor],
    packages: tuple[str, ...],
) -> None:
    """Trains the competitor as the command line says and prints its test loss and versions."""
    driver = Driver()
    competitor = make(settings)
    if settings.serve:
        driver.tell(ready=True)
        while (word := driver.wait()) != "end":
            if word == "test":
                driver.tell(test_loss=competitor.test_loss())
            else:
                competitor.train(settings.epochs)
                driver.tell(done=True)
    else:
        competitor.train(settings.epochs)
    driver.tell(
        test_loss=competitor.test_loss(), versions=versions(*packages), device=competitor.device
    )
