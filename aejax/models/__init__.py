"""Autoencoders: one module made of parts; one file holds one idea with its equation and paper."""

from aejax.models.autoencoder import Autoencoder
from aejax.models.batch import Batch, Context, PerRow
from aejax.models.interfaces import Trainable
from aejax.registry import Kinds

KINDS = Kinds("aejax.models", Trainable, {"autoencoder": Autoencoder})

__all__ = ["KINDS", "Autoencoder", "Batch", "Context", "PerRow"]
