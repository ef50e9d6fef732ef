"""The site builds without a warning, and what its pages tell to type is what programs accept."""

import ast
import functools
import importlib.util
import inspect
import os
import pydoc
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from aejax import config
from aejax.errors import InputError
from aejax.models import interfaces
from aejax.registry import missing
from aejax.search.settings import Search, check_search
from aejax.sweeps.cells import cells, split_values
from launch import flags as launch_flags
from launch.flags import Program

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NEEDS = ("mkdocs", "material", "mkdocstrings", "latex2mathml")
MISSING = [name for name in NEEDS if importlib.util.find_spec(name) is None]
OF_SETTINGS = {
    "train": launch_flags.TRAIN,
    "sweep": launch_flags.TRAIN,
    "search": Program(Search, "Search", check_search, "search_plant", "launch.search", ()),
}
_EVALUATION = "`evaluation.every`, `evaluation.patience`, `evaluation.batch_size`"
# What stands in a command for something of the reader's own.
PLACEHOLDERS = {"seed=S": "seed=0", "latent_dim=K": "latent_dim=8", "config=NAME": "config=sparse"}


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_the_site_builds_strictly_and_needs_no_network_to_be_read(tmp_path):
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert built.returncode == 0, built.stderr
    pages = {path: path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    assert {tmp_path / "index.html", tmp_path / "concepts.html"} <= set(pages)
    for path, text in pages.items():
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*=\"(?:https?:)?//[^\"]*", text)
        assert not loaded, f"{path}: {loaded}"
        assert "arithmatex" not in text and "<!-- code" not in text, path
    assert "<math" in pages[tmp_path / "concepts.html"]
    assert "class KSparse" not in pages[tmp_path / "variants" / "k_sparse.html"]
    preset = pages[tmp_path / "variants" / "k_sparse.html"]
    assert "get_config" in preset and 'href="../code/configs/k_sparse.py.txt"' in preset
    copied = tmp_path / "code" / "configs" / "k_sparse.py.txt"
    assert copied.read_bytes() == (ROOT / "configs" / "k_sparse.py").read_bytes()
    assert not (tmp_path / "hooks.py").exists()


def test_every_preset_has_a_page():
    pages = {path.stem for path in (DOCS / "variants").glob("*.md")}
    assert pages == {*launch_flags.presets(), "index", "comparison"}


def test_pages_have_no_equation_or_code_that_only_this_site_can_show():
    """Equations are `$` and `$$`, which the pages' other readers know as well."""
    for path in DOCS.rglob("*.md"):
        assert not re.search(r"\\\(|\\\[|^!!! |^\?\?\? ", path.read_text("utf-8"), re.M), path


def test_links_lead_to_files_where_pages_are_read_as_plain_markdown():
    for path in (ROOT / "README.md", *DOCS.rglob("*.md")):
        text = re.sub(r"^ *```.*?^ *```", "", path.read_text("utf-8"), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", text):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_a_reader_of_plain_markdown_finds_the_code_that_the_site_shows():
    def linked(text: str, path: Path) -> set[Path]:
        return {(path.parent / link).resolve() for link in re.findall(r"\]\((\.\.[^)#]+)\)", text)}

    for path in DOCS.rglob("*.md"):
        before, *after = re.split(r"^<!-- code (\S+) .*-->$", path.read_text("utf-8"), flags=re.M)
        if after:
            section = before.rpartition("\n## ")[2]
            assert ROOT / after[0] in linked(section, path), f"{path.name}: {after[0]}"
    for path in (DOCS / "reference").glob("*.md"):
        text = path.read_text("utf-8")
        intro = text.partition("\n:::")[0]
        for name in re.findall(r"^::: (\S+)", text, re.M):
            file = inspect.getsourcefile(pydoc.locate(name))  # pyright: ignore
            assert Path(file or "") in linked(intro, path), f"{path.name}: {name}"
        assert 'help("' in text


def test_the_table_of_required_methods_is_that_of_the_interfaces():
    text = (DOCS / "how-to" / "own-part.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)\(([\w, ]+)\)` \|", text, re.M)
    bases = [each for each in vars(interfaces).values() if inspect.isclass(each) and missing(each)]
    wanted = {
        (base.__name__, name, ", ".join(inspect.signature(getattr(base, name)).parameters))
        for base in bases
        for name in missing(base)
    }
    assert set(rows) == wanted and len(rows) == len(wanted)


def test_the_table_of_what_may_change_has_every_setting_of_its_first_column():
    text = (DOCS / "how-to" / "resume.md").read_text("utf-8").partition("| may change")[2]
    first, second = zip(*re.findall(r"^\| (`.*?) \| (.*) \|$", text, re.M), strict=True)
    may = re.sub(r"`evaluation.every`, `.patience`, `.batch_size`", _EVALUATION, " ".join(first))
    assert set(re.findall(r"`([\w.]+?)(?:\.\*)?`", may)) == set(config.MAY_CHANGE)
    assert "`evaluation.metric`" in " ".join(second)


def commands(page: Path) -> list[list[str]]:
    """The words after `python -m launch.` of each command of a page."""
    found = []
    for block in re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text("utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            _, _, words = line.partition("python -m launch.")
            for name, value in PLACEHOLDERS.items():
                words = words.replace(name, value)
            if words and "own_part" not in words:  # a module of the reader's folder
                own, _, other = words.partition(" -- ")  # submit, and what it hands on
                found += [shlex.split(each) for each in (own, other) if each]
    return found


@pytest.fixture
def parse(monkeypatch):
    """Parses a program's words as the program does, with flags of its own."""
    define = config_flags.DEFINE_config_dataclass

    def run(program: str, *words: str) -> None:
        fresh = defined(ROOT / "launch" / f"{program}.py")
        monkeypatch.setattr(flags, "FLAGS", fresh)
        own = functools.partial(define, flag_values=fresh)
        monkeypatch.setattr(config_flags, "DEFINE_config_dataclass", own)
        if program in OF_SETTINGS:
            left = launch_flags.parse([program, *words], OF_SETTINGS[program])
        else:
            left = fresh([program, *words])
        assert left == [program]

    return run


def defined(path: Path) -> flags.FlagValues:
    """The flags that a program's file defines; to import it would listen for signals."""
    fresh = flags.FlagValues()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("flags.DEFINE_"):
            kind = ast.unparse(node.func).removeprefix("flags.")
            make = getattr(flags, "DEFINE_string" if kind == "DEFINE_enum" else kind)
            name, default = (ast.literal_eval(each) for each in node.args[:2])
            make(name, default, "", flag_values=fresh)
    return fresh


def sweeps(page: Path) -> list[str]:
    """Each command, and each piece of code inside a line or a table, that has `--sweep=`."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", text, re.M | re.S)
    lines = [line for each in blocks for line in each.replace("\\\n", " ").splitlines()]
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    return [each for each in (*lines, *re.findall(r"`([^`]+)`", text)) if "--sweep=" in each]


def check_sweep(command: str) -> None:
    """Raises InputError if settings do not take what `--sweep` gives them; of a range both ends."""
    words = shlex.split(command)
    own = [word for word in words if word.startswith("--config")]
    grid = dict(
        split_values(re.sub(r"=(?:log:|int:)?([-\d.e]+)\.\.([-\d.e]+)$", r"=\1,\2", given))
        for word in words
        if (given := word.removeprefix("--sweep=")) != word
    )

    def make_config(values):
        given = [f"--config.{name}={text}" for name, text in values.items()]
        return launch_flags.config_of([*own, *given])

    assert cells(grid, make_config)


SWEPT = [path for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))) if sweeps(path)]


@pytest.mark.parametrize("page", SWEPT, ids=lambda page: page.stem)
def test_settings_take_the_values_of_every_sweep(page):
    for command in sweeps(page):
        try:
            check_sweep(command)
        except Exception as error:
            raise AssertionError(f"{command}: {error}") from error


def test_a_wrong_sweep_would_be_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "- parts: `--sweep='model.corruption=none,gaussian'`\n| a | `--sweep=sed=1` |\n"
    )
    assert len(sweeps(page)) == 2
    for command in sweeps(page):
        with pytest.raises(InputError):
            check_sweep(command)


PAGES = [path for path in sorted(DOCS.rglob("*.md")) if commands(path)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_programs_accept_the_commands_of_a_page(page, parse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in commands(page):
        try:
            parse(*words)
        except SystemExit as ended:  # of --list
            assert ended.code == 0
        except Exception as error:
            raise AssertionError(f"python -m launch.{shlex.join(words)}: {error}") from error


def test_a_wrong_command_would_be_seen(parse):
    for words in (["--config.duratoin=3"], ["--workdirr=a"], ["stray"], ["--config.seed=S"]):
        with pytest.raises((AssertionError, flags.Error, InputError)):
            parse("train", *words)
