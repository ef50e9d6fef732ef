"""Imports inside of aejax go one way: each layer knows those before it, and no other."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Modules and packages by layer; `aejax` itself, which imports when it is asked, is the last.
LAYERS = (
    (
        "errors",
        "registry",
        "kinds",
        "files",
        "pictures",
        "callbacks",
        "rendezvous",
        "launchers",
        "cluster",
    ),
    ("nn",),
    ("models",),
    ("data",),
    ("mesh", "optimizer", "config"),
    ("runs",),
    ("training",),
    ("pretrain", "evaluation"),
    ("exporting",),
    ("search", "sweeps"),
    ("",),
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}


def imported(path: Path) -> set[str]:
    """Names below `aejax` that a file imports anywhere, also in functions and for types alone."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "aejax":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aejax."):
            names.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if "aejax." in alias.name}
    return names


def test_imports_go_one_way():
    wrong = []
    for path in sorted((ROOT / "aejax").rglob("*.py")):
        own = path.relative_to(ROOT / "aejax").with_suffix("").parts[0].replace("__init__", "")
        for name in imported(path):
            if LAYER_OF[name] > LAYER_OF[own] or (
                LAYER_OF[name] == LAYER_OF[own] and {name, own} == {"pretrain", "evaluation"}
            ):
                wrong.append(f"{path.relative_to(ROOT)} imports aejax.{name}")
    assert not wrong


def test_files_and_functions_are_short():
    long, wide = [], []
    for path in sorted((ROOT / "aejax").rglob("*.py")):
        text = path.read_text()
        if len(text.splitlines()) > 400:
            long.append(str(path))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                names = [each.arg for each in arguments if each.arg not in ("self", "cls")]
                if len(names) > 8:
                    wide.append(f"{path}:{node.lineno} {node.name}")
    assert not long and not wide
