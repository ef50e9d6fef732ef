"""Errors of a classifier against NumPy and SciPy, from the command's library function."""

import json
import os

import numpy as np
import pytest
from scipy import stats

import aejax
from aejax.data.sources import open_source
from aejax.errors import InputError
from aejax.evaluation import classify
from aejax.models import Classifier
from aejax.models.coders import Dense
from aejax.optimizer import Adam
from tests.training.runs import small, train


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    place = tmp_path_factory.mktemp("classifier")
    train(small(model=Classifier(Dense(()), 16), optimizer=Adam(1e-2)), place)
    return str(place)


def test_errors_are_counted_by_class_with_their_interval(workdir):
    record = aejax.evaluate(workdir, say=lambda line: None)
    found = record["tasks"]["classify"]
    rows = open_source("digits", "test")[slice(None)]
    p = aejax.load(workdir).classify(rows.x)
    wrong = int(np.sum(p.argmax(axis=1) != rows.label))
    assert 0 < wrong < 200 and found["wrong"] == wrong
    assert found["error"] == pytest.approx(100 * wrong / len(rows.x))
    z, n, share = stats.norm.ppf(0.975), len(rows.x), wrong / len(rows.x)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    ends = [found["error_low"], found["error_high"]]
    np.testing.assert_allclose(ends, [100 * (middle - half), 100 * (middle + half)], rtol=1e-6)
    nll = -np.log(p[np.arange(n), rows.label]).mean()
    assert found["nll"] == pytest.approx(nll, rel=1e-5)
    with open(f"{workdir}/evaluation.json", encoding="utf-8") as file:
        assert "classify" in json.dumps(json.load(file))
    with open(f"{workdir}/report.html", encoding="utf-8") as file:
        text = file.read()
    assert "Errors by class." in text
    for name in ("confusion", "mistakes"):
        assert os.path.exists(f"{workdir}/figures/{name}.png")


def test_label_and_class_stand_above_each_mistake(workdir, monkeypatch):
    drawn = {}

    def tiles_png(images, above):
        drawn.update(images=images.reshape(-1, 8, 8), above=above)
        return b""

    monkeypatch.setattr(classify.tiles, "tiles_png", tiles_png)
    model, source = aejax.load(workdir), open_source("digits", "test")
    classify.task(model, source)
    rows = source[slice(None)]
    found = model.classify(rows.x).argmax(axis=1)
    for image, words in zip(drawn["images"], drawn["above"], strict=False):
        (row,) = np.flatnonzero(np.all(np.abs(rows.x[..., 0] / 16 - image) < 1e-6, axis=(1, 2)))
        assert words == f"{rows.label[row]}→{found[row]}" and found[row] != rows.label[row]
    assert len(drawn["above"]) == min(64, np.sum(found != rows.label))


def test_training_and_evaluation_say_an_error_in_the_same_unit(tmp_path, capsys):
    train(small(model=Classifier(Dense(()), 16), optimizer=Adam(1e-2)), tmp_path, quiet=False)
    lines: list[str] = []
    record = aejax.evaluate(str(tmp_path), say=lines.append)
    words = f"error {record['tasks']['classify']['error']:.5g} %"
    assert words in capsys.readouterr().err and words in lines[-1]
    last = (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
    assert 100 * json.loads(last)["error"] == pytest.approx(record["tasks"]["classify"]["error"])


def test_classes_that_are_taken_for_others_stand_in_the_table():
    confusion = np.array([[8, 2, 0], [0, 5, 0], [0, 0, 0]])
    table = classify._table(confusion, ["cat", "dog", "owl"])
    assert table.rows[0] == ["cat", "10", "2", "20.00", "dog (2)"]
    assert table.rows[1] == ["dog", "5", "0", "0.00", ""]
    assert table.rows[2] == ["owl", "0", "0", "", ""]


def test_what_cannot_be_is_refused_by_name(workdir, tmp_path):
    rows = np.zeros((5, 8, 8, 1), np.uint8)
    with pytest.raises(InputError, match="--tasks=classify: the rows have no labels"):
        aejax.evaluate(workdir, source=aejax.data.sources.Arrays(rows, None, 16.0))
    train(small(duration="1 steps"), tmp_path)
    with pytest.raises(InputError, match="--tasks=classify: config.model is autoencoder; must be"):
        aejax.evaluate(str(tmp_path), ["classify"])
    with pytest.raises(
        InputError,
        match="--tasks=reconstruction: config.model is classifier, which has no encode.*classify",
    ):
        aejax.evaluate(workdir, ["reconstruction"])


def test_rows_that_are_scaled_otherwise_than_the_runs_own_are_told(workdir):
    rows, lines = open_source("digits", "test")[slice(0, 50)], []
    other = aejax.data.sources.Arrays(rows.x, rows.label, 255.0)
    aejax.evaluate(workdir, source=other, say=lines.append)
    assert any(
        "scaled by 255, the largest value of their type; the run's own by 16" in line
        for line in lines
    )
    lines.clear()
    same = aejax.data.sources.Arrays(rows.x, rows.label, 16.0)
    aejax.evaluate(workdir, source=same, say=lines.append)
    assert not any("scaled by" in line for line in lines)
