"""Restricted Boltzmann machine (Hinton 2002), with persistent chains (Tieleman 2008).

    python -m launch.train --config=rbm

trains 64 visible and 128 hidden units on the embedded digits, binarised in each step: test
pseudo-likelihood -17.66 nats a row (seed 0; it is -loss). log p(x), samples and weights:

    python -m launch.evaluate --workdir=runs/rbm --tasks=rbm

-23.94 nats (standard error over rows 0.20, of log Z 0.025). MNIST, 500 hidden units:

    python -m launch.train --config=rbm --config.data.source=idx:FOLDER \\
        --config.model.latent_dim=500 --config.optimizer.schedule=cosine \\
        --config.duration="10 epochs" --workdir=runs/rbm-mnist
    python -m launch.evaluate --workdir=runs/rbm-mnist --tasks=rbm --temperatures=14500

-98.56 nats (standard error over rows 0.28, of log Z 0.19), pseudo-likelihood -67.40; seed 0. For
500 units after a long training with CD-25 -86.3 is published (Salakhutdinov and Murray 2008).

Weight decay and momentum are the optimizer's: --config.optimizer.weight_decay=2e-4 takes that share
of W times the learning rate away in each update (biases are left alone), and
--config.optimizer.momentum=0.9 sums gradients. CD-25 from the data has
--config.model.persistent=False --config.model.k=25. For real values:

    python -m launch.train --config=rbm --config.model.visible=gaussian \\
        --config.data.prepare.binarise=none --config.data.prepare.centre=standardise \\
        --config.optimizer.learning_rate=0.01 --workdir=runs/rbm-gaussian
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
