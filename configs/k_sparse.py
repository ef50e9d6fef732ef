"""k-sparse autoencoder (Makhzani and Frey 2013): only the k largest units of a code stay.

    python -m launch.train --config=k_sparse

trains 64-128-64, more units than pixels, on the embedded digits: k falls from 64 to 12 in the first
half; test squared error 0.0081 a pixel (seed 0). On MNIST, with the paper's 1000 units and k = 25:

    python -m launch.train --config=k_sparse --config.data.source=idx:FOLDER \\
        --config.model.latent_dim=1000 --config.model.bottleneck.k=25 \\
        --config.model.bottleneck.start=100 --config.model.bottleneck.anneal_steps=4700 \\
        --config.duration="20 epochs" --workdir=runs/k_sparse

Codes that a linear classifier does best with (1.92 +- 0.09 % of MNIST's test images wrong, seeds 0
to 2; docs/variants/comparison.md) have start=150, anneal_steps=3750, test_scale=4 and 16 epochs of
batches of 128 with a learning rate of 3e-4.
"""

from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import KSparse
from aejax.models.coders import Dense
from aejax.models.likelihood import Gaussian
from aejax.optimizer import Adam


def get_config() -> Config:
    """Linear, with tied weights and squared error, as in the paper."""
    return Config(
        model=Autoencoder(
            coder=Dense(hidden=(), tied=True),
            latent_dim=128,
            bottleneck=KSparse(k=12, start=64, anneal_steps=1500),
            likelihood=Gaussian(),
        ),
        optimizer=Adam(learning_rate=1e-3),
        batch_size=256,
        duration="3000 steps",
    )
