"""The probe: its classifier against scikit-learn in double precision, and the choice of L2."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from aejax.errors import InputError
from aejax.evaluation import checkpoints, probe
from aejax.evaluation.logistic import Problem

RANDOM = np.random.RandomState(0)


def blobs(count: int, spread: float = 1.0, size: int = 12, classes: int = 4):
    """Classes around points, in directions of very different size."""
    random = np.random.RandomState(count)
    centres = np.random.RandomState(7).randn(classes, size)
    label = random.randint(0, classes, count)
    x = centres[label] + spread * random.randn(count, size)
    return (x * np.logspace(-2, 1, size)).astype(np.float32), 3 * label + 1


@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
def test_the_classifier_is_the_minimum(l2):
    x, label = blobs(600)
    x -= x.mean(axis=0)
    found = Problem(x, label).fit(l2)
    exact = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-10, max_iter=100_000)
    exact.fit(x.astype(np.float64), label)
    log_p = exact.predict_log_proba(x.astype(np.float64))
    loss = -log_p[np.arange(len(x)), (label - 1) // 3].mean() + l2 / 2 * np.sum(exact.coef_**2)
    assert found.converged and found.loss == pytest.approx(loss, rel=1e-4)
    assert np.mean(found.predict(x) == exact.predict(x)) > 0.995
    assert set(found.classes) == {1, 4, 7, 10}
    again = Problem(x, label).fit(l2, found)
    assert again.steps <= 5 and again.loss == pytest.approx(found.loss, rel=1e-4)


def test_units_that_are_always_the_same_do_no_harm():
    x, label = blobs(300)
    more = np.concatenate([x, np.zeros((300, 2), np.float32)], axis=1)
    assert Problem(more, label).fit(1e-2).loss == pytest.approx(
        Problem(x, label).fit(1e-2).loss, rel=1e-4
    )


@pytest.mark.parametrize("least", [-9, -6, -3, 0])
def test_the_walk_finds_the_least_error_inside(least):
    tried = []

    def error(place: int) -> float:
        if place not in tried:
            tried.append(place)
        return abs(place - least) / 10

    assert probe.walk(error) == (least, True)
    assert {least - 1, least + 1} <= set(tried) and len(tried) <= 8


def test_the_walk_says_where_it_ends_at_an_edge_and_takes_the_larger_of_equals():
    assert probe.walk(float) == (probe._LEAST, False)
    assert probe.walk(lambda place: -place) == (probe._MOST, False)
    assert probe.walk(lambda place: 0.5) == (probe._MOST, False)
    assert probe.walk(lambda place: max(0, place + 6) / 10) == (-6, True)


def test_errors_are_counted_on_rows_that_were_not_fitted():
    x, label = blobs(900, spread=0.3)
    test_x, test_label = blobs(200, spread=0.3)
    wrong = test_label.copy()
    wrong[:50] = 99  # a class that the classifier has never seen
    fit = probe.choose(x.copy(), label, test_x.copy(), wrong)
    right = probe.choose(x, label, test_x, test_label)
    assert fit.converged and fit.test == pytest.approx(right.test + 0.25, abs=0.02)
    assert right.test < 0.1 and right.train < 0.1
    assert fit.l2 in fit.errors and min(fit.errors.values()) == fit.errors[fit.l2]


def test_scaling_is_by_the_training_rows_alone():
    x, other = RANDOM.randn(50, 3).astype(np.float32) * [1, 2, 3] + 5, np.ones((4, 3), np.float32)
    mean, deviation = x.mean(0), np.sqrt(x.var(0).mean())
    exact = (x - mean) / deviation, (other - mean) / deviation
    x = x.astype(np.float32)
    probe._scale(x, other)
    np.testing.assert_allclose(x, exact[0], atol=1e-5)
    np.testing.assert_allclose(other, exact[1], atol=1e-5)


def test_codes_and_pixels_of_a_linear_model_tell_as_much_as_they_keep(make):
    """Two of twelve directions are in the code; the label lies in them, or in the others."""
    random = np.random.RandomState(3)
    arrays = {}
    for name, count in (("train", 500), ("test", 300)):
        x = random.uniform(0, 1, (count, 12)).astype(np.float32)
        arrays[f"x_{name}"], arrays[f"y_{name}"] = x, (x[:, 0] > 0.5).astype(np.int64)
    one = make(latent_dim=2, **arrays)
    weight = one.model.module.encoder.layers[0].weight
    for kept, low, high in ((0, 0.0, 5.0), (6, 30.0, 70.0)):
        weight[...] = 0 * weight[...]
        weight[...] = weight[...].at[0, kept].set(2.0).at[1, kept + 1].set(-1.0)
        result = probe.task(one.model, one.test, one.train)
        found = result.values()
        assert low <= found["error"] <= high and found["pixel_error"] <= 8
        assert found["train_rows"] == 500


def test_what_cannot_be_probed_is_refused(make, folder):
    rows = RANDOM.uniform(size=(20, 4)).astype(np.float32)
    bare = make(x_train=rows, x_test=rows)
    with pytest.raises(InputError, match="--tasks=probe: the rows have no labels"):
        probe.task(bare.model, bare.test, bare.train)
    same = make(x_train=rows, x_test=rows, y_train=np.ones(20, int), y_test=np.ones(20, int))
    with pytest.raises(InputError, match="of one class"):
        probe.task(same.model, same.test, same.train)
    for split, train in (("train", ""), ("all", ""), ("test", "test")):
        with pytest.raises(InputError, match=f"--split={split}: --tasks=probe fits --train="):
            checkpoints.check_request(str(folder), ("probe",), split=split, train=train)
    with pytest.raises(InputError, match="--train=test: is for --tasks=probe"):
        checkpoints.check_request(str(folder), ("latent",), train="test")


def test_the_probe_of_a_run_fits_its_training_split(folder):
    request = checkpoints.check_request(
        str(folder), ("probe",), train="train[:900]", split="test[:200]"
    )
    record = checkpoints.evaluate_request(request, say=lambda line: None)
    found = record["tasks"]["probe"]
    assert found["train_rows"] == 900 and 0 < found["pixel_error"] < 15
    assert found["error"] < 40 and "--train=train[:900]" in (folder / "report.html").read_text()
