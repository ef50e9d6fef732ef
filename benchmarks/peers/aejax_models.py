"""aejax's runs of the networks that are compared, and the parameters that all peers start at.

    python -m benchmarks.peers.aejax_models SETTINGS

writes the parameters of a fresh state to the file that the setting "initial" names.
"""

import dataclasses

import jax
import numpy as np

from aejax import Config
from aejax.optimizer import Adadelta, Adam
from aejax.training.setup import Setup, setup
from benchmarks.dispatch import flat
from benchmarks.peers import worker
from benchmarks.peers.worker import Settings
from configs import convolutional, dense, rbm, variational


def _dense(given: Settings) -> Config:
    """The preset, 784-32-784 with a relu code, with an optimizer that all have."""
    made = dense.get_config()
    if given["optimizer"] == "adadelta":
        made.optimizer = Adadelta(learning_rate=1.0, rho=0.95, eps=1e-7)
    return made


def _convolutional(given: Settings) -> Config:
    """The preset with a hidden layer of 512, and with a rate that stays."""
    made = convolutional.get_config()
    made.model.coder = dataclasses.replace(made.model.coder, hidden=(512,))
    made.optimizer = Adam(learning_rate=given["rate"])
    made.batch_size = given["batch_size"]
    return made


def _rbm(given: Settings) -> Config:
    """The preset on pixels that are on above one half, some of the rows."""
    made = rbm.get_config()
    made.model.latent_dim, made.batch_size = given["units"], given["batch_size"]
    made.optimizer.learning_rate, made.data.prepare.binarise = given["rate"], "threshold"
    made.data.train = f"train[:{given['rows']}]"
    return made


def config(given: Settings) -> Config:
    """The run of the network that the setting "network" names."""
    networks = {
        "dense": _dense,
        "convolutional": _convolutional,
        "variational": lambda given: variational.get_config(),
        "rbm": _rbm,
    }
    made = networks[given["network"]](given)
    made.seed, made.compilation_cache = given["seed"], ""
    made.data.source = f"idx:{given['data']}"
    return made


def one_device(given: Settings) -> Setup:
    """The run on one device, without a folder."""
    return setup(config(given), devices=jax.devices()[:1])


def main() -> None:
    """Writes the initial parameters."""
    given = worker.settings()
    params = flat(one_device(given).init().params)
    arrays = {name: np.asarray(array) for name, array in params.items()}
    np.savez(given["initial"], **arrays)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main()
