"""Samples and interpolations: what codes are drawn from, and the paths between codes."""

import io

import numpy as np
import pytest
from PIL import Image

from aejax import pictures
from aejax.config import Prepare
from aejax.evaluation import generate
from aejax.models.bottlenecks import KSparse, Plain, Variational
from aejax.models.likelihood import Bernoulli

RANDOM = np.random.RandomState(0)
CODES = RANDOM.randn(400, 3) @ RANDOM.randn(3, 3) + [1.0, -2.0, 5.0]


def test_plain_codes_are_drawn_with_the_mean_and_covariance_of_those_of_rows():
    drawn, whence = generate.draw(CODES, Plain(), 200_000, np.random.RandomState(1))
    np.testing.assert_allclose(drawn.mean(0), CODES.mean(0), atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(CODES.T, bias=True), rtol=0.05, atol=0.03)
    assert "400 rows" in whence
    constant = np.ones((5, 1))
    assert np.allclose(generate.draw(constant, Plain(), 9, RANDOM)[0], 1)


def test_variational_codes_come_from_the_prior_and_k_sparse_ones_from_nothing():
    drawn, whence = generate.draw(CODES, Variational(), 100_000, np.random.RandomState(1))
    np.testing.assert_allclose(drawn.mean(0), np.zeros(3), atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T), np.eye(3), atol=0.02)
    assert whence == "the prior, a standard normal"
    assert generate.draw(CODES, KSparse(2), 5, RANDOM)[0] is None


def test_paths_begin_and_end_at_the_codes_and_a_circle_keeps_its_radius():
    first, last, steps = RANDOM.randn(6, 4), RANDOM.randn(6, 4), np.linspace(0, 1, 7)
    for path in (generate.linear, generate.spherical):
        points = path(first, last, steps)
        np.testing.assert_allclose(points[:, 0], first, atol=1e-12)
        np.testing.assert_allclose(points[:, -1], last, atol=1e-12)
    np.testing.assert_allclose(generate.linear(first, last, steps)[:, 3], (first + last) / 2)
    radius = np.linalg.norm(first, axis=1, keepdims=True)
    last = last / np.linalg.norm(last, axis=1, keepdims=True) * radius
    points = generate.spherical(first, last, steps)
    np.testing.assert_allclose(np.linalg.norm(points, axis=2), np.repeat(radius, 7, axis=1))
    unit = points / radius[:, None]
    angles = np.arccos(np.clip(np.sum(unit[:, 1:] * unit[:, :-1], axis=2), -1, 1))
    np.testing.assert_allclose(angles, np.repeat(angles[:, :1], 6, axis=1), atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 2.0, 0.0])
def test_codes_in_one_direction_are_joined_by_a_line(scale):
    first, steps = RANDOM.randn(2, 4), np.linspace(0, 1, 5)
    points = generate.spherical(first, scale * first, steps)
    np.testing.assert_allclose(points, generate.linear(first, scale * first, steps), atol=1e-9)


def test_distances_are_to_the_nearest_row_and_not_to_itself():
    x = np.float32([[0, 0], [3, 4], [6, 8], [6, 9]])
    found = generate._nearest(np.float32([[3, 5], [6, 9]]), x, False)
    np.testing.assert_allclose(found, np.sqrt([1 / 2, 0]), atol=1e-7)
    found = generate._nearest(x[:3], x, True)
    np.testing.assert_allclose(found, np.sqrt([25 / 2, 25 / 2, 1 / 2]))


@pytest.mark.parametrize(
    ("bottleneck", "names"),
    [
        (Plain("linear"), ["samples", "interpolation"]),
        (Variational(), ["samples", "interpolation"]),
        (KSparse(2), ["interpolation"]),
    ],
)
def test_pictures_are_of_the_right_codes(make, bottleneck, names):
    images = RANDOM.randint(0, 256, (30, 5, 4, 1)).astype(np.uint8)
    one = make(3, Bernoulli(), Prepare(), bottleneck=bottleneck, x_train=images, x_test=images)
    result = generate.task(one.model, one.test)
    assert [figure.name for figure in result.figures] == names
    picture = np.asarray(Image.open(io.BytesIO(result.figures[-1].png)))
    factor = round(960 / 51)
    ends = one.model.reconstruct(images[:16])
    small = picture[factor // 2 :: factor, factor // 2 :: factor]
    for pair in range(8):
        top = 1 + 6 * pair
        np.testing.assert_array_equal(
            small[top : top + 5, 1:5], pictures.to_bytes(ends[2 * pair, ..., 0])
        )
        np.testing.assert_array_equal(
            small[top : top + 5, 46:50], pictures.to_bytes(ends[2 * pair + 1, ..., 0])
        )
    assert ("to_rows" in result.numbers) == ("samples" in names)
    assert generate.task(one.model, one.test).figures == result.figures


def test_rows_that_are_no_images_give_numbers_alone(make):
    rows = RANDOM.uniform(size=(30, 6)).astype(np.float32)
    one = make(2, x_train=rows, x_test=rows)
    result = generate.task(one.model, one.test)
    assert not result.figures and 0 < result.values()["to_rows"] < 1
    assert any("not images" in note for note in result.notes)
