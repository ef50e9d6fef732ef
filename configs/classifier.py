"""Classifier: an encoder with a softmax on top.

python -m launch.train --config=classifier
python -m launch.evaluate --workdir=runs/classifier
"""

from aejax.config import Config, Evaluation
from aejax.models import Classifier
from aejax.models.coders import Dense
from aejax.optimizer import Adam


def get_config() -> Config:
    """64-256-128-10 of relu units with dropout."""
    return Config(
        model=Classifier(
            coder=Dense(hidden=(256,), activation="relu", dropout=0.5),
            latent_dim=128,
            classes=10,
            dropout=0.5,
        ),
        optimizer=Adam(learning_rate=1e-3),
        batch_size=128,
        duration="3000 steps",
        evaluation=Evaluation(metric="error"),
    )
