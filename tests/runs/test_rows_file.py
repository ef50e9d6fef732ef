"""What a row of metrics.jsonl is; reading rows, and cutting the file back."""

import json
import os

import numpy as np
import pytest

from aejax.errors import InputError
from aejax.runs.rows_file import cut_metrics, read_history, read_rows


def line(step: int, seconds: float | None = None, split: str = "train") -> str:
    row = {"step": step, "split": split, "loss": 0.5}
    return json.dumps(row if seconds is None else {**row, "seconds": seconds}) + "\n"


@pytest.fixture
def metrics(tmp_path):
    """metrics.jsonl of a run that got to step 30, and was evaluated at 20."""
    file = tmp_path / "metrics.jsonl"
    rows = [line(10, 1.5), line(20, 2.5), line(20, 2.75, "test"), line(30, 3.5)]
    file.write_text("".join(rows))
    return file


def test_rows_after_the_step_are_cut_and_the_clock_of_the_last_is_told(metrics):
    before = metrics.read_text().splitlines(keepends=True)
    assert cut_metrics(str(metrics.parent), 20, 20) == 3.5
    assert metrics.read_text() == "".join(before[:3])
    assert cut_metrics(str(metrics.parent), 19, 19) == 2.75
    assert metrics.read_text() == before[0]
    assert cut_metrics(str(metrics.parent), 0, 0) == 1.5
    assert metrics.read_text() == ""
    assert os.listdir(metrics.parent) == ["metrics.jsonl"]


def test_rows_of_an_evaluation_that_will_be_made_again_are_cut(metrics):
    before = metrics.read_text().splitlines(keepends=True)
    assert cut_metrics(str(metrics.parent), 20, 10) == 3.5
    assert metrics.read_text() == "".join(before[:2])


def test_a_file_of_which_nothing_is_cut_is_not_touched(metrics):
    before = (metrics.read_bytes(), metrics.stat().st_ino, metrics.stat().st_mtime_ns)
    for step in (30, 31, 1000):
        assert cut_metrics(str(metrics.parent), step, step) is None
    assert (metrics.read_bytes(), metrics.stat().st_ino, metrics.stat().st_mtime_ns) == before


@pytest.mark.parametrize("half", ['{"step": 30, "split": "tra', '{"step": 30}', "{", "\0" * 512])
def test_a_line_that_was_half_written_is_cut(metrics, half):
    before = metrics.read_text()
    metrics.write_text(before + half)
    assert cut_metrics(str(metrics.parent), 30, 30) is None
    assert metrics.read_text() == before


def test_a_half_written_line_does_not_hide_the_clock_of_the_rows_before_it(metrics):
    metrics.write_text(metrics.read_text() + '{"step": 40, "seco')
    assert cut_metrics(str(metrics.parent), 20, 20) == 3.5
    assert metrics.read_text().count("\n") == 3


@pytest.mark.parametrize("damaged", ["\0\0\0\n", "not JSON\n", "[1, 2]\n", "12\n", "null\n", "\n"])
def test_a_line_that_is_no_row_is_cut(metrics, damaged):
    before = metrics.read_text()
    metrics.write_text(before + damaged + line(40, 9.0))
    assert cut_metrics(str(metrics.parent), 30, 30) == 9.0
    assert metrics.read_text() == before


def test_without_a_file_nothing_is_cut_and_none_is_made(tmp_path):
    assert cut_metrics(str(tmp_path), 10, 10) is None
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_row_is_refused_with_the_files_name(metrics):
    metrics.write_text(line(10) + line(20)[:9])
    with pytest.raises(InputError, match="metrics.jsonl: damaged .*; remove the rows that are no"):
        read_history(str(metrics.parent))


NO_ROWS = {
    "a text where a number is": b'{"step": 9000, "split": "train", "seconds": "x"}',
    "no split": b'{"step": 5, "loss": 0.5}',
    "a split that is no text": b'{"step": 5, "split": null, "loss": 0.5}',
    "no step": b'{"split": "train", "loss": 0.5}',
    "a step that is no int": b'{"step": 5.0, "split": "train", "loss": 0.5}',
    "a step of True": b'{"step": true, "split": "train", "loss": 0.5}',
    "a step beyond int64": b'{"step": -9223372036854775809, "split": "train", "loss": 0.5}',
    "a number beyond float64": b'{"step": 5, "split": "train", "loss": 1' + b"0" * 400 + b"}",
    "a list": b'{"step": 5, "split": "train", "loss": [0.5]}',
    "bytes of a surrogate": b'{"step": 5, "split": "train", "\xed\xa0\x80": 0.5}',
    "deep": b"[" * 200_000,
}


@pytest.mark.parametrize("damaged", NO_ROWS.values(), ids=NO_ROWS)
def test_what_is_no_row_of_a_run_is_cut_and_refused_where_rows_are_read(metrics, damaged):
    before = metrics.read_bytes()
    metrics.write_bytes(before + damaged + b"\n")
    with pytest.raises(InputError, match="metrics.jsonl: damaged .line 5 is no JSON object with"):
        read_rows(str(metrics.parent))
    assert cut_metrics(str(metrics.parent), 30, 30) is None
    assert metrics.read_bytes() == before
    assert len(read_rows(str(metrics.parent))) == 4


def test_a_byte_order_mark_and_other_ends_of_lines_are_no_damage(metrics):
    rows = read_rows(str(metrics.parent))
    changed = b"\xef\xbb\xbf" + metrics.read_bytes().replace(b"\n", b"\r\n")
    metrics.write_bytes(changed)
    assert cut_metrics(str(metrics.parent), 30, 30) is None
    assert metrics.read_bytes() == changed
    assert read_rows(str(metrics.parent)) == rows


def test_numbers_that_were_not_finite_are_nan_and_no_clock(metrics):
    metrics.write_text(line(10, 1.5) + '{"step": 20, "split": "train", "seconds": Infinity}\n')
    metrics.write_text(metrics.read_text() + '{"step": 30, "split": "train", "loss": null}\n')
    history = read_history(str(metrics.parent))
    np.testing.assert_array_equal(history["loss"], [0.5, np.nan, np.nan])
    assert cut_metrics(str(metrics.parent), 0, 0) == 1.5
