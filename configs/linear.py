"""Linear autoencoder with squared error: it finds the principal components.

    python -m launch.train --config=linear
    python -m launch.evaluate --workdir=runs/linear --tasks=pca

8 components of the digits, full batch: its squared error is 1.3e-10 (training rows; 2.5e-9 on test
rows) above PCA's, as a share of it, and the largest principal angle between the decoder's columns
and PCA's is 3.1e-7 rad.

16 components of MNIST (FOLDER holds its four IDX files):

    python -m launch.train --config=linear --config.data.source=idx:FOLDER \\
        --config.model.latent_dim=16 --config.batch_size=256 --config.duration="20 epochs" \\
        --config.optimizer.learning_rate=3e-3 --workdir=runs/linear-mnist
    python -m launch.evaluate --workdir=runs/linear-mnist --tasks=pca

5.4e-6 above PCA's on training rows, 2.4e-5 on test rows; largest angle 4.3e-3 rad.
"""

from aejax.config import Config, Data, Prepare
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Gaussian
from aejax.optimizer import Adam, Cosine


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
