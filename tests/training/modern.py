"""Parts that need what modern bottlenecks need: shaped codes, state, hooks, other targets."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.interfaces import Bottleneck, Code, Coder, Penalty, Posterior, Target
from aejax.models.likelihood import Gaussian
from tests.training.toys import layer

# 1. A codebook (van den Oord et al. 2017, appendix A.1) of codes with a shape [rows, 3, latent].


@dataclasses.dataclass
class InPieces(Coder):
    """Rows in three pieces, each with a code of its own."""

    def encoder(self, shape, features, rngs):
        return PiecesEncoder(shape[0] // 3, features, rngs)

    def decoder(self, latent_dim, shape, outputs, rngs):
        return PiecesDecoder(latent_dim, (*shape, outputs), rngs)


class PiecesEncoder(nnx.Module):
    def __init__(self, size, features, rngs):
        self.linear = nnx.Linear(size, features, rngs=rngs)

    def __call__(self, x, hidden, mask, context=None):
        return self.linear(x.reshape(len(x), 3, -1))


class PiecesDecoder(nnx.Module):
    def __init__(self, latent_dim, shape, rngs):
        self.shape = shape
        self.linear = nnx.Linear(3 * latent_dim, math.prod(shape), rngs=rngs)

    def __call__(self, z, target, mask, context=None):
        return self.linear(z.reshape(*z.shape[:-2], -1)).reshape(*z.shape[:-2], *self.shape)


class Average(nnx.Variable):
    """A moving average over batches."""


@dataclasses.dataclass
class Codebook(Bottleneck):
    size: int = 4
    decay: float = 0.5

    def build(self, latent_dim, rngs):
        return CodebookModule(self, latent_dim, rngs)


class CodebookModule(nnx.Module):
    def __init__(self, settings, latent_dim, rngs):
        self.decay = settings.decay
        entries = jax.random.normal(rngs.params(), (settings.size, latent_dim))
        self.counts, self.sums = Average(jnp.ones(settings.size)), Average(entries)

    def nearest(self, features):
        entries = self.sums[...] / self.counts[...][:, None]
        distance = jnp.sum(jnp.square(features[..., None, :] - entries), axis=-1)
        chosen = jax.nn.one_hot(jnp.argmin(distance, axis=-1), len(entries))
        return chosen, chosen @ entries

    def encode(self, features):
        return self.nearest(features)[1]

    def __call__(self, features, context):
        chosen, quantised = self.nearest(features)
        z = features + jax.lax.stop_gradient(quantised - features)
        if context.training:
            rows = len(features)
            # Reduced first: [size] and [size, latent], never an array for each row of these.
            still = jax.lax.stop_gradient(features)
            counts = context.pmean(jnp.sum(chosen, axis=(0, 1)) / rows)
            sums = context.pmean(jnp.einsum("rpk,rpd->kd", chosen, still) / rows)
            for average, new in ((self.counts, counts), (self.sums, sums)):
                average.set_value(self.decay * average[...] + (1 - self.decay) * new)
        away = jnp.square(features - jax.lax.stop_gradient(quantised))
        return Code(z[None], penalties={"commitment": jnp.sum(away, axis=(1, 2))})


def quantised() -> Autoencoder:
    return Autoencoder(InPieces(), 2, Codebook(), Gaussian())


def codebook_after(params, counts, sums, x) -> tuple[np.ndarray, np.ndarray]:
    """The averages after a step, from those before it."""
    features = layer(params, "encoder/linear", x.reshape(len(x), 3, -1)).reshape(-1, 2)
    entries = sums / counts[:, None]
    nearest = np.square(features[:, None] - entries).sum(2).argmin(1)
    new_counts = np.bincount(nearest, minlength=len(counts)) / len(x)
    new_sums = np.stack([features[nearest == k].sum(0) for k in range(len(counts))]) / len(x)
    return 0.5 * counts + 0.5 * new_counts, 0.5 * sums + 0.5 * new_sums


# 2. A penalty that sees the reconstruction: its total should be that of the row.


@dataclasses.dataclass
class SameTotal(Penalty):
    weight: float = 2.0

    def __call__(self, inputs, context):
        away = jnp.sum(inputs.reconstruction - inputs.x, axis=1)
        return {"total": self.weight * jnp.square(away)}


def totalled() -> Autoencoder:
    return Autoencoder(Dense(), 3, Plain("tanh"), Gaussian(), penalty=SameTotal())


def totalled_loss(params, x, seed, step):
    z = np.tanh(layer(params, "encoder/layers/0", x))
    made = layer(params, "decoder/layers/0", z)
    error = np.square(made - x).sum(1) + 2.0 * np.square((made - x).sum(1))
    return error.mean() + x.shape[1] * 0.5 * math.log(math.pi)


# 3. A target that is not the input, of another shape: the row's first four, backwards.


@dataclasses.dataclass
class Backwards(Target):
    def shape(self, shape):
        return (4,)

    def __call__(self, batch):
        return batch.x[:, 3::-1]


def targeted() -> Autoencoder:
    return Autoencoder(Dense(), 3, Plain("tanh"), Gaussian(), target=Backwards())


def targeted_loss(params, x, seed, step):
    z = np.tanh(layer(params, "encoder/layers/0", x))
    made = layer(params, "decoder/layers/0", z)
    return np.square(made - x[:, 3::-1]).sum(1).mean() + 4 * 0.5 * math.log(math.pi)


# 4. A hook after the update: the decoder's columns have norm 1, and one unit is started anew.


@dataclasses.dataclass
class UnitNorm(Dense):
    def after_update(self, update):
        kernel = update.params["decoder"]["layers"][0]["kernel"]
        norm = jnp.linalg.norm(kernel, axis=1, keepdims=True)
        return update._replace(params=with_leaf(update.params, "decoder", "kernel", kernel / norm))


@dataclasses.dataclass
class Restarted(Plain):
    """Unit 0 of the code begins again after each step, with its moments."""

    def after_update(self, update):
        weight = update.params["encoder"]["layers"][0]["weight"]
        fresh = jax.random.normal(update.key, weight.shape[1:])
        params = with_leaf(update.params, "encoder", "weight", weight.at[0].set(fresh))

        def forget(moments):
            old = moments["encoder"]["layers"][0]["weight"]
            return with_leaf(moments, "encoder", "weight", old.at[0].set(0.0))

        return update._replace(params=params).map_moments(forget)


def with_leaf(tree, stack, name, value):
    layers = tree[stack]["layers"]
    changed = {**layers, 0: {**layers[0], name: value}}
    return {**tree, stack: {**tree[stack], "layers": changed}}


def hooked() -> Autoencoder:
    return Autoencoder(UnitNorm(), 3, Restarted("tanh"), Gaussian())


# 5. A variational bottleneck that is not aejax's: each unit's mean, shifted by a parameter, stands
# beside its deviation, which is softplus of a feature.


@dataclasses.dataclass
class Shifted(Bottleneck):
    has_posterior = True

    def features(self, latent_dim):
        return 2 * latent_dim

    def build(self, latent_dim, rngs):
        return ShiftedModule(latent_dim)

    def prior(self, key, shape):
        return jax.random.normal(key, shape)


class ShiftedModule(nnx.Module):
    def __init__(self, latent_dim):
        self.shift = nnx.Param(0.5 + jnp.arange(latent_dim, dtype=jnp.float32))

    def posterior(self, features):
        mean, wide = jnp.moveaxis(features.reshape(*features.shape[:-1], -1, 2), -1, 0)
        return Posterior(mean + self.shift[...], 2 * jnp.log(jax.nn.softplus(wide)))

    def encode(self, features):
        return self.posterior(features).mean

    def __call__(self, features, context):
        posterior = self.posterior(features)
        kl = jnp.sum(posterior.divergence(), axis=-1)
        if not context.training:
            return Code(posterior.mean[None], penalties={"kl": kl})
        keys = context.draw("shifted")
        noise = jax.vmap(lambda key: jax.random.normal(key, posterior.mean.shape[1:]))(keys)
        z = posterior.mean + jnp.exp(0.5 * posterior.log_variance) * noise
        return Code(z[None], penalties={"kl": kl})
