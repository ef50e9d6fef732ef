"""Five-layer network (Oja 1991; Kramer 1991): principal components along curves, not lines.

    python -m launch.train --config=oja

x - mapping (tanh) - code (linear) - demapping (tanh) - x (linear), with squared error: the preset
linear with a non-linear layer on either side of the code, so that the code runs along curves. Test
squared error a pixel, seed 0, against PCA with as many components:

    digits, 64-128-8-128-64                    0.0126    0.0245
    MNIST, 784-500-16-500-784 (below)          0.0183    0.0269

One number follows three quarters of a circle to 0.0004 (squared error an element) where the first
principal component leaves 0.164 (tests/configs/test_oja.py). FOLDER holds MNIST's four IDX files:

    python -m launch.train --config=oja --config.data.source=idx:FOLDER \\
        --config.model.coder.hidden=500 --config.model.latent_dim=16 \\
        --config.optimizer.learning_rate=1e-3 --config.duration="20 epochs" --workdir=runs/oja-mnist
"""

from aejax.config import Config, Data, Prepare
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Gaussian
from aejax.optimizer import Adam, Cosine


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
