"""A run's folder: config.json, metrics.jsonl, checkpoints/, figures/; it describes itself."""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

from aejax import files, kinds
from aejax.config import MAY_CHANGE, Config, renamed
from aejax.data.sources import table_text
from aejax.data.sources.base import Spec
from aejax.data.sources.places import Location, example, locate, with_options
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
        fingerprints: {"train": of the training split, "test": of the test split}
            (`aejax.data.fingerprint`); empty where the run was begun by a version without them.
        base: the folder from which relative paths of its data go; "" where it is not known.
    """

    config: Config
    spec: Spec
    statistics: dict[str, Any]
    rows: int
    fingerprints: dict[str, str] = dataclasses.field(default_factory=dict)
    base: str = ""

    def location(self) -> Location:
        """Where the run's data lie, seen from where it was started, or else from here.

        Raises:
            InputError: in neither place.
        """
        data = self.config.data
        source = with_options(data.source, self.spec.reading)
        return locate(source, data.folder, (self.base, os.getcwd()))

    def example(self) -> str:
        """How other rows for this run are named, such as table:FILE.csv or images:FOLDER."""
        return example(self.config.data.source, self.spec.padded)


def path(workdir: str, *names: str) -> str:
    """A path inside a run's folder, absolute."""
    return os.path.join(os.path.abspath(os.path.expanduser(workdir)), *names)


def exists(workdir: str) -> bool:
    """Whether this folder holds a run."""
    return os.path.isfile(path(workdir, "config.json"))


def check_path(workdir: str) -> None:
    """Raises InputError for a path that TensorStore, which stores arrays, would take for another.

    It takes a backslash for a slash.
    """
    if "\\" in (place := os.path.abspath(workdir)):
        raise InputError(f"--workdir={workdir}: {place} has a backslash; must have none")


def check_places(workdir: str, names: Sequence[str], folders: Sequence[str]) -> None:
    """Refuses a folder where a file is to be written, and a file where a folder is.

    A link to a file that is not there yet is refused where its folder is not there either.

    Args:
        workdir: the run's folder.
        names: of the files in it, which may be missing.
        folders: names of the folders in it, which may be missing.

    Raises:
        InputError: names the path; or the folder's own path has a backslash.
    """
    check_path(workdir)
    for name in (*names, *folders):
        place = path(workdir, name)
        if name in names and _leads_nowhere(place):
            raise InputError(
                f"{place}: is a link to {os.readlink(place)}, where no file can be; remove the link"
            )
        if not os.path.lexists(place) or os.path.isdir(place) == (name in folders):
            continue
        found, wanted = ("no folder", "folder") if name in folders else ("a folder", "file")
        raise InputError(
            f"{place}: is {found}; move it away, the {wanted} of this name belongs here"
        )


def _leads_nowhere(place: str) -> bool:
    """Whether a path is a link behind which no file can be made."""
    real = os.path.realpath(place)
    behind = not os.path.islink(real) and os.path.isdir(os.path.dirname(real))
    return os.path.islink(place) and not behind


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
            "fingerprints": run.fingerprints,
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
    data = _load(workdir)
    try:
        settings, rows = data["config"], dict(data["data"])
        statistics, count = rows.pop("statistics"), rows.pop("rows")
        fingerprints = dict(rows.pop("fingerprints", {}))  # older files do not have these three
        base = rows.pop("base", "")
        shape, classes = tuple(rows.pop("shape")), tuple(rows.pop("classes", ()))
        spec = Spec(shape=shape, classes=classes, **rows)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{name}: damaged ({type(error).__name__}: {error})") from None
    try:
        if model is not None and isinstance(settings, dict):
            settings = {key: value for key, value in settings.items() if key != "model"}
        config = kinds.from_dict(Config, settings)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    try:
        _check_statistics(statistics, config, spec)
    except (KeyError, TypeError) as error:
        raise InputError(f"{name}: damaged ({type(error).__name__}: {error})") from None
    if model is not None:
        config.model = model
    if "reading" not in data["data"]:
        spec = dataclasses.replace(spec, reading=table_text.unkept(config.data.source))
    return Run(config, spec, statistics, count, fingerprints, base)


def _check_statistics(statistics: dict[str, Any], config: Config, spec: Spec) -> None:
    """Raises TypeError or KeyError where what the preparation of rows needs is not there."""
    prepare = config.data.prepare
    ranged = prepare.scale and spec.maximum is None
    centred = prepare.centre != "none"
    wanted = ["low", "high"] * ranged + ["mean"] * centred
    wanted += ["deviation"] * (prepare.centre == "standardise")
    for name in wanted:
        values = statistics[name] if isinstance(statistics[name], list) else [statistics[name]]
        if not all(type(each) in (int, float) for each in values):
            raise TypeError(f"data.statistics.{name} is no number")


def _load(workdir: str) -> dict[str, Any]:
    """What config.json holds, as plain JSON values of this format.

    Raises:
        InputError: no run there, a damaged file, or another format.
    """
    name = path(workdir, "config.json")
    try:
        with open(name, encoding="utf-8") as file:
            data = json.load(file)
        if data["format"] != FORMAT:
            raise InputError(
                f"{name}: format {data['format']}; this version of aejax reads format {FORMAT}"
            )
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"--workdir={workdir}: holds no run (no {name})") from None
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{name}: damaged ({type(error).__name__}: {error})") from None
    if isinstance(settings := data.get("config"), dict):
        data["config"] = renamed(settings)
    return data


def read_to_resume(workdir: str, config: Config) -> Run | None:
    """What config.json holds, for a run that goes on with these settings; None where there is none.

    Settings are compared with the file itself, so that a model that no table of kinds lists is
    compared too.

    Raises:
        InputError: what `read` refuses, or settings outside `config.MAY_CHANGE` that differ; each
            is named with both values.
    """
    if not exists(workdir):
        _check_fresh(workdir)
        return None
    run = read(workdir, model=config.model)
    if changed := differences(_load(workdir)["config"], config):
        raise InputError(
            f"--workdir={workdir} holds a run with other settings ({'; '.join(changed)}):"
            " use another folder, or the old values"
        )
    return run


def _check_fresh(workdir: str) -> None:
    """Refuses checkpoints of which nothing says with which settings they were trained."""
    place = path(workdir, "checkpoints")
    if os.path.isdir(place) and any(name[:1].isdigit() for name in os.listdir(place)):
        raise InputError(
            f"--workdir={workdir}: has checkpoints and no config.json, which says what they are;"
            " put it back, or use another folder"
        )


def differences(stored: Any, config: Config) -> list[str]:
    """Settings that may not change in an existing folder and did, as "name: old -> new".

    Args:
        stored: the settings in config.json, as plain JSON values.
        config: the settings of now.
    """
    return [
        f"config.{name}: {old!r} -> {new!r}"
        for name, old, new in sorted(kinds.differences(stored, config), key=lambda one: one[0])
        if not any(name == free or name.startswith(free + ".") for free in MAY_CHANGE)
    ]
