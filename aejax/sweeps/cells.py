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

    Raises:
        InputError: no such setting, or a value that it does not take.
    """
    config = copy.deepcopy(config)
    known = {name for name, _, _ in kinds.leaves(config)}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"config.{name}: no such setting{near(name, known)}")
        put(config, name, value)
        known = {name for name, _, _ in kinds.leaves(config)}
    config = kinds.rebuild(config)
    check(config)
    return config


def cells(
    grid: Mapping[str, Sequence[Any]], make_config: Callable[[dict[str, Any]], Config]
) -> list[Cell]:
    """A cell for each combination; the seed changes last, so that different models come together.

    Args:
        grid: {setting: its values}.
        make_config: {setting: value} -> checked settings.

    Raises:
        InputError: a setting without values, or one with the same value twice.
    """
    if not grid:
        raise InputError("sweep: is empty; must name a setting and its values")
    for name, values in grid.items():
        if not values:
            raise InputError(f"sweep: {name} has no values; must have one or more")
    order = sorted(grid, key=lambda name: name != SEED)
    combinations = itertools.product(*(grid[name] for name in order))
    chosen = [dict(zip(order, values, strict=True)) for values in combinations]
    made = [make({name: values[name] for name in grid}, make_config) for values in chosen]
    if len({cell.name for cell in made}) < len(made):
        raise InputError("sweep: two combinations are the same; each value may stand once")
    return made


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
        return ",".join(map(str, value))
    return type(value).__name__


def split_values(text: str) -> tuple[str, list[str]]:
    """SETTING=VALUE,VALUE -> the setting and its values; commas in parentheses belong to a value.

    Raises:
        InputError: no setting or no value.
    """
    name, _, values = text.removeprefix("config.").partition("=")
    found, depth = [""], 0
    for letter in values:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    found = [each.strip() for each in found]
    if not name or not all(found):
        raise InputError(
            f"--sweep={text}: must be SETTING=VALUE,VALUE, such as model.latent_dim=8,16"
        )
    return name, found
