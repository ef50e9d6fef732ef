"""Trains with a part of your own: python examples/own_part.py [FOLDER]

The same from the command line, started in this folder:

    python -m launch.train --config.model.coder=own_part:Smooth --config.model.coder.width=5
    python -m launch.evaluate --workdir=runs/dense --parts=own_part:Smooth
"""

import dataclasses
import math
import sys

import jax.numpy as jnp
import numpy as np
from flax import nnx
from sklearn.datasets import load_digits

import aejax
from aejax.models.coders import Dense
from aejax.models.interfaces import Coder


@dataclasses.dataclass
class Smooth(Coder):
    """Means over neighbours, then a linear code; the decoder is dense.

    Attributes:
        width: how many neighbours along a row's flat elements.
    """

    width: int = 3

    def encoder(self, shape, features, rngs):
        return SmoothEncoder(self.width, math.prod(shape), features, rngs)

    def decoder(self, latent_dim, shape, outputs, rngs):
        return Dense().decoder(latent_dim, shape, outputs, rngs)


class SmoothEncoder(nnx.Module):
    def __init__(self, width, size, features, rngs):
        self.width, self.linear = width, nnx.Linear(size, features, rngs=rngs)

    def __call__(self, x, hidden, mask, context=None):
        flat = x.reshape(len(x), -1)
        shifted = [jnp.roll(flat, shift, axis=1) for shift in range(self.width)]
        return self.linear(sum(shifted) / self.width)


def main(folder: str) -> None:
    x = (load_digits().images / 16).astype(np.float32)
    model = aejax.Autoencoder(coder=Smooth(width=3), latent_dim=6)
    config = aejax.Config(model=model, duration="5 epochs")
    aejax.Trainer(config, folder, train=x[:1500], test=x[1500:]).fit()
    loaded = aejax.load(folder, parts=[Smooth])
    print(loaded)
    print(f"codes {loaded.encode(x[1500:]).shape}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/own_part")
