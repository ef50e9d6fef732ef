"""A run's folder: what config.json gives back, refuses, and may change."""

import builtins
import dataclasses
import importlib
import json
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import configs
from aejax import files, kinds
from aejax.config import MAY_CHANGE, Config, get, put
from aejax.data.sources.base import Spec
from aejax.errors import InputError
from aejax.models import Autoencoder
from aejax.models.interfaces import Trainable
from aejax.optimizer import Adadelta
from aejax.runs import folder

PRESETS = sorted(
    info.name for info in pkgutil.iter_modules(configs.__path__) if "search_" not in info.name
)
SPEC = Spec((8, 8, 1), "uint8", 16.0, True)


def preset(name: str) -> Config:
    return importlib.import_module(f"configs.{name}").get_config()


def run_of(config: Config) -> folder.Run:
    fingerprints = {"train": "0a", "test": "1b"}
    statistics = {"mean": [0.25, 0.1], "deviation": [1.0, 2.0], "low": -1.5, "high": 2}
    return folder.Run(config, SPEC, statistics, 1437, fingerprints)


def message(function, *args, **kwargs) -> str:
    with pytest.raises(InputError) as error:
        function(*args, **kwargs)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", PRESETS)
def test_a_folder_gives_back_what_was_written(tmp_path, name):
    run = run_of(preset(name))
    workdir = str(tmp_path / "new" / "run")
    assert not folder.exists(workdir)
    folder.write(workdir, run)
    assert folder.exists(workdir)
    assert folder.read(workdir) == run
    assert [path.name for path in (tmp_path / "new" / "run").iterdir()] == ["config.json"]


def written(tmp_path, change) -> str:
    """A folder whose config.json is what `change` makes of a good one's data."""
    folder.write(str(tmp_path), run_of(Config()))
    file = tmp_path / "config.json"
    changed = change(json.loads(file.read_text()))
    file.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    return str(tmp_path)


def without(*names: str):
    def change(data):
        inner = data
        for name in names[:-1]:
            inner = inner[name]
        del inner[names[-1]]
        return data

    return change


def unscaled(statistics):
    """With these statistics, of rows whose range only the training split tells."""

    def change(data):
        data["data"] |= {"maximum": None, "statistics": statistics}
        return data

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: {**data, "format": 2}, "format 2; this version of aejax reads format 1"),
        (lambda data: json.dumps(data)[:-20], "damaged (JSONDecodeError"),
        (lambda data: "", "damaged (JSONDecodeError"),
        (lambda data: [data], "damaged"),
        (without("format"), "damaged (KeyError: 'format')"),
        (without("config"), "damaged (KeyError: 'config')"),
        (without("data", "statistics"), "damaged (KeyError: 'statistics')"),
        (without("data", "shape"), "damaged"),
        (lambda data: {**data, "data": {**data["data"], "more": 1}}, "damaged"),
        (unscaled({}), "damaged (KeyError: 'low')"),
        (unscaled(None), "damaged (TypeError"),
        (
            unscaled({"low": None, "high": 1}),
            "damaged (TypeError: data.statistics.low is no number",
        ),
        (lambda data: {**data, "config": [1]}, "config=[1]: must be a JSON object"),
        (lambda data: {**data, "config": {"sed": 1}}, "config.sed: no such setting; did you mean"),
    ],
)
def test_a_damaged_config_json_is_refused_with_its_path(tmp_path, change, said):
    text = message(folder.read, written(tmp_path, change))
    assert text.startswith(str(tmp_path / "config.json")) and said in text


def test_a_config_json_of_before_classes_and_bases_is_read(tmp_path):
    def older(data):
        del data["data"]["classes"], data["data"]["base"]
        return data

    run = folder.read(written(tmp_path, older))
    assert (run.spec, run.spec.classes, run.base) == (SPEC, (), "")


def test_the_names_of_classes_are_kept_and_are_no_difference(tmp_path):
    run = run_of(Config())
    run = dataclasses.replace(run, spec=dataclasses.replace(SPEC, classes=("cats", "dögs")))
    folder.write(str(tmp_path), run)
    assert folder.read(str(tmp_path)).spec.classes == ("cats", "dögs")
    assert run.spec == SPEC


def test_settings_that_are_no_object_are_refused_where_the_model_is_given_too(tmp_path):
    workdir = written(tmp_path, lambda data: {**data, "config": [1]})
    assert "config.json" in message(folder.read, workdir, model=Autoencoder())


def test_a_folder_without_a_run_is_refused(tmp_path):
    text = message(folder.read, str(tmp_path / "none"))
    assert text == f"--workdir={tmp_path}/none: holds no run (no {tmp_path}/none/config.json)"
    (tmp_path / "file").touch()
    assert "file: holds no run" in message(folder.read, str(tmp_path / "file"))
    (tmp_path / "config.json").mkdir()
    assert "config.json cannot be read: Is a directory" in message(folder.read, str(tmp_path))


@dataclasses.dataclass
class Mine(Trainable):
    size: int = 3

    def init(self, rngs, batch):
        raise AssertionError("not called")


@dataclasses.dataclass
class Other(Trainable):
    size: int = 3

    def init(self, rngs, batch):
        raise AssertionError("not called")


def test_a_model_that_no_table_lists_can_be_given(tmp_path):
    config = Config(model=Mine(4))
    folder.write(str(tmp_path), run_of(config))
    text = message(folder.read, str(tmp_path))
    assert "config.model=tests.runs.test_folder:Mine: is not part of aejax" in text
    assert (
        "accepted: parts=[Mine] in Python, --parts=tests.runs.test_folder:Mine for a program"
        in text
    )
    assert folder.read(str(tmp_path), model=Mine(4)).config == config


def test_checkpoints_without_config_json_are_refused(tmp_path):
    """Nothing says with which settings and on which data they were trained."""
    (tmp_path / "checkpoints" / "000000100").mkdir(parents=True)
    assert "has checkpoints and no config.json" in message(
        folder.read_to_resume, str(tmp_path), Config()
    )
    assert folder.read_to_resume(str(tmp_path / "none"), Config()) is None


def changed(value: Any, options: dict[str, Any] | None) -> Any:
    """Another value of the same type."""
    if options is not None:
        others = [kind for kind in options.values() if kind is not type(value)]
        return next(
            (kind() for kind in others if kind is not None),
            dataclasses.make_dataclass("Mine", [])(),
        )
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, 1)
    return value + ("x" if isinstance(value, str) else 1)


def with_every_kind() -> Iterator[Config]:
    """Settings among which every kind of every part stands."""
    left, seen = [Config()], set()
    while left:
        config = left.pop()
        yield config
        for name, _, field in kinds.leaves(config):
            for kind, cls in (kinds.kinds_of(field) or {}).items():
                if cls is not None and (name, kind) not in seen:
                    seen.add((name, kind))
                    other = kinds.from_dict(Config, kinds.to_dict(config))
                    put(other, name, kinds.make(name, kinds.kinds_of(field), kind, {}))
                    left.append(other)


def test_every_setting_may_change_or_is_refused(tmp_path):
    free, refused = set(), set()
    for config in with_every_kind():
        folder.write(str(tmp_path), run_of(config))
        before = (tmp_path / "config.json").read_bytes()
        for setting, value, field in kinds.leaves(config):
            other = kinds.from_dict(Config, kinds.to_dict(config))
            new = changed(value, kinds.kinds_of(field))
            put(other, setting, new)
            parts = [
                part for part in MAY_CHANGE if setting == part or setting.startswith(part + ".")
            ]
            if parts:
                assert folder.read_to_resume(str(tmp_path), other) == run_of(config), setting
                free.update(parts)
                continue
            text = message(folder.read_to_resume, str(tmp_path), other)
            if kinds.kinds_of(field) is None:
                old, new = (
                    list(each) if isinstance(each, tuple) else each for each in (value, new)
                )
                assert f"config.{setting}: {old!r} -> {new!r}" in text
            else:
                assert f"config.{setting}: '" in text
            refused.add(setting)
        assert (tmp_path / "config.json").read_bytes() == before
    assert free == set(MAY_CHANGE)
    assert {"model.bottleneck.beta", "model.likelihood", "pretrain.corruption.rate"} <= refused


def test_a_model_that_no_table_lists_is_compared_too(tmp_path):
    folder.write(str(tmp_path), run_of(Config(model=Mine(4))))
    assert folder.read_to_resume(str(tmp_path), Config(model=Mine(4))) is not None
    text = message(folder.read_to_resume, str(tmp_path), Config(model=Mine(5)))
    assert "(config.model.size: 4 -> 5)" in text
    text = message(folder.read_to_resume, str(tmp_path), Config(model=Other(4)))
    assert "(config.model: 'tests.runs.test_folder:Mine' -> 'tests.runs.test_folder:Other')" in text


def test_a_setting_that_was_not_stored_had_its_default():
    """A folder of an earlier version goes on, unless the new setting is given."""
    stored = kinds.to_dict(Config())
    del stored["batch_size"], stored["data"]["prepare"]
    assert folder.differences(stored, Config()) == []
    other = Config()
    other.data.prepare.flip = True
    assert folder.differences(stored, other) == ["config.data.prepare.flip: False -> True"]
    stored["gone"] = 3
    assert folder.differences(stored, Config()) == ["config.gone: 3 -> None"]


def test_how_long_how_it_is_watched_and_where_it_runs_may_change():
    config, other = Config(), Config()
    for name in (
        "duration",
        "evaluation.every",
        "evaluation.patience",
        "checkpoint.every",
        "checkpoint.minutes",
        "checkpoint.keep",
        "log_every",
        "trackers",
        "mesh.data",
        "mesh.fsdp",
        "data.folder",
        "watchdog_minutes",
    ):
        put(other, name, changed(get(config, name), None))
    assert folder.differences(kinds.to_dict(config), other) == []


def test_what_trains_and_on_what_may_never_change():
    for name in ("seed", "batch_size", "model.latent_dim", "optimizer.learning_rate", "data.train"):
        config, other = Config(), Config()
        put(other, name, changed(get(config, name), None))
        old, new = get(config, name), get(other, name)
        assert folder.differences(kinds.to_dict(config), other) == [
            f"config.{name}: {old!r} -> {new!r}"
        ]
    found = folder.differences(kinds.to_dict(Config()), Config(optimizer=Adadelta()))
    assert found == ["config.optimizer: 'adam' -> 'adadelta'"]
    assert folder.differences(kinds.to_dict(Config()), Config()) == []


def test_json_does_not_make_settings_differ(tmp_path):
    config = preset("linear")
    config.model.coder.hidden = (64, 32)
    folder.write(str(tmp_path), run_of(config))
    assert folder.read_to_resume(str(tmp_path), config) == run_of(config)


@pytest.mark.parametrize(
    "kind", ["evil", "evil.Evil", "evil:Evil", "custom:evil.Evil", "__import__"]
)
def test_reading_a_folder_imports_and_runs_nothing_that_it_names(tmp_path, monkeypatch, kind):
    (tmp_path / "evil.py").write_text("open(__file__ + '.ran', 'w').close()\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def change(data):
        data["config"]["data"]["source"] = "evil:Evil"
        data["config"]["model"]["kind"] = kind
        return data

    workdir = written(tmp_path, change)
    asked = []

    def recorded(name, *args, **kwargs):
        asked.append(name)
        return original(name, *args, **kwargs)

    def never(*_, **__):
        raise AssertionError("something was run")

    original = builtins.__import__
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", recorded)
        for name in ("exec", "eval", "compile"):
            patch.setattr(builtins, name, never)
        patch.setattr(importlib, "import_module", never)
        text = message(folder.read, workdir)
    accepted = "is not part of aejax" if ":" in kind else "must be one of autoencoder"
    assert f"config.model={kind}: {accepted}" in text
    assert not any("evil" in name for name in asked)
    assert "evil" not in sys.modules and not (tmp_path / "evil.py.ran").exists()


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    name = str(tmp_path / "a.json")
    files.write(name, "one")
    with open(name) as before:
        files.write(name, "two, which is longer")
        assert before.read() == "one"  # a reader keeps what it opened
    assert (tmp_path / "a.json").read_text() == "two, which is longer"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    folder.write(str(tmp_path), run_of(Config()))
    before = (tmp_path / "config.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            folder.write(str(tmp_path), run_of(Config(seed=5)))
    assert (tmp_path / "config.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
