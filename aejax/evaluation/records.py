"""evaluation.json: the results of all evaluated checkpoints."""

import json
from typing import Any

from aejax import files
from aejax.errors import InputError
from aejax.runs import folder

FORMAT = 1
RECORD = "evaluation.json"


def write(workdir: str, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Adds a record; returns all, this one last."""
    done = _merged(read(workdir), record)
    data = {"format": FORMAT, "evaluations": done}
    files.write(folder.path(workdir, RECORD), json.dumps(data, indent=1) + "\n")
    return done


def _merged(before: list[dict[str, Any]], record: dict[str, Any]) -> list[dict[str, Any]]:
    """Adds a record; records of the same checkpoint and rows are merged."""

    def key(one: dict[str, Any]) -> tuple:
        return tuple(one.get(name) for name in ("step", "source", "split"))

    def same(one: dict[str, Any]) -> bool:
        return all(one.get(name) == record[name] for name in ("checkpoint", "parameters", "rows"))

    others = [one for one in before if key(one) != key(record)]
    for one in before:
        # A step that was trained again has the same number, but other parameters.
        if key(one) == key(record) and same(one):
            record = {
                **record,
                **{
                    part: {**one.get(part, {}), **record[part]}
                    for part in ("tasks", "main", "percent", "notes")
                },
            }
    return [*others, record]


def read(workdir: str) -> list[dict[str, Any]]:
    """The records of evaluation.json, oldest first.

    Raises:
        InputError: the file is damaged, or of another format.
    """
    name = folder.path(workdir, RECORD)
    try:
        with open(name) as file:
            data = json.load(file)
        if data["format"] != FORMAT:
            raise InputError(
                f"{name}: format {data['format']}; this version of aejax reads format {FORMAT}"
            )
        return list(data["evaluations"])
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: damaged ({error}); move it away") from None
