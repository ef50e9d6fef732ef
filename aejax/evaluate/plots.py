"""Pictures as PNG bytes: arrays by Pillow, plots by Matplotlib's objects (no global state)."""

import io
from typing import Any

import numpy as np

_DOTS_PER_INCH = 160
_GREY = "#4c566a"
# More classes than this cannot be told apart by colours in a legend.
MOST_COLOURS = 20
_MOST_POINTS = 20_000


def image_png(image: np.ndarray) -> bytes:
    """uint8 [height, width, 1 or 3] -> PNG."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(out, "PNG")
    return out.getvalue()


def scatter_png(points: np.ndarray, label: np.ndarray | None, axes: tuple[str, str]) -> bytes:
    """Points in the plane, coloured by class.

    Args:
        points: [rows, 2]; of more than 20,000, that many are drawn, evenly taken.
        label: int [rows], or None.
        axes: what to write along both axes.
    """
    keep = np.linspace(0, len(points) - 1, min(len(points), _MOST_POINTS)).round().astype(int)
    # In random order, so that no class lies on top of another because of its number.
    keep = np.random.RandomState(0).permutation(keep)
    points = points[keep]
    figure, plot = _figure()
    size = float(np.clip(6000 / len(points), 3, 26))
    style: dict[str, Any] = {"s": size, "alpha": 0.8, "linewidths": 0, "color": _GREY}
    if label is not None:
        classes = np.unique(label)
        del style["color"]
        if len(classes) <= MOST_COLOURS:
            colours = _colours(len(classes))
            style["c"] = [colours[i] for i in np.searchsorted(classes, label[keep])]
            for name, colour in zip(classes, colours, strict=True):
                plot.scatter([], [], color=[colour], s=26, label=str(name), linewidths=0)
        else:
            style |= {"c": label[keep], "cmap": "turbo"}
    drawn = plot.scatter(points[:, 0], points[:, 1], **style)
    if label is not None and len(np.unique(label)) > MOST_COLOURS:
        figure.colorbar(drawn, ax=plot, label="class")
    plot.set_aspect("equal", adjustable="datalim")
    plot.set_xlabel(axes[0])
    plot.set_ylabel(axes[1])
    _legend(plot)
    return _png(figure)


def histogram_png(values: np.ndarray, label: np.ndarray | None, axis: str) -> bytes:
    """A histogram of values [rows]; classes are stacked where there are at most 20."""
    figure, plot = _figure()
    bins = list(np.histogram_bin_edges(values, bins=60))
    classes = np.unique(label) if label is not None else np.zeros(0)
    if label is not None and len(classes) <= MOST_COLOURS:
        plot.hist(
            [values[label == name] for name in classes],
            bins=bins,
            stacked=True,
            color=_colours(len(classes)),
            label=[str(name) for name in classes],
        )
    else:
        plot.hist(values, bins=bins, color=_GREY)
    plot.set_xlabel(axis)
    plot.set_ylabel("rows")
    _legend(plot)
    return _png(figure)


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


def _legend(plot: Any) -> None:
    """The classes, outside of the plot."""
    if plot.get_legend_handles_labels()[0]:
        plot.legend(title="class", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def _png(figure: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return out.getvalue()
