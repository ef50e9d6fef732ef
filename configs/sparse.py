"""Sparse autoencoder (Ng 2011): each unit is to be active for a small share of the rows.

    python -m launch.train --config=sparse

trains 64-128-64, more units than pixels, on the embedded digits, with KL(0.05 || mean activity) as
a cost; the mean is over the global batch, on any number of devices. After 3000 steps (test, seed
0): squared error 0.0205 a pixel, sparsity 0.24 nats. On MNIST:

    python -m launch.train --config=sparse --config.data.source=idx:FOLDER \\
        --config.model.latent_dim=200 --config.model.penalty.rho=0.1 --workdir=runs/sparse

--config.model.penalty=l1 is the other cost: a sum of sizes, for any code.
"""

from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Bernoulli
from aejax.models.penalties import Activity
from aejax.optimizer import Adam


def get_config() -> Config:
    """One sigmoid layer of 128 units, each active 5 % of the time."""
    return Config(
        model=Autoencoder(
            coder=Dense(hidden=()),
            latent_dim=128,
            bottleneck=Plain(activation="sigmoid"),
            likelihood=Bernoulli(),
            penalty=Activity(rho=0.05, beta=3.0),
        ),
        optimizer=Adam(learning_rate=1e-3),
        batch_size=256,
        duration="3000 steps",
    )
