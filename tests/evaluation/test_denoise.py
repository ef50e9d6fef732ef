"""The denoise task: its noise, its filters, and a model that is known to do nothing."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from aejax.config import Prepare
from aejax.errors import InputError
from aejax.evaluation import denoise
from aejax.evaluation.denoise import NoiseLevel
from aejax.models.likelihood import Bernoulli, Gaussian

RANDOM = np.random.RandomState(0)
# Smooth images, which filters can restore.
GRID = np.linspace(0, 1, 8)
X = 127 + 120 * np.sin(6 * RANDOM.rand(60, 1, 1, 1) + 3 * GRID[:, None, None] * GRID[None, :, None])
X = X.astype(np.uint8)


def test_noise_has_its_level_and_depends_on_the_rows_number_alone():
    clean = np.full((50, 20, 20, 1), 0.5, np.float32)
    index = np.arange(50)
    gaussian = denoise.add_noise(clean, NoiseLevel("gaussian", 0.3), 0, index)
    assert (gaussian - clean).std() == pytest.approx(0.3, rel=0.03) and gaussian.max() > 1
    pepper = denoise.add_noise(clean, NoiseLevel("salt_and_pepper", 0.3), 0, index)
    assert np.mean(pepper != clean) == pytest.approx(0.3, abs=0.02)
    assert np.mean(pepper[pepper != clean]) == pytest.approx(0.5, abs=0.03)
    masked = denoise.add_noise(clean, NoiseLevel("masking", 0.5), 0, index)
    assert np.mean(masked == 0) == pytest.approx(0.5, abs=0.02)
    part = denoise.add_noise(clean[7:9], NoiseLevel("gaussian", 0.3), 0, index[7:9])
    np.testing.assert_array_equal(part, gaussian[7:9])
    assert not np.array_equal(
        gaussian, denoise.add_noise(clean, NoiseLevel("gaussian", 0.3), 1, index)
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", denoise.STRENGTHS)
def test_filters_remove_noise_of_every_channel_on_its_own(name, channels):
    clean = np.repeat(X[:10] / np.float32(255), channels, axis=3)
    noisy = denoise.add_noise(clean, NoiseLevel("gaussian", 0.2), 0, np.arange(10))
    strength = denoise.STRENGTHS[name][0]
    filtered = denoise.apply(name, strength, noisy)
    assert filtered.shape == clean.shape and filtered.dtype == np.float32
    assert denoise.psnr(clean, filtered) > denoise.psnr(clean, noisy) + 1
    if name != "nlm":
        alone = denoise.apply(name, strength, noisy[..., :1])
        np.testing.assert_allclose(filtered[..., :1], alone, atol=1e-6)


def test_psnr_is_pooled_over_rows():
    clean, other = RANDOM.rand(2, 5, 8, 8, 1)
    wanted = peak_signal_noise_ratio(clean, other, data_range=1)
    assert denoise.psnr(clean, other) == pytest.approx(wanted)


@pytest.mark.parametrize("centre", ["none", "standardise"])
def test_the_model_sees_the_noisy_images(make, centre, monkeypatch):
    if centre != "none":
        monkeypatch.setattr(denoise, "LEVELS", {"gaussian": (0.5,)})
    likelihood = Bernoulli() if centre == "none" else Gaussian()
    prepare = Prepare(centre=centre)
    one = make(3, likelihood, prepare, x_train=X, x_test=X[:30])
    drawn, draw = [], denoise.tiles.tiles_png
    monkeypatch.setattr(
        denoise.tiles,
        "tiles_png",
        lambda images, left: [drawn.extend(left), draw(images, (), left)][1],
    )
    result = denoise.task(one.model, one.test)
    clean = X[:30] / np.float32(255)
    noisy = denoise.add_noise(
        clean, NoiseLevel("gaussian", 0.5), one.model.run.config.seed, np.arange(30)
    )
    x = noisy
    if centre != "none":
        statistics = one.model.preparation.statistics
        mean, deviation = (np.reshape(statistics[n], (8, 8, 1)) for n in ("mean", "deviation"))
        x = (noisy - mean) / deviation
    out = one.linear.decode(one.linear.encode(x)).reshape(clean.shape)
    out = 1 / (1 + np.exp(-out)) if centre == "none" else out * deviation + mean
    out, values = np.clip(out, 0, 1), result.values()
    assert values["gaussian_0.5_model_psnr"] == pytest.approx(denoise.psnr(clean, out), abs=1e-3)
    assert values["gaussian_0.5_noisy_psnr"] == pytest.approx(denoise.psnr(clean, noisy))
    cells = sum(map(len, denoise.LEVELS.values()))
    assert len(values) == cells * (5 * 2 + 1) and all(
        value is not None for value in values.values()
    )
    best = max(values[f"gaussian_0.5_{name}_psnr"] for name in denoise.STRENGTHS)
    assert values["gaussian_0.5_gain"] == values["gaussian_0.5_model_psnr"] - best
    assert any(note.startswith("No linear map") for note in result.notes)
    for number, (kind, levels) in enumerate(denoise.LEVELS.items()):
        filters = {name: values[f"{kind}_{levels[-1]:g}_{name}_psnr"] for name in denoise.STRENGTHS}
        strips = ["clean", f"{kind} {levels[-1]:g}", "model", max(filters, key=filters.__getitem__)]
        assert drawn[4 * number : 4 * number + 4] == strips
    names = [*(f"denoise_{kind}" for kind in denoise.LEVELS), "denoise"]
    assert [figure.name for figure in result.figures] == names
    assert "30 rows" in result.notes[-1] and "50 training rows" in result.notes[-1]


def test_the_linear_map_is_fitted_to_training_rows_with_this_noise(make, monkeypatch):
    monkeypatch.setattr(denoise, "LEVELS", {"gaussian": (0.5,)})
    basis = RANDOM.rand(4, 64)
    mixed = RANDOM.rand(200, 4) @ basis
    rows = (255 * mixed / mixed.max()).astype(np.uint8).reshape(-1, 8, 8, 1)
    one = make(3, x_train=rows[:160], x_test=rows[160:])
    values = denoise.task(one.model, one.test).values()
    seed, noise = one.model.run.config.seed, NoiseLevel("gaussian", 0.5)
    train, test = rows[:160] / np.float32(255), rows[160:] / np.float32(255)
    noisy = denoise.add_noise(train, noise, seed + 1, np.arange(160)).reshape(160, -1)
    given = denoise.add_noise(test, noise, seed, np.arange(40)).reshape(40, -1)
    clean = train.reshape(160, -1).astype(np.float64)
    centred = noisy - noisy.mean(axis=0, dtype=np.float64)
    ridge = denoise._RIDGE * np.eye(64)  # hardly any, beside 160 rows of noise
    weights = np.linalg.solve(centred.T @ centred + ridge, centred.T @ (clean - clean.mean(axis=0)))
    out = (given - noisy.mean(axis=0)) @ weights + clean.mean(axis=0)
    out = np.clip(out, 0, 1).reshape(test.shape)
    assert values["gaussian_0.5_linear_map_psnr"] == pytest.approx(
        denoise.psnr(test, out), abs=1e-3
    )


def test_what_is_no_image_in_0_to_1_is_refused(make):
    flat = RANDOM.uniform(size=(20, 6)).astype(np.float32)
    for rows, prepare, said in (
        (flat, None, "not images of at least 7 x 7"),
        (X, Prepare(scale=False), "prepare.scale=False"),
        (X, Prepare(binarise="threshold"), "prepare.binarise=threshold"),
    ):
        one = make(2, Bernoulli(), prepare, x_train=rows, x_test=rows)
        with pytest.raises(InputError, match=said):
            denoise.check(one.model.run, one.test.spec)
