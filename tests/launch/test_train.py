"""The training program as its users see it: its help, its one-line errors, its exit codes."""

from pathlib import Path

import pytest

from aejax import kinds
from aejax.config import Config, put
from aejax.models.bottlenecks import KSparse
from aejax.optimizer import Adadelta
from configs import dense
from launch import flags, helping
from tests.launch import forked


def every_kind() -> list[Config]:
    """Settings that between them hold each kind of each part."""
    out = [dense.get_config()]
    for name, _, field in kinds.leaves(dense.get_config()):
        for kind in (kinds.kinds_of(field) or {}).values():
            if kind is not None:
                out.append(dense.get_config())
                put(out[-1], name, kind())
    return out


def meanings(text: str, config: Config) -> dict[str, str]:
    """{setting: its meaning} as the help shows them."""
    out = {}
    for name, value, field in kinds.leaves(config):
        options = kinds.kinds_of(field)
        shown = value if options is None else options.name(value)
        if isinstance(shown, tuple):
            shown = ",".join(map(str, shown)) or "()"
        start = f"  {name}={shown} "
        found = [line for line in text.splitlines() if line.startswith(start)]
        assert len(found) == 1, name
        out[name] = found[0].removeprefix(start).strip()
    return out


def test_the_help_gives_every_setting_of_every_kind_its_meaning():
    for config in every_kind():
        for name, meaning in meanings(helping.whole_help_text(config), config).items():
            assert len(meaning) > 5, name
        for name, _, field in kinds.leaves(config):
            for kind in kinds.kinds_of(field) or {}:
                assert kind in meanings(helping.whole_help_text(config), config)[name]


def program(*words: str, where: Path) -> tuple[int, str, str]:
    """Runs the training program in another folder: exit code, stdout, stderr."""
    ran = forked.run("train", *words, where=where)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stray"], "stray"),
        (["--config.sed=3"], "--config.sed: no such setting; did you mean seed?"),
        (["--wokdir=x"], "wokdir"),
        (["--config=nope"], "--config=nope: no such preset"),
        (["--config.optimizer=nope"], "config.optimizer=nope: must be one of"),
        (["--config.seed=x"], "--config.seed=x: must be a whole number"),
        (["--config.model.coder.hidden=a,b"], "must be a whole number"),
        (["--config.duration=soon"], "config.duration='soon': not a duration"),
        (["--processes=two"], "--processes=two: must be a whole number"),
        (["--connect_seconds=soon"], "--connect_seconds=soon: must be a number"),
        ([f"--workdir={__file__}/run"], "test_train.py is no folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_leaves_nothing(tmp_path, words, said):
    code, out, err = program(*words, where=tmp_path)
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert list(tmp_path.iterdir()) == []


def test_help_begins_with_ten_settings(capsys):
    with pytest.raises(SystemExit):
        flags.parse(["train", "--help", "--config=linear", "--config.optimizer=sgd"])
    head, *shown = capsys.readouterr().out.splitlines()[2:13]
    assert "--help=all" in head
    assert [line.split()[0].partition("=")[0] for line in shown] == [
        "--config",
        "--workdir",
        *(f"--config.{name}" for name in flags.TRAIN.first),
    ]
    assert all(len(line.partition("=")[2].split()) > 2 for line in shown)
    assert "=linear " in shown[0] and any("config.optimizer=sgd " in line for line in shown)


def test_help_shows_flags_and_settings_and_exits_with_0(tmp_path):
    words = ("--help=all", "--config.optimizer=adadelta", "--config.model.bottleneck", "k_sparse")
    code, out, err = program(*words, where=tmp_path)
    assert (code, err) == (0, "")
    for text in ("python -m launch.train --list", "--workdir ", "--dry_run ", "--download "):
        assert text in out
    config = dense.get_config()
    config.optimizer, config.model.bottleneck = Adadelta(), KSparse()
    assert all(meanings(out, config).values())
    assert list(tmp_path.iterdir()) == []
