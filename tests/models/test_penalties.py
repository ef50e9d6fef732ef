"""Penalties against Jacobians by JAX's own means, and closed forms in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aejax.models import Autoencoder, Batch
from aejax.models.batch import Context, evaluation
from aejax.models.bottlenecks import KSparse, Plain, Variational
from aejax.models.coders import Dense
from aejax.models.interfaces import PenaltyInputs
from aejax.models.penalties import L1, Activity, Contractive

ROWS, SHAPE = 6, (4, 5, 1)
X = jnp.asarray(np.random.RandomState(0).rand(ROWS, *SHAPE).astype(np.float32))
TRAINING = Context(jax.random.split(jax.random.key(0), ROWS), jnp.int32(0), lambda x: x.mean(0))
SIGMOID = Autoencoder(Dense(()), latent_dim=7, bottleneck=Plain("sigmoid"))
DEEP = Autoencoder(Dense((9,), "tanh"), latent_dim=7, bottleneck=Plain("linear"))
WIDE = dataclasses.replace(DEEP, latent_dim=33)  # more units than elements: forward mode


def inputs(module, z) -> PenaltyInputs:
    return PenaltyInputs(module, X, None, z, X)


def of_code(z) -> PenaltyInputs:
    """Of a penalty that looks at codes alone."""
    return PenaltyInputs(None, X, None, jnp.asarray(z), X)


def norms(model, penalty, context=TRAINING) -> np.ndarray:
    module = model.init(nnx.Rngs(3), Batch(X))
    z = module.encode(X)
    return np.asarray(penalty(inputs(module, z), context)["contraction"])


def by_jacrev(model) -> np.ndarray:
    module = model.init(nnx.Rngs(3), Batch(X))
    jacobian = jax.vmap(jax.jacrev(lambda x: module.encode(x[None])[0]))(X)
    return np.square(np.float64(jacobian)).reshape(ROWS, -1).sum(1)


@pytest.mark.parametrize("model", [SIGMOID, DEEP, WIDE])
@pytest.mark.parametrize("method", ["auto", "exact"])
def test_the_contraction_is_the_squared_norm_of_the_jacobian(model, method):
    found = norms(model, Contractive(0.5, method))
    np.testing.assert_allclose(found, 0.5 * by_jacrev(model), rtol=1e-5)


def test_the_closed_form_of_one_sigmoid_layer_is_the_jacobians():
    np.testing.assert_allclose(
        norms(SIGMOID, Contractive(2.0, "closed")), 2 * by_jacrev(SIGMOID), rtol=1e-5
    )


@pytest.mark.parametrize("model", [SIGMOID, DEEP])
def test_the_estimate_is_right_on_average_and_the_same_in_every_evaluation(model):
    keys = jax.random.split(jax.random.key(1), (500, ROWS))

    def one(keys):
        context = Context(keys, jnp.int32(0), lambda x: x.mean(0))
        module = model.init(nnx.Rngs(3), Batch(X))
        penalty = Contractive(1.0, "estimate", probes=4)
        return penalty(inputs(module, module.encode(X)), context)["contraction"]

    found = np.asarray(jax.lax.map(one, keys), np.float64)
    error = found.std(0) / np.sqrt(len(found))
    assert (np.abs(found.mean(0) - by_jacrev(model)) < 4 * error).all()
    again = [norms(model, Contractive(1.0, "estimate"), evaluation(None)) for _ in range(2)]
    assert np.array_equal(*again) and (again[0] > 0).all()


@pytest.mark.parametrize("method", ["closed", "exact", "estimate"])
def test_the_gradient_of_the_contraction_is_that_of_finite_differences(method):
    module = SIGMOID.init(nnx.Rngs(3), Batch(X))
    graph, state = nnx.split(module.encoder)
    penalty = Contractive(1.0, method, probes=2)

    def total(state):
        like = SIGMOID_LIKE(nnx.merge(graph, state))
        return jnp.sum(penalty(inputs(like, like.encode(X, None)), TRAINING)["contraction"])

    slope = jax.grad(total)(state)
    towards = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.RandomState(5).randn(*leaf.shape), leaf.dtype), state
    )
    step = 1e-2
    moved = [jax.tree.map(lambda a, d, s=s: a + s * d, state, towards) for s in (step, -step)]
    difference = (float(total(moved[0])) - float(total(moved[1]))) / (2 * step)
    product = jax.tree.map(lambda a, d: jnp.vdot(a, d), slope, towards)
    assert float(sum(jax.tree.leaves(product))) == pytest.approx(difference, rel=5e-3)


@dataclasses.dataclass
class SIGMOID_LIKE:  # noqa: N801 - stands for a module of SIGMOID with this encoder
    encoder: nnx.Module

    settings = SIGMOID

    def encode(self, x, mask):
        return jax.nn.sigmoid(self.encoder(x, None, mask))


def test_activity_is_the_divergence_of_the_mean_activity():
    z = np.random.RandomState(2).uniform(0.01, 0.6, (ROWS, 7)).astype(np.float32)
    found = Activity(0.1, 3.0)(of_code(z), TRAINING)["sparsity"]
    rate = np.float64(z).mean(0)
    exact = 0.1 * np.log(0.1 / rate) + 0.9 * np.log(0.9 / (1 - rate))
    np.testing.assert_allclose(found, 3 * exact.sum(), rtol=1e-5)
    at_target = Activity(0.25, 3.0)(of_code(jnp.full((ROWS, 7), 0.25)), TRAINING)["sparsity"]
    assert abs(float(at_target)) < 1e-6


def test_a_unit_that_is_always_off_still_gives_numbers():
    for value in (0.0, 1.0):
        penalty = lambda z: Activity()(of_code(z), TRAINING)["sparsity"]  # noqa: E731
        loss, slope = jax.value_and_grad(penalty)(jnp.full((ROWS, 7), value))
        assert np.isfinite(loss) and np.isfinite(slope).all()


def test_l1_is_the_sum_of_sizes():
    z = np.random.RandomState(2).randn(ROWS, 7).astype(np.float32)
    found = L1(0.5)(of_code(z), TRAINING)["sparsity"]
    np.testing.assert_allclose(found, 0.5 * np.abs(z).sum(1), rtol=1e-6)


@pytest.mark.parametrize(
    ("penalty", "bottleneck", "said"),
    [
        (Activity(), Plain("relu"), "activity needs units between 0 and 1: model.bottleneck=plain"),
        (Activity(), KSparse(3), "activity needs units between 0 and 1"),
        (Contractive(method="closed"), Plain("tanh"), "closed needs one sigmoid layer"),
        (Contractive(method="closed"), Variational(), "closed needs one sigmoid layer"),
    ],
)
def test_penalties_that_do_not_suit_a_code_are_refused_by_name(penalty, bottleneck, said):
    model = Autoencoder(Dense(()), latent_dim=7, bottleneck=bottleneck, penalty=penalty)
    with pytest.raises(ValueError, match=said):
        model.check(interval=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Contractive(-1.0), "weight=-1.0: must be at least 0"),
        (lambda: Contractive(method="exakt"), "method=exakt: must be one of auto, closed, exact"),
        (lambda: Contractive(probes=0), "probes=0: must be at least 1"),
        (lambda: Activity(rho=0.0), "rho=0.0: must be between 0 and 1"),
        (lambda: Activity(beta=-1.0), "beta=-1.0: must be at least 0"),
        (lambda: L1(-1.0), "weight=-1.0: must be at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
