"""Hooks of the site's build: equations become MathML, and pages show code as it is.

`$...$` and `$$...$$` are translated by latex2mathml when the site is built, so that a page needs no
script for them. A line `<!-- code FILE NAME ... -->` is followed by the classes and functions of
these names in a file of the repository. A link to a file outside docs/, which a reader of the
Markdown follows as it is, leads on the site to a copy of the file as text, in code/.
"""

import ast
import html
import pathlib
import posixpath
import re
from collections.abc import Iterator

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[1]
_MATH = re.compile(r'<(span|div) class="arithmatex">(?:\\\((.*?)\\\)|\\\[(.*?)\\\])</\1>', re.S)
_CODE = re.compile(r"^<!-- code (\S+) ([\w ]+) -->$", re.M)
_LINK = re.compile(r"\]\((\.\./[^)#\s]+)\)")


def on_files(files: Files, config, **_) -> Files:
    """Adds a copy of each file of the repository that a page links to."""
    pages = list(files.documentation_pages())
    names = {name for page in pages for _, name in outside(page.content_string, page.src_uri)}
    for name in sorted(names):
        path = str(ROOT / name)
        files.append(File.generated(config, copied(name), abs_src_path=path))
    return files


def outside(markdown: str, page: str) -> Iterator[tuple[str, str]]:
    """(link, file from the root) of each link of a page to a file that is not in docs/."""
    for link in _LINK.findall(markdown):
        name = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
        if not name.startswith(("docs/", "..")) and (ROOT / name).is_file():
            yield link, name


def copied(name: str) -> str:
    """Where the site has the copy of a file."""
    return f"code/{name}.txt"


def on_page_markdown(markdown: str, page, **_) -> str:
    """Puts code of the repository where a page asks for it, and leads links to the copies."""
    source_page = page.file.src_uri
    for link, name in list(outside(markdown, source_page)):
        there = posixpath.relpath(copied(name), posixpath.dirname(source_page) or ".")
        markdown = markdown.replace(f"]({link})", f"]({there})")

    def code(match: re.Match) -> str:
        try:
            return f"```python\n{source(ROOT / match[1], match[2].split())}\n```"
        except (OSError, KeyError) as error:
            place = page.file.src_path
            raise PluginError(f"{place}: {match[0]}: {type(error).__name__}: {error}") from None

    return _CODE.sub(code, markdown)


def on_page_content(content: str, page, **_) -> str:
    """Translates a page's equations."""

    def mathml(match: re.Match) -> str:
        block = match[1] == "div"
        text = html.unescape(match[3] if block else match[2]).strip()
        try:
            return convert(text, display="block" if block else "inline")
        except Exception as error:  # of the translator, by name
            place = page.file.src_path
            raise PluginError(f"{place}: {text}: {type(error).__name__}: {error}") from None

    return _MATH.sub(mathml, content)


def source(path: pathlib.Path, names: list[str]) -> str:
    """The code of the classes and functions of these names at a file's top level.

    Raises:
        OSError: there is no such file.
        KeyError: there is no such name.
    """
    text = path.read_text(encoding="utf-8")
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            found[node.name] = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    return "\n\n\n".join(found[name] for name in names)
