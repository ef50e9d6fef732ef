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
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any, TextIO

import numpy as np

Settings = dict[str, Any]
BATCH_SIZE = 256  # of the dense network
LATENT_DIM = 32
TEST_BATCH_SIZE = 1000


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


def run(make: Callable[[Settings], Any], *packages: str) -> None:
    """Trains what `make` makes of the settings as the driver asks.

    It has `about` (device, and where they are known the number of `parameters` and the `first_loss`
    of a batch), `train()`, which trains a round and returns the loss once the last update is made,
    and `test_loss()`, the loss that is compared.
    """
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


def attention_inputs(given: Settings) -> list[np.ndarray]:
    """Queries, keys and values, each [rows, length, heads, size], standard normal."""
    random = np.random.RandomState(0)
    return [random.randn(*given["shape"]).astype(np.float32) for _ in range(3)]


def attention_steps(run: Callable[[int], None]) -> int:
    """So many steps, 100 at most, that `run(steps)` takes about a tenth of a second."""
    run(1)
    since = time.perf_counter()
    run(1)
    return max(1, min(100, round(0.1 / (time.perf_counter() - since))))


def root_mean_square(arrays: list[np.ndarray]) -> float:
    """Of an attention's output, or of its three gradients."""
    return float(np.sqrt(np.mean([np.mean(np.square(array)) for array in arrays])))
