"""Models of the presets that were not trained, with every parameter drawn, and rows for them."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax.data.prepare import Preparation, statistics
from aejax.data.sources import open_source
from aejax.data.sources.base import Arrays, Source
from aejax.runs.folder import Run
from aejax.runs.loading import Model
from aejax.training.setup import abstract_batch


def source_of(name: str) -> Source:
    """Rows that the preset can take: the digits, or bytes of text, or numbers with holes."""
    random = np.random.RandomState(0)
    if name == "sequence_text":
        return Arrays(random.randint(0, 256, (40, 16)).astype(np.uint8), None, 255.0)
    if name == "table":
        x = random.randn(40, 5).astype(np.float32) * [1, 10, 0.1, 1, 1] + 3
        x[random.rand(40, 5) < 0.2] = np.nan
        return Arrays(x.astype(np.float32), None, None, missing=True)
    return open_source("digits", "test[:40]")


def model_of(name: str, source: Source) -> Model:
    """The preset's model for rows of this source."""
    config = importlib.import_module(f"configs.{name}").get_config()
    batch = abstract_batch(config, source.spec)
    graph, state = nnx.split(nnx.eval_shape(lambda: config.model.init(nnx.Rngs(0), batch)))
    random = np.random.RandomState(1)

    def drawn(leaf):
        value = random.randn(*leaf.shape) / np.sqrt(max(leaf.shape[0], 10))
        return jnp.asarray(value, leaf.dtype)

    module = nnx.merge(graph, jax.tree.map(drawn, state))
    found = statistics(config.data.prepare, source)
    preparation = Preparation(config.data.prepare, source.spec, found)
    return Model(Run(config, source.spec, found, len(source)), 0, False, module, preparation)
