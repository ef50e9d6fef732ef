"""The reconstruction task against the same numbers computed with plain NumPy in float64."""

import io
from collections.abc import Mapping

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from aejax.config import Prepare
from aejax.evaluation import Result, reconstruction, rows
from aejax.evaluation.similarity import ssim
from aejax.models.likelihood import Gaussian

RANDOM = np.random.RandomState(0)
# 1003 rows: one full piece, and one of 3 that is filled up.
GREY = {
    "x_train": RANDOM.randint(0, 256, (200, 8, 8, 1)).astype(np.uint8),
    "x_test": RANDOM.randint(0, 256, (1003, 8, 8, 1)).astype(np.uint8),
}
COLOUR = {name: RANDOM.rand(40, 12, 16, 3).astype(np.float32) for name in ("x_train", "x_test")}


def close(result: Result, wanted: Mapping[str, float | int | None]) -> None:
    values = result.values()
    for name, value in wanted.items():
        assert values[name] == pytest.approx(value, rel=3e-6), name


def entropy(x: np.ndarray) -> np.ndarray:
    p = np.clip(x, 1e-300, 1 - 1e-16)
    return -(x * np.log(p) + (1 - x) * np.log1p(-p))


@pytest.mark.parametrize("weight", [1.0, 1000.0])  # at 1000 most sigmoids are 0 or 1 in float32
def test_bernoulli_images(make, weight):
    made = make(**GREY, weight=weight)
    x = made.test[:].x.reshape(1003, -1) / np.float64(255)
    logits = made.linear.decode(made.linear.encode(x))
    mean = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    bce = np.logaddexp(0, logits) - x * logits
    mse = np.mean((x - mean) ** 2)
    pca = PCA(3, svd_solver="full").fit(made.train[:].x.reshape(200, -1) / np.float64(255))
    nearest = pca.inverse_transform(pca.transform(x))
    images = (1003, 8, 8, 1)
    result = reconstruction.task(made.model, made.test)
    close(
        result,
        {
            "bce": bce.mean(),
            "bce_floor": entropy(x).mean(),
            "mse": mse,
            "squared_error": 64 * mse,
            "psnr": -10 * np.log10(mse),
            "ssim": ssim(x.reshape(images), mean.reshape(images), 1.0).mean(),
            "ssim_window": 7,
            "pca_mse": np.mean((x - nearest) ** 2),
            "pca_components": 3,
        },
    )
    if weight == 1000:
        assert bce.mean() > -np.log(1e-7)  # more than any clipped sigmoid can have
    assert any("7 x 7" in note for note in result.notes)


def test_gaussian_colour_images_are_measured_where_they_came_from(make):
    settings = Prepare(centre="standardise")
    made = make(**COLOUR, likelihood=Gaussian(), prepare=settings, weight=0.2)
    low, high = made.train[:].x.min(), made.train[:].x.max()
    scaled = {
        name: (part[:].x.astype(np.float64) - low) / (high - low)
        for name, part in (("train", made.train), ("test", made.test))
    }
    centre, deviation = scaled["train"].mean(axis=0), scaled["train"].std(axis=0)
    x = scaled["test"]
    made_of = made.linear.decode(made.linear.encode((x - centre) / deviation)).reshape(x.shape)
    mean = made_of * deviation + centre
    result = reconstruction.task(made.model, made.test)
    clipped, inside = np.clip(mean, 1e-7, 1 - 1e-7), np.clip(x, 0, 1)
    bce = -(inside * np.log(clipped) + (1 - inside) * np.log1p(-clipped))
    mse = np.mean((x - mean) ** 2)
    close(
        result,
        {
            "mse": mse,
            "psnr": -10 * np.log10(mse),
            "ssim": ssim(x, mean, 1.0).mean(),
            "ssim_window": 11,
            "bce_floor": entropy(inside).mean(),
        },
    )
    # A mean near 0 or 1 is known to 1e-7 in float32, and its logarithm to less.
    assert result.values()["bce"] == pytest.approx(bce.mean(), rel=1e-3)
    assert "1e-7" in result.numbers["bce"].meaning
    outside = int((x != inside).sum())
    assert outside and any(f"{outside} values" in note for note in result.notes)


def test_vectors_have_no_pictures_and_unscaled_ones_no_cross_entropy(make):
    x = np.random.RandomState(3).randn(30, 6).astype(np.float32) * 5 + 2
    made = make(
        x_train=x, x_test=x[:9], likelihood=Gaussian(), prepare=Prepare(scale=False), latent_dim=2
    )
    result = reconstruction.task(made.model, made.test)
    x = made.test[:].x.astype(np.float64)
    mse = np.mean((x - made.linear.decode(made.linear.encode(x))) ** 2)
    peak = x.max() - x.min()
    close(result, {"mse": mse, "psnr": 10 * np.log10(peak**2 / mse), "squared_error": 6 * mse})
    assert not result.figures
    assert not {"bce", "bce_floor", "ssim", "pca_bce"} & set(result.numbers)
    for words in ("not scaled", "not images", "range of the evaluated rows"):
        assert any(words in note for note in result.notes), words


def test_unscaled_bytes_have_a_peak_of_255(make):
    made = make(**GREY, likelihood=Gaussian(), prepare=Prepare(scale=False))
    values = reconstruction.task(made.model, made.test).values()
    x = made.test[:].x.astype(np.float64)
    mean = made.linear.decode(made.linear.encode(x)).reshape(x.shape)
    psnr = 10 * np.log10(255**2 / np.mean((x - mean) ** 2))
    assert values["psnr"] == pytest.approx(psnr, rel=1e-5)
    assert values["ssim"] == pytest.approx(ssim(x, mean, 255.0).mean(), rel=1e-5)


def test_a_code_as_large_as_a_row_has_no_pca_beside_it(make):
    result = reconstruction.task(*make(**GREY, latent_dim=64)[:2])
    assert "pca_mse" not in result.numbers
    assert any("64 numbers is no smaller" in note for note in result.notes)


def test_a_training_split_that_is_gone_costs_the_pca_alone(make, tmp_path):
    made = make(**GREY)
    (tmp_path / "rows.npz").unlink()
    reconstruction.principal._cached.cache_clear()
    result = reconstruction.task(made.model, made.test)
    assert "mse" in result.numbers and "pca_mse" not in result.numbers
    assert any("cannot be read" in note for note in result.notes)


def test_the_picture_has_originals_above_reconstructions(make):
    made = make(**GREY)
    (figure,) = reconstruction.task(made.model, made.test).figures
    image = np.asarray(Image.open(io.BytesIO(figure.png)))
    factor = image.shape[0] // 19  # 2 rows of 8 pixels, 3 gaps
    assert image.shape == (19 * factor, 91 * factor)
    pixels = image[factor // 2 :: factor, factor // 2 :: factor]
    x = made.test[:10].x
    np.testing.assert_array_equal(pixels[1:9, 10:18], x[1, ..., 0])
    mean = made.model.reconstruct(x)[9, ..., 0]
    np.testing.assert_allclose(pixels[10:18, 82:90], mean * 255, atol=0.51)


def test_numbers_do_not_depend_on_the_pieces(make, monkeypatch):
    made = make(**GREY)
    wanted = reconstruction.task(made.model, made.test).values()
    monkeypatch.setattr(rows, "_ROWS_AT_A_TIME", 17)
    close(reconstruction.task(made.model, made.test), wanted)


def test_large_rows_are_read_few_at_a_time(make, monkeypatch):
    reads = []

    class Counted:
        def __init__(self, source):
            self.source, self.spec = source, source.spec

        def __len__(self):
            return len(self.source)

        def __getitem__(self, index):
            found = self.source[index]
            reads.append(len(found.x))
            return found

    made = make(**GREY)
    assert rows.batch_rows(made.test) == 1000
    monkeypatch.setattr(rows, "_NUMBERS_AT_A_TIME", 64 * 200)
    close(reconstruction.task(made.model, Counted(made.test)), {"ssim_window": 7})
    assert max(reads) == 200 and sum(reads) == 1003


def test_rows_of_many_elements_have_no_pca_beside_them(make):
    x = np.random.RandomState(0).rand(5, 4097).astype(np.float32)
    result = reconstruction.task(*make(x_train=x, x_test=x, latent_dim=1)[:2])
    assert "mse" in result.numbers and "pca_mse" not in result.numbers
    assert any("4097 elements" in note for note in result.notes)
