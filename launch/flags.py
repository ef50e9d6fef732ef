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
from collections.abc import Callable
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import config_flags

import configs
from aejax import folder, kinds
from aejax.config import Config, check, put
from aejax.errors import InputError
from launch import program

DEFAULT_PRESET = "dense"
PREFIX = "--config."


@dataclasses.dataclass(frozen=True)
class Program:
    """What the settings of a program are.

    Attributes:
        kind: their class.
        name: what it is called.
        check: raises InputError for what is wrong with them.
        default: the preset that is taken where none is named.
        module: of the program, whose presets `kind` makes; others are another program's.
    """

    kind: type
    name: str
    check: Callable[[Any], None]
    default: str
    module: str


TRAIN = Program(Config, "aejax.Config", check, DEFAULT_PRESET, "launch.train")


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
    if any(map(program.is_help, words)):
        words = [word for word in words if not program.is_help(word)]
        _, config, words = _preset(words, of)
        _apply_kinds(config, words)
        print(help_text(config))
        sys.exit(0)
    if any(word.partition("=")[0] == "--list" for word in words):
        print("\n".join(f"{name:<12} {line}" for name, line in presets(of).items()))
        sys.exit(0)
    name, config, words = _preset(words, of)
    words = _apply_kinds(config, words)
    _check_names(config, words)
    words = [_as_tuple(word, config) for word in words]
    argv = [argv[0], *words]
    config_flags.DEFINE_config_dataclass("config", config, "The run's settings.", sys_argv=argv)
    try:
        left = flags.FLAGS(argv)
    except flags.IllegalFlagValueError as error:
        raise _explained(error, config, words) from None
    config = kinds.rebuild(flags.FLAGS.config)
    of.check(config)
    flags.FLAGS.config = config
    if flags.FLAGS.workdir is None:
        flags.FLAGS.workdir = os.path.join("runs", name)
    return left


def _joined(words: list[str]) -> list[str]:
    """Writes `--config X` as `--config=X`, and the same for config's fields and the folder."""
    out: list[str] = []
    for word in words:
        if re.match(r"-(no)?(config|workdir|list)\b", word):
            word = "-" + word  # one dash does as two do
        waits = out and "=" not in out[-1] and not re.match("-+[a-z]", word)
        if waits and (out[-1] in ("--config", "--workdir") or out[-1].startswith(PREFIX)):
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
    spec = importlib.util.spec_from_file_location("preset", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"--config={name}: {error}") from None
    return module


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
        if value == kinds.kind_name(options, old):
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
            if parent in known:  # a field of another kind of part, or misspelt
                start = parent + "."
                fields = [key.removeprefix(start) for key in known if key.startswith(start)]
                hint = f"; {parent} has {', '.join(fields) or 'no settings'}"
                close = difflib.get_close_matches(name.removeprefix(start), fields, n=1)
                hint = f"; did you mean {start}{close[0]}?" if close else hint
            if group := [key for key in known if key.startswith(name + ".")]:
                hint = f"; {name} is a group of {', '.join(group)}"
            raise InputError(f"--config.{name}: no such setting{hint}")
        if word == PREFIX + name and not isinstance(known[name], bool):
            raise InputError(f"{word}: needs a value, as {word}=VALUE")


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


def help_text(config: Any) -> str:
    """The main program's docstring, its flags, and every setting with its value and meaning."""
    lines = [program.help_text()]
    lines += ["", "Settings, as --config.NAME=VALUE (values of this preset; parts by their kind):"]
    docs = _field_docs(config)
    for name, value, field in kinds.leaves(config):
        options = kinds.kinds_of(field)
        shown = kinds.kind_name(options, value) if options else value
        if isinstance(shown, tuple):
            shown = ",".join(map(str, shown)) or "()"
        text = docs.get(name, "")
        if options and "|" not in text:
            text = f"{text.rstrip('.')}: {' | '.join(options)}"
        lines.append(f"  {name + '=' + str(shown):<44} {text}")
    return "\n".join(lines)


def _field_docs(settings: Any, prefix: str = "") -> dict[str, str]:
    """{dotted name: what the docstring's "Attributes:" say of it}."""
    out: dict[str, str] = {}
    for cls in reversed(type(settings).__mro__):
        for name, text in _attributes(cls.__dict__.get("__doc__") or "").items():
            out[prefix + name] = text
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            out.update(_field_docs(value, f"{prefix}{field.name}."))
    return out


def _attributes(doc: str) -> dict[str, str]:
    """Reads the "Attributes:" section of a docstring."""
    _, _, section = inspect.cleandoc(doc).partition("Attributes:\n")
    out: dict[str, str] = {}
    last = ""
    for line in section.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            last, _, text = line.strip().partition(": ")
            out[last] = text
        elif line.strip() and last:
            out[last] += " " + line.strip()
    return out


def _first_line(module: ModuleType) -> str:
    return inspect.cleandoc(module.__doc__ or "").partition("\n")[0]
