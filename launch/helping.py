"""What --help says: the settings that most people want first, and all of them with --help=all."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from aejax import kinds
from launch import program

FLAG = "--config."


def help_text(config: Any, first: Sequence[str], preset: str, workdir: str) -> str:
    """The program's first line, the settings of these names, the rest of its docstring, its flags.

    Args:
        config: the settings of the preset.
        first: dotted names; those that the preset lacks are left out.
        preset: its name; "" where a folder's own settings are shown.
        workdir: the folder without --workdir.
    """
    title, _, rest = program.help_text().partition("\n")
    rows = _rows(config)
    start = ("--config=" + preset, "the preset that the settings start from; --list shows all.")
    shown = [
        *([start] if preset else []),
        ("--workdir=" + workdir, "the folder that holds everything."),
        *((FLAG + rows[name][0], rows[name][1]) for name in first if name in rows),
    ]
    lines = [title, "", f"The settings that most people want (--help=all shows all {len(rows)}):"]
    lines += [_line(setting, text) for setting, text in shown]
    return "\n".join([*lines, rest])


def whole_help_text(config: Any) -> str:
    """The program's docstring, its flags, and every setting with its value and meaning."""
    lines = [program.help_text()]
    lines += ["", "Settings, as --config.NAME=VALUE (values of this preset; parts by their kind):"]
    return "\n".join(lines + [_line(*row) for row in _rows(config).values()])


def _line(setting: str, text: str) -> str:
    return f"  {setting:<44} {text}"


def _rows(config: Any) -> dict[str, tuple[str, str]]:
    """{dotted name: ("name=value", what it means)} of every setting."""
    out = {}
    docs = _field_docs(config)
    for name, value, field in kinds.leaves(config):
        options = kinds.kinds_of(field)
        shown = value if options is None else options.name(value)
        if isinstance(shown, tuple):
            shown = ",".join(map(str, shown)) or "()"
        text = docs.get(name, "")
        if options and "|" not in text:
            text = f"{text.rstrip('.')}: {' | '.join(options)}"
        out[name] = (f"{name}={shown}", text)
    return out


def _field_docs(settings: Any, prefix: str = "") -> dict[str, str]:
    """{dotted name: what the docstring's "Attributes:" say of it}."""
    out: dict[str, str] = {}
    for cls in reversed(type(settings).__mro__):
        for name, text in _attributes(cls.__dict__.get("__doc__") or "").items():
            out[prefix + name] = text
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            out.update(_field_docs(value, f"{prefix}{field.name}."))
    return out


def _attributes(doc: str) -> dict[str, str]:
    """{name: text} of the "Attributes:" section of a docstring."""
    import docstring_parser

    parsed = docstring_parser.parse(doc, docstring_parser.DocstringStyle.GOOGLE)
    return {
        each.arg_name: " ".join((each.description or "").split())
        for each in parsed.params
        if each.args[0] == "attribute"
    }
