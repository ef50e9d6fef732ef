"""log p(x) by importance sampling against probabilistic PCA, where it has a closed form."""

import jax
import numpy as np
import pytest
from scipy import stats

from aejax.config import Prepare
from aejax.data.sources import open_source
from aejax.errors import InputError
from aejax.evaluation import checkpoints, likelihood, rows
from aejax.models.bottlenecks import Variational
from aejax.models.likelihood import Bernoulli, Gaussian

ROWS, SIZE, CODE, DEVIATION = 37, 6, 2, 0.5


@pytest.fixture
def ppca(make):
    """A variational model whose decoder is x = W'z + b + noise, W's rows orthogonal.

    Its posterior is then a normal with independent units (Tipping and Bishop 1999, equation 7).
    """

    def made(wider: float = 1.0):
        random = np.random.RandomState(0)
        train, test = (random.uniform(-2, 2, (n, SIZE)).astype(np.float32) for n in (50, ROWS))
        one = make(
            CODE,
            Gaussian(DEVIATION),
            Prepare(scale=False),
            bottleneck=Variational(),
            x_train=train,
            x_test=test,
        )
        encoder, decoder = one.model.module.encoder.layers[0], one.model.module.decoder.layers[0]
        axes = np.linalg.qr(random.randn(SIZE, CODE))[0].T * [[1.5], [0.8]]
        variance = 1 / (1 + np.square(axes).sum(axis=1) / DEVIATION**2)
        into = (variance[:, None] * axes / DEVIATION**2).astype(np.float32)
        bias = np.asarray(decoder.bias[...], np.float64)
        decoder.kernel[...] = axes.astype(np.float32)
        encoder.weight[...] = np.concatenate([into, 0 * into])
        encoder.bias[...] = np.concatenate([-into @ bias, np.log(wider * variance)]).astype(
            np.float32
        )
        covariance = axes.T @ axes + DEVIATION**2 * np.eye(SIZE)
        exact = stats.multivariate_normal.logpdf(test, bias, covariance)
        mean = test.astype(np.float64) @ into.T - into @ bias
        kl = 0.5 * np.sum(mean**2 + wider * variance - np.log(wider * variance) - 1, axis=1)
        return one, exact.mean(), kl.mean()

    return made


def numbers(one, source=None, samples=1) -> dict:
    return likelihood.task(one.model, source or one.test, samples=samples).values()


def test_with_the_exact_posterior_one_sample_is_enough(ppca):
    one, exact, kl = ppca()
    found = numbers(one)
    assert found["log_likelihood"] == pytest.approx(exact, abs=1e-4)
    assert found["kl"] == pytest.approx(kl, rel=1e-5)
    many = numbers(one, samples=3000)
    assert many["log_likelihood"] == pytest.approx(exact, abs=1e-4)
    assert many["effective_samples"] == pytest.approx(3000, rel=1e-3)
    assert many["elbo"] == pytest.approx(exact, abs=0.05)  # the mean of log p(x given z) is drawn
    assert many["nll"] == pytest.approx(-many["elbo"] - kl, rel=1e-5)


def test_with_another_posterior_many_samples_come_to_it_and_one_is_the_bound(ppca):
    one, exact, kl = ppca(wider=2.0)
    gap = CODE * 0.5 * (2.0 - 1 - np.log(2.0))
    found = {samples: numbers(one, samples=samples) for samples in (1, 5, 4000)}
    values = [found[samples]["log_likelihood"] for samples in (1, 5, 4000)]
    assert values == sorted(values)
    assert values[2] == pytest.approx(exact, abs=0.02)
    assert found[4000]["elbo"] == pytest.approx(exact - gap, abs=0.05)
    assert found[4000]["kl"] == pytest.approx(kl, rel=1e-5)


def test_the_numbers_do_not_depend_on_batches_blocks_devices_or_what_else_is_evaluated(
    ppca, monkeypatch
):
    one, *_ = ppca(wider=2.0)
    whole = numbers(one, samples=23)
    monkeypatch.setattr(likelihood, "_NUMBERS_AT_A_TIME", 3 * ROWS * SIZE)  # 8 blocks, one of 2
    assert numbers(one, samples=23) == pytest.approx(whole, rel=1e-5)
    monkeypatch.setattr(rows, "_ROWS_AT_A_TIME", 8)  # the last batch is filled up
    assert numbers(one, samples=23) == pytest.approx(whole, rel=1e-5)
    devices = jax.devices()
    assert len(devices) > 1
    monkeypatch.setattr(jax, "devices", lambda: devices[:1])
    assert numbers(one, samples=23) == pytest.approx(whole, rel=1e-5)
    monkeypatch.undo()
    source = one.model.run.config.data.source
    parts = [numbers(one, open_source(source, f"test[:{n}]"), 23) for n in (10, 20)]
    # Codes are drawn by a row's number: in the first 20 rows as in all of them.
    each = [n * part["log_likelihood"] for n, part in zip((10, 20), parts, strict=True)]
    monkeypatch.setattr(rows, "_ROWS_AT_A_TIME", 10)
    pieces = rows.stream(
        one.model, one.test, likelihood.measure(one.model, one.test, 23), numbered=True
    )
    sums = np.cumsum([piece.values["log_likelihood"].sum() for piece in pieces])
    np.testing.assert_allclose(each, sums[:2], rtol=1e-5)


def test_active_units_vary_over_rows(ppca):
    one, *_ = ppca()
    assert numbers(one)["active_units"] == CODE
    weight = one.model.module.encoder.layers[0].weight
    weight[...] = weight[...] * np.float32([[1], [0.01], [1], [1]])
    assert numbers(one)["active_units"] == 1


def test_binary_pixels_are_drawn_once_a_row_from_their_grey_values(make):
    """With a decoder that gives one probability to all, log p(x) counts the pixels that are on."""
    grey = np.random.RandomState(0).randint(0, 256, (400, 50)).astype(np.uint8)
    one = make(
        1,
        Bernoulli(),
        Prepare(binarise="sampled", shift=0),
        bottleneck=Variational(),
        x_train=grey,
        x_test=grey,
    )
    encoder, decoder = one.model.module.encoder.layers[0], one.model.module.decoder.layers[0]
    for array in (encoder.weight, encoder.bias, decoder.kernel, decoder.bias):
        array[...] = 0 * array[...]  # q is the prior
    decoder.bias[...] = decoder.bias[...] + 1.0
    result = likelihood.task(one.model, one.test, samples=2)
    value, on = result.values()["log_likelihood"], float(grey.mean()) / 255
    off = np.log1p(np.exp(1.0))
    exact = 50 * (on * (1 - off) - (1 - on) * off)
    error = np.sqrt(np.mean((grey / 255.0) * (1 - grey / 255.0)) * 50 / 400)
    assert abs(value - exact) < 5 * error and value != pytest.approx(exact, abs=1e-6)
    threshold = 50 * np.mean(np.where(grey > 127, 1 - off, -off))
    assert abs(value - threshold) > 1e-3
    assert "drawn once a row" in result.notes[0]
    assert likelihood.task(one.model, one.test, samples=2).values() == result.values()


def test_what_has_no_likelihood_is_refused(make, folder):
    one = make(x_train=np.eye(5, dtype=np.float32), x_test=np.eye(5, dtype=np.float32))
    with pytest.raises(InputError, match="--tasks=likelihood: the model's code is Plain; must be"):
        likelihood.task(one.model, one.test)
    with pytest.raises(InputError, match="--samples=0: must be at least 1"):
        checkpoints.check_request(str(folder), ("likelihood",), samples=0)
    with pytest.raises(InputError, match="--samples=9: is for --tasks=likelihood"):
        checkpoints.check_request(str(folder), ("latent",), samples=9)
    with pytest.raises(InputError, match="--tasks=likelihood: the model's code is Plain; must be"):
        checkpoints.check_request(str(folder), ("likelihood",), samples=9)
