"""Stacked autoencoder (Bengio et al. 2007): trained layer by layer, then fine-tuned as one.

    python -m launch.train --config=stacked

trains 64-256-128-64-8 and back on the embedded digits: four stages of 1000 steps, each a shallow
autoencoder on the codes of those below (runs/stacked/stage1 to stage4, runs like any other), which
are unrolled into the deep one, then 2000 steps as a whole (runs/stacked). Test squared error a
pixel, seed 0, against training from scratch for as many steps as all of these together
(--config.pretrain=none --config.duration="6000 steps"), and against PCA(8), 0.0245:

    activation                                 stacked    from scratch
    sigmoid                                    0.0134     0.0228
    gelu (--config.model.coder.activation=)    0.0101     0.0111

A stacked denoising autoencoder (Vincent et al. 2010) is --config.pretrain.corruption=masking (with
--config.pretrain.corruption.rate=0.2: 0.0129). In the sizes of Hinton and Salakhutdinov (2006), on
MNIST (FOLDER holds its four IDX files):

    python -m launch.train --config=stacked --config.data.source=idx:FOLDER \\
        --config.model.coder.hidden=1000,500,250 --config.model.latent_dim=30 \\
        --config.pretrain.duration="5 epochs" --config.duration="20 epochs" --workdir=runs/stacked
"""

from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Bernoulli
from aejax.optimizer import Adam, Cosine
from aejax.pretrain import Greedy


def get_config() -> Config:
    """256-128-64-8 and its mirror, of sigmoid units, a stage for each layer."""
    return Config(
        model=Autoencoder(
            coder=Dense(hidden=(256, 128, 64), activation="sigmoid"),
            latent_dim=8,
            bottleneck=Plain(activation="linear"),
            likelihood=Bernoulli(),
        ),
        pretrain=Greedy(duration="1000 steps", optimizer=Adam(learning_rate=1e-3)),
        optimizer=Adam(learning_rate=1e-3, schedule=Cosine()),
        batch_size=128,
        duration="2000 steps",
    )
