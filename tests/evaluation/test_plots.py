"""What plots draw, read off Matplotlib's figure before it becomes a PNG."""

import numpy as np

from aejax.evaluation import plots


def test_points_that_are_far_above_stand_at_the_edge_and_pale_ones_have_no_name(monkeypatch):
    monkeypatch.setattr(plots, "as_png", lambda figure: figure)
    points = {
        "best": (1.0, np.array([23.0, 23.2])),
        "second": (2.0, np.array([23.4, 23.4])),
        "drawn": (3.0, np.array([23.6, 23.6])),
        "none": (4.0, np.array([45.0, 45.2])),
    }
    figure = plots.points_png(points, ("x", "y"), ["best", "none", "second"], {"drawn"})
    (plot,) = figure.axes
    assert {each.get_text() for each in plot.texts} == {"best", "second", "none: 45.1"}
    # The least is 23.1 and the middle 23.5: the edge is ten times as far.
    heights = np.concatenate([np.ravel(line.get_ydata()) for line in plot.lines])
    np.testing.assert_allclose(heights.max(), 27.1)
    joined = plot.lines[-1]
    assert list(joined.get_xdata()) == [1.0, 2.0]


def test_points_of_one_height_are_all_drawn(monkeypatch):
    monkeypatch.setattr(plots, "as_png", lambda figure: figure)
    points = {"one": (1.0, np.array([2.0])), "other": (2.0, np.array([2.0]))}
    (plot,) = plots.points_png(points, ("x", "y"), []).axes
    assert {each.get_text() for each in plot.texts} == {"one", "other"}


def legend(figure) -> list[str]:
    return [each.get_text() for each in figure.axes[0].get_legend().get_texts()]


def test_a_legend_has_the_names_of_the_classes(monkeypatch):
    monkeypatch.setattr(plots, "as_png", lambda figure: figure)
    label, classes = np.array([0, 2, 2, 3, 4]), ("cats", "owls", "_dogs", "$5 and $6")
    wanted = ["cats", " _dogs", "$5 and $6", "4"]
    points = np.arange(10.0).reshape(5, 2)
    assert legend(plots.scatter_png(points, label, ("x", "y"), classes)) == wanted
    histogram = plots.histogram_png(points[:, 0], label, "x", classes)
    assert legend(histogram) == [
        f"{name} ({count} rows)" for name, count in zip(wanted, (1, 2, 1, 1), strict=True)
    ]
    assert not any(each.get_parse_math() for each in histogram.axes[0].get_legend().get_texts())
    assert legend(plots.scatter_png(points, label, ("x", "y"))) == ["0", "2", "3", "4"]


def test_a_histogram_compares_classes_and_shows_the_threshold(monkeypatch):
    monkeypatch.setattr(plots, "as_png", lambda figure: figure)
    values = np.concatenate([np.linspace(0, 1, 90), np.linspace(2, 3, 10)])
    label = (values > 1.5).astype(np.int32)
    figure = plots.histogram_png(values, label, "error", ("normal", "anomalous"), limit=1.25)
    (plot,) = figure.axes
    assert legend(figure) == ["normal (90 rows)", "anomalous (10 rows)", "threshold 1.25"]
    (line,) = plot.lines
    assert set(line.get_xdata()) == {1.25}
    # Outlines that stand on 0 each, not on one another, and hold 100 % each.
    for patch in plot.patches:
        assert not patch.get_fill() and patch.get_xy()[:, 1].min() == 0
    total = sum(patch.get_xy()[1:-1:2, 1].sum() for patch in plot.patches)
    np.testing.assert_allclose(total, 200)
    (plot,) = plots.histogram_png(np.array([0.0, 1.0, 1.0]), None, "error").axes
    ticks = plot.yaxis.get_ticklocs()
    assert np.array_equal(ticks, np.round(ticks)) and len(ticks) > 1


def test_only_a_curve_with_error_bars_has_them_in_the_legend(monkeypatch):
    monkeypatch.setattr(plots, "as_png", lambda figure: figure)
    x, bar = np.array([1.0, 2.0]), np.array([0.1, 0.0])
    series = {"model": (x, x, bar), "PCA": (x, x + 1, 1e-9 * bar)}
    (plot,) = plots.curves_png(series, ("x", "y")).axes
    handles, names = plot.get_legend_handles_labels()
    assert names == ["model", "PCA"] and [each.has_yerr for each in handles] == [True, False]


def test_letters_are_as_large_on_a_page_in_a_narrow_plot_as_in_a_wide_one(monkeypatch):
    monkeypatch.setattr(plots, "as_png", lambda figure: figure)
    page = 928.0  # pixels: a wider picture is made smaller
    x = np.arange(1.0, 90_000, 9000)
    wide = plots.curves_png({"a": (x, x, x)}, ("x", "y"))
    narrow = plots.bands_png({"train": {"a": (x, x, x, x)}}, ("x", "y"))
    sizes = []
    for figure in (wide, narrow):
        pixels = figure.get_figwidth() * plots._DOTS_PER_INCH
        plot, dots = figure.axes[0], plots._DOTS_PER_INCH / 72 * min(1, page / pixels)
        texts = [plot.xaxis.label, plot.yaxis.label, *plot.get_yticklabels()]
        sizes.append({round(dots * text.get_fontsize()) for text in texts})
    assert sizes == [{18}, {18}]
