"""p(x given z) against NumPy and SciPy in double precision."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from aejax.models.likelihood import Bernoulli, Categorical, Gaussian
from aejax.nn import bernoulli

RANDOM = np.random.RandomState(0)
LOGITS = np.concatenate([RANDOM.randn(200) * 3, [-1e4, -100, -20, -1e-6, 0, 1e-6, 20, 100, 1e4]])
LOGITS = LOGITS.astype(np.float32)
GREY = RANDOM.uniform(size=len(LOGITS)).astype(np.float32)


@jax.jit
def slopes(z: jax.Array, x: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradient of the weighted sum of log p, to z and to x."""
    return jax.grad(lambda z, x: jnp.sum(weight * bernoulli.log_prob(z, x)), argnums=(0, 1))(z, x)


def log_p(z: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x log sigmoid(z) + (1 - x) log(1 - sigmoid(z)), in float64."""
    z, x = np.asarray(z, np.float64), np.asarray(x, np.float64)
    return x * special.log_expit(z) + (1 - x) * special.log_expit(-z)


@pytest.mark.parametrize("x", [GREY, (GREY > 0.5).astype(np.float32), 0 * GREY, 0 * GREY + 1])
def test_bernoulli_is_the_cross_entropy_at_every_logit(x):
    found = np.asarray(bernoulli.log_prob(LOGITS, x))
    np.testing.assert_allclose(found, log_p(LOGITS, x), rtol=3e-6, atol=1e-6)
    assert np.isfinite(found).all() and (found <= 0).all()


@pytest.mark.parametrize("x", [GREY, (GREY > 0.5).astype(np.float32), 0 * GREY, 0 * GREY + 1])
def test_the_gradient_of_bernoulli_is_x_minus_sigmoid_at_every_logit(x):
    weight = RANDOM.randn(len(x)).astype(np.float32)
    to_logits, to_x = slopes(LOGITS, x, weight)
    exact = weight * (np.float64(x) - special.expit(np.float64(LOGITS)))
    np.testing.assert_allclose(to_logits, exact, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_x, weight * np.float64(LOGITS), rtol=1e-6)


@pytest.mark.parametrize("saturated", [30.0, 100.0, 1e4, 1e30])
def test_a_right_and_certain_pixel_costs_nothing_and_pulls_nowhere(saturated):
    value = jax.jit(jax.value_and_grad(bernoulli.log_prob))
    for z, x in ((saturated, 1.0), (-saturated, 0.0)):
        found, slope = value(jnp.float32(z), jnp.float32(x))
        assert found == pytest.approx(0, abs=1e-12) and slope == pytest.approx(0, abs=1e-12)
    for z, x in ((saturated, 0.0), (-saturated, 1.0)):
        found, slope = value(jnp.float32(z), jnp.float32(x))
        assert found == pytest.approx(-saturated, rel=1e-6) and abs(slope) == 1


@pytest.mark.parametrize(
    ("z_shape", "x_shape"),
    [
        ((5, 4, 3), (4, 3)),  # samples of a code, one x
        ((4, 3), (4, 3)),
        ((4, 1), (4, 3)),
        ((3,), (2, 4, 3)),
        ((1, 4, 1), (5, 1, 3)),
        ((), (2, 3)),
        ((2, 3), ()),
    ],
)
def test_the_gradient_of_bernoulli_sums_over_what_was_repeated(z_shape, x_shape):
    shape = np.broadcast_shapes(z_shape, x_shape)
    z, weight = (np.float32(RANDOM.normal(size=size)) for size in (z_shape, shape))
    x = np.float32(RANDOM.uniform(size=x_shape))
    found = slopes(z, x, weight)
    full_z, full_x = np.broadcast_to(np.float64(z), shape), np.broadcast_to(np.float64(x), shape)
    each = (weight * (full_x - special.expit(full_z)), weight * full_z)
    for gradient, exact, like in zip(found, each, (z, x), strict=True):
        extra = exact.ndim - like.ndim
        total = exact.sum(axis=tuple(range(extra)))
        repeated = tuple(i for i, n in enumerate(like.shape) if n == 1)
        np.testing.assert_allclose(
            gradient, total.sum(repeated, keepdims=True), rtol=2e-5, atol=1e-5
        )
    value = jax.jit(bernoulli.log_prob)(z, x)
    np.testing.assert_allclose(value, log_p(full_z, full_x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32])
def test_binary_pixels_may_be_of_any_type(dtype):
    x = (GREY > 0.5).astype(dtype)
    run = jax.jit(jax.value_and_grad(lambda z: jnp.sum(bernoulli.log_prob(z, x))))
    value, slope = run(LOGITS)
    assert value == pytest.approx(log_p(LOGITS, x).sum(), rel=1e-6)
    np.testing.assert_allclose(slope, x - special.expit(np.float64(LOGITS)), rtol=1e-5, atol=1e-6)


def test_bernoulli_reads_its_logits_as_the_module_says():
    likelihood = Bernoulli()
    parameters = LOGITS[:200].reshape(2, 5, 20, 1)
    x = GREY[:100].reshape(5, 20)
    assert likelihood.outputs() == 1
    np.testing.assert_allclose(
        likelihood.log_prob(parameters, x), log_p(parameters[..., 0], x), rtol=3e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        likelihood.mean(parameters), special.expit(parameters[..., 0]), rtol=1e-6
    )
    mode = likelihood.mode(parameters)
    assert np.array_equal(mode, (parameters[..., 0] > 0).astype(np.float32))
    assert mode.dtype == np.float32
    likelihood.check(interval=True)
    with pytest.raises(ValueError, match=r"bernoulli needs data in \[0, 1\]"):
        likelihood.check(interval=False)


@pytest.mark.parametrize("deviation", [math.sqrt(0.5), 1.0, 0.01, 30.0])
def test_gaussian_is_the_normal_density(deviation):
    likelihood = Gaussian(deviation)
    parameters = RANDOM.randn(3, 5, 7, 1).astype(np.float32) * deviation
    x = RANDOM.randn(5, 7).astype(np.float32) * deviation
    exact = stats.norm.logpdf(np.float64(x), np.float64(parameters[..., 0]), deviation)
    np.testing.assert_allclose(likelihood.log_prob(parameters, x), exact, rtol=2e-5, atol=1e-5)
    for read in (likelihood.mean, likelihood.mode):
        assert np.array_equal(read(parameters), parameters[..., 0])
    assert likelihood.outputs() == 1
    likelihood.check(interval=False)
    likelihood.check(interval=True)


def test_the_default_gaussian_is_the_squared_error_and_a_constant():
    parameters, x = np.float32([[[0.5], [3.0]]]), np.float32([[2.0, 3.0]])
    found = -np.asarray(Gaussian().log_prob(parameters, x)) - 0.5 * math.log(math.pi)
    np.testing.assert_allclose(found, [[2.25, 0.0]], atol=1e-6)


def test_a_gaussian_has_its_mean_through_an_activation():
    likelihood = Gaussian(0.5, activation="tanh")
    parameters = RANDOM.randn(2, 5, 7, 1).astype(np.float32)
    x = RANDOM.randn(5, 7).astype(np.float32)
    mean = np.tanh(np.float64(parameters[..., 0]))
    np.testing.assert_allclose(likelihood.mean(parameters), mean, rtol=1e-6)
    np.testing.assert_allclose(likelihood.mode(parameters), mean, rtol=1e-6)
    exact = stats.norm.logpdf(np.float64(x), mean, 0.5)
    np.testing.assert_allclose(likelihood.log_prob(parameters, x), exact, rtol=2e-5, atol=1e-5)
    with pytest.raises(ValueError, match="activation=tahn: must be one of linear"):
        Gaussian(activation="tahn")


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_deviation_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match=f"deviation={value}: must be above 0"):
        Gaussian(value)
    with pytest.raises(ValueError, match=f"least={value}: must be above 0"):
        Gaussian(variance="learned", least=value)
    with pytest.raises(ValueError, match="variance=free: must be fixed or learned"):
        Gaussian(variance="free")


LEARNED = Gaussian(variance="learned", least=0.05)


def deviation_of(number: np.ndarray) -> np.ndarray:
    """least * (1 + exp(number) / least) = least + exp(number), the softplus written out."""
    return 0.05 + np.exp(np.float64(number))


def test_a_learned_deviation_is_the_normal_density_with_its_floor_added():
    parameters = RANDOM.randn(3, 5, 7, 2).astype(np.float32) * np.float32([1, 3])
    x = RANDOM.randn(5, 7).astype(np.float32)
    deviation = deviation_of(parameters[..., 1])
    exact = stats.norm.logpdf(np.float64(x), np.float64(parameters[..., 0]), deviation)
    np.testing.assert_allclose(LEARNED.log_prob(parameters, x), exact, rtol=2e-5, atol=1e-5)
    assert LEARNED.outputs() == 2
    for read in (LEARNED.mean, LEARNED.mode):
        assert np.array_equal(read(parameters), parameters[..., 0])
    found = np.exp(LEARNED.log_deviation(parameters))
    np.testing.assert_allclose(found, deviation, rtol=1e-5)


def test_the_gradient_of_a_learned_deviation_is_that_of_the_density():
    parameters = RANDOM.randn(40, 2) * [1.0, 2.0]
    x, step = RANDOM.randn(40), 1e-6

    def density(parameters: np.ndarray) -> np.ndarray:
        return stats.norm.logpdf(x, parameters[:, 0], deviation_of(parameters[:, 1]))

    found = jax.grad(lambda p: jnp.sum(LEARNED.log_prob(p, jnp.float32(x))))(
        jnp.float32(parameters)
    )
    for column in range(2):
        off = np.zeros((1, 2))
        off[0, column] = step
        slope = (density(parameters + off) - density(parameters - off)) / (2 * step)
        np.testing.assert_allclose(found[:, column], slope, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("number", [-1e30, -1e4, -50.0, 0.0, 50.0, 1e4, 1e30])
@pytest.mark.parametrize("off", [0.0, 1.0, 100.0])
def test_a_learned_deviation_is_bounded_and_its_gradient_finite(number, off):
    value, slope = jax.value_and_grad(lambda p: LEARNED.log_prob(p, jnp.float32(0)))(
        jnp.float32([off, number])
    )
    assert np.isfinite(value) and np.isfinite(slope).all()
    assert value <= -math.log(0.05 * math.sqrt(2 * math.pi)) + 1e-5
    assert abs(slope[0]) <= off / 0.05**2 * (1 + 1e-5)


def test_categorical_is_the_logarithm_of_the_softmax():
    likelihood, random = Categorical(5), np.random.RandomState(0)
    logits = random.randn(3, 4, 6, 5).astype(np.float32) * 4
    logits[0, 0, 0] = [1e4, -1e4, 0, 50, 1e4]
    x = random.randint(0, 5, (4, 6)).astype(np.float32)
    exact = special.log_softmax(np.float64(logits), axis=-1)
    chosen = np.take_along_axis(exact, np.broadcast_to(x, (3, 4, 6))[..., None].astype(int), -1)
    found, slope = jax.jit(
        lambda logits: (
            likelihood.log_prob(logits, x),
            jax.grad(lambda logits: jnp.sum(likelihood.log_prob(logits, x)))(logits),
        )
    )(logits)
    np.testing.assert_allclose(found, chosen[..., 0], rtol=1e-5, atol=1e-5)
    one_hot = np.arange(5) == x[..., None]
    np.testing.assert_allclose(slope, one_hot - np.exp(exact), atol=1e-5)
    assert likelihood.outputs() == 5
    best = np.argmax(logits, axis=-1).astype(np.float32)
    for read in (likelihood.mean, likelihood.mode):
        assert np.array_equal(read(logits), best) and read(logits).dtype == np.float32
    wrong = likelihood.error(best, x)["wrong"]
    assert np.array_equal(wrong, best != x)


def test_categorical_takes_bytes_as_they_are_stored():
    Categorical().check(interval=False)
    with pytest.raises(ValueError, match="data.prepare.scale=False"):
        Categorical().check(interval=True)
    # Above 256 a half-precision number is no symbol any more.
    logits = np.zeros((1, 1, 300), np.float32)
    logits[..., 299] = 1
    assert Categorical(300).mean(jnp.asarray(logits, jnp.bfloat16))[0, 0] == 299
    with pytest.raises(ValueError, match="classes=1: must be at least 2"):
        Categorical(1)


@pytest.mark.parametrize(
    ("likelihood", "outputs"),
    [
        (Bernoulli(), 1),
        (Gaussian(0.3), 1),
        (Gaussian(0.3, activation="sigmoid"), 1),
        (Gaussian(variance="learned"), 2),
        (Categorical(classes=5), 5),
    ],
)
def test_a_divergence_is_the_mean_difference_of_log_p_over_what_the_teacher_draws(
    likelihood, outputs
):
    teacher, own = RANDOM.randn(2, 6, 1, outputs).astype(np.float32)
    found = np.asarray(likelihood.divergence(teacher, own))
    drawn = _draws(likelihood, teacher[:, 0])  # [draws, 6, 1], with weights
    x, weight = (each.astype(np.float32) for each in drawn)
    gap = [np.asarray(likelihood.log_prob(each[None], x), np.float64) for each in (teacher, own)]
    exact = np.sum(weight * (gap[0] - gap[1]), axis=0)
    np.testing.assert_allclose(found, exact, rtol=2e-4, atol=2e-5)
    assert (found > 0).all()
    np.testing.assert_allclose(likelihood.divergence(own, own), np.zeros((6, 1)), atol=1e-6)


def _draws(likelihood, teacher):
    """Values and their weights under p(x given these): all symbols, or Gauss-Hermite nodes."""
    if isinstance(likelihood, Gaussian):
        nodes, weights = np.polynomial.hermite_e.hermegauss(20)
        deviation = (
            np.exp(np.asarray(likelihood.log_deviation(teacher)))
            if likelihood.learned
            else np.full(len(teacher), likelihood.deviation)
        )
        x = np.asarray(likelihood.mean(teacher))[None] + nodes[:, None] * deviation[None]
        weight = np.tile(weights[:, None] / weights.sum(), (1, len(teacher)))
        return x[..., None], weight[..., None]
    if isinstance(likelihood, Bernoulli):
        logits = np.concatenate([np.zeros_like(teacher), teacher], axis=-1)
    else:
        logits = teacher
    p = special.softmax(np.float64(logits), axis=-1).T
    x = np.tile(np.arange(len(p))[:, None], (1, len(teacher)))
    return x[..., None], p[..., None]
