"""A search's report as a page on wide screens and narrow ones."""

from aejax.search import report
from aejax.search.settings import Search
from tests.browser import assert_readable, needs_chromium


@needs_chromium
def test_the_report_is_read_without_scrolling_sideways(tmp_path):
    names = ("parent", "supernet", "random0", "random1")
    layouts = {name: "af" * 11 + f"{'a' * k}|{'fi' * 12}" for k, name in enumerate(names)}
    times = {"forward": 1.234e-3, "training": 5.678e-3}
    found = {
        "layouts": layouts,
        "again": {each: {"parameters": 12345678, "nll": [1.0]} for each in layouts.values()},
        "latency": {each: {"measured": times, "predicted": times} for each in layouts.values()},
        "margin": 0.1,
    }
    report.write(str(tmp_path), Search(), found)
    assert_readable(tmp_path / report.REPORT, tmp_path, pictures=2)
