"""What a corruption does to x: shares, values, weights, and draws that belong to rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aejax.models import Autoencoder, Batch
from aejax.models.batch import Context, evaluation
from aejax.models.corruption import Half, Masking, Noise, SaltAndPepper

ROWS, SHAPE = 400, (10, 25, 1)
X = np.random.RandomState(0).uniform(0.2, 0.8, (ROWS, *SHAPE)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(7), ROWS)
TRAINING = Context(KEYS, jnp.int32(0), lambda x: x.mean(0))
DEVIATIONS = 5  # of a share of 100,000 draws


def share_of(chosen: np.ndarray, rate: float) -> bool:
    return abs(chosen.mean() - rate) <= DEVIATIONS * np.sqrt(rate * (1 - rate) / chosen.size)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 1.0])
def test_masking_hides_a_share_of_the_elements_and_leaves_the_others(rate):
    noisy = Masking(rate)(jnp.asarray(X), TRAINING)
    masked = np.asarray(noisy.x) == 0
    assert share_of(masked, rate)
    assert np.array_equal(np.asarray(noisy.x)[~masked], X[~masked])
    assert noisy.weight is None and noisy.hidden is None


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_salt_and_pepper_come_in_equal_shares(rate):
    noisy = np.asarray(SaltAndPepper(rate)(jnp.asarray(X), TRAINING).x)
    assert share_of(noisy == 0, rate / 2) and share_of(noisy == 1, rate / 2)
    same = (noisy != 0) & (noisy != 1)
    assert np.array_equal(noisy[same], X[same])


def test_noise_is_normal_with_its_deviation():
    noise = np.asarray(Noise(0.3)(jnp.asarray(X), TRAINING).x) - X
    assert abs(noise.mean()) < DEVIATIONS * 0.3 / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(0.3, rel=0.02)
    assert (np.abs(noise) > 0.6).mean() == pytest.approx(0.0455, abs=0.004)  # two deviations


@pytest.mark.parametrize("kind", [Masking, SaltAndPepper])
def test_emphasis_weighs_corrupted_elements_apart(kind):
    noisy = kind(0.25, emphasis=2.0, rest=0.5)(jnp.asarray(X), TRAINING)
    changed = np.asarray(noisy.x) != X
    np.testing.assert_array_equal(noisy.weight, np.where(changed, 2.0, 0.5))


@pytest.mark.parametrize("corruption", [Masking(0.3), SaltAndPepper(0.3), Noise(0.3)])
def test_a_rows_draw_is_its_own_whatever_batch_it_stands_in(corruption):
    whole = corruption(jnp.asarray(X), TRAINING).x
    part = Context(KEYS[50:60], jnp.int32(0), lambda x: x.mean(0))
    np.testing.assert_array_equal(corruption(jnp.asarray(X[50:60]), part).x, whole[50:60])
    assert not np.array_equal(whole[0] - X[0], whole[1] - X[1])


def test_the_target_is_clean_and_evaluation_sees_no_corruption():
    model = Autoencoder(latent_dim=4, corruption=Masking(1.0))  # the encoder sees nothing
    plain = Autoencoder(latent_dim=4)
    batch = Batch(jnp.asarray(X))
    module, same = model.init(nnx.Rngs(0), batch), plain.init(nnx.Rngs(0), batch)
    empty = Batch(jnp.zeros_like(batch.x))
    z = same.encode(empty.x)
    exact = -np.sum(_log_prob(np.asarray(same.decoder(z, None, None)), X)) / ROWS
    np.testing.assert_allclose(module.loss(batch, TRAINING)[0], exact, rtol=1e-5)
    np.testing.assert_allclose(
        module.loss(batch, evaluation(None))[0], same.loss(batch, evaluation(None))[0], rtol=1e-6
    )


def _log_prob(logits: np.ndarray, x: np.ndarray) -> np.ndarray:
    logits = np.float64(logits[..., 0])
    return x * logits - np.logaddexp(0, logits)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Masking(1.5), "rate=1.5: must be from 0 to 1"),
        (lambda: SaltAndPepper(-0.1), "rate=-0.1: must be from 0 to 1"),
        (lambda: Masking(0.1, emphasis=-1.0), "emphasis=-1.0: must be at least 0"),
        (lambda: Masking(0.1, emphasis=0.0, rest=0.0), "no element would count"),
        (lambda: Noise(-1.0), "deviation=-1.0: must be at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_one_half_is_hidden_or_the_other_and_it_alone_counts():
    x = jnp.asarray(X.reshape(ROWS, -1))
    noisy = Half()(x, TRAINING)
    hidden = np.asarray(noisy.hidden)
    first, second = hidden[:, : x.shape[1] // 2], hidden[:, x.shape[1] // 2 :]
    assert np.all(first.all(1) | second.all(1)) and np.all(first.any(1) != second.any(1))
    assert share_of(first.all(1), 0.5)
    assert np.array_equal(np.asarray(noisy.weight) != 0, hidden)
    assert np.all(np.asarray(noisy.x)[hidden] == 0)
    assert np.array_equal(np.asarray(noisy.x)[~hidden], np.asarray(x)[~hidden])
