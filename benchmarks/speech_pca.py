"""What principal components keep of whole recordings, beside the preset `sequence`.

    python -m benchmarks.speech_pca --data=FOLDER [--sizes=16,32,64,128]

FOLDER holds recordings in train and test, read as `sound:FOLDER`. Energies are scaled to [0, 1] by
the training split, recordings end in its mean frame, and the components are those of all frames of
a recording together. Prints one JSON line: the squared error a band over the real frames of the
test split, for each number of components, and with the mean frame throughout (`none`).

The results stand in the docstring of configs/sequence.py.
"""

import json

import numpy as np
from absl import app, flags

from aejax.data.sources import open_source
from aejax.data.sources.base import Rows

_DATA = flags.DEFINE_string("data", None, "Folder of recordings.", required=True)
_SIZES = flags.DEFINE_list("sizes", ["16", "32", "64", "128"], "Numbers of components.")


def real(rows: Rows) -> np.ndarray:
    """[rows, frames]: which frames are the recording's."""
    assert rows.length is not None
    return np.arange(rows.x.shape[1]) < rows.length[:, None]


def main(argv: list[str]) -> None:
    """Fits, measures and prints."""
    del argv
    from sklearn.decomposition import PCA

    train, test = (
        open_source(f"sound:{_DATA.value}", split)[slice(None)] for split in ("train", "test")
    )
    own, there = real(train), real(test)
    low, high = train.x[own].min(), train.x[own].max()
    mean = (train.x[own].mean(axis=0) - low) / (high - low)

    def filled(rows: Rows, real: np.ndarray) -> np.ndarray:
        """[rows, frames * bands], scaled, with the mean frame after the end."""
        scaled = (rows.x - low) / (high - low)
        return np.where(real[..., None], scaled, mean).reshape(len(scaled), -1)

    x, test_x = filled(train, own), filled(test, there)
    weight = np.repeat(there[..., None], len(mean), axis=2).reshape(len(test_x), -1)

    def error(kept: np.ndarray) -> float:
        return float(np.mean(np.square(test_x - kept)[weight]))

    out = {"none": error(np.tile(mean, (len(test_x), there.shape[1])))}
    for size in map(int, _SIZES.value):
        found = PCA(size, svd_solver="full").fit(x)
        out[str(size)] = error(found.inverse_transform(found.transform(test_x)))
    print(json.dumps({name: round(value, 5) for name, value in out.items()}))


if __name__ == "__main__":
    app.run(main)
