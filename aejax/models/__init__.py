"""Autoencoders: one module made of parts; one file holds one idea with its equation and paper."""

from aejax.models.autoencoder import Autoencoder
from aejax.models.batch import Batch, Context, PerRow
from aejax.models.interfaces import Trainable
from aejax.models.rbm import RBM
from aejax.registry import Kinds

KINDS = Kinds("aejax.models", Trainable, {"autoencoder": Autoencoder, "rbm": RBM})

__all__ = ["KINDS", "RBM", "Autoencoder", "Batch", "Context", "PerRow"]
