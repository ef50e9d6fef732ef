"""A run's folder: config.json, metrics.jsonl, checkpoints/, figures/; it describes itself."""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any

from aejax import files, kinds
from aejax.config import MAY_CHANGE, Config
from aejax.data.sources.base import Spec
from aejax.data.sources.places import Place, place
from aejax.errors import InputError

FORMAT = 1


@dataclasses.dataclass
class Run:
    """What config.json holds.

    Attributes:
        config: the run's settings.
        spec: of the raw rows that it was trained on.
        statistics: of the training split, for `data.prepare`.
        rows: of the training split.
        base: the folder from which relative paths of its data go; "" where it is not known.
    """

    config: Config
    spec: Spec
    statistics: dict[str, Any]
    rows: int
    base: str = ""

    def place(self) -> Place:
        """Where the run's data lie, seen from where it was started, or else from here.

        Raises:
            InputError: in neither place.
        """
        data = self.config.data
        return place(data.source, data.folder, (self.base, os.getcwd()))


def path(workdir: str, *names: str) -> str:
    """A path inside a run's folder, absolute."""
    return os.path.join(os.path.abspath(os.path.expanduser(workdir)), *names)


def exists(workdir: str) -> bool:
    """Whether this folder holds a run."""
    return os.path.isfile(path(workdir, "config.json"))


@contextlib.contextmanager
def locked(workdir: str) -> Iterator[None]:
    """Keeps a second process from training in the same folder; ends with the process.

    Raises:
        InputError: another process trains there.
    """
    os.makedirs(path(workdir), exist_ok=True)
    with open(path(workdir, ".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"--workdir={workdir}: another process is training in this folder"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield


def write(workdir: str, run: Run) -> None:
    """Writes config.json."""
    data = {
        "format": FORMAT,
        "config": kinds.to_dict(run.config),
        "data": {
            **dataclasses.asdict(run.spec),
            "rows": run.rows,
            "base": run.base,
            "statistics": run.statistics,
        },
    }
    files.write(path(workdir, "config.json"), json.dumps(data, indent=1) + "\n")


def read(workdir: str, model: Any = None) -> Run:
    """Reads config.json; imports nothing and runs nothing from it.

    Args:
        workdir: the run's folder.
        model: settings of a model that no table of kinds lists, in place of the file's.

    Raises:
        InputError: no run there, a damaged file, another format, or unknown settings.
    """
    name = path(workdir, "config.json")
    try:
        with open(name) as file:
            data = json.load(file)
        if data["format"] != FORMAT:
            raise InputError(
                f"{name}: format {data['format']}; this version of aejax reads format {FORMAT}"
            )
        settings, rows = data["config"], dict(data["data"])
        statistics, count = rows.pop("statistics"), rows.pop("rows")
        base = rows.pop("base", "")  # older files do not have it, nor classes
        shape, classes = tuple(rows.pop("shape")), tuple(rows.pop("classes", ()))
        spec = Spec(shape=shape, classes=classes, **rows)
    except FileNotFoundError:
        raise InputError(f"--workdir={workdir}: holds no run (no {name})") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{name}: damaged ({type(error).__name__}: {error})") from None
    try:
        if model is not None and isinstance(settings, dict):
            settings = {key: value for key, value in settings.items() if key != "model"}
        config = kinds.from_dict(Config, settings)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if model is not None:
        config.model = model
    return Run(config, spec, statistics, count, base)


def base(workdir: str) -> str:
    """The folder from which a run's relative paths of data go; "" where none is known."""
    try:
        with open(path(workdir, "config.json")) as file:
            return str(json.load(file)["data"].get("base", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""  # whoever needs the rest of it says what is wrong


def differences(old: Config, new: Config) -> list[str]:
    """Settings that may not change in an existing folder, as "name: old -> new"."""
    before, after = _flat(kinds.to_dict(old)), _flat(kinds.to_dict(new))
    return [
        f"config.{name}: {before.get(name)!r} -> {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
        and not any(name == free or name.startswith(free + ".") for free in MAY_CHANGE)
    ]


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out
