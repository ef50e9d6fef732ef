"""Deep autoencoder of Hinton and Salakhutdinov (2006, Science 313): 784-1000-500-250-30 and back.

    python -m launch.train --config=deep --config.data.source=idx:FOLDER --workdir=runs/deep

trains it from scratch, without the pre-training that it was published with.
"""

from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Bernoulli
from aejax.train.optimizer import AdamW, Cosine


def get_config() -> Config:
    """1000-500-250-30 and its mirror, for images of 28x28; the digits without a source."""
    return Config(
        model=Autoencoder(
            coder=Dense(hidden=(1000, 500, 250), activation="gelu"),
            latent_dim=30,
            bottleneck=Plain(activation="linear"),
            likelihood=Bernoulli(),
        ),
        optimizer=AdamW(learning_rate=2e-3, schedule=Cosine(), warmup=0.05, weight_decay=0.1),
        batch_size=128,
        duration="20 epochs",
    )
