"""What trains: autoencoders made of parts, machines, a classifier; one file holds one idea."""

from aejax.models.autoencoder import Autoencoder
from aejax.models.batch import Batch, Context, PerRow
from aejax.models.classifier import Classifier
from aejax.models.deep_belief import DeepBelief
from aejax.models.interfaces import Trainable
from aejax.models.rbm import RBM
from aejax.registry import Kinds

KINDS = Kinds(
    "aejax.models",
    Trainable,
    {"autoencoder": Autoencoder, "rbm": RBM, "deep_belief": DeepBelief, "classifier": Classifier},
)

__all__ = [
    "KINDS",
    "RBM",
    "Autoencoder",
    "Batch",
    "Classifier",
    "Context",
    "DeepBelief",
    "PerRow",
    "Trainable",
]
