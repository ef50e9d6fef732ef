"""A space of three slots, two in the encoder, small enough for tests."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax.config import Config, Data, Evaluation, Prepare
from aejax.models import Autoencoder, Batch
from aejax.models.batch import Context
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Transformer
from aejax.models.corruption import Half
from aejax.models.likelihood import Categorical
from aejax.optimizer import Adam
from aejax.search.space import Layout, Space
from aejax.search.supernet import Supernet
from aejax.training.step import row_keys

SPACE = Space(("afi", "wf"), ("fi",))
PARENT = Layout("aw", "f")
PRICES = {"a": 1.0, "w": 0.5, "f": 0.25, "i": 0.0}


def autoencoder(encoder: str = "aw", decoder: str = "f") -> Autoencoder:
    return Autoencoder(
        coder=Transformer(
            width=8,
            heads=2,
            feed_forward=8,
            encoder_layout=encoder,
            decoder_layout=decoder,
            symbols=16,
            window=2,
        ),
        latent_dim=0,
        bottleneck=Plain(activation="linear"),
        likelihood=Categorical(classes=16),
        corruption=Half(),
    )


def supernet(**changes) -> Supernet:
    settings = {
        "model": autoencoder(),
        "space": SPACE,
        "cost": PRICES,
        "cost_weight": 2.0,
        "target": 0.0,
        "learned": 1.0,
        "warmup": 0,
        "steps": 10,
        "temperature": (1.0, 0.1),
        "share": 1.0,
        "rate": 30.0,
        "seed": 3,
    }
    return Supernet(**{**settings, **changes})


def rows(count: int, seed: int = 0) -> np.ndarray:
    half = np.random.RandomState(seed).randint(16, size=(count, 8))
    return np.tile(half, (1, 2)).astype(np.float32)


def context(count: int, step: int = 5) -> Context:
    keys = row_keys(jax.random.key(0), jnp.int32(step), jnp.arange(count, dtype=jnp.uint32))
    return Context(keys, jnp.int32(step), lambda values: jnp.mean(values, axis=0))


def config(model=None) -> Config:
    return Config(
        model=model or autoencoder(),
        data=Data(source="planted:copy", prepare=Prepare(scale=False)),
        optimizer=Adam(learning_rate=3e-3),
        batch_size=8,
        duration="12 steps",
        evaluation=Evaluation(every=""),
        trackers=(),
        log_every=4,
        compilation_cache="",
    )


def made(settings, pairs: np.ndarray):
    return settings.init(nnx.Rngs(0), Batch(jnp.asarray(pairs)))


def scrambled(module):
    """The module with random numbers in all its parameters, biases and scales too."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    new = [
        leaf + 0.3 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return nnx.merge(graph, jax.tree.unflatten(tree, new), rest)
