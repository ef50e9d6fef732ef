"""Samples, paths, traversals and grids: which codes are decoded, and how far samples are off."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm
from sklearn.datasets import make_blobs

import aejax
from aejax import pictures
from aejax.config import Prepare
from aejax.errors import InputError
from aejax.evaluation import checkpoints, drawing, generate, latent, traversal
from aejax.evaluation.encoded import encode_rows
from aejax.models.bottlenecks import KSparse, Plain, Variational
from aejax.models.likelihood import Bernoulli
from tests.training.runs import small

RANDOM = np.random.RandomState(0)
CODES = RANDOM.randn(400, 3) @ RANDOM.randn(3, 3) + [1.0, -2.0, 5.0]
IMAGES = RANDOM.randint(0, 256, (30, 5, 4, 1)).astype(np.uint8)
Y = np.arange(30) % 3


@pytest.fixture
def model(make):
    return make(latent_dim=3, x_train=IMAGES, x_test=IMAGES).model


def cells(figure, factor: int) -> np.ndarray:
    """A grid's images of 5 x 4 pixels, uint8 [rows, columns, 5, 4]."""
    small = np.asarray(Image.open(io.BytesIO(figure.png)))[factor // 2 :: factor]
    small = small[:, factor // 2 :: factor]
    rows, columns = (small.shape[0] - 1) // 6, (small.shape[1] - 1) // 5
    return small[1:, 1:].reshape(rows, 6, columns, 5)[:, :5, :, :4].transpose(0, 2, 1, 3)


def test_one_normal_has_the_mean_and_covariance_of_the_codes(model):
    found, converged = drawing.from_mixture(model, CODES, 1, 100_000)
    assert converged and "1 normal" in found.origin and "400 training codes" in found.origin
    low, high = CODES.min(0), CODES.max(0)
    assert (found.z >= low).all() and (found.z <= high).all()
    # What is cut off takes a little of the variance.
    np.testing.assert_allclose(found.z.mean(0), CODES.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(found.z.T), np.cov(CODES.T), rtol=0.1, atol=0.05)


def test_a_mixture_draws_in_each_cluster_and_between_none(model):
    z, of = make_blobs([200, 400, 600], centers=[[0, 0, 0], [30, 0, 0], [0, 30, 9]], random_state=0)
    found, _ = drawing.from_mixture(model, z, 3, 6000)
    centres = np.stack([z[of == one].mean(axis=0) for one in range(3)])
    away = np.linalg.norm(found.z[:, None] - centres, axis=2)
    assert away.min(axis=1).max() < 6
    shares = np.bincount(away.argmin(axis=1)) / 6000
    np.testing.assert_allclose(shares, [1 / 6, 1 / 3, 1 / 2], atol=0.03)
    # In no order, so that the first hundred show all.
    assert len(np.unique(away[:100].argmin(axis=1))) == 3
    again, _ = drawing.from_mixture(model, z, 3, 6000)
    np.testing.assert_array_equal(found.z, again.z)


def test_a_unit_that_never_changes_stays(model):
    z = np.column_stack([CODES, np.zeros(400), np.full(400, 7.0)])
    found, _ = drawing.from_mixture(model, z, 4, 500)
    assert (found.z[:, 3] == 0).all() and (found.z[:, 4] == 7).all()
    constant, _ = drawing.from_mixture(model, np.ones((5, 2)), 3, 9)
    assert (constant.z == 1).all()


def test_k_sparse_codes_keep_their_k_largest_numbers(make):
    made = make(latent_dim=3, bottleneck=KSparse(2), x_train=IMAGES, x_test=IMAGES)
    z = np.abs(CODES) + 1
    free, _ = drawing.from_mixture(make(x_train=IMAGES, x_test=IMAGES).model, z, 2, 300)
    found, _ = drawing.from_mixture(made.model, z, 2, 300)
    least = free.z.argmin(axis=1)
    expected = free.z.copy()
    expected[np.arange(300), least] = 0
    np.testing.assert_allclose(found.z, expected, rtol=1e-6)
    assert "2 largest" in found.origin


def test_sources_are_the_prior_where_there_is_one_and_the_mixture(make):
    for bottleneck, names in (
        (Variational(), ["samples", "samples_mixture"]),
        (Plain("relu"), ["samples_mixture"]),
    ):
        one = make(latent_dim=3, bottleneck=bottleneck, x_train=IMAGES, x_test=IMAGES).model
        found, notes = drawing.draw(one, CODES, 2, 2000)
        assert list(found) == names
        assert any("no prior" in note for note in notes) == (len(names) == 1)
        if "samples" in found:
            np.testing.assert_allclose(np.cov(found["samples"].z.T), np.eye(3), atol=0.1)
            np.testing.assert_array_equal(one.sample(9), one.decode(drawing.from_prior(one, 9).z))
    large = RANDOM.randn(20, drawing.MOST_NUMBERS + 1)
    found, notes = drawing.draw(one, large, 2, 10)
    assert not found and "No mixture" in notes[0]


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
    ("bottleneck", "sources"),
    [
        (Plain("linear"), ["samples_mixture"]),
        (Variational(), ["samples", "samples_mixture"]),
        (KSparse(2), ["samples_mixture"]),
    ],
)
def test_pictures_are_of_the_right_codes(make, bottleneck, sources):
    one = make(3, Bernoulli(), Prepare(), bottleneck=bottleneck, x_train=IMAGES, x_test=IMAGES)
    result = generate.task(one.model, one.test, one.train)
    figures = {figure.name: figure for figure in result.figures}
    assert list(figures) == [*sources, "interpolation", "traversal"]
    for name in sources:
        assert cells(figures[name], round(960 / 51)).shape == (10, 10, 5, 4)
        assert f"to_rows_{name}" in result.numbers
    images, ends = cells(figures["interpolation"], round(960 / 51)), one.model.reconstruct(IMAGES)
    shown = pictures.to_bytes(ends[:16, ..., 0])
    np.testing.assert_array_equal(images[:, 0], shown[::2])
    np.testing.assert_array_equal(images[:, -1], shown[1::2])
    assert any("No Frechet distance" in note and "no labels" in note for note in result.notes)
    assert generate.task(one.model, one.test, one.train) == result


@pytest.mark.parametrize("bottleneck", [Plain("linear"), Variational()])
def test_traversals_move_one_number_of_the_first_code(make, bottleneck):
    one = make(4, Bernoulli(), Prepare(), bottleneck=bottleneck, x_train=IMAGES, x_test=IMAGES)
    rows = encode_rows(one.model, one.test)
    (figure,) = traversal.traversal(one.model, one.test, rows)
    order = np.argsort(-latent.activity(one.model, one.test, rows.z)[0])
    ends = (np.full(4, -3), np.full(4, 3))
    if isinstance(bottleneck, Plain):
        ends = np.quantile(rows.z, [0.01, 0.99], axis=0)
    images = cells(figure, round(960 / 56))
    assert images.shape[:2] == (4, 11)
    for line, number in zip(images, order, strict=True):
        for column, end in ((0, ends[0]), (10, ends[1])):
            code = rows.z[:1].copy()
            code[0, number] = end[number]
            expected = pictures.to_bytes(one.model.decode(code)[0, ..., 0])
            np.testing.assert_array_equal(line[column], expected)
    named = [f"{number + 1} ({ends[0][number]:.3g} to" for number in order]
    places = [figure.caption.index(name) for name in named]
    assert places == sorted(places)


def test_a_code_without_an_active_number_has_no_traversal(make):
    one = make(2, x_train=IMAGES, x_test=IMAGES)
    rows = encode_rows(one.model, one.test)
    still = rows._replace(z=np.ones_like(rows.z))
    assert traversal.traversal(one.model, one.test, still) == []


@pytest.mark.parametrize("bottleneck", [Plain("linear"), Variational()])
def test_the_manifold_is_the_plane_of_codes(make, bottleneck):
    one = make(2, Bernoulli(), Prepare(), bottleneck=bottleneck, x_train=IMAGES, x_test=IMAGES)
    result = generate.task(one.model, one.test, one.train)
    assert result.figures[-1].name == "manifold"
    images = cells(result.figures[-1], round(960 / 101))
    z = encode_rows(one.model, one.test).z
    across, up = np.linspace(*np.quantile(z, [0.01, 0.99], axis=0), 20).T
    if isinstance(bottleneck, Variational):
        across = up = norm.ppf(np.linspace(0.025, 0.975, 20))
    for row, column in ((0, 0), (0, 19), (19, 0), (7, 12)):
        decoded = one.model.decode(np.array([[across[column], up[19 - row]]]))
        np.testing.assert_array_equal(
            images[row, column].astype(int), pictures.to_bytes(decoded[0, ..., 0])
        )


def test_rows_that_are_no_images_give_numbers_alone(make):
    rows = RANDOM.uniform(size=(30, 6)).astype(np.float32)
    one = make(2, x_train=rows, x_test=rows, y_train=Y, y_test=Y)
    result = generate.task(one.model, one.test, one.train, components=2)
    assert not result.figures and 0 < result.values()["to_rows_samples_mixture"] < 1
    assert any("not images" in note for note in result.notes)
    # The evaluated rows are the training rows, so that the floor is 0.
    assert result.values()["frechet_floor"] == pytest.approx(0, abs=1e-9)
    assert result.values()["frechet_samples_mixture"] > result.values()["frechet_floor"]
    assert result.values()["frechet_rows"] == 30 and result.values()["frechet_accuracy"] > 0.9
    for wrong in (0, 31):
        with pytest.raises(InputError, match=f"--components={wrong}: must be at least 1"):
            generate.task(one.model, one.test, one.train, components=wrong)


def test_a_classifier_needs_two_classes(make):
    one = make(2, x_train=IMAGES, x_test=IMAGES, y_train=0 * Y, y_test=Y)
    result = generate.task(one.model, one.test, one.train)
    assert any("of one class" in note for note in result.notes)
    assert not [name for name in result.numbers if name.startswith("frechet")]


def test_the_mixture_is_fitted_to_the_training_split_of_a_run(folder):
    request = checkpoints.check_request(str(folder), ("generate",), components=4)
    record = checkpoints.evaluate_request(request, say=lambda line: None)
    found, notes = record["tasks"]["generate"], " ".join(record["notes"]["generate"])
    assert "mixture of 4 normal distributions fitted to 1437 training codes" in notes
    assert found["frechet_accuracy"] > 0.9 and found["frechet_rows"] == 360
    assert 0 < found["frechet_floor"] < found["frechet_samples_mixture"]
    with pytest.raises(InputError, match="--split=train: --tasks=generate fits"):
        checkpoints.check_request(str(folder), ("generate",), split="train")


def test_a_run_on_arrays_is_given_its_training_rows_again(tmp_path):
    rows = RANDOM.rand(200, 6).astype(np.float32)
    aejax.Trainer(small(duration="4 steps"), str(tmp_path), rows[:150], rows[150:]).fit(quiet=True)
    asked = {"source": rows[150:], "say": lambda line: None}
    with pytest.raises(InputError, match="the run was given its rows by a program"):
        aejax.evaluate(str(tmp_path), ["generate"], **asked)
    record = aejax.evaluate(str(tmp_path), ["generate"], learned=rows[:150], **asked)
    assert "fitted to 150 training codes" in " ".join(record["notes"]["generate"])
