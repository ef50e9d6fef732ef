"""Draws digits of the endless stream: python examples/deformed_digits.py [SOURCE [FILE.png]]

Ten training images, one of each class, in the first row as they are, and below as epochs 0 to 4 of
a run with --config.data.prepare.deform=1 (and the default seed) see them.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from aejax import Config, pictures
from aejax.data.deform import stream_keys
from aejax.data.prepare import Preparation
from aejax.data.settings import Prepare
from aejax.data.sources import open_source


def main(source: str = "digits", file: str = "deformed.png") -> None:
    train = open_source(source, "train")
    label = train[slice(0, 1000)].label
    index = np.array([np.argmax(label == digit) for digit in range(10)])
    preparation = Preparation(Prepare(deform=1.0), train.spec, {})

    raw, key = jnp.asarray(train[index].x), jax.random.key(Config().seed)
    rows = [preparation(raw)]
    for epoch in range(5):
        keys = stream_keys(key, jnp.full(10, epoch, jnp.uint32), jnp.asarray(index))
        rows.append(preparation(raw, stream_keys=keys))
    images = pictures.enlarged(pictures.grid(np.stack(rows)), 2)
    Image.fromarray(images[..., 0]).save(file, optimize=True)
    print(f"{file}: {images.shape[1]} x {images.shape[0]} pixels")


if __name__ == "__main__":
    main(*sys.argv[1:])
