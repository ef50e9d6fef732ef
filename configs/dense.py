"""Dense autoencoder of the Keras tutorial: one relu layer each way, cross-entropy.

    python -m launch.train --config=dense

trains 64-32-64 on the embedded digits: test squared error 0.0041 a pixel after 3000 steps.

On MNIST (FOLDER holds its four IDX files), 784-k-784, Adam, 50 epochs of batches of 256:

    python -m launch.train --config=dense --config.data.source=idx:FOLDER \\
        --config.duration="50 epochs" --config.model.latent_dim=32 --config.seed=0 \\
        --workdir=runs/mnist

    k     test squared error a pixel (mean of seeds 0, 1, 2)    PCA with k components
    32    0.00960  (0.00962, 0.00960, 0.00958)                   0.0168
    16    0.02085  (0.02092, 0.02084, 0.02079)                   0.0269
     8    0.03349  (0.03349, 0.03345, 0.03353)                   0.0374

With the lecture's --config.optimizer=adadelta, k = 32, seed 0, the learning rate decides:

    --config.optimizer.learning_rate=1.0      0.01010 (cross-entropy 0.0929 a pixel)
    --config.optimizer.learning_rate=0.001    0.0634  (cross-entropy 0.2554: it hardly trains)
"""

from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Bernoulli
from aejax.optimizer import Adam


def get_config() -> Config:
    """The digits that scikit-learn ships, 64-32-64; 784-32-784 on MNIST."""
    return Config(
        model=Autoencoder(
            coder=Dense(hidden=()),
            latent_dim=32,
            bottleneck=Plain(activation="relu"),
            likelihood=Bernoulli(),
        ),
        optimizer=Adam(learning_rate=1e-3),
        batch_size=256,
        duration="3000 steps",
    )
