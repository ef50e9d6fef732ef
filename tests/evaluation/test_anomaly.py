"""Anomaly scores: against scikit-learn, the threshold's promise, and what the folder keeps."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

import aejax
from aejax import files
from aejax.config import Prepare
from aejax.data.sources import open_source
from aejax.errors import InputError
from aejax.evaluation import anomaly, checkpoints, detector
from aejax.evaluation.encode import encode
from aejax.evaluation.row_errors import column_errors
from aejax.models.bottlenecks import Variational
from aejax.models.likelihood import Gaussian
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


@pytest.fixture
def table(make, tmp_path):
    """Two hundred people in a table, one with a strange income, some without a city."""
    random, lines = np.random.RandomState(0), ["age,income,city,state"]
    for row in range(200):
        city = ("Rome", "Paris", "Berlin", "")[random.randint(4)]
        income = 1e6 if row == STRANGE else 2000 + 100 * random.rand()
        lines.append(
            f"{20 + 50 * random.rand():.4f},{income:.4f},{city},{'sick' if row % 4 else 'ok'}"
        )
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    prepare = Prepare(scale=False, centre="standardise")
    source = f"table:{tmp_path}/rows.csv?label=state"
    return make(likelihood=Gaussian(), prepare=prepare, source=source)


STRANGE = 188  # row 3 of the test split


def test_a_tables_rows_are_found_in_its_file(table, tmp_path):
    result = anomaly.task(table.model, table.test, table.train, normal="ok")
    assert json.loads(result.texts["anomaly.json"])["normal"] == [0]
    ranked = list(csv.DictReader(result.texts["anomaly.csv"].splitlines()))
    assert len(ranked) == 20 and ranked[0]["file_row"] == str(STRANGE) != ranked[0]["row"]
    errors = column_errors(table.model, table.test)
    worst = [("age", "income", "city")[column] for column in errors.argmax(axis=1)]
    assert [worst[int(row["row"])] for row in ranked] == [row["worst_column"] for row in ranked]
    with open(tmp_path / "rows.csv") as file:
        stored = list(csv.DictReader(file))
    for row in ranked:
        age = float(stored[int(row["file_row"])]["age"])
        assert age == pytest.approx(table.test[:].x[int(row["row"]), 0], abs=1e-3)
    (shown,) = result.tables
    assert shown.head == ["rank", "row", "file_row", "score", "most error in"]
    assert shown.rows[0][2] == str(STRANGE)
    assert shown.rows[0][4].startswith(ranked[0]["worst_column"])
    assert any("file_row: its number in the file" in note for note in result.notes)


@pytest.mark.parametrize(
    ("normal", "said"),
    [
        ("fine", "--normal=fine: must be labels or their names: 0=ok, 1=sick"),
        ("2", "--normal=2: no row has label 2; accepted: 0=ok, 1=sick"),
    ],
)
def test_unknown_labels_are_refused_with_the_names_of_the_classes(table, normal, said):
    with pytest.raises(InputError, match=said):
        anomaly.task(table.model, table.test, table.train, normal=normal)


def test_the_error_of_a_row_is_told_by_column(table, tmp_path):
    encoded = encode(table.model, table.test, str(tmp_path / "codes.npz"))
    assert encoded.columns == ["age", "income", "city"]
    x = table.model.preparation(table.test[:].x)
    decoded = table.linear.decode(table.linear.encode(np.nan_to_num(x)))
    squared = np.where(np.isnan(table.test[:].x), 0, np.square(x - decoded))
    real = (~np.isnan(table.test[:].x)).sum(axis=1, keepdims=True)
    wanted = np.stack([squared[:, 0], squared[:, 1], squared[:, 2:].sum(axis=1)], axis=1) / real
    with np.load(tmp_path / "codes.npz") as found:
        np.testing.assert_allclose(found["column_error"], wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["column_error"].sum(axis=1), found["error"], rtol=1e-6)
        assert found["columns"].tolist() == encoded.columns
        assert found["file_row"].tolist() == table.test.file_rows().tolist()
        assert (real < 5).any() and STRANGE in found["file_row"]


def test_flagged_rows_are_told_with_their_worst_columns(table):
    score = np.arange(20.0)
    found = {"score": score, "flagged": score > 7.5}
    errors = np.tile([0.125, 0.5, 0.25], (20, 1))
    lines = detector.why_flagged(table.test, found, ["age", "income", "city"], errors)
    assert len(lines) == 10
    own = table.test.file_rows()[19]
    assert (
        lines[0] == f"row 19 (row {own} of the file): score 19; most error in income 0.5, city 0.25"
    )
    whole = open_source(table.model.run.config.data.source, "all")
    found = {"score": score[:5], "flagged": score[:5] > 3}
    (line,) = detector.why_flagged(whole, found, ["age", "income", "city"], errors)
    assert line.startswith("row 4: score 4;")


def test_only_a_checkpoint_that_is_there_is_advised(folder):
    model = aejax.load(str(folder), 20)
    none = detector.TrainingCodes(np.zeros((2, 1)), np.zeros(1), np.zeros((1, 1)))
    record = {"score": "error", "threshold": 1.0}
    text, arrays = detector.serialise(model, none, record)
    files.write(str(folder / detector.RECORD), text)
    files.write_arrays(str(folder / detector.ARRAYS), arrays)
    other = aejax.load(str(folder), 10)
    anew = r"python -m launch.evaluate --workdir=\S+ --tasks=anomaly makes one"
    with pytest.raises(InputError, match=f"of step 10; give --step=20, or {anew}"):
        detector.read(str(folder), other, "--flag")
    (place,) = folder.glob("checkpoints/*20")
    shutil.rmtree(place)
    place.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=f"of step 10; {anew}"):
        detector.read(str(folder), other, "--flag")


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
