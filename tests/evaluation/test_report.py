"""The report as a page on wide screens and narrow ones."""

import io

from PIL import Image

from aejax.data.sources.base import Spec
from aejax.evaluation import report
from aejax.evaluation.result import Figure, Number, Result
from aejax.runs.folder import Run
from aejax.runs.loading import Model
from configs import dense
from tests.browser import assert_readable, needs_chromium


def page() -> str:
    """A report with what is widest: long names, units, meanings and commands, many numbers."""
    run = Run(dense.get_config(), Spec((8, 8, 1), "uint8", 16.0, True), {}, 1437)
    model = Model(run, 20, False, None, None)  # a report reads settings alone
    numbers = {
        f"a_number_of_a_long_name_{k}": Number(
            -1234.5678 * k, "nats per row of pixels", "what it means, in a sentence or two", True
        )
        for k in range(12)
    }
    wide = io.BytesIO()
    Image.new("L", (1600, 400)).save(wide, "png")
    figures = [Figure(name, wide.getvalue(), "A picture.") for name in ("one", "two")]
    tasks = {"likelihood": {name: number.value for name, number in numbers.items()}}
    records = [
        {
            "step": step,
            "source": "npz:" + "a-long-folder/" * 20 + "rows.npz",
            "split": "test",
            "rows": 5,
            "parameters": "as trained",
            "tasks": tasks,
        }
        for step in (10, 20)
    ]
    about = report.About("runs/" + "x" * 120, model, 20, {"again": "python -m " + "word " * 60})
    notes = ["A note without a space: " + "0" * 150]
    return report.page(about, records, {"likelihood": Result(numbers, figures, {}, notes)})


@needs_chromium
def test_the_report_is_read_without_scrolling_sideways(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page())
    seen = assert_readable(path, tmp_path, pictures=2)
    for each in seen.values():
        assert len(each["meanings"]) == 12 and min(each["meanings"]) > 250


def test_a_table_names_the_column_of_each_cell():
    parts = report._environment().get_template("parts.html").module
    text = parts.table(["layout", "a<b"], [["ff", "1"], ["fa", "2<3"]], numbers=1)
    assert text.count('<td class="number" data-label="a&lt;b">') == 2
    assert text.count('<td data-label="layout">') == 2 and "2&lt;3</td>" in text


def test_the_report_holds_every_number_note_and_command():
    text = page()
    assert all(f"a_number_of_a_long_name_{k}" in text for k in range(12))
    assert text.count("<figure>") == 2 and "Checkpoints so far" in text
    assert "A note without a space" in text and "python -m word" in text
    assert text.startswith("<!doctype html>") and "{{" not in text
