"""Dense autoencoder of the Keras tutorial: one relu layer each way, cross-entropy.

python -m launch.train --config=dense
"""

from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Bernoulli
from aejax.train.optimizer import Adam


def get_config() -> Config:
    """The digits that scikit-learn ships, 64-32-64; 784-32-784 on MNIST."""
    return Config(
        model=Autoencoder(
            coder=Dense(hidden=()),
            latent_dim=32,
            bottleneck=Plain(activation="relu"),
            likelihood=Bernoulli(),
        ),
        optimizer=Adam(learning_rate=1e-3),
        batch_size=256,
        duration="3000 steps",
    )
