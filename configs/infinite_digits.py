"""A classifier on an endless stream of digits: the experiment of Erhan et al. (2010), figure 11.

    python -m launch.train --config=infinite_digits --config.data.source=idx:FOLDER

trains 784-500-500-500-10 of sigmoid units on MNIST (FOLDER holds its four IDX files), every image
deformed anew in each epoch, so that none comes twice. Layers are pre-trained on the same stream by
denoising autoencoders (--config.pretrain.by=rbm, none). The whole experiment, whose curves stand in
the report:

    python -m launch.sweep --config=infinite_digits --config.data.source=idx:FOLDER \\
        --sweep='model.coder.hidden=(),(500,500)' --sweep='pretrain.by=none,rbm,autoencoder' \\
        --sweep='seed=0,1,2'

With --config.duration="3e6 examples" and --config.pretrain.duration="1e6 examples" the online error
over the last 100,000 examples is 0.84 % without stages, 0.68 % with denoising autoencoders and
0.56 % with RBMs (two seeds).
"""

from aejax.config import Checkpoint, Config, Data, Evaluation, Prepare
from aejax.models import Classifier
from aejax.models.coders import Dense
from aejax.models.corruption import Masking
from aejax.optimizer import Adam
from aejax.pretrain import Greedy


def get_config() -> Config:
    """784-500-500-500-10, 500,000 examples a stage and 1,500,000 with labels."""
    return Config(
        model=Classifier(coder=Dense(hidden=(500, 500), activation="sigmoid"), latent_dim=500),
        data=Data(prepare=Prepare(deform=1.0)),
        pretrain=Greedy(
            duration="500000 examples",
            optimizer=Adam(learning_rate=1e-3),
            corruption=Masking(rate=0.25),
        ),
        optimizer=Adam(learning_rate=1e-3),
        batch_size=100,
        duration="1500000 examples",
        evaluation=Evaluation(every="10%", metric="error"),
        checkpoint=Checkpoint(minutes=2.0),
        log_every=500,
    )
