"""The cells of a sweep: a run for each combination of some settings' values."""

import copy
import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aejax import kinds
from aejax.config import Config, check, get, put
from aejax.errors import InputError, near

# The setting over which numbers are averaged.
SEED = "seed"
# What stands between the names, and between the values, of settings that change together.
AND = "&"

# A setting's values, or the values of settings that change together, a tuple each time.
Grid = Mapping[str | tuple[str, ...], Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A run of a sweep.

    Attributes:
        name: of its folder, such as latent_dim=16,seed=0.
        values: {setting: its value}; numbers, text and truth values as they are.
        config: checked.
    """

    name: str
    values: dict[str, Any]
    config: Config

    @property
    def group(self) -> dict[str, Any]:
        """The values without the seed: cells of one group are repetitions."""
        return {name: value for name, value in self.values.items() if name != SEED}


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The settings with others at some dotted names; parts are given as objects.

    A part is set before its own settings, in whatever order they stand.

    Raises:
        InputError: no such setting, or a value that it does not take.
    """
    config = copy.deepcopy(config)
    known = {name for name, _, _ in kinds.leaves(config)}
    for name, value in sorted(values.items(), key=lambda item: item[0].count(".")):
        if name not in known:
            raise InputError(f"config.{name}: no such setting{near(name, known)}")
        put(config, name, copy.deepcopy(value))  # other cells have the same part
        known = {name for name, _, _ in kinds.leaves(config)}
    config = kinds.rebuild(config)
    check(config)
    return config


def cells(grid: Grid, make_config: Callable[[dict[str, Any]], Config]) -> list[Cell]:
    """A cell for each combination; the seed changes last, so that different models come together.

    Args:
        grid: {setting: its values}; of settings that change together {their names: tuples}.
        make_config: {setting: value} -> checked settings.

    Raises:
        InputError: a setting without values, one that stands twice, or one with the same value
            twice.
    """
    spread = axes(grid)
    settings = [name for names in spread for name in names]
    order = sorted(spread, key=lambda names: SEED not in names)
    made = []
    for combination in itertools.product(*(spread[names] for names in order)):
        pairs = zip(order, combination, strict=True)
        chosen = {k: v for names, each in pairs for k, v in zip(names, each, strict=True)}
        made.append(make({name: chosen[name] for name in settings}, make_config))
    if len({cell.name for cell in made}) < len(made):
        raise InputError("sweep: two combinations are the same; each value may stand once")
    return made


def axes(grid: Grid) -> dict[tuple[str, ...], list[tuple[Any, ...]]]:
    """{names of the settings that change together: their values, as many each time}.

    Raises:
        InputError: nothing varies, a setting has no values or stands twice, or there are more or
            fewer values than names.
    """
    if not grid:
        raise InputError("sweep: is empty; must name a setting and its values")
    out: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for key, values in grid.items():
        names, label = ((key,), key) if isinstance(key, str) else (key, AND.join(key))
        if not values:
            raise InputError(f"sweep: {label} has no values; must have one or more")
        tuples = [(each,) if isinstance(key, str) else each for each in values]
        for each in tuples:
            if not isinstance(each, tuple | list) or len(each) != len(names):
                shown = AND.join(map(str, each)) if isinstance(each, tuple | list) else each
                raise InputError(
                    f"sweep: {label}={shown}: must be {len(names)} values, one for each setting"
                )
        out[tuple(names)] = [tuple(each) for each in tuples]
    every = [name for names in out for name in names]
    if twice := [name for name in every if every.count(name) > 1]:
        raise InputError(f"sweep: {twice[0]} stands twice; must stand once, with all of its values")
    return out


def make(
    values: dict[str, Any], make_config: Callable[[dict[str, Any]], Config], name: str = ""
) -> Cell:
    """The cell with these values; its values are those that its settings then have."""
    config = make_config(values)
    own = {setting: plain(get(config, setting)) for setting in values}
    return Cell(name or cell_name(own, shortened(list(own))), own, config)


def shortened(settings: Sequence[str]) -> dict[str, str]:
    """{dotted name: its last word, or the whole where two end alike}."""
    last = [name.rpartition(".")[2] for name in settings]
    return {
        name: word if last.count(word) == 1 else name
        for name, word in zip(settings, last, strict=True)
    }


def cell_name(values: Mapping[str, Any], short: Mapping[str, str]) -> str:
    """A cell's name, which can be a folder's."""
    words = (f"{short[name]}={plain(value)}" for name, value in values.items())
    return ",".join(re.sub(r"[^\w.=+-]+", "-", word).strip("-") for word in words)


def plain(value: Any) -> Any:
    """A value as JSON and tables hold it: parts by the name of their class."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, tuple | list):
        return ",".join(map(str, value)) or "()"
    return type(value).__name__


def split_values(text: str) -> tuple[str | tuple[str, ...], list[Any]]:
    """SETTING=VALUE,VALUE -> the setting and its values; commas in parentheses belong to a value.

    Settings that change together, A&B=1&x,2&y -> (A, B) and [(1, x), (2, y)].

    Raises:
        InputError: no setting or no value.
    """
    left, _, right = text.partition("=")
    names = [name.strip().removeprefix("config.") for name in left.split(AND)]
    values = split_outside(right, ",")
    tuples = [split_outside(each, AND) if len(names) > 1 else [each] for each in values]
    if not all(names) or not all(part for each in tuples for part in each):
        raise InputError(
            f"--sweep={text}: must be SETTING=VALUE,VALUE, such as model.latent_dim=8,16, or"
            " SETTING&SETTING=VALUE&VALUE,VALUE&VALUE"
        )
    if len(names) == 1:
        return names[0], values
    return tuple(names), [tuple(each) for each in tuples]


def split_outside(text: str, separator: str) -> list[str]:
    """The parts of a text between separators; those in parentheses are no separators."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == separator and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [each.strip() for each in found]
