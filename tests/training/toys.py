"""Six small parts that stress the contracts, each with its loss written out again in NumPy.

The NumPy losses work in float64 on the whole global batch, know nothing of devices, micro-batches
or `Context`, and take the random draws as arrays: they are what the training step must agree with.
"""

import dataclasses
import functools
import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax.models import Autoencoder, Batch, PerRow
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.interfaces import (
    Bottleneck,
    Code,
    Coder,
    Corrupted,
    Corruption,
    Penalty,
    Trainable,
)
from aejax.models.likelihood import Gaussian


def row_keys(seed: int, step: int, rows: int, part: str) -> list[jax.Array]:
    """The key of each row of the global batch, by the rule's own words."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    number = zlib.crc32(part.encode())
    return [jax.random.fold_in(jax.random.fold_in(key, row), number) for row in range(rows)]


@functools.cache
def draws(seed: int, step: int, rows: int, part: str, function: Any) -> np.ndarray:
    return np.stack([np.asarray(function(key)) for key in row_keys(seed, step, rows, part)])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def bernoulli(logits: np.ndarray, x: np.ndarray) -> np.ndarray:
    return x * logits - np.logaddexp(0, logits)


def layer(params: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    mirrored = params.get(f"{name}/weight")  # [outputs, inputs]
    kernel = params[f"{name}/kernel"] if mirrored is None else mirrored.T
    return x @ kernel + params[f"{name}/bias"]


# 1. KL sparsity (Ng 2011): beta sum_j KL(rho || mean activation_j), through `mean`.


@dataclasses.dataclass
class Sparsity(Penalty):
    rho: float = 0.1
    beta: float = 3.0

    def __call__(self, inputs, context):
        rate = context.mean(inputs.z)
        kl = self.rho * jnp.log(self.rho / rate)
        kl += (1 - self.rho) * jnp.log((1 - self.rho) / (1 - rate))
        return {"sparsity": self.beta * jnp.sum(kl)}


def sparse() -> Autoencoder:
    return Autoencoder(coder=Dense(), latent_dim=3, bottleneck=Plain("sigmoid"), penalty=Sparsity())


def sparse_loss(params, x, seed, step):
    z = sigmoid(layer(params, "encoder/layers/0", x))
    log_p = bernoulli(layer(params, "decoder/layers/0", z), x).sum(1)
    rho, rate = 0.1, z.mean(0)
    kl = rho * np.log(rho / rate) + (1 - rho) * np.log((1 - rho) / (1 - rate))
    return -log_p.mean() + 3.0 * kl.sum()


# 2. An importance-weighted code with K samples (Burda et al. 2016).


@dataclasses.dataclass
class Weighted(Bottleneck):
    samples: int = 4

    def features(self, latent_dim: int) -> int:
        return 2 * latent_dim

    def encode(self, features):
        return jnp.split(features, 2, axis=-1)[0]

    def __call__(self, features, context):
        mean, log_scale = jnp.split(features, 2, axis=-1)
        if not context.training:
            return Code(mean[None])
        shape = (self.samples, mean.shape[-1])
        noise = jax.vmap(lambda key: jax.random.normal(key, shape))(context.draw("bottleneck"))
        noise = jnp.swapaxes(noise, 0, 1)
        z = mean + jnp.exp(log_scale) * noise
        log_q = -jnp.sum(0.5 * noise**2 + log_scale, axis=-1)
        log_prior = -jnp.sum(0.5 * z**2, axis=-1)
        return Code(z, log_prior - log_q)


def weighted() -> Autoencoder:
    return Autoencoder(coder=Dense(), latent_dim=2, bottleneck=Weighted())


def noise_of(key):
    return jax.random.normal(key, (4, 2))


def weighted_loss(params, x, seed, step):
    noise = draws(seed, step, len(x), "bottleneck", noise_of)
    mean, log_scale = np.split(layer(params, "encoder/layers/0", x), 2, axis=1)
    bounds = []
    for k in range(4):
        z = mean + np.exp(log_scale) * noise[:, k]
        log_p = bernoulli(layer(params, "decoder/layers/0", z), x).sum(1)
        log_q = -(0.5 * noise[:, k] ** 2 + log_scale).sum(1)
        bounds.append(log_p - 0.5 * (z**2).sum(1) - log_q)
    top = np.max(bounds, axis=0)
    return -np.mean(top + np.log(np.mean(np.exp(np.array(bounds) - top), axis=0)))


# 3. A recurrent decoder that is shown its target (teacher forcing).


@dataclasses.dataclass
class Recurrent(Coder):
    width: int = 3

    def teacher_inputs(self, x, context):
        return x

    def encoder(self, shape, features, rngs):
        return Dense().encoder(shape, features, rngs)

    def decoder(self, latent_dim, shape, outputs, rngs):
        return RecurrentDecoder(self.width, latent_dim, shape, outputs, rngs)


class RecurrentDecoder(nnx.Module):
    def __init__(self, width, latent_dim, shape, outputs, rngs):
        self.length = math.prod(shape)
        self.start = nnx.Linear(latent_dim, width, rngs=rngs)
        self.input = nnx.Linear(1, width, rngs=rngs)
        self.recur = nnx.Linear(width, width, rngs=rngs)
        self.output = nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, z, target, mask, context=None):
        first = jnp.zeros((len(z), 1))
        before = None  # x shifted by one; where nothing is shown, what was given before
        if target is not None:
            before = jnp.swapaxes(jnp.pad(target, ((0, 0), (1, 0)))[:, :-1, None], 0, 1)

        def tick(carry, x):
            state, given = carry
            state = jnp.tanh(self.input(given if x is None else x) + self.recur(state))
            return (state, self.output(state)), self.output(state)

        start = (jnp.tanh(self.start(z)), first)
        _, outputs = jax.lax.scan(tick, start, before, self.length)
        return jnp.moveaxis(outputs, 0, -2)


def recurrent() -> Autoencoder:
    return Autoencoder(coder=Recurrent(), latent_dim=2, likelihood=Gaussian())


def recurrent_loss(params, x, seed, step):
    state = np.tanh(layer(params, "decoder/start", layer(params, "encoder/layers/0", x)))
    total = 0.0
    for t in range(x.shape[1]):
        before = x[:, t - 1 : t] if t else np.zeros((len(x), 1))
        state = np.tanh(
            layer(params, "decoder/input", before) + layer(params, "decoder/recur", state)
        )
        total += np.square(x[:, t] - layer(params, "decoder/output", state)[:, 0])
    return np.mean(total) + x.shape[1] * 0.5 * math.log(math.pi)


# 4. A restricted Boltzmann machine with persistent chains (Tieleman 2008).


@dataclasses.dataclass
class Boltzmann(Trainable):
    hidden: int = 4

    def check(self, interval: bool) -> None:
        pass

    def init(self, rngs, batch):
        return BoltzmannModule(self.hidden, batch, rngs)


class BoltzmannModule(nnx.Module):
    def __init__(self, hidden, batch, rngs):
        rows, visible = batch.x.shape
        self.weight = nnx.Param(0.1 * jax.random.normal(rngs.params(), (visible, hidden)))
        self.visible = nnx.Param(jnp.zeros(visible))
        self.hidden = nnx.Param(jnp.zeros(hidden))
        self.chains = PerRow(jnp.tile(jnp.arange(visible) % 2, (rows, 1)).astype(jnp.float32))

    def free_energy(self, v):
        return -v @ self.visible[...] - jnp.sum(
            jax.nn.softplus(v @ self.weight[...] + self.hidden[...]), axis=-1
        )

    def loss(self, batch: Batch, context=None):
        chains = self.chains[...]
        if context is not None:
            chains = jax.vmap(self.gibbs)(chains, context.draw("gibbs"))
            self.chains[...] = jax.lax.stop_gradient(chains)
            apart = jnp.mean(self.free_energy(jax.lax.stop_gradient(chains)))
            return jnp.mean(self.free_energy(batch.x)) - apart, {"chains": jnp.mean(chains)}
        return jnp.mean(self.free_energy(batch.x)), {}

    def gibbs(self, v, key):
        up, down = jax.random.split(key)
        h = jax.random.bernoulli(up, jax.nn.sigmoid(v @ self.weight[...] + self.hidden[...]))
        rate = jax.nn.sigmoid(h @ self.weight[...].T + self.visible[...])
        return jax.random.bernoulli(down, rate).astype(jnp.float32)


def boltzmann_gradient(params, x, chains) -> dict[str, np.ndarray]:
    """The closed form: <v h'> of the chains minus <v h'> of the data."""

    def statistics(v):
        h = sigmoid(v @ params["weight"] + params["hidden"])
        return {"weight": v.T @ h / len(v), "visible": v.mean(0), "hidden": h.mean(0)}

    data, model = statistics(x), statistics(chains)
    return {name: model[name] - data[name] for name in data}


# 5. Masked positions with weights: hidden ones count 2, shown ones 0.5.


@dataclasses.dataclass
class Hide(Corruption):
    rate: float = 0.4

    def __call__(self, x, context):
        hide = jax.vmap(lambda key: jax.random.bernoulli(key, self.rate, x.shape[1:]))
        hidden = hide(context.draw("corruption"))
        return Corrupted(jnp.where(hidden, 0.0, x), hidden, jnp.where(hidden, 2.0, 0.5))


@dataclasses.dataclass
class Told(Coder):
    """A dense coder whose encoder is told which positions are hidden."""

    def encoder(self, shape, features, rngs):
        return ToldEncoder(shape, features, rngs)

    def decoder(self, latent_dim, shape, outputs, rngs):
        return Dense().decoder(latent_dim, shape, outputs, rngs)


class ToldEncoder(nnx.Module):
    def __init__(self, shape, features, rngs):
        self.layer = nnx.Linear(2 * shape[0], features, rngs=rngs)

    def __call__(self, x, hidden, mask, context=None):
        told = jnp.zeros_like(x) if hidden is None else hidden.astype(x.dtype)
        return self.layer(jnp.concatenate([x, told], axis=-1))


def masked() -> Autoencoder:
    return Autoencoder(coder=Told(), latent_dim=3, corruption=Hide())


def hidden_of(key):
    return jax.random.bernoulli(key, 0.4, (6,))


def masked_loss(params, x, seed, step):
    hidden = draws(seed, step, len(x), "corruption", hidden_of)
    told = np.concatenate([np.where(hidden, 0.0, x), hidden], axis=1)
    logits = layer(params, "decoder/layers/0", layer(params, "encoder/layer", told))
    return -(np.where(hidden, 2.0, 0.5) * bernoulli(logits, x)).sum(1).mean()


# 6. Annealing by step: the weight of an L2 penalty on the code rises to 1 in 4 steps.


@dataclasses.dataclass
class Annealed(Bottleneck):
    steps: int = 4

    def features(self, latent_dim: int) -> int:
        return latent_dim

    def encode(self, features):
        return features

    def __call__(self, features, context):
        weight = jnp.minimum(1.0, context.step / self.steps) if context.training else 1.0
        return Code(features[None], None, {"size": weight * jnp.sum(features**2, axis=-1)})


def annealed() -> Autoencoder:
    return Autoencoder(coder=Dense(), latent_dim=3, bottleneck=Annealed())


def annealed_loss(params, x, seed, step):
    z = layer(params, "encoder/layers/0", x)
    log_p = bernoulli(layer(params, "decoder/layers/0", z), x).sum(1)
    return -log_p.mean() + min(1.0, step / 4) * (z**2).sum(1).mean()


# Beside the six: means of means, as in batch normalisation, whose gradient couples all rows twice.


@dataclasses.dataclass
class Normalised(Bottleneck):
    def features(self, latent_dim: int) -> int:
        return latent_dim

    def encode(self, features):
        return features

    def __call__(self, features, context):
        centred = features - context.mean(features)
        z = centred / jnp.sqrt(context.mean(centred**2) + 1e-3)
        return Code(jnp.tanh(z)[None])


def normalised() -> Autoencoder:
    return Autoencoder(coder=Dense(), latent_dim=3, bottleneck=Normalised(), likelihood=Gaussian())


def normalised_loss(params, x, seed, step):
    features = layer(params, "encoder/layers/0", x)
    centred = features - features.mean(0)
    z = np.tanh(centred / np.sqrt((centred**2).mean(0) + 1e-3))
    error = np.square(layer(params, "decoder/layers/0", z) - x).sum(1)
    return error.mean() + x.shape[1] * 0.5 * math.log(math.pi)
