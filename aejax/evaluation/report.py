"""report.html: one self-contained page, without scripts and external files."""

import base64
import dataclasses
import datetime
import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aejax import kinds
from aejax.evaluation.result import Result, shown
from aejax.runs.loading import Model

if TYPE_CHECKING:
    import jinja2


@dataclasses.dataclass(frozen=True)
class About:
    """What was evaluated.

    Attributes:
        workdir: the run's folder, as it was typed.
        model: the checkpoint.
        total: steps of the run.
        commands: {what it does: the command}.
    """

    workdir: str
    model: Model
    total: int | None
    commands: dict[str, str]


def page(about: About, records: list[dict[str, Any]], results: dict[str, Result]) -> str:
    """The report of the last of some evaluations.

    Args:
        about: what was evaluated.
        records: those of evaluation.json; the last is reported, earlier ones are compared.
        results: of its tasks.
    """
    record = records[-1]
    return render(
        "evaluation.html",
        title=f"Evaluation of {about.workdir}, step {record['step']}",
        date=datetime.date.today().isoformat(),
        facts=_facts(about, record),
        results=results,
        history=_history(records, results),
        commands=about.commands,
        all_settings=json.dumps(kinds.to_dict(about.model.run.config), indent=1),
    )


def render(template: str, **values: Any) -> str:
    """A page by a template of `templates/`; text is escaped."""
    return _environment().get_template(template).render(**values)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table as lines of text, in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


@functools.cache
def _environment() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aejax.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment


def _facts(about: About, record: dict[str, Any]) -> dict[str, str]:
    run, shape = about.model.run, about.model.run.spec.shape
    of_total = f" of {about.total}" if about.total else ""
    averaged = "their moving average (EMA)" if about.model.averaged else "as trained (no average)"
    model = kinds.to_dict(run.config)["model"]
    parts = ", ".join(f"{name} {_short(value)}" for name, value in model.items() if name != "kind")
    return {
        "Run": about.workdir,
        "Checkpoint": f"step {record['step']}{of_total}",
        "Parameters": averaged,
        "Data": f"{record['source']}, split {record['split']}: {record['rows']} rows of "
        f"{' x '.join(map(str, shape))}",
        "Model": f"{model['kind']}: {parts}",
        "Trained on": f"{run.config.data.source}, split {run.config.data.train}: {run.rows} rows",
    }


def _short(setting: Any) -> Any:
    """A part by its kind."""
    return setting["kind"] if isinstance(setting, dict) and "kind" in setting else setting


def _history(
    records: list[dict[str, Any]], results: dict[str, Result]
) -> tuple[list[str], list[list[str]], int] | None:
    """Head, rows and count of columns of the main numbers of every checkpoint on the same rows."""
    last = records[-1]
    same_rows = [
        one for one in records if (one["source"], one["split"]) == (last["source"], last["split"])
    ]
    if len(same_rows) < 2:
        return None
    columns = [
        (task, name, number.unit == "%")
        for task, result in results.items()
        for name, number in result.numbers.items()
        if number.main
    ]
    head = ["step", "parameters", *(name for _, name, _ in columns)]
    rows = [
        [str(one["step"]), one["parameters"], *(_cell(one, *column) for column in columns)]
        for one in sorted(same_rows, key=lambda one: one["step"])
    ]
    return head, rows, len(columns)


def _cell(record: dict[str, Any], task: str, name: str, percent: bool) -> str:
    numbers = record["tasks"].get(task, {})
    return shown(numbers[name], percent) if name in numbers else ""
