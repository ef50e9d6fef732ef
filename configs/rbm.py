"""Restricted Boltzmann machine (Hinton 2002), with persistent contrastive divergence.

python -m launch.train --config=rbm
"""

from aejax.config import Config, Data, Prepare
from aejax.models import RBM
from aejax.optimizer import Sgd


def get_config() -> Config:
    """128 hidden units on pixels that are drawn from their grey values in each step."""
    return Config(
        model=RBM(latent_dim=128, visible="binary", k=1, persistent=True),
        data=Data(prepare=Prepare(binarise="sampled")),
        optimizer=Sgd(learning_rate=0.05),
        batch_size=100,
        duration="3000 steps",
    )
