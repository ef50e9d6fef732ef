"""Kinds of parts by name: those of aejax, classes that the user names, installed plugins.

A kind is written in config.json and on the command line as

    dense                   of the table
    my_package:Wavelet      a class, by the module that it is in
    wavelet                 a plugin: an entry point of the table's group, such as aejax.coders

Nothing is registered by import. A class is imported where the user names it (in Python, by a flag,
by `parts`) or has installed it as a plugin under that name; reading a folder imports no other.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeVar

from aejax.errors import InputError, near

Method = TypeVar("Method", bound=Callable[..., Any])
_MARK = "_required"

# Classes from outside that the user has named in this process, by their spelling.
_NAMED: dict[str, type] = {}


class Kinds(Mapping[str, Any]):
    """A table of kinds: {name: dataclass, MODULE:CLASS of one, or None for no part at all}.

    A class that is written as MODULE:CLASS is imported when it is first used.

    Attributes:
        group: of entry points that give more of them.
        base: class that all derive from.
    """

    def __init__(self, group: str, base: type, kinds: dict[str, Any]):
        self.group, self.base, self._kinds = group, base, kinds

    def __getitem__(self, name: str) -> Any:
        kind = self._kinds[name]
        if not isinstance(kind, str):
            return kind
        module, _, attribute = kind.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def name(self, value: Any) -> str:
        """The name of the kind that `value` is."""
        cls = None if value is None else type(value)
        spelled = None if cls is None else spelling(cls)
        for name, kind in self._kinds.items():
            if kind is cls or kind == spelled:
                return name
        assert cls is not None and spelled is not None
        return next((one.name for one in self._plugins() if one.value == spelled), spelled)

    def find(self, setting: str, name: str) -> Any:
        """The dataclass of this name; None for no part at all.

        Args:
            setting: that it is the value of, for the message.
            name: of the kind.

        Raises:
            InputError: there is none, or it is no part of this kind.
        """
        if name in self:
            return self[name]
        if found := _NAMED.get(name) or _of_script(name):
            return self.checked(setting, found)
        if ":" in name:
            module, _, attribute = name.rpartition(":")
            where = "FILE.py" if module == "__main__" else module
            raise InputError(
                f"{setting}={name}: is not part of aejax, and is imported only where it is named;"
                f" accepted: parts=[{attribute}] in Python, --parts={where}:{attribute} for a"
                " program"
            )
        for one in self._plugins():
            if one.name == name:
                try:
                    return self.checked(setting, one.load())
                except (ImportError, AttributeError) as error:
                    raise InputError(f"{setting}={name}: the plugin {one.value}: {error}") from None
        known = [*self, *(one.name for one in self._plugins())]
        hint = near(name, known) or ", or a class of your own as PACKAGE:CLASS"
        raise InputError(f"{setting}={name}: must be one of {', '.join(known)}{hint}")

    def checked(self, setting: str, cls: Any) -> type:
        """The class, if it is a part of this kind.

        Raises:
            InputError: it is none, or lacks a method that its base marks as required.
        """
        derives = isinstance(cls, type) and issubclass(cls, self.base)
        # One that is no dataclass itself would have the fields of its base, and lose its own.
        if not derives or "__dataclass_fields__" not in vars(cls):
            name = getattr(cls, "__qualname__", cls)
            raise InputError(
                f"{setting}={name}: must be a dataclass that derives from"
                f" {self.base.__module__}.{self.base.__qualname__}"
            )
        if lacking := missing(cls):
            raise InputError(
                f"{setting}={spelling(cls)}: must have {' and '.join(lacking)}"
                " (see docs/how-to/own-part.md)"
            )
        return cls

    def _plugins(self) -> Iterator[importlib.metadata.EntryPoint]:
        yield from importlib.metadata.entry_points(group=self.group)


def required(unless: str = "", when: str = "") -> Callable[[Method], Method]:
    """Marks a method of a base class that its parts must have.

    Args:
        unless: another method, which may be written in its place.
        when: an attribute of the class; the method is required only where it is true.
    """

    def mark(method: Method) -> Method:
        setattr(method, _MARK, (unless, when))
        return method

    return mark


def missing(cls: type) -> list[str]:
    """Names of the required methods that a class does not have."""
    found = []
    for name in dir(cls):
        method = getattr(cls, name)
        if (mark := getattr(method, _MARK, None)) is None:
            continue
        unless, when = mark
        base = next(each for each in cls.__mro__ if vars(each).get(name) is method)
        replaced = unless and getattr(cls, unless) is not getattr(base, unless)
        if not replaced and (not when or getattr(cls, when)):
            found.append(name)
    return found


def use(parts: Iterable[type]) -> None:
    """Lets classes from outside be found by their spelling, from now on in this process.

    Raises:
        InputError: one is no class.
    """
    for cls in parts:
        if not isinstance(cls, type):
            raise InputError(f"parts: {cls!r} is no class; accepted: a list of classes of parts")
        _NAMED[spelling(cls)] = cls


def _of_script(name: str) -> type | None:
    """The named class for __main__:CLASS, which a script wrote: its file is a module elsewhere."""
    module, _, attribute = name.rpartition(":")
    if module != "__main__":
        return None
    return next((cls for cls in _NAMED.values() if cls.__qualname__ == attribute), None)


def spelling(cls: type) -> str:
    """How a class from outside is written: MODULE:CLASS."""
    return f"{cls.__module__}:{cls.__qualname__}"


def distribution(cls: type) -> str | None:
    """NAME VERSION of the installed distribution that a class comes from, or None."""
    package = cls.__module__.partition(".")[0]
    if package in ("aejax", "__main__"):
        return None
    for name in _packages().get(package, ()):
        return f"{name} {importlib.metadata.version(name)}"
    return None


@functools.cache
def _packages() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def from_file(path: str) -> ModuleType:
    """Runs a file as the module that is called as the file is, without .py."""
    name = os.path.basename(path).removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look there for the module that they are in.
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


def use_named(setting: str, name: str) -> None:
    """Imports the class that the user has named as MODULE:CLASS or FILE.py:CLASS.

    Modules of the working folder count.

    Raises:
        InputError: it cannot be imported, or is no class.
    """
    module, _, attribute = name.rpartition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = (
            from_file(module) if module.endswith(".py") else importlib.import_module(module)
        )
        for word in attribute.split("."):
            found = getattr(found, word)
    except (ImportError, OSError, AttributeError, ValueError, SyntaxError) as error:
        raise InputError(f"{setting}={name}: {type(error).__name__}: {error}") from None
    if not isinstance(found, type):
        raise InputError(f"{setting}={name}: is no class; must be MODULE:CLASS")
    use([found])
    _NAMED[name] = found  # also where it comes from another module than the one that was named
