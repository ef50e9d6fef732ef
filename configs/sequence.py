"""Recurrent autoencoder: an LSTM reads a sequence of vectors into one code, another writes it.

python -m launch.train --config=sequence
"""

from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Recurrent
from aejax.models.likelihood import Bernoulli
from aejax.train.optimizer import Adam, Cosine


def get_config() -> Config:
    """The digits that scikit-learn ships, read line by line: 8 steps of 8 pixels."""
    return Config(
        model=Autoencoder(
            coder=Recurrent(cell="lstm", hidden=(128,)),
            latent_dim=32,
            bottleneck=Plain(activation="linear"),
            likelihood=Bernoulli(),
        ),
        optimizer=Adam(learning_rate=3e-3, schedule=Cosine(), warmup=0.05, clip=1.0),
        batch_size=128,
        duration="3000 steps",
    )
