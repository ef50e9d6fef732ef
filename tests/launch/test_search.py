"""The search program's words, refusals and exit codes."""

import importlib
import pkgutil
from pathlib import Path

import pytest

import configs
from aejax.search.settings import Search, check_search
from tests.launch import forked

PRESETS = sorted(info.name for info in pkgutil.iter_modules(configs.__path__))


def program(*words: str, where: Path) -> tuple[int, str, str]:
    ran = forked.run("search", *words, where=where)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config=dense"], "--config=dense: get_config() must return an aejax.search.Search"),
        (["--config=serch_par"], "no such preset"),
        (["--config.marginn=1"], "--config.marginn: no such setting; did you mean margin?"),
        (["--latent_dim=8"], "no such flag; did you mean --config.run.model.latent_dim?"),
        (["--config.price=gold"], "config.price=gold: must be attention or latency"),
        (["--config.run.batch_size=0"], "config.run.batch_size=0: must be at least 1"),
        (["--config.supernet.share=2"], "config.supernet.share=2.0: must be above 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, said, tmp_path):
    code, out, error = program(*words, where=tmp_path)
    assert code == 2 and not out
    assert said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_and_list_teach(tmp_path):
    code, out, _ = program("--help=all", where=tmp_path)
    assert code == 0 and "python -m launch.search" in out
    assert "supernet.cost_weight=" in out and "run.model.coder.width=" in out
    code, out, _ = program("--help", where=tmp_path)
    shown = [line.split()[0].partition("=")[0] for line in out.splitlines()[3:13]]
    assert code == 0 and shown[:3] == ["--config", "--workdir", "--config.run.data.source"]
    assert all(name.startswith("--config.") for name in shown[2:])
    code, out, _ = program("--list", where=tmp_path)
    assert code == 0 and {line.split()[0] for line in out.splitlines()} == {
        name for name in PRESETS if name.startswith("search_")
    }


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("search_")])
def test_a_preset_is_a_search_that_may_start(name):
    module = importlib.import_module(f"configs.{name}")
    settings = module.get_config()
    assert isinstance(settings, Search)
    check_search(settings)
    assert f"python -m launch.search --config={name}" in (module.__doc__ or "")


@pytest.mark.slow
def test_a_search_from_the_command_line(tmp_path):
    short = [
        "--config=search_copy",
        "--config.run.duration=6steps",
        "--config.supernet.duration=6steps",
        "--config.method=supernet",
        "--config.seeds=0",
        "--config.run.model.coder.encoder_layout=af",
        "--config.run.model.coder.decoder_layout=f",
        "--config.encoder_space=af",
        "--workdir=w",
    ]
    code, out, error = program(*short, where=tmp_path)
    assert code == 0, error
    assert "supernet: collapsed" in out and (tmp_path / "w" / "report.html").exists()
