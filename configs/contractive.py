"""Contractive autoencoder (Rifai et al. 2011): a code that hardly moves when the input does.

    python -m launch.train --config=contractive

trains 64-128-64, more units than pixels, on the embedded digits; its rows of metrics.jsonl tell the
contraction, weight ||dz/dx||^2, beside the likelihood. After 3000 steps (test, seed 0): squared
error 0.0070 a pixel, contraction 1.52 nats. On MNIST, with the paper's 1000 units:

    python -m launch.train --config=contractive --config.data.source=idx:FOLDER \\
        --config.model.latent_dim=1000 --config.duration="20 epochs" --workdir=runs/contractive

One sigmoid layer has a closed form, which is taken by itself. Deeper coders find the Jacobian unit
by unit (--config.model.penalty.method=exact), or estimate it (=estimate, for large ones).
"""

from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Bernoulli
from aejax.models.penalties import Contractive
from aejax.optimizer import Adam


def get_config() -> Config:
    """One sigmoid layer of 128 units with tied weights, as in the paper."""
    return Config(
        model=Autoencoder(
            coder=Dense(hidden=(), tied=True),
            latent_dim=128,
            bottleneck=Plain(activation="sigmoid"),
            likelihood=Bernoulli(),
            penalty=Contractive(weight=0.1),
        ),
        optimizer=Adam(learning_rate=1e-3),
        batch_size=128,
        duration="3000 steps",
    )
