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
