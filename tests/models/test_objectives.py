"""The gradient of every objective, against finite differences in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aejax.models import Autoencoder
from aejax.models.batch import Batch, Context
from aejax.models.bottlenecks import KSparse, Plain, Variational
from aejax.models.coders import Convolutional, Dense
from aejax.models.corruption import Masking, Noise, SaltAndPepper
from aejax.models.likelihood import Bernoulli, Gaussian
from aejax.models.penalties import L1, Activity, Contractive

X = np.random.RandomState(0).rand(4, 4, 4, 1)
DENSE = Dense((5,), "tanh")
OBJECTIVES = {
    "plain": Autoencoder(DENSE, 3, Plain("tanh")),
    "gaussian": Autoencoder(DENSE, 3, Plain("tanh"), Gaussian(0.3)),
    "tied": Autoencoder(Dense((), "tanh", tied=True), 3, Plain("sigmoid")),
    "convolutional": Autoencoder(Convolutional((2, 3), activation="tanh"), 3),
    "masking": Autoencoder(DENSE, 3, corruption=Masking(0.4, emphasis=2.0)),
    "salt_and_pepper": Autoencoder(DENSE, 3, corruption=SaltAndPepper(0.4)),
    "noise": Autoencoder(DENSE, 3, corruption=Noise(0.3)),
    "contractive": Autoencoder(Dense(()), 3, Plain("sigmoid"), penalty=Contractive(0.5)),
    "contractive_deep": Autoencoder(DENSE, 3, Plain("tanh"), penalty=Contractive(0.5)),
    "contractive_estimate": Autoencoder(DENSE, 3, penalty=Contractive(0.5, "estimate")),
    "activity": Autoencoder(DENSE, 3, Plain("sigmoid"), penalty=Activity()),
    "l1": Autoencoder(DENSE, 3, Plain("tanh"), penalty=L1(0.5)),
    "k_sparse": Autoencoder(DENSE, 6, KSparse(2)),
    "elbo": Autoencoder(DENSE, 3, Variational(beta=2.0)),
    "free_bits": Autoencoder(DENSE, 3, Variational(free_bits=0.05)),
    "importance_weighted": Autoencoder(DENSE, 3, Variational(samples=4), Gaussian()),
    "denoising_convolutional_variational": Autoencoder(
        Convolutional((2,), activation="tanh"),
        3,
        Variational(),
        Bernoulli(),
        Masking(0.3),
        L1(0.1),
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_is_the_slope(name):
    with jax.enable_x64(True):
        batch = Batch(jnp.asarray(X))
        keys = jax.random.split(jax.random.key(1), len(X))
        context = Context(keys, jnp.zeros((), jnp.int32), lambda v: jnp.mean(v, axis=0))
        graph, state = nnx.split(OBJECTIVES[name].init(nnx.Rngs(3), batch))
        random = np.random.RandomState(1)
        state = jax.tree.map(lambda leaf: leaf + 0.1 * random.randn(*leaf.shape), state)

        @jax.jit
        def loss(state):
            return nnx.merge(graph, state).loss(batch, context)[0]

        value, gradient = jax.value_and_grad(loss)(state)
        assert value.dtype == jnp.float64
        step = 1e-6
        for _ in range(3):  # along random directions through all parameters at once
            way = jax.tree.map(lambda leaf: random.randn(*leaf.shape), state)
            ahead, behind = (
                float(loss(jax.tree.map(lambda a, b, s=s: a + s * b, state, way)))
                for s in (step, -step)
            )
            slope = sum(
                float(jnp.sum(g * w))
                for g, w in zip(jax.tree.leaves(gradient), jax.tree.leaves(way), strict=True)
            )
            assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-6, abs=1e-7)
