"""Logistic regression on the units of a restricted Boltzmann machine, beside raw pixels.

    python -m benchmarks.rbm_probe --data=MNIST [--seed=0] [--units=1000] [--epochs=16]

trains scikit-learn's BernoulliRBM (persistent contrastive divergence) on the pixels and fits the
classifier of the task `probe` to p(unit = 1 given pixels), with L2 chosen in the same way. MNIST is
the folder of its four IDX files. Prints one JSON line, errors in percent of the test rows.

- `l2_inside`, `converged`: whether the best L2 lies between others that were tried, and whether
  every fit came to its end.
- `seconds`: of the machine's training.

The results stand in docs/variants/comparison.md, beside those of the autoencoders.
"""

import json
import time

import numpy as np
from absl import app, flags

from aejax.data.sources import open_source
from aejax.data.sources.base import Source
from aejax.evaluate import probe

_DATA = flags.DEFINE_string("data", None, "Folder of MNIST's four IDX files.", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "Of the machine.")
_UNITS = flags.DEFINE_integer("units", 1000, "Hidden units.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 16, "Passes over the training rows.", lower_bound=1)
_RATE = 0.05


def rows(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in [0, 1], float32 [rows, pixels], and labels."""
    source: Source = open_source(f"idx:{_DATA.value}", split)
    read = source[slice(None)]
    assert read.label is not None
    return read.x.reshape(len(source), -1).astype(np.float32) / 255, read.label


def main(argv: list[str]) -> None:
    """Trains, fits and prints."""
    del argv
    from sklearn.neural_network import BernoulliRBM

    x, label = rows("train")
    test_x, test_label = rows("test")
    start = time.time()
    machine = BernoulliRBM(
        _UNITS.value,
        learning_rate=_RATE,
        batch_size=128,
        n_iter=_EPOCHS.value,
        random_state=_SEED.value,
    ).fit(x)
    seconds = time.time() - start
    units, test_units = (machine.transform(each).astype(np.float32) for each in (x, test_x))
    fit = probe.choose(units, label, test_units, test_label)
    print(
        json.dumps(
            {
                "seed": _SEED.value,
                "units": _UNITS.value,
                "epochs": _EPOCHS.value,
                "error": round(100 * fit.test, 2),
                "train_error": round(100 * fit.train, 2),
                "l2": fit.l2,
                "l2_inside": fit.inside,
                "converged": fit.converged,
                "seconds": round(seconds, 1),
            }
        )
    )


if __name__ == "__main__":
    app.run(main)
