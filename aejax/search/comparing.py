"""What layouts that were trained again over several seeds show, and what they do not."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aejax.nn.layout import ATTENTION
from aejax.search.space import network

# A task says something about attention where doing without is worse by so many deviations.
_CLEARLY = 5.0
_DRAWS = 2000
# A correlation of fewer layouts says nothing.
_FEWEST = 5
# How near a predicted time is to be.
_NEAR = 0.1


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean of paired differences, with half the width of its 95 % interval (Student's t)."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:+.3g} ± {self.half:.2g}"

    def against(self, margin: float) -> str:
        """Whether it is better, worse by less than a margin or by more, or none of it was shown."""
        if self.mean + self.half < 0:
            return "better"
        if self.mean + self.half <= margin:
            worse = "worse, but " if self.mean - self.half > 0 else ""
            return f"{worse}within the margin of {margin:g}"
        if self.mean - self.half > margin:
            return f"worse by more than the margin of {margin:g}"
        return f"not shown to be within the margin of {margin:g}"


def difference(values: ArrayLike, reference: ArrayLike) -> Difference:
    """Of two rows of losses of the same seeds: two or more."""
    from scipy import stats

    low, high = stats.ttest_rel(values, reference).confidence_interval(0.95)
    return Difference(float(low + high) / 2, float(high - low) / 2)


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation, its 95 % interval, and the one between two seeds' own losses."""

    value: float
    low: float
    high: float
    ceiling: float


def correlation(scores: ArrayLike, losses: np.ndarray) -> Correlation:
    """Of scores and the mean losses of the same layouts.

    The interval is that of layouts drawn anew with repeats; the ceiling is the mean over pairs of
    seeds, NaN where there is one.

    Args:
        scores: one a layout.
        losses: [layouts, seeds].
    """
    given, draw = np.asarray(scores), np.random.RandomState(0)
    mean = losses.mean(axis=1)
    again = [draw.randint(len(given), size=len(given)) for _ in range(_DRAWS)]
    drawn = [_spearman(given[each], mean[each]) for each in again]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    pairs = [_spearman(*pair) for pair in itertools.combinations(losses.T, 2)]
    ceiling = float(np.mean(pairs)) if pairs else float("nan")
    return Correlation(_spearman(given, mean), float(low), float(high), ceiling)


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    from scipy import stats

    if min(np.ptp(one), np.ptp(other)) == 0:  # the ranks of equal values say nothing
        return float("nan")
    found: Any = stats.spearmanr(one, other)
    return float(found.statistic)


def notes(found: dict[str, Any]) -> list[str]:
    """Sentences on the layouts of layouts.json that were trained again with two or more seeds."""
    again, layouts = found.get("again", {}), found["layouts"]
    if not again or len(again[layouts["parent"]]["nll"]) < 2:
        return []
    losses = {layout: np.array(one["nll"]) for layout, one in again.items()}
    out = [_without(losses, layouts["parent"])]
    for name in ("supernet", "replacement", "trials"):
        if layouts.get(name, layouts["parent"]) != layouts["parent"]:
            out.append(f"{name}: {_against_parent(found, losses, layouts[name])}")
    for what, arms in found.get("equal", {}).items():
        for layout, one in arms.items():
            than = difference(one["nll"], losses[layouts["parent"]])
            out.append(
                f"{layout} with feed-forward blocks of {one['feed_forward']}, at the parent's"
                f" {what} ({one['has'] / one['parent_has']:.3f} of it): {than} nats a row (95 %):"
                f" {than.against(found['margin'])}"
            )
    drawn = [layout for name, layout in layouts.items() if name.startswith("random")]
    own = chosen(layouts)
    if own != layouts["parent"]:
        out += _against_rules(found, losses, own)
    if drawn:
        out.append(_against_random(found, losses, own, drawn))
    for what, scores in _scores(found, drawn).items():
        known = [layout for layout in drawn if layout in scores]
        if len(known) >= _FEWEST:
            seen = correlation(
                [scores[layout] for layout in known], np.array([losses[layout] for layout in known])
            )
            out.append(
                f"rank correlation of {what} with the losses of {len(known)} random layouts:"
                f" {seen.value:.2f} (95 %: {seen.low:.2f} to {seen.high:.2f}); between two seeds:"
                f" {seen.ceiling:.2f}"
            )
    return [*out, *_predicted(found)]


def _scores(found: dict[str, Any], drawn: list[str]) -> dict[str, dict[str, float]]:
    """{what layouts were chosen by: {layout: its score}}."""
    rounds = found.get("trials", {}).get("rounds", [{}])
    tried = {network(layout): loss for layout, loss in rounds[0].items()}
    return {
        "replacement's scores": found.get("scores", {}),
        "the first trials' losses": {
            layout: tried[network(layout)] for layout in drawn if network(layout) in tried
        },
    }


def _against_rules(found: dict[str, Any], losses: dict[str, np.ndarray], own: str) -> Iterator[str]:
    """The layout chosen beside those that a rule gives."""
    for name, layout in found["layouts"].items():
        ruled = name == "cosine" or ":" in name
        if ruled and layout != own:
            than = difference(losses[own], losses[layout])
            yield (
                f"{own} ({attention(own)} blocks of attention): {than} nats a row against {name},"
                f" {layout} ({attention(layout)}) (95 %): {than.against(found['margin'])}"
            )


def _against_random(
    found: dict[str, Any], losses: dict[str, np.ndarray], own: str, drawn: list[str]
) -> str:
    """The layout chosen beside the median of random ones, and what time these take."""
    than = difference(losses[own], np.median([losses[layout] for layout in drawn], axis=0))
    said = (
        f"{own}: {than} nats a row against the median of {len(drawn)} random layouts of the"
        " same blocks (95 %, over seeds)"
    )
    if latency := found.get("latency"):
        time = latency[own]["measured"]["training"]
        times = [latency[layout]["measured"]["training"] / time for layout in drawn]
        said += f", which take {min(times):.2f} to {max(times):.2f} of its time in training"
    return said


def attention(layout: str) -> int:
    """How many blocks of attention it has."""
    return sum(letter in ATTENTION for letter in layout)


def _predicted(found: dict[str, Any]) -> Iterator[str]:
    """How many layouts' times the sum of their blocks' predicts."""
    known = [one for one in found.get("latency", {}).values() if "predicted" in one]
    for kind in ("forward", "training"):
        away = [abs(one["predicted"][kind] / one["measured"][kind] - 1) for one in known]
        if away:
            near = sum(each <= _NEAR for each in away)
            yield (
                f"the sum of blocks, timed in the same rounds, is within {_NEAR:.0%} of {near} of"
                f" {len(away)} layouts' {kind} times, {max(away):.1%} off at most"
            )


def chosen(layouts: dict[str, Any]) -> Any:
    """The layout of the trials; else that of replacement, else of the supernet, that is not the
    parent; else the parent.
    """
    if "trials" in layouts:
        return layouts["trials"]
    found = [layouts[name] for name in ("replacement", "supernet") if name in layouts]
    return next((one for one in found if one != layouts["parent"]), layouts["parent"])


def _without(losses: dict[str, np.ndarray], parent: str) -> str:
    """Whether the task is one that says something about attention."""
    none = [layout for layout in losses if not set(layout) & set(ATTENTION)]
    if not none:
        return "no layout without attention was trained: this says nothing about attention"
    best = min(none, key=lambda layout: losses[layout].mean())
    spread = np.sqrt((losses[best].var(ddof=1) + losses[parent].var(ddof=1)) / 2)
    away = (losses[best].mean() - losses[parent].mean()) / max(spread, 1e-12)
    said = f"without attention ({best}) the loss is {away:.1f} deviations above the parent's"
    return said if away >= _CLEARLY else f"{said}: this task says nothing about attention"


def _against_parent(found: dict[str, Any], losses: dict[str, np.ndarray], layout: str) -> str:
    """A layout beside the parent: attention, time and loss."""
    parent = found["layouts"]["parent"]
    than = difference(losses[layout], losses[parent])
    said = f"{layout} has {attention(layout)} blocks of attention for the parent's"
    said += f" {attention(parent)}"
    if latency := found.get("latency"):
        saved = [
            1 - latency[layout]["measured"][kind] / latency[parent]["measured"][kind]
            for kind in ("forward", "training")
        ]
        said += f", takes {saved[0]:.0%} less time forward and {saved[1]:.0%} less in training"
    seeds = len(losses[layout])
    return f"{said}; {than} nats a row (95 %, {seeds} seeds): {than.against(found['margin'])}"
