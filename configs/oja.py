"""Five-layer network (Oja 1991; Kramer 1991): principal components along curves, not lines.

    python -m launch.train --config=oja

x - mapping (tanh) - code (linear) - demapping (tanh) - x (linear), with squared error: `linear` with
one non-linear layer on either side of the code.
"""

from aejax.config import Config, Data, Prepare
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Gaussian
from aejax.train.optimizer import Adam, Cosine


def get_config() -> Config:
    """8 non-linear components of the digits."""
    return Config(
        data=Data(prepare=Prepare(centre="mean")),
        model=Autoencoder(
            coder=Dense(hidden=(128,), activation="tanh"),
            latent_dim=8,
            bottleneck=Plain(activation="linear"),
            likelihood=Gaussian(),
        ),
        optimizer=Adam(learning_rate=3e-3, schedule=Cosine()),
        batch_size=256,
        duration="3000 steps",
    )
