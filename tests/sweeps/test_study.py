"""Adaptive sweeps: Optuna's trials as runs, over starts and processes."""

import dataclasses
import json
import shutil
import sys

import jax
import optuna
import pytest

from aejax.errors import InputError
from aejax.runs import claims
from aejax.sweeps import study
from aejax.sweeps.cells import cells, with_values
from aejax.sweeps.run import SweepFolder, run_cells
from aejax.training.trainer import Trainer
from tests.training.runs import small

SPACE = {"optimizer.learning_rate": ["log:1e-4..1e-2"], "model.latent_dim": ["int:2..8"]}


def config_of(values):
    numbers = {name: json.loads(text) for name, text in values.items()}
    return with_values(small(duration="6 steps", log_every=6), numbers)


def search(path, trials, space=SPACE):
    job = SweepFolder(str(path), (), quiet=True, devices=jax.devices()[:1])
    return study.search(job, space, config_of, trials)


def test_a_study_goes_on_and_takes_up_what_another_process_left(tmp_path, monkeypatch):
    found = search(tmp_path, 1)
    values = [one["best"]["value"] for one in found["cells"]]
    assert len(values) == 1
    for one in found["cells"]:
        assert 1e-4 <= one["settings"]["optimizer.learning_rate"] <= 1e-2
        assert one["settings"]["model.latent_dim"] in range(2, 9)
    # A process that asked for a trial and died.
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    left = optuna.load_study(study_name="sweep", storage=optuna.storages.JournalStorage(backend))
    spread = {name: study._distribution(name, values) for name, values in SPACE.items()}
    asked = left.ask(spread)
    trained, fit = [], Trainer.fit

    def counted(self, *arguments, **options):
        trained.append(self.folder.rpartition("/")[2])
        return fit(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "fit", counted)
    found = search(tmp_path, 3)
    assert trained == ["trial-1", "trial-2"] and len(found["cells"]) == 3
    (taken,) = (one for one in found["cells"] if one["name"] == "trial-1")
    assert taken["settings"] == asked.params
    values = [one["best"]["value"] for one in found["cells"]]
    assert values == sorted(values) and left.best_value == values[0]
    assert search(tmp_path, 3) == found and len(trained) == 2


def test_a_trial_that_another_process_takes_up_at_once_is_left_to_it(tmp_path, monkeypatch):
    job, claim, lost = SweepFolder(str(tmp_path), (), quiet=True), claims.claim, []

    def slow(place):
        if place.endswith("trial-0") and not lost:  # the other one saw it without a lock
            lost.append(claim(place))
            return None
        return claim(place)

    monkeypatch.setattr(claims, "claim", slow)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    own = optuna.create_study(storage=optuna.storages.JournalStorage(backend))
    spread = {name: study._distribution(name, values) for name, values in SPACE.items()}
    number, _ = study._next(job, own, spread, 2, 0)
    assert number == 1
    assert [trial.state.name for trial in own.trials] == ["RUNNING", "RUNNING"]
    own.tell(0, 1.0)  # by the other one


def test_settings_that_change_together_are_chosen_together(tmp_path):
    pairs = [("4", "32"), ("2", "64")]
    found = search(tmp_path, 2, {("model.latent_dim", "batch_size"): pairs})
    for one in found["cells"]:
        assert {*one["settings"]} == {"model.latent_dim", "batch_size"}
        assert tuple(map(str, one["settings"].values())) in pairs


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "--sweep is missing"),
        ({"seed": ["int:5..2"]}, "--sweep=seed=int:5..2"),
        ({"seed": ["int:1..2", "3"]}, "a range must stand alone"),
        ({"optimizer.learning_rate": ["log:0..1"]}, "--sweep=optimizer.learning_rate=log:0..1"),
        ({"model.latent_dim": ["int:0..3"]}, "config.model.latent_dim=0: needs"),
    ],
)
def test_a_bad_space_is_refused(tmp_path, space, said):
    with pytest.raises(InputError) as error:
        search(tmp_path, 1, space)
    assert said in str(error.value) and not list(tmp_path.iterdir())


def test_without_optuna_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'aejax\[optuna\]'"):
        search(tmp_path, 1)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder of a study of two trials. Do not change."""
    path = tmp_path_factory.mktemp("searched")
    search(path, 2)
    return path


RATE = "optimizer.learning_rate"


@pytest.mark.parametrize(
    ("trials", "space", "said"),
    [
        (1, SPACE, "holds a sweep with other runs (trial-1)"),
        (3, {RATE: SPACE[RATE]}, "chose model.latent_dim from int:2..8, not from its one value"),
        (3, {**SPACE, "seed": ["int:0..9"]}, "chose seed from its one value, not from int:0..9"),
        (3, {**SPACE, RATE: ["log:1e-9..1e-8"]}, "from log:0.0001..0.01, not from log:1e-09..1e-"),
        (3, {**SPACE, RATE: ["1e-4..1e-2"]}, "from log:0.0001..0.01, not from 0.0001..0.01"),
        (3, {**SPACE, "model.latent_dim": ["2", "8"]}, "from int:2..8, not from 2,8"),
    ],
)
def test_another_space_in_the_folder_of_a_study_is_refused(searched, trials, space, said):
    before = (searched / "sweep.json").read_bytes()
    with pytest.raises(InputError) as error:
        search(searched, trials, space)
    assert said in str(error.value)
    assert (searched / "sweep.json").read_bytes() == before
    backend = optuna.storages.journal.JournalFileBackend(str(searched / "study.log"))
    stored = optuna.load_study(study_name="sweep", storage=optuna.storages.JournalStorage(backend))
    assert len(stored.trials) == 2


def test_other_settings_in_the_folder_of_a_study_are_refused(searched):
    def other(values):
        return dataclasses.replace(config_of(values), batch_size=32)

    job = SweepFolder(str(searched), (), quiet=True)
    with pytest.raises(InputError, match="config.batch_size: 64 -> 32"):
        study.search(job, SPACE, other, 3)
    with pytest.raises(InputError, match="other runs .trial-0, trial-1.*a sweep that has these"):
        run_cells(job, cells({"seed": [0]}, lambda values: config_of({})))


def test_wider_ranges_that_hold_all_trials_go_on(searched, tmp_path):
    shutil.copytree(searched, tmp_path / "wider")
    found = search(
        tmp_path / "wider", 3, {RATE: ["log:1e-5..1e-1"], "model.latent_dim": ["int:2..9"]}
    )
    assert found and len(found["cells"]) == 3
