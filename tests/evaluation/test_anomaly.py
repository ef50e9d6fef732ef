"""Anomaly scores: against scikit-learn, the threshold's promise, and what the folder keeps."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from aejax.errors import InputError
from aejax.evaluation import anomaly, checkpoints, detector
from aejax.models.bottlenecks import Variational
from configs.dense import get_config
from tests.training.runs import train

RANDOM = np.random.RandomState(0)


def rows(make, **options):
    """Normal rows lie in a plane, the others do not."""
    random, arrays = np.random.RandomState(1), {}
    plane = random.rand(2, 6)
    for name, count in (("train", 300), ("test", 200)):
        x = random.rand(count, 2) @ plane / 2
        label = (np.arange(count) % 4 == 3).astype(np.int64)
        x[label == 1] = random.rand((label == 1).sum(), 6)
        arrays |= {f"x_{name}": x.astype(np.float32), f"y_{name}": label}
    return make(**arrays, **options)


def test_scores_are_those_of_numpy_and_areas_those_of_scikit_learn(make):
    one = rows(make)
    result = anomaly.task(one.model, one.test, one.train, normal="0")
    found, label = result.values(), one.test[:].label
    error = one.model.score(one.test[:].x)
    assert found["error_auroc"] == pytest.approx(roc_auc_score(label, error), abs=1e-6)
    normal = one.train[:].label == 0
    codes = one.model.encode(one.train[:].x)[normal]
    near = np.sort(cdist(one.model.encode(one.test[:].x), codes), axis=1)[:, :5].mean(axis=1)
    assert found["knn_auroc"] == pytest.approx(roc_auc_score(label, near), abs=1e-4)
    assert found["pca_auroc"] > 0.99 and found["pca_auroc_low"] <= found["pca_auroc"]
    assert "elbo_auroc" not in found and found["calibration_rows"] == 75
    table = list(csv.DictReader(result.texts["anomaly.csv"].splitlines()))
    assert [int(row["row"]) for row in table[:5]] == list(np.argsort(-error)[:5])
    for score, accepted in (("elbo", "error or mahalanobis or knn"), ("kurtosis", "error")):
        with pytest.raises(InputError, match=f"--score={score}: must be {accepted}"):
            anomaly.task(one.model, one.test, one.train, score=score)
    for option, text in (
        ({"normal": "x"}, "must be labels"),
        ({"normal": "7"}, "no row has label 7; accepted: 0, 1"),
        ({"false_alarms": 1.0}, "--false_alarms=1: must be above 0 and below 1"),
    ):
        with pytest.raises(InputError, match=text):
            anomaly.task(one.model, one.test, one.train, **option)


def test_a_variational_model_has_its_bound(make):
    one = rows(make)
    with pytest.raises(InputError, match=r"--score=elbo: .* \(needs a variational code\)"):
        detector.check_score(one.model.run.config.model, "elbo")
    one.model.run.config.model.bottleneck = Variational()
    assert detector.scores_of(one.model.run.config.model) == detector.SCORES


def test_intervals_cover_and_agree_with_plain_resampling():
    strange = np.arange(300) % 3 == 0
    score = np.round(RANDOM.randn(300) + strange, 1)  # with ties
    bounds = anomaly.intervals(score, strange)
    draws = []
    for _ in range(400):
        index = np.concatenate(
            [
                RANDOM.choice(np.flatnonzero(strange == kind), (strange == kind).sum())
                for kind in (0, 1)
            ]
        )
        draws.append(roc_auc_score(strange[index], score[index]))
    np.testing.assert_allclose(bounds[0], np.quantile(draws, (0.025, 0.975)), atol=0.015)
    assert bounds[1, 0] < bounds[1, 1]


def test_the_threshold_keeps_its_rate():
    alarms = []
    for _ in range(300):
        scores = RANDOM.rand(60)
        alarms.append(np.mean(RANDOM.rand(200) > detector.threshold(scores, 0.1)))
    assert 0.07 < np.mean(alarms) <= 0.105
    assert detector.threshold(RANDOM.rand(18), 0.05) is None
    assert detector.threshold(np.arange(19.0), 0.05) == 18


def test_without_labels_rows_are_ranked(make):
    x = RANDOM.rand(60, 5).astype(np.float32)
    one = make(x_train=x, x_test=x)
    result = anomaly.task(one.model, one.test, one.train)
    assert "error_auroc" not in result.numbers and result.numbers["threshold"].value
    assert any("No AUROC" in note for note in result.notes)


@pytest.mark.slow
def test_a_run_keeps_its_threshold_and_encode_flags_by_it(tmp_path):
    config = get_config()
    config.duration, config.trackers, config.batch_size = "40 steps", (), 64
    config.evaluation.every = config.checkpoint.every = "20 steps"
    config.data.keep_labels = (3,)
    place = str(tmp_path / "run")
    train(config, place)
    request = checkpoints.check_request(place, ("reconstruction", "anomaly"), false_alarms=0.2)
    record = checkpoints.evaluate_request(request, say=lambda line: None)
    found = record["tasks"]["anomaly"]
    assert record["rows"] == found["normal_rows"] < 60
    assert found["normal_rows"] + found["anomalous_rows"] == 360
    assert (tmp_path / "run/figures/anomaly_worst.png").exists()
    kept = json.loads((tmp_path / "run/anomaly.json").read_text())
    words = [sys.executable, "-m", "launch.encode", f"--workdir={place}", "--source=digits"]
    words += ["--split=test", f"--out={tmp_path}/codes.npz", "--overwrite"]
    done = subprocess.run([*words, "--flag"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "codes.npz") as file:
        assert np.array_equal(file["flagged"], file["score"] > kept["threshold"])
        np.testing.assert_allclose(file["score"], file["error"], rtol=1e-6)
        assert f"{file['flagged'].sum()} of 360 rows are flagged" in done.stdout
    done = subprocess.run([*words, "--flag", "--step=20"], capture_output=True, text=True)
    assert done.returncode == 2 and "is of step 40, these parameters are of step 20" in done.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"score": "erorr"}, "--score=erorr: must be error or mahalanobis or knn"),
        ({"score": "elbo"}, r"--score=elbo: must be .* \(needs a variational code\)"),
        ({"normal": "three"}, "--normal=three: must be labels, such as 3 or 3,5"),
        ({"false_alarms": 1.0}, "--false_alarms=1: must be above 0 and below 1"),
    ],
)
def test_an_option_is_refused_before_a_checkpoint_is_read(trained, option, said):
    with pytest.raises(InputError, match=said):
        checkpoints.check_request(str(trained), ("anomaly",), **option)
