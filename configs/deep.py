"""Deep autoencoder of Hinton and Salakhutdinov (2006, Science 313): 784-1000-500-250-30 and back.

    python -m launch.train --config=deep --config.data.source=idx:FOLDER --workdir=runs/deep

trains it from scratch, without the pre-training that it was published with, in about four minutes
on two cores. FOLDER holds MNIST's four IDX files. Squared error on the test split, an image (the
sum of 784 pixels), seeds 0 to 2: 2.86, 2.83, 2.84. Published: 3.00 with pre-training, 13.87 for PCA
with 30 components. With --config.duration="60 epochs": 2.62, and no better with 100 epochs. What
that run has learned, trained on for the squared error itself, comes to 2.58 (seeds 0 to 2: 2.58,
2.58, 2.58):

    python -m launch.train --config=deep --config.data.source=idx:FOLDER --workdir=runs/deep-100 \\
        --config.duration="100 epochs"
    python -m launch.train --config=deep --config.data.source=idx:FOLDER --workdir=runs/deep-se \\
        --config.init_from=runs/deep-100 --config.duration="10 epochs" \\
        --config.model.likelihood=gaussian --config.model.likelihood.activation=sigmoid \\
        --config.optimizer.learning_rate=5e-4

(less than half an hour on one core, two minutes on an H200, where seeds 1 and 2 ran side by side.)
"""

from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Bernoulli
from aejax.optimizer import AdamW, Cosine


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
