"""Dense autoencoder of a table: standardised numbers, categories as 0 and 1, squared error.

    python -m launch.train --config=table --config.data.source="table:FILE.csv?label=NAME"

The breast cancer set that scikit-learn ships (569 rows, 30 columns, 57 rows for the test), written
with a line of names by

    python -c "import numpy as np, sklearn.datasets as d; d = d.load_breast_cancer(); np.savetxt( \\
        'FILE.csv', np.c_[d.data, d.target], delimiter=',', comments='', \\
        header=','.join([*d.feature_names, 'NAME']))"

Squared error a column on the test split, in squared deviations (the row `test` of metrics.jsonl),
with --config.model.latent_dim=K and seed 0; beside it PCA of the training split:

    numbers in the code     2       4       8
    this                    0.399    0.264    0.108 (seeds 1 and 2: 0.095, 0.104)
    PCA                     0.448    0.290    0.106
"""

from aejax.config import Config, Data, Prepare
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Gaussian
from aejax.optimizer import Adam, Cosine


def get_config() -> Config:
    """One hidden layer each way; without a source the digits, a column a pixel."""
    return Config(
        model=Autoencoder(
            coder=Dense(hidden=(64,)),
            latent_dim=8,
            bottleneck=Plain(activation="linear"),
            likelihood=Gaussian(),
        ),
        data=Data(prepare=Prepare(scale=False, centre="standardise")),
        optimizer=Adam(learning_rate=3e-3, schedule=Cosine()),
        batch_size=64,
        duration="3000 steps",
    )
