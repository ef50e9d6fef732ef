"""Trains on arrays of your own and uses the model: python examples/own_arrays.py [FOLDER]

The run's folder is one like any other: run this again and it says that the run is complete, and
`python -m launch.evaluate --workdir=FOLDER --source=npz:FILE` evaluates it on rows of a file.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits

import aejax
from aejax.callbacks import StopWhen


def main(folder: str) -> None:
    x = (load_digits().images / 16).astype(np.float32)  # [1797, 8, 8], in [0, 1]
    x_train, x_test = x[:1500], x[1500:]

    config = aejax.Config(model=aejax.Autoencoder(latent_dim=8), duration="30 epochs")
    trainer = aejax.Trainer(config, folder, train=x_train, test=x_test)
    outcome = trainer.fit(callbacks=[StopWhen(lambda row: row["loss"] < 10, split="test")])

    model = aejax.load(folder)
    print(model)
    codes = model.encode(x_test)
    error = model.score(x_test)
    history = outcome.history
    print(f"{outcome.status} at step {outcome.step}; {len(history['step'])} rows of history")
    print(f"codes {codes.shape}, decoded {model.decode(codes).shape}")
    print(f"mean squared error {error.mean():.4f}; the strangest row is {error.argmax()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/own_arrays")
