"""Recurrent autoencoder: an LSTM reads a sequence of vectors into one code, another writes it.

    python -m launch.train --config=sequence

Speech: FOLDER holds recordings in train and test (the free spoken digits: 2700, and the 300 whose
number is 0 to 4), of which a frame of 40 bands comes every 10 ms, 42 frames in the mean:

    python -m launch.train --config=sequence --config.data.source=sound:FOLDER \\
        --config.model.coder.cell=lru --config.model.coder.hidden=256, \\
        --config.model.likelihood=gaussian --config.duration="1500 steps" \\
        --config.model.latent_dim=K --workdir=runs/speech-K

Squared error a band on the test split, of energies scaled to [0, 1] (76.7 dB), written freely from
the code, seeds 0 to 2 (--config.seed), 6 to 8 minutes on one core each; beside it PCA of whole
recordings (without any code, 0.0374):

    numbers in the code     16        32        64        128
    seed 0                  0.00433    0.00312    0.00248    0.00209
    seed 1                  0.00427    0.00317    0.00245    0.00208
    seed 2                  0.00427    0.00314    0.00244    0.00206
    PCA                     0.00620    0.00402    0.00270    0.00184
"""

from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Recurrent
from aejax.models.likelihood import Bernoulli
from aejax.optimizer import Adam, Cosine


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
