"""Variational autoencoder (Kingma and Welling 2014), in the size of Burda et al. (2016).

    python -m launch.train --config=variational

trains 64-200-200-50 and back on the embedded digits; its rows of metrics.jsonl tell the divergence,
kl, beside the likelihood, nll, in nats a row. After 3000 steps (test, seed 0, at the code's mean):
kl 3.73, nll 18.63. On MNIST:

    python -m launch.train --config=variational --config.data.source=idx:FOLDER \\
        --config.data.prepare.binarise=sampled --config.model.coder.activation=gelu \\
        --config.optimizer.learning_rate=2e-3 --config.optimizer.schedule=cosine \\
        --config.optimizer.warmup=0.1 --config.duration="200 epochs" --workdir=runs/variational
    python -m launch.evaluate --workdir=runs/variational --tasks=likelihood --split="test[:1000]"

log p(x) by 5000 samples a row, of 1,000 test images binarised once, seeds 0 to 2: -85.88, -85.80,
-85.59 nats (standard error 0.75; bounds -89.55, -89.63, -89.52; 18, 22, 24 active units). The full
schedule, --config.duration="800 epochs", a quarter of an hour on one core: -84.47, -84.72, -84.38
(bounds -88.03, -88.23, -87.94; 21, 21, 20 active units). With 6
epochs -96.98, -96.50, -96.93, and with 50 samples in training
(--config.model.bottleneck.samples=50) -95.19, -95.28, -94.78.

--config.model.bottleneck.samples=5 trains on the importance-weighted bound, .beta=4 weighs the
divergence, .free_bits=0.1 lets each unit have a tenth of a nat for nothing.
"""

from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Variational
from aejax.models.coders import Dense
from aejax.models.likelihood import Bernoulli
from aejax.optimizer import Adam


def get_config() -> Config:
    """Two tanh layers of 200 units, a code of 50, Bernoulli pixels."""
    return Config(
        model=Autoencoder(
            coder=Dense(hidden=(200, 200), activation="tanh"),
            latent_dim=50,
            bottleneck=Variational(),
            likelihood=Bernoulli(),
        ),
        optimizer=Adam(learning_rate=1e-3),
        batch_size=100,
        duration="3000 steps",
    )
