"""Pictures as PNG bytes: arrays by Pillow, plots by Matplotlib's objects (no global state)."""

import io
import textwrap
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from aejax import pictures

_DOTS_PER_INCH = 160
_GREY = "#4c566a"
# More classes than this cannot be told apart by colours in a legend.
MOST_COLOURS = 20
_MOST_POINTS = 20_000
_GRID_PIXELS = 960
# Points so many times as far from the minimum as the median are drawn at the edge.
_FAR = 10.0
_WIDE = 10
_VISIBLE = 1e-3  # bars that are shorter than this share of all means' range are left out
_BESIDE_LETTERS = 30  # legends with longer names are below the plot
_LEGEND_LETTERS = 46  # letters in a line of a legend below a plot of 4.2 inches
_NARROW = 8  # points of letters in a narrow plot; on a page those of wide ones are as large


def image_png(image: np.ndarray) -> bytes:
    """uint8 [height, width, 1 or 3] -> PNG."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(out, "PNG")
    return out.getvalue()


def grid_png(images: np.ndarray) -> bytes:
    """Images in rows and columns, each pixel enlarged so that the whole is about 960 wide.

    Args:
        images: [rows, columns, height, width, channels] in [0, 1].
    """
    grid = pictures.grid(images)
    return image_png(pictures.enlarged(grid, max(1, round(_GRID_PIXELS / grid.shape[1]))))


def scatter_png(
    points: np.ndarray,
    label: np.ndarray | None,
    axes: tuple[str, str],
    classes: Sequence[str] = (),
) -> bytes:
    """Points in the plane, coloured by class.

    Args:
        points: [rows, 2]; of more than 20,000, that many are drawn, evenly taken.
        label: int [rows], or None.
        axes: what to write along both axes.
        classes: names of the labels 0, 1, ...; others are called by their numbers.
    """
    keep = np.linspace(0, len(points) - 1, min(len(points), _MOST_POINTS)).round().astype(int)
    # In random order, so that no class is drawn on top of the others.
    keep = np.random.RandomState(0).permutation(keep)
    points = points[keep]
    figure, plot = _figure()
    size = float(np.clip(6000 / len(points), 3, 26))
    style: dict[str, Any] = {"s": size, "alpha": 0.8, "linewidths": 0, "color": _GREY}
    if label is not None:
        numbers = np.unique(label)
        del style["color"]
        if len(numbers) <= MOST_COLOURS:
            colours = _colours(len(numbers))
            style["c"] = [colours[i] for i in np.searchsorted(numbers, label[keep])]
            for number, colour in zip(numbers, colours, strict=True):
                name = class_name(int(number), classes)
                plot.scatter([], [], color=[colour], s=26, label=name, linewidths=0)
        else:
            style |= {"c": label[keep], "cmap": "turbo"}
    drawn = plot.scatter(points[:, 0], points[:, 1], **style)
    if label is not None and len(np.unique(label)) > MOST_COLOURS:
        figure.colorbar(drawn, ax=plot, label="class")
    plot.set_aspect("equal", adjustable="datalim")
    plot.set_xlabel(axes[0])
    plot.set_ylabel(axes[1])
    _legend(plot)
    return as_png(figure)


def class_name(number: int, classes: Sequence[str]) -> str:
    """A label's name; its number where it has none."""
    name = classes[number] if 0 <= number < len(classes) else str(number)
    return f" {name}" if name.startswith("_") else name  # Matplotlib hides names like _this


def histogram_png(
    values: np.ndarray,
    label: np.ndarray | None,
    axis: str,
    classes: Sequence[str] = (),
    limit: float | None = None,
) -> bytes:
    """A histogram of values, or an outline a class, in shares of its rows, of at most 20 classes.

    Args:
        values: [rows].
        label: int [rows], or None.
        axis: what to write along the values.
        classes: names of the labels 0, 1, ...
        limit: where to draw a threshold; None for none.
    """
    from matplotlib.ticker import MaxNLocator

    figure, plot = _figure()
    bins = list(np.histogram_bin_edges(values, int(np.clip(2 * len(values) ** 0.5, 10, 60))))
    numbers = np.unique(label) if label is not None else np.zeros(0, np.int32)
    if label is not None and len(numbers) <= MOST_COLOURS:
        for number, colour in zip(numbers, _colours(len(numbers)), strict=True):
            own = values[label == number]
            name = f"{class_name(int(number), classes)} ({len(own)} rows)"
            style = {"weights": np.full(len(own), 100 / len(own)), "color": colour}
            plot.hist(own, bins=bins, histtype="step", linewidth=1.4, label=name, **style)
        plot.set_ylabel("% of the rows of each class")
    else:
        plot.hist(values, bins=bins, color=_GREY)
        plot.yaxis.set_major_locator(MaxNLocator(integer=True))
        plot.set_ylabel("rows")
    if limit is not None:
        plot.axvline(limit, color="black", linestyle="--", label=f"threshold {limit:.4g}")
    plot.set_xlabel(axis)
    _legend(plot, "" if label is None else "class")
    return as_png(figure)


def bars_png(values: np.ndarray, axes: tuple[str, str]) -> bytes:
    """A bar for each value [n], in their order."""
    from matplotlib.ticker import MaxNLocator

    figure, plot = _figure()
    plot.bar(np.arange(1, len(values) + 1), values, width=0.8, color="#5e81ac")
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.set_xlabel(axes[0])
    plot.set_ylabel(axes[1])
    return as_png(figure)


def lines_png(
    series: dict[str, tuple[np.ndarray, np.ndarray]], axes: tuple[str, str], log: bool = False
) -> bytes:
    """Lines by name: {name: (x [n], y [n])}; `log` for the y axis."""
    figure, plot = _figure()
    for (name, (x, y)), colour in zip(series.items(), _colours(len(series)), strict=False):
        plot.plot(x, y, color=colour, label=name, linewidth=1.4)
    if log:
        plot.set_yscale("log")
    plot.set_xlabel(axes[0])
    plot.set_ylabel(axes[1])
    _legend(plot, "")
    return as_png(figure)


def curves_png(
    series: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], axes: tuple[str, str]
) -> bytes:
    """Curves by name with error bars, over a logarithmic axis where x spans a factor of eight.

    Args:
        series: {name: (x [n], mean [n], half the length of the bar [n])}.
        axes: what to write along both axes.
    """
    figure, plot = _figure()
    # Bars of rounding alone, as those of PCA, would be seen in the legend and nowhere else.
    visible = _VISIBLE * np.ptp(np.concatenate([mean for _, mean, _ in series.values()]))
    for (name, (x, mean, bar)), colour in zip(series.items(), _colours(len(series)), strict=False):
        bars = {"yerr": bar, "capsize": 3} if np.any(bar > visible) else {}
        plot.errorbar(x, mean, **bars, color=colour, label=name, fmt="o-", linewidth=1.4)
    every = np.unique(np.concatenate([x for x, _, _ in series.values()]))
    if every[0] > 0 and every[-1] >= 8 * every[0]:
        plot.set_xscale("log")
        plot.set_xticks(every, [f"{x:g}" for x in every])
        plot.minorticks_off()
    plot.set_xlabel(axes[0])
    plot.set_ylabel(axes[1])
    if max(map(len, series)) <= _BESIDE_LETTERS:
        _legend(plot, "")
    else:
        handles, names = plot.get_legend_handles_labels()
        _legend_below(figure, handles, [textwrap.fill(name, 2 * _LEGEND_LETTERS) for name in names])
        figure.set_figheight(5 + 0.2 * len(names))
    return as_png(figure)


def bands_png(
    panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]],
    axes: tuple[str, str],
) -> bytes:
    """Curves by name with bands, in panels below one another; narrow, for small screens.

    An axis along y is logarithmic where values are above 0 and span a factor of ten.

    Args:
        panels: {title: {name: (x [n], y [n], lower and upper edge of the band [n])}}; a name has
            one colour in all of them.
        axes: what to write along x, and along the y of each panel.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    labels = [textwrap.fill(name, _LEGEND_LETTERS) for name in names]
    lines = sum(label.count("\n") + 1 for label in labels)
    size = (4.2, 0.6 + 2.3 * len(panels) + 0.2 * lines)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    plots = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    colours = dict(zip(names, _colours(len(names)), strict=True))
    drawn: dict[str, Any] = {}
    for plot, (title, series) in zip(plots, panels.items(), strict=True):
        plot.grid(color="#e5e9f0", linewidth=0.8)
        plot.set_axisbelow(True)
        plot.spines[["top", "right"]].set_visible(False)
        for name, (x, y, low, high) in series.items():
            marker = "o" if len(x) == 1 else None
            (drawn[name],) = plot.plot(x, y, color=colours[name], linewidth=1.4, marker=marker)
            if np.any(low < high):
                plot.fill_between(x, low, high, color=colours[name], alpha=0.2, linewidth=0)
        values = np.concatenate([y for _, y, _, _ in series.values()])
        if values.min() > 0 and values.max() > _WIDE * values.min():
            plot.set_yscale("log")
        plot.set_title(title, loc="left", fontsize=_NARROW)
        plot.set_ylabel(axes[1], fontsize=_NARROW)
        plot.tick_params(which="both", labelsize=_NARROW)
        plot.yaxis.get_offset_text().set_fontsize(_NARROW)
    plots[-1].set_xlabel(axes[0], fontsize=_NARROW)
    plots[-1].xaxis.get_offset_text().set_fontsize(_NARROW)
    plots[-1].locator_params(axis="x", nbins=6)
    figure.align_ylabels(plots)
    _legend_below(figure, [drawn[name] for name in names], labels, _NARROW)
    return as_png(figure)


def points_png(
    points: dict[str, tuple[float, np.ndarray]],
    axes: tuple[str, str],
    line: list[str],
    unnamed: Collection[str] = (),
) -> bytes:
    """Named points with error bars of one standard deviation; outliers are drawn at the edge.

    Args:
        points: {name: (x, values of y [n])}.
        axes: what to write along both axes.
        line: names of points that a line joins, in its order.
        unnamed: names of points that are drawn pale and without a name.
    """
    figure, plot = _figure()
    means = {name: float(np.mean(values)) for name, (_, values) in points.items()}
    least, middle = min(means.values()), float(np.median(list(means.values())))
    edge = least + _FAR * (middle - least) if middle > least else np.inf
    for name, (x, values) in points.items():
        bar = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        colour, mean = "#b8c0cc" if name in unnamed else _GREY, means[name]
        if mean > edge:
            plot.plot(x, edge, "^", color=colour)
            name, mean = f"{name}: {mean:.3g}", edge
        else:
            plot.errorbar(x, mean, yerr=bar, fmt="o", color=colour, capsize=3)
        if name not in unnamed:
            plot.annotate(name, (x, mean), xytext=(5, 4), textcoords="offset points", fontsize=7)
    if line:
        joined = [name for name in line if means[name] <= edge]
        plot.plot(
            [points[name][0] for name in joined],
            [means[name] for name in joined],
            color="#bf616a",
            linewidth=1.2,
        )
    plot.margins(x=0.12)
    plot.set_xlabel(axes[0])
    plot.set_ylabel(axes[1])
    return as_png(figure)


def boxes_png(rows: dict[str, str], colours: dict[str, str]) -> bytes:
    """Strings as rows of coloured boxes, a letter a box.

    Args:
        rows: {name: letters}.
        colours: of each letter; letters without one leave a gap.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    longest = max(map(len, rows.values()))
    size = (2.4 + 0.32 * longest, 0.5 + 0.36 * len(rows))
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    plot = figure.add_subplot()
    for height, letters in enumerate(reversed(rows.values())):
        for place, letter in enumerate(letters):
            if letter in colours:
                box = Rectangle((place, height + 0.1), 0.9, 0.8, color=colours[letter])
                plot.add_patch(box)
                middle = (place + 0.45, height + 0.5)
                plot.annotate(letter, middle, ha="center", va="center", fontsize=8)
    plot.set_xlim(0, longest)
    plot.set_ylim(0, len(rows))
    plot.set_yticks(np.arange(len(rows)) + 0.5, list(reversed(rows)), fontsize=8)
    plot.set_xticks([])
    plot.spines[:].set_visible(False)
    plot.tick_params(length=0)
    return as_png(figure)


def named_bars_png(bars: dict[str, float], colours: Sequence[str], axis: str) -> bytes:
    """Horizontal bars by name, from above; a value that is not finite leaves a gap."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.6 + 0.24 * len(bars)), layout="constrained", facecolor="white")
    plot = figure.add_subplot()
    heights = np.arange(len(bars))[::-1]
    plot.barh(heights, np.nan_to_num(list(bars.values())), color=list(colours))
    plot.axvline(0, color=_GREY, linewidth=0.8)
    plot.set_yticks(heights, list(bars), fontsize=8)
    plot.set_ylim(-0.6, len(bars) - 0.4)
    plot.grid(axis="x", color="#e5e9f0", linewidth=0.8)
    plot.set_axisbelow(True)
    plot.spines[["top", "right", "left"]].set_visible(False)
    plot.tick_params(axis="y", length=0)
    plot.set_xlabel(axis)
    return as_png(figure)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained", facecolor="white")
    plot = figure.add_subplot()
    plot.grid(color="#e5e9f0", linewidth=0.8)
    plot.set_axisbelow(True)
    plot.spines[["top", "right"]].set_visible(False)
    return figure, plot


def _colours(count: int) -> list[Any]:
    import matplotlib

    table = matplotlib.colormaps["tab10" if count <= 10 else "tab20"]
    return [table(i) for i in range(count)]


def _legend_below(
    figure: Any, handles: Sequence[Any], names: Sequence[str], points: int = 9
) -> None:
    """The names, below the whole picture, in letters of so many points."""
    place = {"loc": "outside lower left", "frameon": False, "fontsize": points}
    for text in figure.legend(handles, names, **place).get_texts():
        text.set_parse_math(False)  # a name with dollar signs is no formula


def _legend(plot: Any, title: str = "class") -> None:
    """The names, outside of the plot."""
    if plot.get_legend_handles_labels()[0]:
        place = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
        for text in plot.legend(title=title, frameon=False, **place).get_texts():
            text.set_parse_math(False)  # a name with dollar signs is no formula


def as_png(figure: Any) -> bytes:
    """A matplotlib figure as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return out.getvalue()
