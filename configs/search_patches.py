"""Search: which slots of a masked transformer of image patches need attention.

    python -m launch.search --config=search_patches --config.run.data.source=idx:FOLDER

FOLDER holds MNIST's or Fashion-MNIST's four IDX files. On MNIST, 12 minutes on two cores:
attention is needed (74.6 nats a row with four blocks of it, 103.5 with none: 20 deviations); the
supernet leaves one block and three slots empty (afifiiff, +1.3 +- 5.8 nats, 95 %, 3 seeds, 43 %
less time in training), replacement three (afafafff, -1.4 +- 3.3). Seeds differ by 2 to 6 nats, so
nothing is shown within the margin of 1. All of it: docs/log/search.md.
"""

from aejax.config import Config, Data, Evaluation
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Transformer
from aejax.models.corruption import Hidden
from aejax.models.likelihood import Bernoulli
from aejax.optimizer import Adam
from aejax.search import Replacement, Search, SupernetSearch


def get_config() -> Search:
    """Four layers of 64, half of an image's 49 patches hidden; 95 % train, 5 % choose."""
    return Search(
        run=Config(
            data=Data(),
            model=Autoencoder(
                coder=Transformer(
                    width=64,
                    heads=4,
                    feed_forward=256,
                    encoder_layout="interleaved:4",
                    decoder_layout="i",
                    patch=4,
                ),
                latent_dim=0,
                bottleneck=Plain(activation="linear"),
                likelihood=Bernoulli(),
                corruption=Hidden(rate=0.5, patch=4),
            ),
            optimizer=Adam(learning_rate=2e-3),
            batch_size=32,
            duration="800 steps",
            evaluation=Evaluation(every=""),
        ),
        encoder_space=("afi",),
        supernet=SupernetSearch(duration="1800 steps", anneal=1000, cost_weight=1.0),
        replacement=Replacement(imitation="300 steps", tuning="300 steps"),
        holdout_fraction=0.05,
        learned=94.0,
        margin=1.0,
        controls=("par:4:4", "sandwich:2:4", "ffffffff"),
        random=1,
        seeds=3,
        latency=True,
    )
