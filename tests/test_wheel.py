"""What a newcomer has: the wheel in a fresh environment, which does not see the checkout."""

import ast
import importlib.util
import os
import re
import shutil
import site
import subprocess
import sys
import textwrap
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "own_part.py"
PACKAGES = ("aejax", "launch", "configs")
MOST_LINES = 25
NEEDS = [name for name in ("pip", "setuptools") if importlib.util.find_spec(name) is None]

needs_pip = pytest.mark.skipif(bool(NEEDS), reason=f"not installed: {', '.join(NEEDS)}")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of the checkout: a build writes beside what it builds."""
    place = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, place / "copy" / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "copy")
    words = ["wheel", "-q", "--no-deps", "--no-build-isolation", f"--wheel-dir={place}"]
    run(sys.executable, "-m", "pip", *words, str(place / "copy"), where=place)
    (found,) = place.glob("aejax-*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel) -> Path:
    """The Python of an environment with this one's dependencies, and aejax from the wheel."""
    place = wheel.parent / "venv"
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    words = ["install", "-q", "--no-deps", str(wheel)]
    run(sys.executable, "-m", "pip", f"--python={python}", *words, where=place)
    own = run(python, "-c", "import site; print(site.getsitepackages()[0])", where=place)
    # Folders in a .pth file come after the environment's own, and their .pth files, such as that
    # of an editable aejax, are not read.
    (Path(own.strip()) / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return python


def run(*words, where: Path) -> str:
    """Standard output and error of a program that does not know the checkout."""
    hidden = ("PYTHONPATH", "AEJAX_DATA")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    words = [str(word) for word in words]
    ended = subprocess.run(
        words, cwd=where, env=environment, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, f"{words}: {ended.stderr}"
    return ended.stdout + ended.stderr


def of_readme() -> str:
    """README's lines of Python."""
    text = (ROOT / "README.md").read_text("utf-8")
    (block,) = re.findall(r"## Python\n\n((?: {4}.*\n)+)", text)
    return textwrap.dedent(block)


@pytest.mark.slow
@needs_pip
def test_the_wheel_has_every_file_that_is_no_code(wheel):
    files = {
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    data = {name for name in files if not name.endswith(".py")}
    assert {"aejax/py.typed", "launch/slurm/job.sbatch"} < data
    assert files <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
@needs_pip
def test_readmes_lines_of_python_run_on_own_arrays(python, tmp_path):
    assert len(of_readme().splitlines()) == 5
    arrays = "x_train, x_test = (np.random.rand(n, 8, 8).astype(np.float32) for n in (300, 50))"
    told = "print(aejax.__file__, codes.shape, outcome.step)"
    lines = f"import numpy as np\n{arrays}\n{of_readme()}{told}\n"
    (tmp_path / "mine.py").write_text(lines)
    said = run(python, "mine.py", where=tmp_path)
    assert f"{python.parents[1]}/lib" in said and str(ROOT) not in said
    assert "(50, 16)" in said
    assert (tmp_path / "runs" / "mine" / "config.json").exists()


@pytest.mark.slow
@needs_pip
def test_the_command_trains_evaluates_and_writes_a_job(python, tmp_path):
    aejax = python.parent / "aejax"
    words = ["--config.duration=20", "--config.log_every=10", "--config.model.latent_dim=8"]
    run(aejax, "train", *words, "--workdir=mine", where=tmp_path)
    said = run(aejax, "train", "--config.duration=30", "--workdir=mine", where=tmp_path)
    assert "going on at step 20 of 30" in said
    run(aejax, "evaluate", "--workdir=mine", where=tmp_path)
    assert "<html" in (tmp_path / "mine" / "report.html").read_text()
    assert "variational" in run(aejax, "train", "--list", where=tmp_path)
    assert "#SBATCH" in run(aejax, "submit", "--show", "--", "train", where=tmp_path)


@pytest.mark.slow
@needs_pip
def test_the_examples_part_trains_and_loads_from_python_and_by_flags(python, tmp_path):
    shutil.copy(EXAMPLE, tmp_path)
    assert "codes (297, 6)" in run(python, "own_part.py", "mine", where=tmp_path)
    aejax = python.parent / "aejax"
    words = ["--config.model.coder=own_part:Smooth", "--config.model.coder.width=5"]
    run(aejax, "train", *words, "--config.duration=20", "--workdir=flags", where=tmp_path)
    assert '"kind": "own_part:Smooth"' in (tmp_path / "flags" / "config.json").read_text()
    x = np.random.RandomState(0).rand(40, 8, 8).astype(np.float32)
    np.savez(tmp_path / "x.npz", x_train=x, x_test=x)
    for words in (("--workdir=mine", "--source=npz:x.npz"), ("--workdir=flags",)):
        words = [*words, "--parts=own_part:Smooth", "--tasks=reconstruction"]
        run(aejax, "evaluate", *words, where=tmp_path)


def test_an_own_part_takes_few_lines():
    text = EXAMPLE.read_text("utf-8")
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert [node.name for node in classes] == ["Smooth", "SmoothEncoder"]
    firsts = (min(each.lineno for each in (node, *node.decorator_list)) for node in classes)
    spans = [node.end_lineno - first + 1 for node, first in zip(classes, firsts, strict=True)]
    assert sum(spans) <= MOST_LINES, spans
