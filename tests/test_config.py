"""Settings: durations, what must hold between them, and their way to JSON and back."""

import dataclasses
import importlib
import json
import pkgutil

import pytest

import configs
from aejax import kinds
from aejax.config import Config, Prepare, check, get, profile_window, put, steps_of
from aejax.errors import InputError
from aejax.models import Autoencoder
from aejax.models.bottlenecks import KSparse
from aejax.models.coders import Dense
from aejax.models.interfaces import Trainable
from aejax.models.likelihood import Gaussian
from aejax.optimizer import Adadelta, Adam, AdamW, Cosine, Sgd, StepDecay

PRESETS = sorted(
    info.name for info in pkgutil.iter_modules(configs.__path__) if "search_" not in info.name
)


def preset(name: str) -> Config:
    return importlib.import_module(f"configs.{name}").get_config()


def message(function, *args, **kwargs) -> str:
    with pytest.raises(InputError) as error:
        function(*args, **kwargs)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("3000 steps", 3000),
        ("1 step", 1),
        ("3000", 3000),
        (" 3000steps ", 3000),
        ("3e3 STEPS", 3000),
        ("1 epoch", 6),  # 5.61 batches: rounded up, so that every row was seen
        ("50 epochs", 281),  # 280.66
        ("0.5 epochs", 3),
        ("256 epochs", 1437),  # a whole number stays itself
        ("1e6 examples", 3907),  # 3906.25
        ("256 examples", 1),
        ("257 examples", 2),
        ("1 example", 1),
        ("10%", 30),  # 0.1 * 300 is 30.000000000000004 in floating point
        ("0.1%", 1),
        ("33%", 99),
        ("33.4 %", 101),
        ("100%", 300),
        ("2147483646 steps", 2**31 - 2),
    ],
)
def test_a_duration_is_this_many_steps(text, steps):
    assert steps_of("duration", text, batch_size=256, rows=1437, total=300) == steps


def test_shares_of_every_run_length_are_exact():
    for total in range(1, 2000):
        for percent in (1, 5, 7, 10, 29, 50, 100):
            found = steps_of("evaluation.every", f"{percent}%", 256, 1437, total)
            assert found == max(1, -(-total * percent // 100))


@pytest.mark.parametrize(
    "text",
    ["", "soon", "steps", "3 weeks", "-5 steps", "1..5 steps", ".", "nan", "inf", "3 steps more"],
)
def test_what_is_no_duration_is_refused_by_name(text):
    said = message(steps_of, "duration", text, 256, 1437)
    assert said.startswith(f"config.duration={text!r}: not a duration, such as 3000 steps, 50 ep")
    assert "10%" not in said
    assert "10%" in message(steps_of, "evaluation.every", text, 256, 1437, 300)


@pytest.mark.parametrize("text", ["0 steps", "0 epochs", "0%", "2147483647 steps", "1e400 epochs"])
def test_a_duration_out_of_range_is_refused_with_its_steps(text):
    said = message(steps_of, "duration", text, 256, 1437, 300)
    assert said.startswith(f"config.duration={text!r}: ") and "must be 1 to 2^31 - 2" in said


def test_a_share_of_nothing_is_refused():
    said = message(steps_of, "duration", "10%", 256, 1437)
    assert said.startswith("config.duration='10%': not a duration")


LEAST = {
    "batch_size": 1,
    "micro_batches": 1,
    "log_every": 1,
    "seed": 0,
    "watchdog_minutes": 0,
    "evaluation.patience": 0,
    "evaluation.batch_size": 1,
    "checkpoint.keep": 1,
    "checkpoint.minutes": 0,
    "data.prepare.shift": 0,
    "data.prepare.deform": 0,
    "data.resident_mib": 0,
    "data.threads": 1,
    "optimizer.learning_rate": 0,
    "optimizer.weight_decay": 0,
    "optimizer.clip": 0,
}


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_a_number_below_its_least_is_refused(name, least):
    config = Config()
    put(config, name, least)
    check(config)
    below = type(get(Config(), name))(least - 1)
    put(config, name, below)
    assert message(check, config) == f"config.{name}={below}: must be at least {least}"
    put(config, name, float("nan"))
    assert message(check, config).startswith(f"config.{name}=nan: must be a ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 2**32}, ("config.seed=4294967296", "below 2^32")),
        ({"data.feed": "stream"}, ("config.data.feed=stream", "auto or resident or streaming")),
        ({"parallel": "jit"}, ("config.parallel=jit", "pjit or pmap")),
        ({"compute": "bf16"}, ("config.compute=bf16", "float32 or bfloat16")),
        (
            {"parallel": "pmap", "mesh.fsdp": 2},
            ("config.parallel=pmap", "config.mesh.fsdp=2", "must be 1"),
        ),
        ({"mesh.rules": ("kernel",)}, ("config.mesh.rules", "'kernel'", "PATTERN=AXIS")),
        ({"mesh.rules": ("a=fsdp x",)}, ("config.mesh.rules", "'a=fsdp x'", "there is no 'x'")),
        ({"mesh.rules": ("(=fsdp",)}, ("config.mesh.rules", "'(=fsdp'", "'('")),
        (
            {"data.prepare.binarise": "treshold"},
            ("config.data.prepare.binarise=treshold", "none or threshold or sampled"),
        ),
        (
            {"data.prepare.centre": "Mean"},
            ("config.data.prepare.centre=Mean", "none or mean or standardise"),
        ),
        (
            {"batch_size": 100, "micro_batches": 8},
            ("config.batch_size=100", "config.micro_batches=8"),
        ),
        ({"mesh.data": 0}, ("config.mesh.data=0", "-1 (the rest) or at least 1")),
        ({"mesh.fsdp": -2}, ("config.mesh.fsdp=-2", "-1 (the rest) or at least 1")),
        ({"mesh.tensor": 0}, ("config.mesh.tensor=0", "-1 (the rest) or at least 1")),
        (
            {"data.prepare.binarise": "threshold", "data.prepare.scale": False},
            ("config.data.prepare.binarise=threshold", "config.data.prepare.scale=True"),
        ),
        ({"profile": "10"}, ("config.profile=10", "FIRST:LAST")),
        ({"profile": "10:10"}, ("config.profile=10:10", "FIRST:LAST")),
        ({"model.latent_dim": 0}, ("config.model.latent_dim=0", "at least 1")),
        (
            {"model.bottleneck": KSparse(k=33)},
            ("config.model.bottleneck.k=33", "latent_dim=32", "at most 32"),
        ),
        (
            {"model.bottleneck": KSparse(k=20, test_scale=2.0)},
            ("config.model.bottleneck.k=20", "test_scale=2.0", "keeps 40", "at most 32"),
        ),
        (
            {"data.prepare.scale": False},
            ("config.model.likelihood", "bernoulli needs data in [0, 1]"),
        ),
        (
            {"data.prepare.centre": "mean"},
            ("config.model.likelihood", "bernoulli needs data in [0, 1]"),
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(changes, said):
    config = Config()
    for name, value in changes.items():
        put(config, name, value)
    text = message(check, config)
    assert text.startswith("config.")
    for word in said:
        assert word in text


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_accepted(name):
    check(preset(name))


def test_settings_at_their_limits_are_accepted():
    config = Config(seed=2**32 - 1, batch_size=96, micro_batches=96, profile="0:1")
    config.mesh.rules = ("decoder/.*/kernel=fsdp tensor", ".*=-")
    config.data.prepare.binarise = "sampled"
    config.model.bottleneck = KSparse(k=16, test_scale=2.0)
    check(config)
    config.data.prepare = Prepare(scale=False, centre="standardise")
    config.model.likelihood = Gaussian()
    check(config)
    assert profile_window(config) == (0, 1)
    assert profile_window(Config()) is None


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name):
    config = preset(name)
    data = json.loads(json.dumps(kinds.to_dict(config)))
    read = kinds.from_dict(Config, data)
    assert read == config
    types = [type(value) for _, value, _ in kinds.leaves(read)]
    assert types == [type(value) for _, value, _ in kinds.leaves(config)]


def test_every_kind_of_part_survives_json():
    model = Autoencoder(Dense((64, 32), "tanh", False), 16, KSparse(5, 1.5), Gaussian(0.25))
    for optimizer in (
        Adadelta(rho=0.5),
        Sgd(momentum=0.9, nesterov=True, schedule=StepDecay((0.25, 0.5), 0.5)),
        Adam(warmup=0.125, schedule=Cosine(0.1)),
        AdamW(ema=0.5),
    ):
        config = Config(model=model, optimizer=optimizer)
        data = json.loads(json.dumps(kinds.to_dict(config)))
        assert data == kinds.to_dict(config)
        assert kinds.from_dict(Config, data) == config


def test_missing_fields_get_their_defaults_and_whole_numbers_serve_as_floats():
    data = {"optimizer": {"kind": "adadelta", "clip": 1}, "data": {"source": "npz:a"}}
    config = kinds.from_dict(Config, data)
    assert config == Config(optimizer=Adadelta(clip=1.0), data=dataclasses.replace(config.data))
    assert (config.data.source, config.data.train) == ("npz:a", "train")
    assert type(config.optimizer.clip) is float


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"sed": 3}, "config.sed: no such setting; did you mean seed?"),
        (
            {"data": {"prepare": {"binarize": "none"}}},
            "config.data.prepare.binarize: no such setting; did you mean binarise?",
        ),
        (
            {"optimizer": {"kind": "adam", "rho": 0.9}},
            "config.optimizer.rho: no such setting",
        ),
        (
            {"optimizer": {"kind": "adma"}},
            "config.optimizer=adma: must be one of adam, adamw, adadelta, sgd; did you mean adam?",
        ),
        ({"optimizer": "adam"}, "config.optimizer='adam': must be an object with a kind"),
        ({"optimizer": {"b1": 0.9}}, "must be an object with a kind"),
        ({"optimizer": {"kind": 3}}, "must be an object with a kind"),
        ({"data": "digits"}, "config.data='digits': must be a JSON object"),
        ([1], "config=[1]: must be a JSON object"),
        ({"batch_size": "256"}, "config.batch_size='256': must be a whole number"),
        ({"batch_size": 256.0}, "config.batch_size=256.0: must be a whole number"),
        ({"batch_size": True}, "config.batch_size=True: must be a whole number"),
        ({"watchdog_minutes": "3"}, "config.watchdog_minutes='3': must be a number"),
        ({"watchdog_minutes": False}, "config.watchdog_minutes=False: must be a number"),
        ({"deterministic": 1}, "config.deterministic=1: must be true or false"),
        ({"duration": 3000}, "config.duration=3000: must be text"),
        ({"seed": None}, "config.seed=None: must be a whole number"),
        (
            {"model": {"kind": "autoencoder", "coder": {"kind": "dense", "hidden": [64, "a"]}}},
            "config.model.coder.hidden='a': must be a whole number",
        ),
        (
            {"model": {"kind": "autoencoder", "coder": {"kind": "dense", "hidden": 64}}},
            "config.model.coder.hidden=64: must be a list, each a whole number",
        ),
        (
            {"model": {"kind": "autoencoder", "coder": {"kind": "dense", "hidden": "64"}}},
            "config.model.coder.hidden='64': must be a list, each a whole number",
        ),
        (
            {"model": {"kind": "autoencoder", "bottleneck": {"kind": "k_sparse", "k": 0}}},
            "config.model.bottleneck.k=0: must be at least 1",
        ),
    ],
)
def test_wrong_json_is_refused_by_name(data, said):
    assert said in message(kinds.from_dict, Config, data)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("model.coder.activation", "rleu", "config.model.coder.activation=rleu: must be one of"),
        ("model.coder.hidden", (64, 0), "config.model.coder.hidden=(64, 0): layer sizes"),
        ("model.bottleneck.activation", "sig", "config.model.bottleneck.activation=sig: must be"),
        ("optimizer.warmup", 1.0, "config.optimizer.warmup=1.0: must be from 0 up to below 1"),
        ("optimizer.ema", -0.5, "config.optimizer.ema=-0.5: must be from 0 up to below 1"),
    ],
)
def test_rebuild_runs_the_parts_own_checks(name, value, said):
    config = Config()
    put(config, name, value)
    assert said in message(kinds.rebuild, config)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("model.coder.hidden", (64.5,), "must be a whole number"),
        ("model.coder.hidden", ("a", "b"), "must be a whole number"),
        ("model.coder.hidden", 64, "must be a list"),
        ("mesh.rules", (64,), "must be text"),
        ("batch_size", "256", "must be a whole number"),
        ("optimizer.learning_rate", "fast", "must be a number"),
        ("optimizer.learning_rate", float("inf"), "must be"),
        ("model.bottleneck.test_scale", float("nan"), "test_scale=nan: must be"),
        ("model.bottleneck.test_scale", float("inf"), "test_scale=inf: must be"),
    ],
)
def test_values_of_another_type_and_infinite_ones_are_refused(name, value, said):
    """Flags and presets set fields past every type; later errors would be a model's own."""
    config = Config(model=Autoencoder(bottleneck=KSparse()))
    put(config, name, value)
    text = message(lambda: check(kinds.rebuild(config)))
    assert f"config.{name}=" in text and said in text


def test_rebuild_gives_equal_settings_that_are_not_the_same_objects():
    config = preset("linear")
    again = kinds.rebuild(config)
    assert again == config
    assert again.model is not config.model and again.data.prepare is not config.data.prepare


@dataclasses.dataclass
class Mine(Trainable):
    size: int = 3

    def init(self, rngs, batch):
        raise AssertionError("not called")


def test_a_part_from_outside_is_written_by_the_name_of_its_class():
    written = kinds.to_dict(Config(model=Mine(4)))["model"]
    assert written == {"kind": "tests.test_config:Mine", "distribution": None, "size": 4}
    assert kinds.rebuild(Config(model=Mine(4))).model == Mine(4)
    with pytest.raises(InputError, match="config.model.size='a': must be a whole number"):
        kinds.rebuild(Config(model=Mine("a")))
