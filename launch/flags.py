"""Flags of a run: a preset by name, kinds of parts, and every field of its settings.

`ml_collections.config_flags` sets the fields. This parser stands in front of it: it finds the
preset, applies kinds, refuses names that do not exist, and teaches with --help.
"""

import dataclasses
import difflib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import typing
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import config_flags

from aejax import kinds, registry
from aejax.config import RENAMED, Config, check, put
from aejax.errors import InputError
from aejax.runs import folder
from launch import helping, program

DEFAULT_PRESET = "dense"
PREFIX = "--config."


def _own_presets() -> ModuleType:
    """The package `configs` beside this one, also where another is nearer on sys.path."""
    place = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "configs")
    known = sys.modules.get("configs")
    if known is not None and place in map(os.path.abspath, getattr(known, "__path__", ())):
        return known
    spec = importlib.util.spec_from_file_location(
        "configs", os.path.join(place, "__init__.py"), submodule_search_locations=[place]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["configs"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


configs = _own_presets()


@dataclasses.dataclass(frozen=True)
class Program:
    """What the settings of a program are.

    Attributes:
        kind: their class.
        name: what it is called.
        check: raises InputError for what is wrong with them.
        default: the preset that is taken where none is named.
        module: of the program, whose presets `kind` makes; others are another program's.
        first: names of the settings that most people want.
        parent: the folder of folders that are called after their preset.
    """

    kind: type
    name: str
    check: Callable[[Any], None]
    default: str
    module: str
    first: tuple[str, ...]
    parent: str = "runs"


TRAIN = Program(
    Config,
    "aejax.Config",
    check,
    DEFAULT_PRESET,
    "launch.train",
    (
        "data.source",
        "model.latent_dim",
        "optimizer",
        "optimizer.learning_rate",
        "batch_size",
        "duration",
        "evaluation.every",
        "seed",
    ),
)


def presets(of: Program = TRAIN) -> dict[str, str]:
    """{name: first line of its docstring} of this program's presets."""
    names = sorted(info.name for info in pkgutil.iter_modules(configs.__path__))
    modules = {name: _preset_module(name) for name in names}
    return {
        name: _first_line(module)
        for name, module in modules.items()
        if of.module in (module.__doc__ or "")
    }


def parse(argv: list[str], of: Program = TRAIN) -> list[str]:
    """Parses a program's command line; afterwards FLAGS.config is its checked settings.

    Raises:
        InputError, flags.Error: what is wrong, in one line.
    """
    words = _joined(argv[1:])
    program.use_parts([word[8:] for word in words if word.startswith("--parts=")])
    if asked := [word for word in words if program.is_help(word)]:
        _print_help(of, [word for word in words if word not in asked], program.is_whole(asked))
        sys.exit(0)
    if any(word.partition("=")[0] == "--list" for word in words):
        print("\n".join(f"{name:<12} {line}" for name, line in presets(of).items()))
        sys.exit(0)
    name, config, words = _preset(words, of)
    left = _set(config, words, argv[0], flags.FLAGS)
    config = kinds.rebuild(flags.FLAGS.config)
    of.check(config)
    flags.FLAGS.config = config
    if flags.FLAGS.workdir is None:
        flags.FLAGS.workdir = os.path.join(of.parent, name)
    return left


def config_of(words: list[str], of: Program = TRAIN) -> Any:
    """The checked settings that a command line's words give; other flags are left out.

    Raises:
        InputError: as `parse`.
    """
    given = [word for word in _joined(words) if re.match("--(no)?config\\b", word)]
    _, config, words = _preset(given, of)
    values = flags.FlagValues()
    _set(config, words, "settings", values)
    config = kinds.rebuild(values.config)
    of.check(config)
    return config


def _set(config: Any, words: list[str], program_name: str, values: flags.FlagValues) -> list[str]:
    """Sets the fields of `config`, and the other flags of `values`; returns the words left."""
    words = _apply_kinds(config, words)
    _check_names(config, words)
    words = [_as_tuple(word, config) for word in _without_earlier_tuples(words, config)]
    argv = [program_name, *words]
    config_flags.DEFINE_config_dataclass(
        "config", config, "The run's settings.", flag_values=values, sys_argv=argv
    )
    try:
        return values(argv)
    except flags.IllegalFlagValueError as error:
        raise _explained(error, config, words) from None
    except flags.UnrecognizedFlagError as error:
        raise _meant(error, config) from None


def _print_help(of: Program, words: list[str], whole: bool) -> None:
    """Prints what --help shows of the preset and the parts that `words` name."""
    preset, config, words = _preset(words, of)
    _apply_kinds(config, words)
    workdir = [word for word in words if word.startswith("--workdir=")]
    folder_name = workdir[-1].partition("=")[2] if workdir else os.path.join("runs", preset)
    if whole:
        print(helping.whole_help_text(config), flush=True)
    else:
        print(helping.help_text(config, of.first, preset, folder_name), flush=True)


def _joined(words: list[str]) -> list[str]:
    """Writes `--config X` as `--config=X`, and the same for config's fields and the folder."""
    out: list[str] = []
    for word in words:
        if re.match(r"-(no)?(config|workdir|parts|list)\b", word):
            word = "-" + word  # one dash does as two do
        waits = out and "=" not in out[-1] and not re.match("-+[a-z]", word)
        if waits and (
            out[-1] in ("--config", "--workdir", "--parts") or out[-1].startswith(PREFIX)
        ):
            out[-1] += f"={word}"
        else:
            out.append(word)
    return out


def _preset(words: list[str], of: Program) -> tuple[str, Any, list[str]]:
    """A name and the settings to start from: --config, else the folder's own, else the default."""
    names = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    rest = [word for word in words if not word.startswith("--config=")]
    workdirs = [word.removeprefix("--workdir=") for word in words if word.startswith("--workdir=")]
    if workdirs and (not workdirs[-1] or os.path.isfile(workdirs[-1])):
        raise InputError(f"--workdir={workdirs[-1]}: must be a folder, such as runs/dense")
    if not names and of is TRAIN and workdirs and folder.exists(workdirs[-1]):
        return "", folder.read(workdirs[-1]).config, rest
    name = names[-1] if names else of.default
    module = _preset_module(name)
    if not hasattr(module, "get_config"):
        raise InputError(f"--config={name}: {module.__file__} has no get_config()")
    try:
        config = module.get_config()
    except ValueError as error:
        raise InputError(f"--config={name}: {error}") from None
    if not isinstance(config, of.kind):
        raise InputError(f"--config={name}: get_config() must return an {of.name}")
    for _, value, field in kinds.leaves(config):  # the user has named the file
        if kinds.kinds_of(field) is not None and value is not None:
            registry.use([type(value)])
    return os.path.basename(name).removesuffix(".py"), config, rest


def _preset_module(name: str) -> ModuleType:
    known = [info.name for info in pkgutil.iter_modules(configs.__path__)]
    if name in known:
        return importlib.import_module(f"configs.{name}")
    path = os.path.expanduser(name)
    if not name.endswith(".py") or not os.path.isfile(path):
        raise InputError(
            f"--config={name}: no such preset; known: {', '.join(known)}, or the path of a .py file"
            f" with get_config(){kinds.near(name, known)}"
        )
    try:
        return registry.from_file(path)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"--config={name}: {error}") from None


def _apply_kinds(config: Any, words: list[str]) -> list[str]:
    """Puts the parts that are named by kind into `config`; returns the other words."""
    rest = []
    named = [word[len(PREFIX) :].partition("=") for word in words if word.startswith(PREFIX)]
    chosen = set()
    for name, _, value in sorted(named, key=lambda item: item[0].count(".")):
        table = {key: (kinds.kinds_of(field), old) for key, old, field in kinds.leaves(config)}
        options, old = table.get(name, (None, None))
        if options is None:
            continue
        chosen.add(name)
        if ":" in value:
            registry.use_named(f"--config.{name}", value)
        if value == options.name(old):
            continue  # the preset's own: it keeps its settings
        put(config, name, kinds.make(f"config.{name}", options, value, {}))
    for word in words:
        if word.startswith(PREFIX) and word[len(PREFIX) :].partition("=")[0] in chosen:
            continue
        rest.append(word)
    return rest


def _check_names(config: Any, words: list[str]) -> None:
    """Refuses names of settings that do not exist, with the nearest one that does."""
    known = {name: value for name, value, _ in kinds.leaves(config)}
    for word in words:
        start = PREFIX if word.startswith(PREFIX) else "--no" + PREFIX[2:]
        name = word[len(start) :].partition("=")[0]
        if word.startswith(start) and name not in known:
            parent = name.rpartition(".")[0]
            hint = kinds.near(name, known)
            if tails := _tails(name, known):
                hint = f"; did you mean {' or '.join(tails)}?"
            if parent in known:  # a field of another kind of part, or misspelt
                start = parent + "."
                fields = [key.removeprefix(start) for key in known if key.startswith(start)]
                hint = f"; {parent} has {', '.join(fields) or 'no settings'}"
                close = difflib.get_close_matches(name.removeprefix(start), fields, n=1)
                hint = f"; did you mean {start}{close[0]}?" if close else hint
            if name in RENAMED:
                hint = f"; it is called {RENAMED[name]} now"
            if group := [key for key in known if key.startswith(name + ".")]:
                hint = f"; {name} is a group of {', '.join(group)}"
            raise InputError(f"--config.{name}: no such setting{hint}")
        if word == PREFIX + name and not isinstance(known[name], bool):
            raise InputError(f"{word}: needs a value, as {word}=VALUE")


def _without_earlier_tuples(words: list[str], config: Any) -> list[str]:
    """Leaves out a tuple that is given again further on: config_flags would join the two."""
    types = {key: field.type for key, _, field in kinds.leaves(config)}
    names = [word.removeprefix(PREFIX).partition("=")[0] for word in words]
    last = {name: place for place, name in enumerate(names)}
    return [
        word
        for place, (name, word) in enumerate(zip(names, words, strict=True))
        if not word.startswith(PREFIX)
        or typing.get_origin(types.get(name)) is not tuple
        or place == last[name]
    ]


def _as_tuple(word: str, config: Any) -> str:
    """Writes a bare list, as one,two, so that it is read as a tuple of text too."""
    name, _, value = word.removeprefix(PREFIX).partition("=")
    types = {key: field.type for key, _, field in kinds.leaves(config)}
    if not word.startswith(PREFIX) or types.get(name) != tuple[str, ...]:
        return word
    if value.startswith(("(", "[")):
        return word
    return f"{PREFIX}{name}={tuple(item for item in value.split(',') if item)!r}"


def _explained(error: Exception, config: Any, words: list[str]) -> Exception:
    """The error with what the setting's type accepts, if it is about one of config's fields."""
    for name, _, field in kinds.leaves(config):
        for word in words:
            if word.startswith(f"{PREFIX}{name}=") and f"--config.{name}=" in str(error):
                return InputError(f"{word}: must be {kinds.type_words(field.type)}")
    return error


def _meant(error: flags.UnrecognizedFlagError, config: Any) -> Exception:
    """The error with the settings whose names end in the flag's, where there are some."""
    said = error.flagname
    for name in (said, said.removeprefix("no")):
        if found := _tails(name, [key for key, _, _ in kinds.leaves(config)]):
            return InputError(f"--{said}: no such flag; did you mean {_either(found)}?")
    chosen = []
    for key, _, field in kinds.leaves(config):
        for kind, cls in (kinds.kinds_of(field) or {}).items():
            if cls is not None and said in {each.name for each in dataclasses.fields(cls)}:
                chosen.append(f"{PREFIX}{key}.{said} with {PREFIX}{key}={kind}")
    if chosen:
        return InputError(f"--{said}: no such flag; did you mean {' or '.join(chosen)}?")
    if "Did you mean" not in str(error):
        return InputError(f"--{said}: no such flag; --help=all shows all flags and settings")
    return error


def _tails(name: str, known: Iterable[str]) -> list[str]:
    """Those of the dotted names that are this one or end in it."""
    return [key for key in known if key == name or key.endswith("." + name)]


def _either(names: Iterable[str]) -> str:
    return " or ".join(PREFIX + name for name in names)


def _first_line(module: ModuleType) -> str:
    return inspect.cleandoc(module.__doc__ or "").partition("\n")[0]
