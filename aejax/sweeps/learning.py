"""Learning curves of a sweep: a term of metrics.jsonl over the examples seen, a line a group."""

import csv
import dataclasses
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aejax.config import Config
from aejax.errors import InputError, near
from aejax.evaluation import plots
from aejax.evaluation.result import Figure
from aejax.runs.rows_file import read_history
from aejax.sweeps.cells import SEED

CURVES = "curves.csv"
_SPLITS = ("train", "test")
_MOST = 12  # lines in one panel
# Columns of metrics.jsonl that are no terms of a loss.
_ABOUT = ("step", "split", "learning_rate", "examples_per_second", "seconds")
_LOSS = "loss"


@dataclasses.dataclass(frozen=True)
class Line:
    """A term of a group on one split, over its seeds.

    Attributes:
        examples: seen, int [points], rising.
        mean: over seeds, float [points].
        low: the lower edge of the band, float [points]: the least of two seeds, one standard error
            below the mean of more, the mean of one.
        high: the upper edge.
        seeds: how many.
    """

    examples: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


@dataclasses.dataclass(frozen=True)
class Learned:
    """The learning curves of a sweep.

    Attributes:
        term: whose they are.
        settings: {group: {setting: value}}.
        lines: {split: {group: its line}}; groups whose runs have no such row are left out.
        share: whether the term is a share of the rows, which is drawn in %.
    """

    term: str
    settings: dict[str, dict[str, Any]]
    lines: dict[str, dict[str, Line]]
    share: bool = False


def read(
    workdir: str,
    groups: Mapping[str, Sequence[dict[str, Any]]],
    configs: Mapping[str, Config],
    asked: str = "",
) -> Learned:
    """The learning curves of the runs that have ended with a finite loss.

    Args:
        workdir: the sweep's folder.
        groups: {name: records of the runs that differ in their seeds alone}.
        configs: {name of a run: its settings}.
        asked: the term; "" for `config.evaluation.metric`, or the loss where runs have several.

    Raises:
        InputError: no run reports this term.
    """
    done = {
        group: [one["name"] for one in records if one["status"] == "done"]
        for group, records in groups.items()
    }
    names = [name for each in done.values() for name in each]
    histories = {name: read_history(os.path.join(workdir, "runs", name)) for name in names}
    if asked and names:
        check_term(asked, (key for history in histories.values() for key in history))
    metrics = {config.evaluation.metric for config in configs.values()}
    term = asked or (metrics.pop() if len(metrics) == 1 else _LOSS)
    lines: dict[str, dict[str, Line]] = {split: {} for split in _SPLITS}
    for split in _SPLITS:
        for group, each in done.items():
            columns = [values_at(histories[name], split, term) for name in each]
            columns = [column for column in columns if column]
            line = over_seeds(columns, configs[each[0]].batch_size) if columns else None
            if line is not None:
                lines[split][group] = line
    settings = {group: records[0]["settings"] for group, records in groups.items()}
    share = any(term in config.model.shares for config in configs.values())
    return Learned(term, settings, lines, share)


def heading(name: str, percent: bool) -> str:
    """A number's name for tables and axes, with its unit where that is %."""
    return f"{name} in %" if percent else name


def check_term(term: str, known: Iterable[str]) -> None:
    """Raises InputError where a term is none of the columns that there are."""
    terms = sorted({*known} - {*_ABOUT})
    if term not in terms:
        raise InputError(
            f"--curve={term}: no run reports it; must be one of {', '.join(terms)}"
            f"{near(term, terms)}"
        )


def values_at(history: Mapping[str, np.ndarray], split: str, term: str) -> dict[int, float]:
    """{step: value} of the rows of a split in which a term is finite."""
    if term not in history:
        return {}
    rows = (history["split"] == split) & np.isfinite(history[term])
    return dict(zip(history["step"][rows].tolist(), history[term][rows].tolist(), strict=True))


def over_seeds(columns: Sequence[Mapping[int, float]], batch_size: int) -> Line | None:
    """The mean and the band, at the steps that all seeds have; None where there is no such step.

    Args:
        columns: {step: value} of each seed.
        batch_size: examples a step.
    """
    steps = sorted(set.intersection(*(set(each) for each in columns)))
    if not steps:
        return None
    values = np.array([[each[step] for step in steps] for each in columns])
    mean, count = values.mean(0), len(columns)
    low, high = values.min(0), values.max(0)
    if count > 2:
        error = values.std(0, ddof=1) / math.sqrt(count)
        low, high = mean - error, mean + error
    return Line(np.array(steps) * batch_size, mean, low, high, count)


def csv_text(learned: Learned, swept: Sequence[str]) -> str:
    """All lines as a table: the settings but the seed, split, examples, mean, low, high, seeds."""
    settings = [name for name in swept if name != SEED]
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow([*settings, "split", "examples", "mean", "low", "high", "seeds"])
    for split, lines in learned.lines.items():
        for group, line in lines.items():
            start = [*(str(learned.settings[group][name]) for name in settings), split]
            columns = (line.examples, line.mean, line.low, line.high)
            for numbers in zip(*(column.tolist() for column in columns), strict=True):
                rows.writerow([*start, *numbers, line.seeds])
    return out.getvalue()


def figures(learned: Learned) -> list[Figure]:
    """The picture, with a panel for each split that has lines; none where no split has."""
    panels = {split: lines for split, lines in learned.lines.items() if lines}
    if not panels:
        return []
    groups = list(dict.fromkeys(group for lines in panels.values() for group in lines))
    last = list(panels)[-1]
    drawn = groups if len(groups) <= _MOST else _best(groups, panels[last])
    factor, name = 100 if learned.share else 1, heading(learned.term, learned.share)
    series = {
        split: {
            group: (line.examples, factor * line.mean, factor * line.low, factor * line.high)
            for group in drawn
            if (line := lines.get(group))
        }
        for split, lines in panels.items()
    }
    seeds = {
        line.seeds for lines in panels.values() for group, line in lines.items() if group in drawn
    }
    words = [f"{name} over the examples seen, a line for each combination of settings"]
    if "train" in panels:
        words.append("on the training split the mean over the steps since the row before")
    words += [
        f"rows of the {split} split have no {learned.term}"
        for split in _SPLITS
        if split not in panels
    ]
    caption = "; ".join(words) + "." + _band_words(seeds)
    if len(drawn) < len(groups):
        caption += (
            f" Of {len(groups)} lines the {len(drawn)} with the least last value on the {last}"
            f" split are drawn; {CURVES} has all."
        )
    png = plots.bands_png(series, ("examples seen", name))
    return [Figure("learning", png, caption)]


def _best(groups: Sequence[str], lines: Mapping[str, Line]) -> list[str]:
    """The groups whose last value is least, in the order in which they came."""
    last = {group: lines[group].mean[-1] if group in lines else math.inf for group in groups}
    chosen = sorted(groups, key=lambda group: last[group])[:_MOST]
    return [group for group in groups if group in chosen]


def _band_words(seeds: set[int]) -> str:
    """What lines and bands of groups with so many seeds are."""
    bands = []
    if 2 in seeds:
        bands.append("of two seeds from the least to the greatest")
    if more := sorted(count for count in seeds if count > 2):
        many = f"{more[0]}" if len(more) == 1 else f"{more[0]} to {more[-1]}"
        bands.append(f"of {many} seeds ± one standard error")
    return f" Lines are means over seeds; bands are {', '.join(bands)}." if bands else ""
