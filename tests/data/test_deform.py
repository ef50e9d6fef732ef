"""Deformed images, against the formula in double precision, and the laws of their fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.data.deform import basis, deform, fields

RANDOM = np.random.RandomState(0)


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def covariance(size: int) -> np.ndarray:
    """Of white noise under a Gaussian of 4 pixels, of variance 1."""
    apart = np.subtract.outer(np.arange(size), np.arange(size))
    return np.exp(-np.square(apart) / (4 * 4.0**2))


def by_hand(size: int) -> np.ndarray:
    """`basis` from the eigenvectors of the covariance."""
    values, vectors = np.linalg.eigh(covariance(size))
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = 1 + np.argmax(np.cumsum(values) >= (1 - 1e-4) * values.sum())
    vectors = vectors[:, :kept] * np.sign(vectors[0, :kept])
    return vectors * np.sqrt(values[:kept] * size / values[:kept].sum())


def at(image: np.ndarray, y: int, x: int) -> np.ndarray:
    """A pixel, or the nearest one of the edge."""
    height, width = image.shape[:2]
    return image[min(max(y, 0), height - 1), min(max(x, 0), width - 1)]


def expected(image: np.ndarray, key: jax.Array, rms: float, maximum: float | None) -> np.ndarray:
    """One image [height, width, ...], pixel by pixel."""
    image = image.astype(np.float64)
    height, width = image.shape[:2]
    along_y, along_x = by_hand(height), by_hand(width)
    shape = (2, along_y.shape[1], along_x.shape[1])
    normals = np.float64(jax.random.normal(jax.random.fold_in(key, 0), shape))
    across, down = (rms * along_y @ each @ along_x.T for each in normals)
    smooth = np.zeros_like(image)
    for y, x in np.ndindex(height, width):
        for i, j in np.ndindex(3, 3):
            smooth[y, x] += (1, 2, 1)[i] * (1, 2, 1)[j] * at(image, y + i - 1, x + j - 1) / 16
    low, high = (0, maximum) if maximum is not None else (image.min(), image.max())
    out = np.zeros_like(image)
    shift = int(jax.random.randint(jax.random.fold_in(key, 1), (), 0, 9))
    for y, x in np.ndindex(height, width):
        dx = (at(smooth, y, x + 1) - at(smooth, y, x - 1)) / 2
        dy = (at(smooth, y + 1, x) - at(smooth, y - 1, x)) / 2
        to = y + shift // 3 - 1, x + shift % 3 - 1
        if 0 <= to[0] < height and 0 <= to[1] < width:
            value = image[y, x] + across[y, x] * dx + down[y, x] * dy
            out[to] = np.clip(value, low, high)
    return out


@pytest.mark.parametrize(
    ("shape", "maximum"),
    [((8, 8), 16.0), ((28, 28, 1), 255.0), ((9, 12, 3), 255.0), ((2, 3), 4.0), ((11, 7), None)],
)
def test_images_follow_the_formula(shape, maximum):
    if maximum is None:
        images = RANDOM.randn(12, *shape).astype(np.float32) - 3
    else:
        images = RANDOM.randint(0, int(maximum) + 1, (12, *shape)).astype(np.uint8)
    drawn = keys(12)
    found = jax.jit(lambda x, k: deform(x, k, 1.5, maximum))(images, drawn)
    assert found.shape == images.shape and found.dtype == np.float32
    wanted = [expected(image, key, 1.5, maximum) for image, key in zip(images, drawn, strict=True)]
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(images).max())


def test_a_ramp_moves_by_the_fields_themselves():
    ramp = np.tile(10 * np.arange(12.0, dtype=np.float32), (9, 1))[None].repeat(40, 0)
    drawn = keys(40)
    across, _ = np.asarray(fields(drawn, 9, 12))
    moved = np.asarray(deform(jnp.asarray(ramp), drawn, 0.5, 1e6))
    for i, key in enumerate(drawn):
        shift = int(jax.random.randint(jax.random.fold_in(key, 1), (), 0, 9))
        by = shift // 3 - 1, shift % 3 - 1
        inner = moved[i, 2 + by[0] : 7 + by[0], 3 + by[1] : 9 + by[1]]
        np.testing.assert_allclose(inner - ramp[i, 2:7, 3:9], 5 * across[i, 2:7, 3:9], atol=1e-3)


@pytest.mark.parametrize("size", [2, 8, 28, 64])
def test_few_normals_hold_the_law_of_smoothed_noise(size):
    b = np.float64(basis(size))
    assert b.shape[1] <= max(4, 2 + size // 4)
    assert np.mean(np.sum(np.square(b), axis=1)) == pytest.approx(1, abs=1e-6)
    # What is left out is at the edges, where the last vectors are largest.
    np.testing.assert_allclose(b @ b.T, covariance(size), atol=2e-3)


def test_fields_have_an_rms_of_one_pixel_and_the_smoothness_of_sigma_4():
    drawn = np.float64(fields(keys(4000), 28, 28))
    assert drawn.shape == (2, 4000, 28, 28)
    flat = drawn.transpose(1, 0, 2, 3).reshape(4000, -1)
    assert np.sqrt(np.mean(np.square(flat))) == pytest.approx(1, abs=0.01)
    together = (flat.T @ flat / 4000).reshape(2, 28, 28, 2, 28, 28)
    one, other = together[0, 14, 14, 0], together[0, 14, 14, 1]
    wanted = np.multiply.outer(covariance(28)[14], covariance(28)[14])
    np.testing.assert_allclose(one, wanted, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(other, 0, atol=5 / np.sqrt(4000))  # the two are independent


def test_channels_move_together():
    image = RANDOM.randint(0, 256, (5, 9, 8, 1)).astype(np.uint8)
    grey, colour = (
        deform(jnp.asarray(x), keys(5), 1.0, 255.0) for x in (image, image.repeat(3, 3))
    )
    np.testing.assert_allclose(np.asarray(grey).repeat(3, 3), colour, atol=1e-4)


def test_each_of_nine_shifts_comes():
    image = np.zeros((5, 5), np.uint8)
    image[1:4, 1:4] = 1 + np.arange(9).reshape(3, 3)
    moved = np.asarray(deform(jnp.asarray(image)[None].repeat(900, 0), keys(900), 0.0, 255.0))
    counts = [
        sum(np.array_equal(each, np.roll(image, (down, right), (0, 1))) for each in moved)
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    ]
    assert sum(counts) == 900 and min(counts) > 60 and max(counts) < 145  # 100 each, in the mean


def test_what_a_shift_leaves_behind_is_0_and_nothing_comes_in_again():
    x = np.asarray(deform(jnp.full((200, 4, 5), 7, jnp.uint8), keys(200), 1.0, 255.0))
    assert set(np.unique(x)) == {0.0, 7.0}  # a plain image has no differences
    assert {int((each == 7).sum()) for each in x} == {12, 15, 16, 20}


@pytest.mark.parametrize("cut", [1, 3, 8, 37, 100])
def test_the_bits_of_an_image_depend_on_its_key_alone(cut):
    images, drawn = RANDOM.randint(0, 256, (100, 28, 28, 1)).astype(np.uint8), keys(100)
    run = jax.jit(lambda x, k: deform(x, k, 1.0, 255.0))
    parts = [run(images[i : i + cut], drawn[i : i + cut]) for i in range(0, 100, cut)]
    assert np.concatenate(parts).tobytes() == np.asarray(run(images, drawn)).tobytes()
