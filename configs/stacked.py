"""Stacked autoencoder (Bengio et al. 2007): trained layer by layer, then fine-tuned as one.

python -m launch.train --config=stacked
"""

from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Bernoulli
from aejax.pretrain import Greedy
from aejax.train.optimizer import Adam, Cosine


def get_config() -> Config:
    """256-128-64-8 and its mirror, of sigmoid units, a stage for each layer."""
    return Config(
        model=Autoencoder(
            coder=Dense(hidden=(256, 128, 64), activation="sigmoid"),
            latent_dim=8,
            bottleneck=Plain(activation="linear"),
            likelihood=Bernoulli(),
        ),
        pretrain=Greedy(duration="1000 steps", optimizer=Adam(learning_rate=1e-3)),
        optimizer=Adam(learning_rate=1e-3, schedule=Cosine()),
        batch_size=128,
        duration="2000 steps",
    )
