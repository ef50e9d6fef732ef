"""How a table's text was read stands in the folder: evaluations and resumed runs read it so."""

import json

import numpy as np
import pytest

import aejax
from aejax.config import Config, Data, Prepare
from aejax.data.sources import open_source
from aejax.errors import InputError
from aejax.models import Autoencoder
from aejax.models.likelihood import Gaussian
from aejax.runs.folder import read
from tests.training.runs import small, train


def text(digits: int) -> str:
    """Sixty rows as a German spreadsheet writes them, with so many digits behind the comma."""
    x = np.random.RandomState(0).uniform(1, 2, (60, 4))
    lines = [";".join(f"{value:.{digits}f}".replace(".", ",") for value in row) for row in x]
    return "\n".join(["a;b;c;d", *lines, ""])


def test_a_run_reads_its_data_as_it_began(tmp_path):
    file, run = tmp_path / "rows.csv", str(tmp_path / "run")
    file.write_text(text(4))
    config = small(
        model=Autoencoder(latent_dim=2, likelihood=Gaussian()),
        data=Data(source=f"table:{file}", prepare=Prepare(scale=False, centre="standardise")),
        duration="10 steps",
        batch_size=20,
    )
    train(config, run)
    assert read(run).spec.reading == ("delimiter=;", "decimal=,", "header=0")
    own = aejax.evaluate(run, tasks=["reconstruction"])["tasks"]["reconstruction"]["mse"]
    # alone this file could not be read: 1,234 may be 1.234 or 1234
    file.write_text(text(3))
    with pytest.raises(InputError, match="may be a decimal mark"):
        train(config, str(tmp_path / "fresh"))
    found = aejax.evaluate(run, tasks=["reconstruction"], source=f"table:{file}", split="test")
    assert found["tasks"]["reconstruction"]["mse"] == pytest.approx(own, rel=0.01)
    with pytest.raises(InputError, match="no longer those that the run was evaluated on"):
        aejax.evaluate(run, tasks=["reconstruction"])
    config.duration = "20 steps"
    with pytest.raises(InputError, match="was trained on other data"):
        train(config, run)
    assert train(config, run, accept_changed_data=True).step == 20


def rows(words: str, marks: str = "") -> str:
    """Sixty rows of a word and two numbers, with these words and, in the last column, marks."""
    lines = [f"{words[i % len(words)]},{i % 7 / 2},{i % 5}" for i in range(60)]
    return "\n".join(["word,a,b", *lines[len(marks) :], *(f"x,1,{mark}" for mark in marks), ""])


def dense(source: str) -> Config:
    return small(
        model=Autoencoder(latent_dim=2, likelihood=Gaussian()),
        data=Data(source=source, prepare=Prepare(scale=False, centre="standardise")),
        duration="10 steps",
        batch_size=20,
    )


def test_a_category_that_training_did_not_have_is_told_and_scored(tmp_path, capsys):
    file, run = tmp_path / "rows.csv", str(tmp_path / "run")
    file.write_text(rows("xy"))
    train(dense(f"table:{file}"), run)
    other = tmp_path / "other.csv"
    other.write_text(rows("xyz"))
    capsys.readouterr()
    found = aejax.evaluate(run, tasks=["reconstruction"], source=f"table:{other}")
    assert np.isfinite(found["tasks"]["reconstruction"]["mse"])
    assert "other.csv: column word has values in 20 of 60 rows that training" in (
        capsys.readouterr().err
    )


def test_a_column_that_a_folder_knows_as_categories_stays_one(tmp_path):
    """Begun when a mark for a missing value made categories of numbers."""
    file, run = tmp_path / "rows.csv", str(tmp_path / "run")
    file.write_text(rows("xy", "--"))
    train(dense(f"table:{file}?categorical=b"), run)
    name = tmp_path / "run" / "config.json"
    kept = json.loads(name.read_text())
    kept["config"]["data"]["source"] = f"table:{file}"
    name.write_text(json.dumps(kept))
    config = dense(f"table:{file}")
    assert open_source(f"table:{file}").spec.columns[-1].categories is None
    config.duration = "20 steps"
    assert train(config, run).step == 20
    assert read(run).spec.columns[-1].categories == ("-", "0", "1", "2", "3", "4")
    assert aejax.evaluate(run, tasks=["reconstruction"])["tasks"]
    assert aejax.evaluate(run, tasks=["pca"], split="train")


def test_a_folder_that_does_not_say_how_its_table_was_read_has_names_commas_and_points(tmp_path):
    """Begun before this was found out; alone its file can be read in two ways."""
    file, run = tmp_path / "rows.csv", str(tmp_path / "run")
    rows = [f"{name},{at % 7},{at % 5}" for at, name in enumerate("abcdef" * 10)]
    file.write_text("\n".join(["name,2019,2020", *rows, ""]))
    config = small(
        model=Autoencoder(latent_dim=2, likelihood=Gaussian()),
        data=Data(source=f"table:{file}?header=0", prepare=Prepare(scale=False)),
        duration="10 steps",
        batch_size=20,
    )
    train(config, run)
    name = tmp_path / "run" / "config.json"
    kept = json.loads(name.read_text())
    assert kept["data"].pop("reading")
    kept["config"]["data"]["source"] = f"table:{file}"
    name.write_text(json.dumps(kept))
    config.data.source, config.duration = f"table:{file}", "20 steps"
    with pytest.raises(InputError, match="may name the columns"):
        train(config, str(tmp_path / "fresh"))
    assert train(config, run).step == 20
    assert aejax.evaluate(run, tasks=["reconstruction"])["tasks"]
