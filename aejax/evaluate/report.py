"""report.html: one self-contained page, without scripts and without anything from elsewhere."""

import base64
import dataclasses
import datetime
import html
import json
from collections.abc import Sequence
from typing import Any

from aejax import kinds
from aejax.evaluate.result import Figure, Result, shown
from aejax.runs.loading import Model

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #22272e; background: #fff;
       max-width: 58rem; margin: 2rem auto; padding: 0 1.2rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; }
h2 { font-size: 1.25rem; margin-top: 2.4rem; border-bottom: 1px solid #d8dee9; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
table { border-collapse: collapse; width: 100%; margin: .8rem 0; font-size: .95rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
         border-bottom: 1px solid #e5e9f0; font-variant-ligatures: none; }
thead th { border-bottom: 2px solid #d8dee9; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
                       white-space: nowrap; }
tr.main td.number { font-weight: 600; }
td.name, th.name { white-space: nowrap; }
figure { margin: 1.4rem 0; }
figure img { max-width: 100%; height: auto; border: 1px solid #e5e9f0; }
figcaption, .notes, .quiet { color: #4c566a; font-size: .9rem; }
pre { background: #f4f6f9; padding: .7rem .9rem; overflow-x: auto; font-size: .85rem;
      white-space: pre-wrap; }
.wide { overflow-x: auto; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; padding: 0 .9rem; }
  figure, ul.notes { margin-left: 0; }
  ul.notes { padding-left: 1.2rem; }
  table, tbody, tr, th, td { display: block; }
  thead { display: none; }
  tr { padding: .4rem 0; border-bottom: 1px solid #e5e9f0; }
  th, td { padding: 0; border: 0; }
  td.name, th.name, td.number { white-space: normal; text-align: left; }
  td[data-label]::before { content: attr(data-label) ": "; color: #4c566a; font-weight: 400; }
  table.numbers td { display: inline-block; margin-right: .6rem; }
  table.numbers td.name:first-child { font-weight: 600; }
  table.numbers td.meaning { display: block; margin: 0; }
}
""".strip()


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
        records: what evaluation.json keeps; the last is reported, those before it compared.
        results: of its tasks.
    """
    record = records[-1]
    title = f"Evaluation of {about.workdir}, step {record['step']}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="quiet">{datetime.date.today().isoformat()}</p>',
        _facts(about, record),
        *(_task(name, result) for name, result in results.items()),
        _history(records, results),
        "<h2>Commands</h2>",
        *(
            f"<h3>{_text(what)}</h3><pre>{_text(line)}</pre>"
            for what, line in about.commands.items()
        ),
        _settings(about.model),
    ]
    return document(title, [part for part in parts if part])


def document(title: str, parts: Sequence[str]) -> str:
    """A page of these parts of HTML, for wide screens and narrow ones."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> str:
    """A table of text; on a narrow screen each row is a list of "column: value".

    Args:
        head: names of the columns.
        rows: their cells.
        numbers: how many columns, the last ones, are numbers.
    """
    kind = ['class="number" ' if len(head) - k <= numbers else "" for k in range(len(head))]
    names = "".join(f"<th {k}>{_text(name)}</th>" for k, name in zip(kind, head, strict=True))
    lines = []
    for row in rows:
        cells = [
            f'<td {k}data-label="{_text(name)}">{_text(cell)}</td>'
            for k, name, cell in zip(kind, head, row, strict=True)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{names}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _settings(model: Model) -> str:
    settings = json.dumps(kinds.to_dict(model.run.config), indent=1)
    return (
        f"<h2>Settings</h2>\n<details><summary>All settings of the run</summary>"
        f"<pre>{_text(settings)}</pre></details>"
    )


def _facts(about: About, record: dict[str, Any]) -> str:
    run, shape = about.model.run, about.model.run.spec.shape
    of_total = f" of {about.total}" if about.total else ""
    averaged = "their moving average (EMA)" if about.model.averaged else "as trained (no average)"
    model = kinds.to_dict(run.config)["model"]
    parts = ", ".join(f"{name} {_short(value)}" for name, value in model.items() if name != "kind")
    rows = {
        "Run": about.workdir,
        "Checkpoint": f"step {record['step']}{of_total}",
        "Parameters": averaged,
        "Data": f"{record['source']}, split {record['split']}: {record['rows']} rows of "
        f"{' x '.join(map(str, shape))}",
        "Model": f"{model['kind']}: {parts}",
        "Trained on": f"{run.config.data.source}, split {run.config.data.train}: {run.rows} rows",
    }
    lines = [
        f'<tr><th class="name">{_text(k)}</th><td>{_text(v)}</td></tr>' for k, v in rows.items()
    ]
    return f"<table>{''.join(lines)}</table>"


def _short(setting: Any) -> Any:
    """A part by its kind."""
    return setting["kind"] if isinstance(setting, dict) and "kind" in setting else setting


def _task(name: str, result: Result) -> str:
    rows = [
        f'<tr{" class=main" if number.main else ""}><td class="name">{_text(key)}</td>'
        f'<td class="number">{_text(shown(number.value))}</td><td class="name">'
        f'{_text(number.unit)}</td><td class="meaning">{_text(number.meaning)}</td></tr>'
        for key, number in result.numbers.items()
    ]
    notes = "".join(f"<li>{_text(note)}</li>" for note in result.notes)
    files = "".join(
        f"<li>{_text(file)} in the run's folder holds {_text(', '.join(arrays))}.</li>"
        for file, arrays in result.files.items()
    )
    listed = f'<ul class="notes">{notes}{files}</ul>' if notes or files else ""
    return (
        f'<h2>Task: {_text(name)}</h2>\n<table class="numbers"><thead><tr><th>number</th>'
        '<th class="number">value</th><th>unit</th><th>meaning</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>\n"
        + "\n".join(picture(figure) for figure in result.figures)
        + listed
    )


def picture(figure: Figure) -> str:
    """A picture that stands in the page itself."""
    data = base64.b64encode(figure.png).decode()
    caption = _text(figure.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _history(records: list[dict[str, Any]], results: dict[str, Result]) -> str:
    """The main numbers of every checkpoint that was evaluated on the same rows."""
    last = records[-1]
    alike = [
        one for one in records if (one["source"], one["split"]) == (last["source"], last["split"])
    ]
    if len(alike) < 2:
        return ""
    columns = [
        (task, name)
        for task, result in results.items()
        for name, number in result.numbers.items()
        if number.main
    ]
    head = ["step", "parameters", *(name for _, name in columns)]
    rows = [
        [str(one["step"]), one["parameters"], *(_cell(one, *column) for column in columns)]
        for one in sorted(alike, key=lambda one: one["step"])
    ]
    return f"<h2>Checkpoints so far</h2>\n{table(head, rows, len(columns))}"


def _cell(record: dict[str, Any], task: str, name: str) -> str:
    numbers = record["tasks"].get(task, {})
    return shown(numbers[name]) if name in numbers else ""
