"""Recurrent autoencoder of text: windows of bytes, each read into one code and written again.

python -m launch.train --config=sequence_text --config.data.source=text:FILE?length=32

On Shakespeare's plays in one file (1.1 MB; the last tenth is the test split), seed 0, written
freely from the code, 12 epochs in 3 to 5 minutes on two cores:

    numbers in the code (--config.model.latent_dim=)    256       64       32
    bytes that are wrong                                0.06 %    0.53 %   4.6 %

Seeds 1 and 2 with 256 numbers: 0.07 %, 0.08 %.
"""

from aejax.config import Config, Data, Prepare
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Recurrent
from aejax.models.likelihood import Categorical
from aejax.optimizer import Adam, Cosine


def get_config() -> Config:
    """Windows of bytes; run it with --config.data.source=text:FILE?length=32."""
    return Config(
        data=Data(prepare=Prepare(scale=False)),
        model=Autoencoder(
            coder=Recurrent(cell="lru", hidden=(256,), symbols=256),
            latent_dim=256,
            bottleneck=Plain(activation="linear"),
            likelihood=Categorical(classes=256),
        ),
        optimizer=Adam(learning_rate=2e-3, schedule=Cosine(), warmup=0.05, clip=1.0),
        batch_size=128,
        duration="12 epochs",
    )
