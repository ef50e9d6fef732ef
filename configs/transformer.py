"""Transformer autoencoder: tokens to one code and back, with any block in any slot.

    python -m launch.train --config=transformer

30 numbers for each of the embedded digits: test squared error 0.0029 a pixel (seed 0).
"""

from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Transformer
from aejax.models.likelihood import Bernoulli
from aejax.optimizer import Adam, Cosine


def get_config() -> Config:
    """The digits that scikit-learn ships as 16 patches of 2x2, through 30 numbers."""
    return Config(
        model=Autoencoder(
            coder=Transformer(
                width=64,
                heads=4,
                feed_forward=128,
                encoder_layout="interleaved:2",
                decoder_layout="interleaved:2",
                patch=2,
            ),
            latent_dim=30,
            bottleneck=Plain(activation="linear"),
            likelihood=Bernoulli(),
        ),
        optimizer=Adam(learning_rate=1e-3, schedule=Cosine(), warmup=0.05),
        batch_size=128,
        duration="3000 steps",
    )
