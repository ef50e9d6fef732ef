"""Rows of metrics.jsonl: which lines are rows, reading them, and cutting the file back."""

import json
import math
import os
from typing import Any

import numpy as np

from aejax import files
from aejax.errors import InputError
from aejax.runs import folder


def parsed(line: bytes) -> dict[str, Any] | None:
    """The row of a line: an int step, a text split, and numbers or null; None of another line."""
    try:
        row = json.loads(line.decode("utf-8-sig"))  # an editor may have written a mark before it
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("split"), str):
        return None
    numbers = (value for name, value in row.items() if name != "split")
    whole = _is_whole(row.get("step"))
    return row if whole and all(map(_is_number_or_null, numbers)) else None


def _is_whole(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63  # True and False are none


def _is_number_or_null(value: Any) -> bool:
    return value is None or isinstance(value, float) or _is_whole(value)


def cut_metrics(workdir: str, step: int, evaluated: int) -> float | None:
    """Cuts metrics.jsonl back to rows of steps up to `step`; lines that are no rows are cut too.

    Of the test split rows stay up to the step `evaluated`: a later one comes again. A last line
    without its end was half written.

    Returns:
        Seconds on the run's clock of the last row that was cut, or None if none was.
    """
    name = folder.path(workdir, "metrics.jsonl")
    if not os.path.exists(name):
        return None
    kept, lost, changed = [], None, False
    with open(name, "rb") as file:
        for line in file:
            row = parsed(line) if line.endswith(b"\n") else None
            if row is not None and row["step"] <= (evaluated if row["split"] == "test" else step):
                kept.append(line)
                continue
            changed, seconds = True, (row or {}).get("seconds")
            if seconds is not None and math.isfinite(seconds):
                lost = seconds
    if changed:
        files.write(name, b"".join(kept))
    return lost


def read_rows(workdir: str) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, with NaN for any number that was not finite; none without it.

    Raises:
        InputError: a line is no row.
    """
    name = folder.path(workdir, "metrics.jsonl")
    if not os.path.exists(name):
        return []
    rows = []
    with open(name, "rb") as file:
        for number, line in enumerate(file, 1):
            row = parsed(line)
            if row is None:
                raise InputError(
                    f"{name}: damaged (line {number} is no JSON object with a step, a split and"
                    " numbers); remove the rows that are no such objects"
                )
            rows.append({key: math.nan if value is None else value for key, value in row.items()})
    return rows


def read_history(workdir: str) -> dict[str, np.ndarray]:
    """The rows of metrics.jsonl as columns, which pandas.DataFrame takes.

    Returns:
        {"step": int [rows], "split": text [rows], and of each number its column, float [rows], NaN
        where a row has none}.

    Raises:
        InputError: a line is no row.
    """
    rows = read_rows(workdir)
    columns = {key: None for row in rows for key in row}
    whole = {"step": np.int64, "split": np.str_}
    return {
        key: np.array(
            [row.get(key, math.nan) for row in rows],
            whole.get(key, np.float64),
        )
        for key in columns
    }
