"""Deep belief network (Hinton, Osindero and Teh 2006): machines layer by layer, then up-down.

    python -m launch.train --config=deep_belief
    python -m launch.evaluate --workdir=runs/deep_belief --tasks=generate,reconstruction

trains 64-128-128-256 on the embedded digits: three stages of 3000 steps, then 2000 of the whole
network. Squared error of a reconstruction 0.0797 a (binary) pixel, seed 0.
"""

from aejax.config import Config, Data, Prepare
from aejax.models import DeepBelief
from aejax.optimizer import Sgd
from aejax.pretrain import Greedy


def get_config() -> Config:
    """64-128-128-256 on pixels that are drawn from their grey values in each step."""
    return Config(
        model=DeepBelief(hidden=(128, 128), latent_dim=256, k=1, persistent=True),
        data=Data(prepare=Prepare(binarise="sampled")),
        pretrain=Greedy(
            duration="3000 steps",
            optimizer=Sgd(learning_rate=0.05),
            by=("rbm",),
            persistent=True,
        ),
        optimizer=Sgd(learning_rate=0.01),
        batch_size=100,
        duration="2000 steps",
    )
