"""The command line of a training program: presets, kinds of parts, fields, and what is refused."""

import dataclasses
import functools
import importlib
import os
import pkgutil
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

import configs
from aejax import kinds
from aejax.config import Config, put
from aejax.data.sources.base import Spec
from aejax.errors import InputError
from aejax.models import Autoencoder
from aejax.models.bottlenecks import KSparse, Plain
from aejax.models.likelihood import Gaussian
from aejax.optimizer import Adadelta, Adam, AdamW, Cosine, Sgd, StepDecay
from aejax.runs import folder
from configs import dense, linear
from launch import flags as launch_flags

ROOT = Path(__file__).parents[2]
PRESETS = sorted(
    info.name for info in pkgutil.iter_modules(configs.__path__) if "search_" not in info.name
)
KNOWN = ", ".join(sorted(info.name for info in pkgutil.iter_modules(configs.__path__)))


@pytest.fixture
def parse(monkeypatch):
    """(words) -> (config, workdir, words that are left), each time with flags of its own."""
    define = config_flags.DEFINE_config_dataclass

    def run(*words: str) -> tuple[Config, str, list[str]]:
        fresh = flags.FlagValues()
        flags.DEFINE_string("workdir", None, "The run's folder.", flag_values=fresh)
        flags.DEFINE_bool("dry_run", False, "Only look.", flag_values=fresh)
        flags.DEFINE_bool("list", False, "Print the presets.", flag_values=fresh)
        monkeypatch.setattr(flags, "FLAGS", fresh)
        own = functools.partial(define, flag_values=fresh)
        monkeypatch.setattr(config_flags, "DEFINE_config_dataclass", own)
        left = launch_flags.parse(["program", *words])
        return fresh.config, fresh.workdir, left[1:]

    return run


@pytest.fixture
def refused(parse):
    """(words) -> what is said of them, one line."""

    def run(*words: str) -> str:
        with pytest.raises((InputError, flags.Error)) as error:
            parse(*words)
        return str(error.value)

    return run


def adam_cosine(final: float = 0.0, **changes) -> Adam:
    """The optimizer of the linear preset."""
    return Adam(learning_rate=1e-2, schedule=Cosine(final), **changes)


def test_without_flags_it_is_the_dense_preset(parse):
    assert parse() == (dense.get_config(), os.path.join("runs", "dense"), [])


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("words", [["--config={}"], ["--config", "{}"]])
def test_a_preset_by_name_and_its_folder(parse, name, words):
    config, workdir, left = parse(*[word.format(name) for word in words])
    assert config == importlib.import_module(f"configs.{name}").get_config()
    assert (workdir, left) == (os.path.join("runs", name), [])


def test_a_folder_by_flag(parse):
    assert parse("--workdir=a/b")[1] == "a/b"
    assert parse("--workdir", "a/b", "--config", "linear")[:2] == (linear.get_config(), "a/b")


OPTIMIZERS = [
    (["--config.optimizer.rho=0.5", "--config.optimizer=adadelta"], Adadelta(rho=0.5)),
    (["--config.optimizer=adadelta", "--config.optimizer.rho=0.5"], Adadelta(rho=0.5)),
    (["--config.optimizer", "adadelta", "--config.optimizer.rho", "0.5"], Adadelta(rho=0.5)),
    (["--config.optimizer=adadelta"], Adadelta()),
    (["--config.optimizer=adamw"], AdamW()),
    (["--config.optimizer=sgd", "--config.optimizer=adadelta"], Adadelta()),
    # the preset's own kind keeps the preset's settings, and so does what is not named at all
    (["--config.optimizer=adam"], adam_cosine()),
    (["--config.optimizer=adam", "--config.optimizer.b1=0.5"], adam_cosine(b1=0.5)),
    (["--config.optimizer.schedule=cosine"], adam_cosine()),
    (["--config.optimizer.schedule.final=0.5"], adam_cosine(final=0.5)),
    (
        [
            "--config.optimizer.schedule.milestones=0.25,0.5",
            "--config.optimizer.schedule=step",
            "--config.optimizer.nesterov",
            "--config.optimizer=sgd",
        ],
        Sgd(schedule=StepDecay(milestones=(0.25, 0.5)), nesterov=True),
    ),
]


@pytest.mark.parametrize(("words", "optimizer"), OPTIMIZERS)
def test_a_kind_and_its_fields_in_any_order(parse, words, optimizer):
    config = parse("--config=linear", *words)[0]
    assert config == dataclasses.replace(linear.get_config(), optimizer=optimizer)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--config.model.coder.hidden=64,32"], "model.coder.hidden", (64, 32)),
        (["--config.model.coder.hidden", "64,32"], "model.coder.hidden", (64, 32)),
        (["--config.model.coder.hidden=(64,32)"], "model.coder.hidden", (64, 32)),
        (["--config.model.coder.hidden=64"], "model.coder.hidden", (64,)),
        (["--config.model.coder.hidden=()"], "model.coder.hidden", ()),
        (["--config.deterministic=true"], "deterministic", True),
        (["--config.init_moments", "false"], "init_moments", False),
        (["--noconfig.model.coder.bias"], "model.coder.bias", False),
        (["--config.trackers=()"], "trackers", ()),
        (["--config.trackers=tensorboard"], "trackers", ("tensorboard",)),
        (["--config.deterministic"], "deterministic", True),
        (["--config.deterministic=true"], "deterministic", True),
        (["--config.deterministic", "--config.seed=0"], "deterministic", True),
        (["--config.seed=3"], "seed", 3),
        (["--config.seed=3", "--config.seed=4"], "seed", 4),
        (["--config.optimizer.learning_rate=1"], "optimizer.learning_rate", 1.0),
        (["--config.optimizer.learning_rate", "2e-3"], "optimizer.learning_rate", 2e-3),
        (["--config.duration=50 epochs"], "duration", "50 epochs"),
        (["--config.duration", "50 epochs"], "duration", "50 epochs"),
        (["--config.evaluation.every="], "evaluation.every", ""),
        (["--config.mesh.fsdp=-1", "--config.mesh.data=1"], "mesh.fsdp", -1),
        (["--config.mesh.rules=a/.*/b=fsdp tensor"], "mesh.rules", ("a/.*/b=fsdp tensor",)),
        (["--config.mesh.rules", "a/b=fsdp -,.*=-"], "mesh.rules", ("a/b=fsdp -", ".*=-")),
        (["--config.mesh.rules=('a{1,2}=-', 'b=-')"], "mesh.rules", ("a{1,2}=-", "b=-")),
        (["--config.data.source=npz:a=b.npz"], "data.source", "npz:a=b.npz"),
        (["--config.data.source=npz:--config.seed=9"], "data.source", "npz:--config.seed=9"),
        (["--config.model.bottleneck=k_sparse"], "model.bottleneck", KSparse()),
        (["--config.model.bottleneck=plain"], "model.bottleneck", Plain("relu")),
        (["--config.model.likelihood=gaussian"], "model.likelihood", Gaussian()),
        (["--config.model.corruption=none"], "model.corruption", None),
        (["--config.model=autoencoder"], "seed", 0),
    ],
)
def test_one_setting_changes_and_nothing_else(parse, words, name, value):
    wanted = dense.get_config()
    put(wanted, name, value)
    if name == "mesh.fsdp":
        wanted.mesh.data = 1
    config, _, left = parse(*words)
    assert config == wanted and left == []
    types = {key: type(item) for key, item, _ in kinds.leaves(wanted)}
    assert {key: type(item) for key, item, _ in kinds.leaves(config)} == types


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config.sed=3"], "--config.sed: no such setting; did you mean seed?"),
        (
            ["--config.modle.latent_dim=3"],
            "--config.modle.latent_dim: no such setting; did you mean model.latent_dim?",
        ),
        (["--noconfig.determinstic"], "no such setting; did you mean deterministic?"),
        (["--config.tensorboard=false"], "no such setting; it is called trackers now"),
        (["--config.trackers=tensorbord"], "must be one of tensorboard, wandb, trackio, once"),
        (["--latent_dim=8"], "--latent_dim: no such flag; did you mean --config.model.latent_dim?"),
        (["--latent_dim", "8"], "did you mean --config.model.latent_dim?"),
        (["--model.latent_dim=8"], "did you mean --config.model.latent_dim?"),
        (["--nodeterministic"], "did you mean --config.deterministic?"),
        (
            ["--every=5"],
            "did you mean --config.evaluation.every or --config.checkpoint.every?",
        ),
        (["--config.every=5"], "did you mean evaluation.every or checkpoint.every?"),
        (
            ["--k=3"],
            "--config.model.bottleneck.k with --config.model.bottleneck=k_sparse or",
        ),
        (["--nothing_like_it=3"], "no such flag; --help=all shows"),
        (["--config.data=digits"], "--config.data: no such setting"),
        (
            ["--config=dens"],
            f"--config=dens: no such preset; known: {KNOWN}",
        ),
        (["--config=dens"], "did you mean dense?"),
        (["--config="], "--config=: no such preset"),
        (["--config"], "--config"),
        (["--wokdir=x"], "Did you mean: workdir"),
        (
            ["--config.optimizer=adma"],
            "config.optimizer=adma: must be one of adam, adamw, adadelta",
        ),
        (["--config.optimizer=adma"], "did you mean adam?"),
        (["--config.optimizer"], "config.optimizer=: must be one of"),
        (["--config.model.coder.hidden=64 32"], "=64 32: must be a list, each a whole number"),
        (["--config.model.coder.hidden=64.5"], "must be a whole number"),
        (["--config.model.coder.hidden=a,b"], "must be a whole number"),
        (["--config.model.coder.hidden="], "a whole number"),
        (["--config.model.coder.hidden=0"], "config.model.coder.hidden=(0,): layer sizes"),
        (["--config.seed=1.5"], "--config.seed=1.5: must be a whole number"),
        (["--config.seed=two"], "--config.seed=two: must be a whole number"),
        (["--config.seed="], "--config.seed=: must be a whole number"),
        (["--config.seed=-1"], "config.seed=-1: must be at least 0"),
        (["--config.optimizer.learning_rate=fast"], "=fast: must be a number"),
        (["--config.optimizer.learning_rate=nan"], "config.optimizer.learning_rate=nan: must be"),
        (["--config.optimizer.learning_rate=inf"], "config.optimizer.learning_rate=inf: must be"),
        (["--config.deterministic=maybe"], "--config.deterministic=maybe: must be true or false"),
        (
            ["--config.model.likelihood=gaussian", "--config.model.likelihood.deviation=0"],
            "config.model.likelihood.deviation=0.0: must be above 0",
        ),
        (
            ["--config.model.bottleneck=k_sparse", "--config.model.bottleneck.k=40"],
            "config.model.bottleneck.k=40",
        ),
        (
            ["--config.optimizer.schedule=step", "--config.optimizer.schedule.milestones=0.6,0.3"],
            "config.optimizer.schedule.milestones=(0.6, 0.3): must rise between 0 and 1",
        ),
        (["--config.profile=10"], "config.profile=10: must be FIRST:LAST"),
        (["--workdir"], "--workdir"),
        (["--workdir="], "--workdir="),
    ],
)
def test_bad_flags_are_refused_by_name(refused, words, said):
    text = refused(*words)
    assert said in text and "\n" not in text


@pytest.mark.parametrize(
    "words",
    [
        ["--config.optimizer.rho=0.9"],
        ["--config.optimizer.rho=0.9", "--config.optimizer=sgd"],
        ["--config.model.bottleneck.k=3"],
        ["--config.optimizer.schedule.final=0.1"],
    ],
)
def test_a_field_of_another_kind_is_refused_with_the_fields_of_the_chosen_one(refused, words):
    text = refused(*words)
    name = words[0].partition("=")[0]
    assert text.startswith(f"{name}: no such setting")
    part = name.removeprefix("--config.").rpartition(".")[0]
    assert f"did you mean {part}?" not in text  # the part itself is no setting with a number
    if part == "optimizer":
        assert "learning_rate" in text
    if part == "model.bottleneck":
        assert "activation" in text


def test_a_misspelt_field_is_nearest_to_its_neighbours(refused):
    text = refused("--config.optimizer=adadelta", "--config.optimizer.roh=0.9")
    assert text == "--config.optimizer.roh: no such setting; did you mean optimizer.rho?"


def test_a_setting_that_lacks_its_value_is_blamed_itself(refused):
    for words in (
        ["--config.log_every", "--config.seed=3"],
        ["--config.log_every", "--dry_run"],
        ["--config.log_every"],
    ):
        assert "--config.log_every" in refused(*words)
    assert "--config.duration" in refused("--config.duration", "--config.seed=3")


@pytest.mark.parametrize("words", [["-config=linear"], ["-config", "linear"]])
def test_one_dash_does_as_two_do(parse, words):
    assert parse(*words)[0] == linear.get_config()
    config = parse("-config.optimizer=adadelta", "-config.optimizer.rho=0.5")[0]
    assert config.optimizer == Adadelta(rho=0.5)


def test_stray_words_are_left_over_for_the_program_to_refuse(parse):
    assert parse("--dry_run", "extra")[2] == ["extra"]
    assert parse("--config.model.coder.hidden", "64", "32")[2] == ["32"]
    assert parse("--", "extra")[2] == ["extra"]


PRESET = """
from aejax.config import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import KSparse

def get_config():
    return Config(model=Autoencoder(latent_dim=40, bottleneck=KSparse(k=4)))
"""


def test_a_preset_by_path(parse, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PRESET)
    config, workdir, _ = parse(f"--config={path}", "--config.model.bottleneck.k=5")
    assert config == Config(model=Autoencoder(latent_dim=40, bottleneck=KSparse(k=5)))
    assert workdir == os.path.join("runs", "mine")
    assert parse("--config", str(path), "--config.model.bottleneck=k_sparse")[0].model == (
        Autoencoder(latent_dim=40, bottleneck=KSparse(k=4))
    )


OWN_MODEL = """
import dataclasses
from aejax.config import Config
from aejax.models import Autoencoder

@dataclasses.dataclass
class Mine(Autoencoder):
    extra: int = 3

def get_config():
    return Config(model=Mine(latent_dim=4))
"""


def test_a_preset_may_bring_its_own_model(parse, tmp_path):
    (tmp_path / "mine.py").write_text(OWN_MODEL)
    model = parse(f"--config={tmp_path}/mine.py", "--config.model.extra=5")[0].model
    assert (type(model).__name__, model.extra, model.latent_dim) == ("Mine", 5, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "has no get_config()"),
        ("def get_config():\n    return {}\n", "get_config() must return an aejax.Config"),
        ("def get_config(:\n", "mine.py"),
        (PRESET.replace("k=4", "k=0"), "k=0: must be at least 1"),
        (PRESET.replace("k=4", "k=41"), "config.model.bottleneck.k=41"),
        (PRESET.replace("latent_dim=40", "latent_dim='a'"), "config.model.latent_dim"),
    ],
)
def test_a_preset_file_that_is_no_preset_is_refused(refused, tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert said in refused(f"--config={path}")


def test_a_path_that_is_no_file_is_refused(refused, tmp_path):
    (tmp_path / "mine.txt").write_text(PRESET)
    (tmp_path / "folder.py").mkdir()
    for path in ("none.py", "mine.txt", "folder.py", ""):
        assert f"no such preset; known: {KNOWN}" in refused(f"--config={tmp_path}/{path}")


@pytest.fixture
def continued(tmp_path):
    """A run's folder and its settings, which are those of no preset."""
    config = linear.get_config()
    config.model.latent_dim, config.optimizer = 5, Sgd(momentum=0.5)
    spec = Spec((8, 8, 1), "uint8", 16.0, True)
    folder.write(str(tmp_path / "run"), folder.Run(config, spec, {"mean": [0.5]}, 1437))
    return str(tmp_path / "run"), config


def test_a_folder_alone_goes_on_with_its_own_settings(parse, continued):
    workdir, config = continued
    assert parse(f"--workdir={workdir}") == (config, workdir, [])
    assert parse("--workdir", workdir)[0] == config
    found = parse(f"--workdir={workdir}", "--config.duration=9 steps", "--config.optimizer=sgd")[0]
    assert found == dataclasses.replace(config, duration="9 steps")
    assert parse(f"--workdir={workdir}", "--config=linear")[0] == linear.get_config()


def test_a_folder_with_a_damaged_config_json_is_refused(refused, continued):
    workdir, _ = continued
    Path(workdir, "config.json").write_text("{")
    assert f"{workdir}/config.json: damaged" in refused(f"--workdir={workdir}")


@pytest.mark.parametrize("words", [["--list"], ["-list"], ["--list=true"]])
def test_list_prints_each_preset_with_its_first_line(parse, capsys, words):
    with pytest.raises(SystemExit) as end:
        parse(*words)
    assert not end.value.code
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == PRESETS
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize("name", PRESETS)
def test_the_docstring_of_a_preset_holds_its_command(name):
    module = importlib.import_module(f"configs.{name}")
    assert f"python -m launch.train --config={name}" in module.__doc__


def test_settings_of_a_line_are_read_as_the_program_reads_them():
    words = ["--config", "deep", "--config.seed", "3", "--workdir=x", "--sweep=seed=1"]
    config = launch_flags.config_of(
        [*words, "--config.model.latent_dim=7", "--config.model.latent_dim=9"]
    )
    assert (config.model.coder.hidden, config.seed) == ((1000, 500, 250), 3)
    assert config.model.latent_dim == 9  # the last one counts
    twice = ["--config.model.coder.hidden=1", "--config.trackers=tensorboard", "--config.trackers="]
    config = launch_flags.config_of([*words, *twice, "--config.model.coder.hidden", "(2,3)"])
    assert config.model.coder.hidden == (2, 3) and config.trackers == ()
    kinds = ["--config.model.corruption=masking", "--config.model.corruption=noise"]
    assert type(launch_flags.config_of([*words, *kinds]).model.corruption).__name__ == "Noise"
