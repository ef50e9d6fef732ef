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

_DATA = flags.DEFINE_string("data", None, "Folder of recordings.", required=True)
_SIZES = flags.DEFINE_list("sizes", ["16", "32", "64", "128"], "Numbers of components.")


def main(argv: list[str]) -> None:
    """Fits, measures and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"stray word: {argv[1]!r}")
    from sklearn.decomposition import PCA

    rows = [open_source(f"sound:{_DATA.value}", name)[slice(None)] for name in ("train", "test")]
    # Which frames are the recording's, [rows, frames].
    own, there = (np.arange(each.x.shape[1]) < np.asarray(each.length)[:, None] for each in rows)
    frames = rows[0].x[own]
    low, high = frames.min(), frames.max()
    mean = (frames.mean(axis=0) - low) / (high - low)
    # [rows, frames * bands], scaled, with the mean frame after the end.
    x, test_x = (
        np.where(real[..., None], (each.x - low) / (high - low), mean).reshape(len(each.x), -1)
        for each, real in zip(rows, (own, there), strict=True)
    )
    weight = np.repeat(there[..., None], len(mean), axis=2).reshape(len(test_x), -1)

    def error(kept: np.ndarray) -> float:
        return round(float(np.mean(np.square(test_x - kept)[weight])), 5)

    out = {"none": error(np.tile(mean, (len(test_x), there.shape[1])))}
    for size in map(int, _SIZES.value):
        fit = PCA(size, svd_solver="full").fit(x)
        out[str(size)] = error(fit.inverse_transform(fit.transform(test_x)))
    print(json.dumps(out))


if __name__ == "__main__":
    app.run(main)
