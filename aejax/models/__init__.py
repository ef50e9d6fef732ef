"""Autoencoders: one module made of parts; one file holds one idea with its equation and paper."""

from aejax.models.autoencoder import Autoencoder
from aejax.models.batch import Batch, Context, PerRow

KINDS = {"autoencoder": Autoencoder}

__all__ = ["KINDS", "Autoencoder", "Batch", "Context", "PerRow"]
