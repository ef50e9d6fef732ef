"""Settings as data: kinds of parts by name, to JSON and back, and names by "did you mean".

A field that holds one of several kinds of part carries the table of its kinds; nothing is
registered by import, and reading a file imports nothing and runs nothing from it.
"""

import dataclasses
import json
import math
import typing
from collections.abc import Iterator
from typing import Any

from aejax.errors import InputError, near
from aejax.registry import Kinds, distribution

# What stands beside a part's own fields.
_ABOUT = {"kind", "distribution"}


def part(kinds: Kinds, default: Any) -> Any:
    """A dataclass field that holds one of `kinds`, chosen by flag under the kind's name.

    Args:
        kinds: the table.
        default: makes the default.
    """
    return dataclasses.field(default_factory=default, metadata={"kinds": kinds})


def kinds_of(field: dataclasses.Field) -> Kinds | None:
    """The kinds that this field may hold, or None for an ordinary field."""
    return field.metadata.get("kinds")


def make(setting: str, kinds: Kinds, name: str, fields: dict[str, Any]) -> Any:
    """Builds the part called `name` from JSON fields.

    Raises:
        InputError: no such kind, no such field, or a value that the part refuses.
    """
    cls = kinds.find(setting, name)
    return None if cls is None else from_dict(cls, fields, setting)


def to_dict(settings: Any) -> dict[str, Any]:
    """A dataclass of settings as plain JSON values, each part with its kind."""
    fields = dataclasses.fields(settings)
    return {field.name: _as_json(field, getattr(settings, field.name)) for field in fields}


def _as_json(field: dataclasses.Field, value: Any) -> Any:
    """The value of one field as plain JSON values."""
    if (kinds := kinds_of(field)) is not None:
        inner = to_dict(value) if dataclasses.is_dataclass(value) else {}
        name = kinds.name(value)
        origin = {} if name in kinds else {"distribution": distribution(type(value))}
        return {"kind": name, **origin, **inner}
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return list(value) if isinstance(value, tuple) else value


def from_dict(cls: type, data: Any, setting: str = "config") -> Any:
    """Builds a dataclass of settings from plain JSON values; missing fields get their defaults.

    Raises:
        InputError: an unknown field or kind, a value of another type, or one that is refused.
    """
    if not isinstance(data, dict):
        raise InputError(f"{setting}={data!r}: must be a JSON object")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    types = typing.get_type_hints(cls)
    values = {}
    for name, value in data.items():
        where = f"{setting}.{name}"
        if name not in fields:
            raise InputError(f"{where}: no such setting{near(name, fields)}")
        if (kinds := kinds_of(fields[name])) is not None:
            if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
                raise InputError(f"{where}={value!r}: must be an object with a kind")
            inner = {key: item for key, item in value.items() if key not in _ABOUT}
            values[name] = make(where, kinds, value["kind"], inner)
        elif dataclasses.is_dataclass(types[name]):
            values[name] = from_dict(types[name], value, where)  # pyright: ignore
        else:
            values[name] = _plain(where, types[name], value)
    return _build(cls, values, setting)


def rebuild(settings: Any, setting: str = "config") -> Any:
    """The same settings, built anew, so that every part checks its own fields.

    Flags set fields one by one, past the checks that a dataclass makes when it is built.

    Raises:
        InputError: a value of another type, or one that its part refuses.
    """
    types = typing.get_type_hints(type(settings))
    values = {}
    for field in dataclasses.fields(settings):
        value, where = getattr(settings, field.name), f"{setting}.{field.name}"
        known = kinds_of(field)
        if known is not None and value is not None:
            known.checked(where, type(value))
        if dataclasses.is_dataclass(value):
            value = rebuild(value, where)
        elif known is None:
            value = _plain(where, types[field.name], value)
        values[field.name] = value
    return _build(type(settings), values, setting)


def _build(cls: type, values: dict[str, Any], setting: str) -> Any:
    """Builds a part; what its own check says gets the setting's place in front."""
    try:
        return cls(**values)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{setting}.{error}") from None


def leaves(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    """(dotted name, value, field) of every setting, parts before their own fields."""
    for field in dataclasses.fields(settings):
        name, value = prefix + field.name, getattr(settings, field.name)
        if kinds_of(field) is not None or not dataclasses.is_dataclass(value):
            yield name, value, field
        if dataclasses.is_dataclass(value):
            yield from leaves(value, name + ".")


def differences(stored: Any, settings: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, stored value, present value) of each setting that is not as it was stored.

    A setting that was not stored yet had its default. Parts that no table lists are compared too,
    by the name of their class and by their fields; a part of another kind is one difference.

    Args:
        stored: what `to_dict` gave, back from JSON.
        settings: of now.
        name: of both.
    """
    if not isinstance(stored, dict):
        yield name, stored, to_dict(settings)
        return
    start = f"{name}." if name else ""
    fields = {field.name: field for field in dataclasses.fields(settings)}
    for key in stored.keys() - fields.keys() - _ABOUT:
        yield start + key, stored[key], None
    for key, field in fields.items():
        value, old = getattr(settings, key), stored.get(key, dataclasses.MISSING)
        now = json.loads(json.dumps(_as_json(field, value)))
        if old is dataclasses.MISSING:
            old = json.loads(json.dumps(_as_json(field, _default(field))))
        kind = now.get("kind") if kinds_of(field) is not None else None
        known = old.get("kind") if isinstance(old, dict) else None
        # An earlier version wrote custom:CLASS for what no table lists.
        if kind and known not in (kind, f"custom:{kind.rpartition(':')[2]}"):
            yield f"{start}{key}", old.get("kind") if isinstance(old, dict) else old, kind
        elif dataclasses.is_dataclass(value):
            yield from differences(old, value, start + key)
        elif old != now:
            yield start + key, old, now


def _default(field: dataclasses.Field) -> Any:
    """The default of a field, or None where it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _plain(setting: str, kind: Any, value: Any) -> Any:
    items = typing.get_args(kind) if typing.get_origin(kind) is tuple else None
    if items and isinstance(value, list | tuple):
        return tuple(_plain(setting, items[0], each) for each in value)
    if not items and not isinstance(kind, type):
        return value  # of a part from outside, which may have settings of any type
    whole = isinstance(value, int) and not isinstance(value, bool)
    number = whole or (isinstance(value, float) and math.isfinite(value))
    fits = False if items else {int: whole, float: number}.get(kind)
    if not (fits if fits is not None else isinstance(value, kind)):
        raise InputError(f"{setting}={value!r}: must be {type_words(kind)}")
    return float(value) if kind is float else value


def type_words(kind: Any) -> str:
    """What a value of this type looks like, in words."""
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        example = {int: "64,32", float: "0.5,0.75"}.get(item, "one,two")
        return f"a list, each {type_words(item)}, such as {example} or ()"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return words.get(kind, str(kind))
