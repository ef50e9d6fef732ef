"""A learned transform for compression: one tied linear layer whose codes are sparse.

    python -m launch.train --config=transform

Reconstruction ICA (Le et al. 2011, "ICA with Reconstruction Cost for Efficient Overcomplete Feature
Learning"): squared error and the sum of the sizes of the codes. Tied layers come near to an
orthonormal transform, whose codes can all be rounded by one step. latent_dim is the number of
elements of a row, deviation a third of the rows' own.

Sound (FOLDER has the 3,000 recordings of the Free Spoken Digit Dataset, 8 kHz):

    python -m launch.train --config=transform --config.data.source="sound:FOLDER?samples=256" \\
        --config.data.prepare.scale=False --config.data.prepare.centre=none \\
        --config.model.latent_dim=256 --config.model.likelihood.deviation=0.02 \\
        --config.model.penalty.weight=20 --config.duration="60 epochs" --workdir=runs/sound
    python -m launch.evaluate --workdir=runs/sound --tasks=compress

Signal-to-noise ratio and log-spectral distance in dB on the 300 test recordings (seed 0, half a
minute of training on two cores), beside MP3 of as many bytes:

    kbit/s             8.0     16.0    24.0    32.1
    this, ratio        19.5    26.0    29.3    30.5
    MP3, ratio         11.3    15.5    20.2    23.6
    this, distance     6.9     4.4     2.9     1.8
    MP3, distance      7.9     4.4     3.1     2.3

Photographs, and speakers that were not trained on: docs/variants/transform.md.
"""

from aejax.config import Config, Data, Prepare
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Gaussian
from aejax.models.penalties import L1
from aejax.optimizer import Adam, Cosine


def get_config() -> Config:
    """64 numbers for the digits that scikit-learn ships."""
    return Config(
        model=Autoencoder(
            coder=Dense(hidden=(), bias=False, tied=True),
            latent_dim=64,
            bottleneck=Plain(activation="linear"),
            likelihood=Gaussian(deviation=0.07),
            penalty=L1(weight=5.0),
        ),
        data=Data(prepare=Prepare(centre="mean")),
        optimizer=Adam(learning_rate=3e-3, schedule=Cosine()),
        batch_size=512,
        duration="3000 steps",
    )
