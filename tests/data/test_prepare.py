"""What becomes of raw rows, against NumPy in double precision."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.config import Prepare
from aejax.data import outliers
from aejax.data.deform import deform
from aejax.data.prepare import Preparation, check, check_symbols, statistics
from aejax.data.sources import open_source
from aejax.data.sources.base import Arrays, Source, Spec
from aejax.errors import InputError

RANDOM = np.random.RandomState(0)
BYTES = Arrays(RANDOM.randint(0, 256, (50, 6, 5, 1)).astype(np.uint8), None, 255.0)
REAL = Arrays((RANDOM.randn(50, 7) * 3 - 10).astype(np.float32), None, None)
RAW = Prepare(scale=False)


def ready(settings: Prepare, source: Source) -> Preparation:
    """Prepares rows as a run does whose training split this is."""
    check(settings, source.spec)
    return Preparation(settings, source.spec, statistics(settings, source))


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def grey(source: Arrays) -> np.ndarray:
    """The rows in [0, 1], float64."""
    x = np.float64(source.x)
    low, high = (0, source.maximum) if source.maximum is not None else (x.min(), x.max())
    return (x - low) / (high - low)


@pytest.mark.parametrize("flat", [False, True])
def test_bytes_are_divided_by_255(flat):
    raw = BYTES.x.reshape(50, -1) if flat else BYTES.x
    x = ready(Prepare(), BYTES)(jnp.asarray(raw))
    assert x.dtype == np.float32 and x.shape == BYTES.x.shape
    np.testing.assert_allclose(x, grey(BYTES), rtol=2e-7)
    assert (x[BYTES.x == 0] == 0).all() and (x[BYTES.x == 255] == 1).all()
    assert BYTES.x.min() == 0 and BYTES.x.max() == 255


def test_digits_are_divided_by_16():
    source = open_source("digits", "train")
    settings = Prepare()
    assert statistics(settings, source) == {}
    x = ready(settings, source)(jnp.asarray(source[:].x))
    assert np.array_equal(x, np.float32(source[:].x) / 16)
    assert (x.min(), x.max()) == (0, 1)


def test_real_numbers_are_scaled_by_the_training_extremes():
    found = statistics(Prepare(), REAL)
    assert found == {"low": float(REAL.x.min()), "high": float(REAL.x.max())}
    x = ready(Prepare(), REAL)(jnp.asarray(REAL.x))
    np.testing.assert_allclose(x, grey(REAL), rtol=1e-5, atol=1e-6)


def test_no_scaled_real_number_is_above_1_or_below_0():
    for seed in range(60):
        random = np.random.RandomState(seed)
        x = random.randn(50, 3) * 10 ** random.uniform(-3, 3) + 10 * random.randn()
        source = Arrays(x.astype(np.float32), None, None)
        found = np.asarray(ready(Prepare(), source)(jnp.asarray(source.x)))
        assert found.min() == 0 and 0.999999 < found.max() <= 1, seed


def test_values_that_never_vary_cannot_be_scaled():
    with pytest.raises(InputError, match="prepare.scale=True: every value .* is 2.5"):
        statistics(Prepare(), Arrays(np.full((4, 3), 2.5, np.float32), None, None))


def test_without_any_setting_rows_stay_as_they_are():
    x = ready(RAW, REAL)(jnp.asarray(REAL.x))
    assert np.array_equal(x, REAL.x)
    assert np.array_equal(ready(RAW, BYTES)(jnp.asarray(BYTES.x)), BYTES.x)
    assert statistics(RAW, REAL) == {}


def test_the_threshold_is_above_one_half():
    source = Arrays(np.arange(6, dtype=np.uint8).reshape(1, 6), None, 4.0)
    for draws in (None, keys(1)):
        x = ready(Prepare(binarise="threshold"), source)(jnp.asarray(source.x), draws)
        assert x.tolist() == [[0, 0, 0, 1, 1, 1]]  # 2 / 4 itself is not above one half


def test_sampled_pixels_are_on_as_often_as_they_are_bright():
    prepared = ready(Prepare(binarise="sampled"), BYTES)
    raw = np.repeat(BYTES.x[:1], 20_000, axis=0)
    raw[:, 0, 0], raw[:, 0, 1] = 0, 255
    x = np.asarray(jax.jit(prepared)(raw, keys(20_000)))
    assert set(np.unique(x)) == {0.0, 1.0}
    p = np.float64(raw[0]) / 255
    deviation = np.sqrt(p * (1 - p) / 20_000)
    assert (np.abs(x.mean(axis=0) - p) <= 5 * deviation).all()  # 0 and 1 are certain
    centred = (x - p).reshape(20_000, -1)
    together = np.abs(centred.T @ centred / 20_000 - np.diag((p * (1 - p)).ravel()))
    assert together.max() < 0.25 * 5 / np.sqrt(20_000)  # each pixel is drawn on its own


def test_in_evaluation_sampled_is_the_threshold():
    threshold = ready(Prepare(binarise="threshold"), BYTES)(jnp.asarray(BYTES.x))
    sampled = jax.jit(ready(Prepare(binarise="sampled"), BYTES))
    assert np.array_equal(sampled(BYTES.x), threshold)
    assert not np.array_equal(sampled(BYTES.x, keys(50)), threshold)


MIXED = Arrays(
    np.concatenate([REAL.x, np.full((50, 2), [[-7.25, 0.1]], np.float32)], axis=1), None, None
)


@pytest.mark.parametrize("settings", [Prepare(), RAW])
@pytest.mark.parametrize("source", [BYTES, MIXED, "digits"])
def test_centring_takes_means_and_deviations_of_the_training_split(settings, source, monkeypatch):
    source = open_source(source, "train") if isinstance(source, str) else source
    monkeypatch.setattr(outliers, "ROWS_AT_A_TIME", 1 + len(source) // 4)
    x = grey(source) if settings.scale else np.float64(source.x)
    mean, deviation = x.mean(axis=0).ravel(), x.std(axis=0).ravel()
    constant = np.ptp(np.float64(source.x), axis=0).ravel() == 0
    settings = dataclasses.replace(settings, centre="mean")
    found = statistics(settings, source)
    assert "deviation" not in found
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-6, atol=1e-7)
    centred = ready(settings, source)(jnp.asarray(source.x))
    np.testing.assert_allclose(centred, x - x.mean(axis=0), atol=2e-6 * np.abs(x).max())

    settings = dataclasses.replace(settings, centre="standardise")
    found = statistics(settings, source)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-6, atol=1e-7)
    exact = np.where(constant, 1, deviation)
    np.testing.assert_allclose(found["deviation"], exact, rtol=2e-5)
    standard = np.asarray(ready(settings, source)(jnp.asarray(source.x))).reshape(len(source), -1)
    assert np.isfinite(standard).all()
    np.testing.assert_allclose(standard[:, ~constant].std(axis=0), 1, rtol=1e-4)
    np.testing.assert_allclose(standard[:, constant], 0, atol=1e-5)


@pytest.mark.parametrize(("offset", "unit"), [(0, 1e-9), (0.1, 1e-3), (3e6, 1), (-1e4, 0.1)])
def test_deviations_are_right_in_small_units_and_far_from_0(offset, unit):
    x = np.full((1437, 2), offset + unit, np.float32)
    x[:, 1] += unit * np.random.RandomState(0).randn(1437)
    found = statistics(dataclasses.replace(RAW, centre="standardise"), Arrays(x, None, None))
    assert found["deviation"][0] == 1  # what never varies is divided by nothing
    assert found["deviation"][1] == pytest.approx(np.float64(x[:, 1]).std(), rel=1e-3)


@pytest.mark.parametrize("centre", ["none", "mean", "standardise"])
@pytest.mark.parametrize("source", [BYTES, MIXED])
def test_undo_takes_centring_back(centre, source):
    prepared = ready(Prepare(centre=centre), source)
    x = prepared(jnp.asarray(source.x))
    back = prepared.inverse(x)
    assert back.shape == source.x.shape
    np.testing.assert_allclose(back, grey(source), atol=1e-6)
    np.testing.assert_allclose(prepared.inverse(x[:3]), back[:3], rtol=1e-6)


def test_the_statistics_of_mnist_are_the_known_ones(data_folder):
    source = open_source(f"idx:{data_folder}/mnist", "train")
    found = statistics(Prepare(centre="standardise"), source)
    mean, deviation = np.asarray(found["mean"]), np.asarray(found["deviation"])
    assert mean.mean() == pytest.approx(0.13066, abs=1e-5)
    varies = deviation != 1
    assert varies.sum() == 717  # of 784 pixels
    total = np.mean(np.where(varies, np.square(deviation), 0) + np.square(mean)) - mean.mean() ** 2
    assert np.sqrt(total) == pytest.approx(0.30811, abs=1e-5)


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The image moved, its edges filled with 0."""
    height, width = image.shape[:2]
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                out[y, x] = image[y - down, x - right]
    return out


@pytest.mark.parametrize("channels", [(), (3,)])
def test_images_move_by_at_most_shift_pixels_and_zeros_come_in(channels):
    shape = (5, 4, *channels)
    image = 1 + np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    source = Arrays(np.repeat(image[None], 500, axis=0), None, 255.0)
    prepared = ready(Prepare(scale=False, shift=2), source)
    x = np.asarray(jax.jit(prepared)(source.x, keys(500)))
    assert x.shape == source.x.shape
    every = {
        (down, right): moved(image, down, right) for down in range(-2, 3) for right in range(-2, 3)
    }
    counts = [sum(np.array_equal(row, wanted) for row in x) for wanted in every.values()]
    assert sum(counts) == 500
    assert min(counts) > 3 and max(counts) < 45  # 20 each, in the mean
    assert np.array_equal(prepared(jnp.asarray(source.x)), source.x)  # evaluation


def test_every_second_image_is_mirrored_left_to_right():
    image = np.arange(40, dtype=np.uint8).reshape(5, 4, 2)
    source = Arrays(np.repeat(image[None], 1000, axis=0), None, 255.0)
    prepared = ready(Prepare(scale=False, flip=True), source)
    x = np.asarray(jax.jit(prepared)(source.x, keys(1000)))
    mirrored = sum(np.array_equal(row, image[:, ::-1]) for row in x)
    assert mirrored + sum(np.array_equal(row, image) for row in x) == 1000
    assert abs(mirrored - 500) < 80
    assert np.array_equal(prepared(jnp.asarray(source.x)), source.x)  # evaluation


def test_what_is_drawn_for_a_row_depends_on_its_key_alone():
    prepared = jax.jit(ready(Prepare(binarise="sampled", shift=2, flip=True), BYTES))
    draws = keys(50)
    whole = np.asarray(prepared(BYTES.x, draws))
    parts = [prepared(BYTES.x[part], draws[part]) for part in (slice(25), slice(25, 50))]
    assert np.array_equal(np.concatenate(parts), whole)
    backwards = prepared(BYTES.x[::-1].copy(), draws[::-1])
    assert np.array_equal(backwards[::-1], whole)
    assert not np.array_equal(prepared(BYTES.x, keys(50, seed=1)), whole)


def test_images_are_deformed_with_keys_of_their_own_alone():
    prepared, plain = (ready(Prepare(deform=rms), BYTES) for rms in (1.0, 0.0))
    for draws in ((), (keys(50),), (None, None)):  # evaluation, and draws of other kinds
        assert np.array_equal(prepared(BYTES.x, *draws), plain(BYTES.x))
    stream = keys(50, seed=1)
    x = prepared(BYTES.x, keys(50), stream)
    assert x.shape == BYTES.x.shape and float(x.min()) >= 0 and float(x.max()) <= 1
    np.testing.assert_allclose(x, deform(BYTES.x, stream, 1.0, 255.0) / 255, atol=1e-6)
    assert np.array_equal(x, prepared(BYTES.x.reshape(50, -1), keys(50, seed=2), stream))
    assert not np.array_equal(x, prepared(BYTES.x, keys(50), keys(50, seed=3)))
    assert np.array_equal(plain(BYTES.x, keys(50), stream), plain(BYTES.x))


def test_deformed_images_are_mirrored_and_binarised_after_that():
    settings = Prepare(deform=1.0, flip=True, binarise="threshold")
    x = np.asarray(ready(settings, BYTES)(BYTES.x, keys(50), keys(50, seed=1)))
    plain = np.asarray(deform(BYTES.x, keys(50, seed=1), 1.0, 255.0)) > 127.5
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(x, plain, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(x, plain, strict=True)]
    assert sum(mirrored) + sum(same) == 50 and min(sum(mirrored), sum(same)) > 10


@pytest.mark.parametrize(
    ("settings", "draws"),
    [
        (Prepare(), False),
        (Prepare(binarise="threshold", deform=0), False),
        (Prepare(shift=1), True),
        (Prepare(flip=True), True),
        (Prepare(deform=0.5), True),
        (Prepare(binarise="sampled"), True),
    ],
)
def test_whether_training_draws_is_known(settings, draws):
    prepared = ready(settings, BYTES)
    assert prepared.draws is draws
    x = [prepared(BYTES.x, keys(50, seed), keys(50, seed)) for seed in (0, 1)]
    assert np.array_equal(*x) is not draws


def test_the_settings_apply_in_their_order():
    settings = Prepare(binarise="threshold", centre="mean")
    on = (grey(BYTES) > 0.5).astype(np.float64)
    assert statistics(settings, BYTES)["mean"] == pytest.approx(on.mean(axis=0).ravel())
    x = ready(settings, BYTES)(jnp.asarray(BYTES.x))
    np.testing.assert_allclose(x, on - on.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "shape", "said"),
    [
        (Prepare(shift=1), (64,), r"shift=1 and flip=False move images; .* shape \(64,\)"),
        (Prepare(flip=True), (64,), r"shift=0 and flip=True move images; .* shape \(64,\)"),
        (Prepare(shift=8), (8, 9, 1), "prepare.shift=8: must be below the image's 8 x 9 pixels"),
        (Prepare(shift=8), (9, 8, 1), "prepare.shift=8: must be below the image's 9 x 8 pixels"),
    ],
)
def test_augmentation_that_does_not_suit_the_rows_is_refused(settings, shape, said):
    with pytest.raises(InputError, match=said):
        check(settings, Spec(shape, "uint8", 255.0, False))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (Spec((64,), "uint8", 255.0, False), "rows of shape 64, uint8 up to 255"),
        (Spec((1, 8, 1), "uint8", 255.0, False), "rows of shape 1x8x1, uint8 up to 255"),
        (Spec((8, 1), "float32", None, False), "rows of shape 8x1, float32"),
        (Spec((8, 8), "float32", None, False, missing=True), ".*some values missing"),
        (Spec((8, 8), "float32", None, False, padded=True), ".*with lengths"),
    ],
)
def test_rows_that_are_no_images_are_not_deformed(spec, said):
    with pytest.raises(InputError, match=f"prepare.deform=0.5 deforms images .* these are {said}"):
        check(Prepare(deform=0.5), spec)
    check(Prepare(), spec)


def test_symbols_are_not_deformed():
    with pytest.raises(InputError, match="prepare.deform=1.0: .* as they are stored; must be 0.0"):
        check_symbols(Prepare(scale=False, deform=1.0), BYTES, 256)


def test_augmentation_that_suits_is_accepted():
    check(Prepare(deform=2), Spec((2, 2), "float32", None, False))
    check(Prepare(shift=7, flip=True), Spec((8, 8, 1), "uint8", 255.0, False))
    check(Prepare(binarise="threshold", centre="mean"), Spec((64,), "float32", None, False))


def test_a_value_that_leaves_nothing_of_the_range_is_named():
    x = np.random.RandomState(0).rand(40, 3, 4).astype(np.float32)
    said = []
    statistics(Prepare(), Arrays(x, None, None), said.append)
    assert not said
    x[17, 2, 1] = 1e30
    for settings in (Prepare(), Prepare(scale=False, centre="standardise")):
        said.clear()
        statistics(settings, Arrays(x, None, None), said.append)
        (line,) = said
        assert "row 17, element 2,1: 1e+30; all but one of the values lie in 0.00" in line
    said.clear()
    statistics(RAW, Arrays(x, None, None), said.append)
    x[17, 2, 1] = -1e30
    length = np.full(40, 3)
    length[17] = 2  # in its padding
    statistics(Prepare(), Arrays(x, None, None, length), said.append)
    assert not said


def test_a_few_values_far_out_are_no_outliers_and_a_large_source_is_sampled(monkeypatch):
    x = np.random.RandomState(0).rand(5000, 4).astype(np.float32)
    x[::500] = 1e6  # one row of 500
    said = []
    statistics(Prepare(), Arrays(x, None, None), said.append)
    assert not said
    x[1:] = np.minimum(x[1:], 1)
    monkeypatch.setattr(outliers, "_SAMPLE", 1000)
    statistics(Prepare(), Arrays(x, None, None), said.append)
    assert len(said) == 1 and "row 0, element 0: 1e+06; 99.9 % of the values lie in" in said[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named(value):
    x = np.random.RandomState(0).rand(40, 3).astype(np.float32)
    x[8, 2] = value
    with pytest.raises(InputError, match=f"row 8, element 2: {value}; must be finite"):
        statistics(Prepare(), Arrays(x, None, None))


def test_the_farthest_value_of_a_row_is_described():
    x = np.random.RandomState(0).rand(40, 3).astype(np.float32)
    x[0, 0], x[1, 0] = 0, 1
    preparation = ready(Prepare(), Arrays(x, None, None))
    x[3, 1] = 1e25
    assert outliers.describe(preparation, Arrays(x, None, None), [3]) == (
        "row 3, element 1: 1e+25 (the training split lies in 0..1)"
    )
