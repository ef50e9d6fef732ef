"""Logistic regression on the units of a restricted Boltzmann machine, beside raw pixels.

    python -m benchmarks.rbm_probe --data=MNIST [--seed=0] [--units=1000] [--epochs=16]

trains scikit-learn's BernoulliRBM (persistent contrastive divergence) on the pixels and fits the
classifier of the task `probe` to p(unit = 1 given pixels). MNIST is the folder of its four IDX
files. Prints one JSON line: errors in percent of the rows, whether the best L2 lies between others
that were tried (`l2_inside`) and whether every fit came to its end (`converged`). The results stand
in docs/variants/comparison.md.
"""

import json

import numpy as np
from absl import app, flags

from aejax.data.sources import open_source
from aejax.evaluation import probe

_DATA = flags.DEFINE_string("data", None, "Folder of MNIST's four IDX files.", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "Of the machine.")
_UNITS = flags.DEFINE_integer("units", 1000, "Hidden units.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 16, "Passes over the training rows.", lower_bound=1)


def rows(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in [0, 1], float32 [rows, pixels], and labels."""
    read = open_source(f"idx:{_DATA.value}", split)[slice(None)]
    assert read.label is not None
    return read.x.reshape(len(read.x), -1).astype(np.float32) / 255, read.label


def main(argv: list[str]) -> None:
    """Trains, fits and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"stray word: {argv[1]!r}")
    from sklearn.neural_network import BernoulliRBM

    (x, label), (test_x, test_label) = rows("train"), rows("test")
    given = {"n_iter": _EPOCHS.value, "random_state": _SEED.value}
    machine = BernoulliRBM(_UNITS.value, learning_rate=0.05, batch_size=128, **given).fit(x)
    units, test_units = (machine.transform(each).astype(np.float32) for each in (x, test_x))
    fit = probe.choose(units, label, test_units, test_label)
    line = {"seed": _SEED.value, "units": _UNITS.value, "epochs": _EPOCHS.value}
    line |= {"error": round(100 * fit.test, 2), "train_error": round(100 * fit.train, 2)}
    line |= {"l2": fit.l2, "l2_inside": fit.inside, "converged": fit.converged}
    print(json.dumps(line))


if __name__ == "__main__":
    app.run(main)
