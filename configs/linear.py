"""Linear autoencoder with squared error: it finds the principal components.

python -m launch.train --config=linear
"""

from aejax.config import Config, Data, Prepare
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Gaussian
from aejax.train.optimizer import Adam, Cosine


def get_config() -> Config:
    """8 components of the digits, full batch."""
    return Config(
        data=Data(prepare=Prepare(centre="mean")),
        model=Autoencoder(
            coder=Dense(hidden=()),
            latent_dim=8,
            bottleneck=Plain(activation="linear"),
            likelihood=Gaussian(),
        ),
        optimizer=Adam(learning_rate=1e-2, schedule=Cosine()),
        batch_size=1437,
        duration="3000 steps",
    )
